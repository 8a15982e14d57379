"""Reading recorded suites."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from langchain_slm.errors import SuiteError
from langchain_slm.recording.interchange import Suite, read_suite, suite_calls
from langchain_slm.schema import Expected, ModelSpec, Request, Usage

TINY = Path(__file__).parents[1] / "data" / "tiny_suite"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def tiny() -> Suite:
    return read_suite(TINY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny suite, to be spoilt."""
    return Path(shutil.copytree(TINY, tmp_path / "suite"))


def change(path: Path, line: int, edit: Callable[[dict], object]) -> None:
    """Apply `edit` to the JSON object in one line of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[line - 1])
    edit(row)
    lines[line - 1] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def refusal(folder: Path) -> str:
    """The message with which reading fails, without the folder's own path."""
    with pytest.raises(SuiteError) as caught:
        read_suite(folder)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_suite_names_itself_its_models_and_its_reference(tiny):
    assert tiny.name == "tiny"
    assert [case.id for case in tiny.cases] == [
        "greet-1",
        "triage-1",
        "lookup-1",
        "lookup-2",
    ]
    assert tiny.reference == "big-1"
    assert tiny.models["small-1"] == ModelSpec(
        name="small-1",
        provider="openai",
        model="small-1",
        usd_per_million_input_tokens=0.1,
        usd_per_million_output_tokens=0.1,
    )


def test_the_folder_may_be_given_as_text(tiny):
    assert read_suite(str(TINY)) == tiny


def test_a_case_says_what_is_asked_and_what_is_right(tiny):
    case = tiny.cases[1]
    assert case.node == "triage"
    assert case.expected == Expected(
        grader="json_answer_literal", reference={"answer": "billing"}
    )
    assert case.request == Request(
        messages=(
            {
                "role": "system",
                "content": "Answer in JSON with the field `answer`: "
                "billing, technical or other.",
            },
            {"role": "user", "content": "I was charged twice in May."},
        ),
        response_format={"type": "json_object"},
    )


def test_a_case_keeps_tools_tool_choice_and_thread(tiny):
    case = tiny.cases[2]
    assert [tool["function"]["name"] for tool in case.request.tools] == [
        "get_weather",
        "now",
    ]
    assert case.request.tool_choice == "auto"
    assert case.thread == "oslo"


def test_a_case_without_a_thread_is_one_of_its_own(tiny):
    assert tiny.cases[0].thread == "greet-1"


def test_an_answer_of_text_stops(tiny):
    response = tiny.responses["big-1"]["greet-1"]
    assert response.answer.text == "Hello Ada, how can we help you today?"
    assert response.answer.finish_reason == "stop"
    assert response.answer.usage == Usage(input_tokens=24, output_tokens=10)
    assert response.passed is True
    assert response.latency_s == 0.61
    assert response.error is None


def test_an_answer_with_tool_calls_finishes_with_them(tiny):
    answer = tiny.responses["big-1"]["lookup-1"].answer
    assert answer.finish_reason == "tool_calls"
    assert [call["arguments"] for call in answer.tool_calls] == [
        '{"city": "Oslo", "unit": "celsius"}',
        '{"city": "Łódź", "unit": "celsius"}',
    ]


def test_estimated_tokens_stand_in_for_published_ones(tiny):
    usage = tiny.responses["small-1"]["greet-1"].answer.usage
    assert usage == Usage(input_tokens=24, output_tokens=2)


def test_what_the_source_did_not_publish_is_unknown(tiny):
    response = tiny.responses["partial-1"]["triage-1"]
    assert response.latency_s is None
    assert response.answer.usage == Usage(input_tokens=None, output_tokens=None)
    assert tiny.responses["small-1"]["lookup-2"].passed is None


def test_a_failed_call_has_no_answer(tiny):
    response = tiny.responses["partial-1"]["lookup-1"]
    assert response.answer is None
    assert response.error == "TimeoutError: no answer in 60 s"


def test_an_error_beside_a_message_is_a_remark(folder):
    remark = {"type": "decoder", "at": 3}
    change(folder / "responses" / "big-1.jsonl", 1, lambda row: row.update(error=remark))
    suite = read_suite(folder)
    response = suite.responses["big-1"]["greet-1"]
    assert response.answer.text == "Hello Ada, how can we help you today?"
    assert response.error == '{"type": "decoder", "at": 3}'
    assert next(suite_calls(suite, "big-1")).error is None


def test_a_model_may_answer_some_cases_only(tiny):
    assert tiny.missing("partial-1") == ("greet-1", "lookup-2")
    assert tiny.missing("big-1") == ()


def test_the_price_of_a_model_without_an_entry_is_unknown(tiny):
    assert tiny.models["partial-1"] == ModelSpec(
        name="partial-1", provider="openai", model="partial-1"
    )


@pytest.mark.parametrize("price", [None, float("nan"), float("inf"), -0.1])
def test_an_impossible_price_is_unknown(folder, price):
    prices = {"small-1": {"input_usd_per_1m": price, "output_usd_per_1m": 1}}
    (folder / "models.json").write_text(json.dumps(prices))
    spec = read_suite(folder).models["small-1"]
    assert spec.usd_per_million_input_tokens is None
    assert spec.usd_per_million_output_tokens == 1.0


def test_a_model_without_recordings_is_not_in_the_suite(folder):
    (folder / "responses" / "big-1.jsonl").unlink()
    suite = read_suite(folder)
    assert sorted(suite.models) == ["partial-1", "small-1"]
    assert suite.reference is None


@pytest.mark.parametrize("latency", [None, "fast", True, float("nan"), -1, 1e400])
def test_an_impossible_latency_is_unknown(folder, latency):
    change(
        folder / "responses" / "big-1.jsonl", 1, lambda row: row.update(latency_s=latency)
    )
    assert read_suite(folder).responses["big-1"]["greet-1"].latency_s is None


def test_blank_lines_and_a_byte_order_mark_are_no_content(folder, tiny):
    cases = folder / "cases.jsonl"
    cases.write_bytes(b"\xef\xbb\xbf\n" + cases.read_bytes() + b"\r\n \n")
    assert read_suite(folder) == tiny


def test_a_line_separator_inside_a_text_does_not_end_the_line(folder):
    path = folder / "cases.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("I am Ada", "I\u2028am\x85Ada"), encoding="utf-8")
    assert read_suite(folder).cases[0].messages[1]["content"] == "Hi, I\u2028am\x85Ada."


def test_a_lone_surrogate_in_a_text_is_kept(folder):
    path = folder / "cases.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("I am Ada", r"I am \ud800"), encoding="utf-8")
    assert read_suite(folder).cases[0].messages[1]["content"] == "Hi, I am \ud800."


def test_a_suite_cannot_be_changed(tiny):
    with pytest.raises(ValidationError, match="frozen"):
        tiny.name = "other"


def test_the_content_of_a_suite_is_not_in_its_repr(tiny):
    assert "Ada" not in repr(tiny)
    assert "Ada" not in repr(tiny.cases[0])
    assert "Ada" not in repr(tiny.responses["big-1"]["greet-1"])


# --- As recorded calls -------------------------------------------------------------


def test_a_suite_becomes_the_calls_of_one_model(tiny):
    call = list(suite_calls(tiny, "big-1"))[2]
    case = tiny.cases[2]
    assert call.call_id == "tiny/lookup-1"
    assert (call.graph, call.site) == ("tiny", "lookup")
    assert (call.thread_id, call.trace_id) == ("oslo", "oslo")
    assert (call.model, call.provider) == ("big-1", "openai")
    assert call.request == case.request
    assert call.answer == tiny.responses["big-1"]["lookup-1"].answer
    assert call.latency_s == 0.93


def test_calls_are_in_the_order_of_the_cases(tiny):
    calls = list(suite_calls(tiny, "big-1"))
    assert [call.sequence for call in calls] == [0, 1, 2, 3]
    assert [call.site for call in calls] == ["greet", "triage", "lookup", "lookup"]


def test_cases_without_a_response_are_no_calls(tiny):
    calls = list(suite_calls(tiny, "partial-1"))
    assert [(call.call_id, call.sequence) for call in calls] == [
        ("tiny/triage-1", 1),
        ("tiny/lookup-1", 2),
    ]


def test_a_failed_call_is_recorded_as_failed(tiny):
    failed = list(suite_calls(tiny, "partial-1"))[1]
    assert failed.answer is None
    assert failed.error == "TimeoutError: no answer in 60 s"


@pytest.mark.parametrize(
    "ask", [lambda s: s.missing("huge-1"), lambda s: list(suite_calls(s, "huge-1"))]
)
def test_an_unknown_model_is_refused_with_the_known_ones(tiny, ask):
    with pytest.raises(SuiteError) as caught:
        ask(tiny)
    assert str(caught.value) == (
        "suite tiny: no responses of model 'huge-1'; it has big-1, partial-1, small-1"
    )
    assert caught.value.fields == {"suite": "tiny", "model": "huge-1"}


# --- What cannot be read -----------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SuiteError, match="nowhere: no such folder; a suite is"):
        read_suite(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["cases.jsonl", "models.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert refusal(folder) == (
        f"{name}: No such file or directory; "
        "a suite has cases.jsonl, responses, models.json"
    )


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda p: (p / "x").touch()])
def test_missing_responses_are_named(folder, remove):
    for path in (folder / "responses").iterdir():
        path.unlink()
    remove(folder / "responses")
    assert refusal(folder) == (
        "responses: no recorded answers; put one <model>.jsonl per model there"
    )


def test_a_suite_without_cases_is_refused(folder):
    (folder / "cases.jsonl").write_text("\n")
    assert refusal(folder) == "cases.jsonl:1: no cases; record at least one"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (b'{"id": "x", ', "invalid JSON at column 13: Expecting property name enclosed"),
        (b'{"id": "x\xff"}', "invalid UTF-8 at byte 10; correct the line"),
        (b"[1, 2]", "a list, not an object; correct the line"),
        (b"7", "a number, not an object; correct the line"),
        (b"null", "null, not an object; correct the line"),
        (b"[" * 100_000, "invalid JSON: a number or a nesting beyond what can be read"),
        (b"[" + b"1" * 5_000 + b"]", "invalid JSON: a number or a nesting beyond"),
    ],
)
@pytest.mark.parametrize("name", ["cases.jsonl", "responses/small-1.jsonl"])
def test_an_unreadable_line_is_named(folder, name, line, seen):
    with (folder / name).open("ab") as file:
        file.write(line)
    assert refusal(folder).startswith(f"{name}:5: {seen}")


def test_the_fault_carries_file_and_line(folder):
    with (folder / "cases.jsonl").open("a") as file:
        file.write("{")
    with pytest.raises(SuiteError) as caught:
        read_suite(folder)
    assert caught.value.fields == {"file": str(folder / "cases.jsonl"), "line": 5}


@pytest.mark.parametrize(
    "field", ["id", "suite", "node", "messages", "reference", "grader"]
)
def test_a_missing_field_of_a_case_is_named(folder, field):
    change(folder / "cases.jsonl", 3, lambda row: row.pop(field))
    assert refusal(folder) == f"cases.jsonl:3: no `{field}`; add what is missing"


def test_all_missing_fields_are_named_at_once(folder):
    change(folder / "cases.jsonl", 1, lambda row: (row.pop("node"), row.pop("grader")))
    assert refusal(folder) == "cases.jsonl:1: no `node`, `grader`; add what is missing"


def test_a_case_without_tools_offers_none(folder):
    change(folder / "cases.jsonl", 1, lambda row: row.pop("tools"))
    assert read_suite(folder).cases[0].request.tools == ()


@pytest.mark.parametrize(
    ("field", "value", "seen"),
    [
        ("id", 7, "`id`: Input should be a valid string"),
        ("node", None, "`node`: Input should be a valid string"),
        ("messages", "Hi", "`messages`: Input should be a valid tuple"),
        ("messages", [], "`messages`: Tuple should have at least 1 item"),
        ("messages", [{"content": "Hi"}], "`messages`: Value error, message 0 has no"),
        ("messages", ["Hi"], "`messages.0`: Input should be a valid dictionary"),
        ("tools", ["now"], "`tools.0`: Input should be a valid dictionary"),
        ("reference", "4", "`expected.reference`: Input should be a valid dictionary"),
        ("thread", 7, "`thread`: Input should be a valid string"),
    ],
)
def test_a_field_of_another_type_is_named(folder, field, value, seen):
    change(folder / "cases.jsonl", 1, lambda row: row.update({field: value}))
    assert refusal(folder).startswith(f"cases.jsonl:1: {seen}")


def test_a_second_case_of_the_same_id_is_refused(folder):
    change(folder / "cases.jsonl", 2, lambda row: row.update(id="greet-1"))
    assert refusal(folder) == "cases.jsonl:2: case 'greet-1' twice; give it its own id"


def test_two_suites_in_a_folder_are_refused(folder):
    change(folder / "cases.jsonl", 2, lambda row: row.update(suite="other"))
    assert refusal(folder) == (
        "cases.jsonl:2: `suite` 'other' where the first case has 'tiny'; "
        "keep one suite, named by text, in a folder"
    )


def test_a_second_answer_to_a_case_is_refused(folder):
    change(folder / "responses" / "big-1.jsonl", 2, lambda row: row.update(id="greet-1"))
    assert refusal(folder) == (
        "responses/big-1.jsonl:2: a second answer to case 'greet-1'; keep one of them"
    )


@pytest.mark.parametrize("case_id", ["greet-9", 7, ["greet-1"]])
def test_an_answer_to_no_case_is_refused(folder, case_id):
    change(folder / "responses" / "big-1.jsonl", 4, lambda row: row.update(id=case_id))
    assert refusal(folder) == (
        f"responses/big-1.jsonl:4: an answer to case {case_id!r}, which cases.jsonl does "
        "not have; add the case or drop the answer"
    )


TOOL_CALLS = "`tool_calls` without a `function` of `name` and `arguments`, both text"


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"message": None}, "no `message` and no `error`"),
        ({"message": "Hello"}, "a `message` that is text, not an object"),
        ({"message": {"content": 7}}, "`content` that is a number, not text"),
        ({"message": {"tool_calls": {"id": "x"}}}, TOOL_CALLS),
        ({"message": {"tool_calls": ["x"]}}, TOOL_CALLS),
        ({"message": {"tool_calls": [{"id": "x"}]}}, TOOL_CALLS),
        (
            {"message": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}},
            TOOL_CALLS,
        ),
        ({"passed": "yes"}, "`passed`: Input should be a valid boolean"),
        ({"passed": 1}, "`passed`: Input should be a valid boolean"),
    ],
)
def test_an_answer_that_is_none_is_refused(folder, fields, seen):
    change(folder / "responses" / "big-1.jsonl", 1, lambda row: row.update(fields))
    assert refusal(folder) == f"responses/big-1.jsonl:1: {seen}; correct the answer"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b'{\n "a": 1,\n}', "3: invalid JSON at column 1: Expecting property name"),
        (b'{\n "a\xff": 1}', "2: invalid UTF-8 at byte 6; correct the file"),
        (b"[]", "1: a list, not an object; correct the file"),
        (b'{"big-1": 2.5}', "1: model 'big-1' is a number, not an object"),
        (
            b'{"big-1": {"input_usd_per_1m": "free"}}',
            "1: model 'big-1': `usd_per_million_input_tokens`: Input should be a valid",
        ),
        (
            b'{"big-1": {"reference": true}, "small-1": {"reference": true}}',
            "1: 2 reference models, big-1, small-1; mark one",
        ),
    ],
)
def test_unusable_prices_are_refused(folder, text, seen):
    (folder / "models.json").write_bytes(text)
    assert refusal(folder).startswith(f"models.json:{seen}")


def test_no_message_quotes_the_content_of_a_suite(folder):
    canary = "sk-canary-0123456789"
    path = folder / "responses" / "big-1.jsonl"
    change(path, 1, lambda row: row.update(message={"content": {"x": canary}}))
    assert canary not in refusal(folder)
    path.write_text(f'{{"id": "{canary}')
    assert canary not in refusal(folder)


# --- The recorded suites -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cases", "models", "reference"),
    [
        ("bfcl_v1", 620, 11, "gpt-4o-2024-08-06-FC"),
        ("zeroeval", 500, 9, "gpt-4o-2024-08-06"),
    ],
)
def test_the_shared_suites_are_read_whole(name, cases, models, reference):
    if not (SHARED / name).is_dir():
        pytest.skip(f"the recorded suite {name} is not beside this repository")
    suite = read_suite(SHARED / name)
    assert suite.name == name
    assert len(suite.cases) == cases
    assert len(suite.models) == len(suite.responses) == models
    assert suite.reference == reference
    assert all(suite.missing(model) == () for model in suite.models)
    assert len(list(suite_calls(suite, reference))) == cases
