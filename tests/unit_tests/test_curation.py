from collections import Counter, defaultdict
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_slm.curation import (
    Dataset,
    SplitShares,
    curate,
    one_per_thread,
    with_truth,
)
from langchain_slm.schema import Answer, Call, Example, Expected, Request

ALL_TEST = SplitShares(train=0, validation=0, test=1)
_numbers = count()


def call(
    text: str = "hello",
    *,
    answer: str | dict[str, Any] | None = "hi",
    finish_reason: str | None = "stop",
    abstained: bool = False,
    messages: list[dict[str, Any]] | None = None,
    tools: tuple[dict[str, Any], ...] = (),
    **fields: Any,
) -> Call:
    number = next(_numbers)
    message = answer if isinstance(answer, dict) else {"content": answer}
    values = {
        "call_id": f"call-{number:06}",
        "trace_id": "trace",
        "thread_id": f"thread-{number}",
        "graph": "desk",
        "site": "triage",
        "sequence": number,
        "model": "gpt-ref",
        "provider": "openai",
    }
    return Call(
        **{**values, **fields},
        request=Request(
            messages=tuple(messages or [{"role": "user", "content": text}]), tools=tools
        ),
        answer=None
        if answer is None
        else Answer(
            message={"role": "assistant", **message},
            finish_reason=finish_reason,
            abstained=abstained,
        ),
    )


def texts(dataset: Dataset) -> list[str]:
    return sorted(example.answer.text for example in dataset.examples)


def tool_call(call_id: str, query: str) -> dict[str, Any]:
    function = {"name": "search", "arguments": f'{{"q": "{query}"}}'}
    return {"id": call_id, "type": "function", "function": function}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (call(error="RateLimitError: 429", answer=None), "error"),
        (call(error="TimeoutError: after the answer"), "error"),
        (call(answer=None), "no answer"),
        (call(finish_reason="length"), "truncated"),
        (call(finish_reason="max_tokens"), "truncated"),
        (call(finish_reason="MAX_TOKENS"), "truncated"),
        (call(finish_reason="content_filter"), "filtered"),
        (call(abstained=True), "abstained"),
        (call(answer=""), "empty"),
        (call(answer=" \n"), "empty"),
        (call(answer={"content": None}), "empty"),
        (call(answer={"content": None, "tool_calls": []}), "empty"),
    ],
)
def test_a_call_that_shows_no_answer_is_dropped_and_counted(bad, reason):
    dataset = curate([bad, call("good")])

    assert dataset.counts == {reason: 1}
    assert [example.request.messages[0]["content"] for example in dataset.examples] == [
        "good"
    ]


def test_an_answer_that_only_calls_tools_is_not_empty():
    answer = {"content": None, "tool_calls": [tool_call("a", "x")]}

    assert len(curate([call(answer=answer)]).examples) == 1


def test_an_answer_without_finish_reason_is_kept():
    assert len(curate([call(finish_reason=None)]).examples) == 1


def test_no_calls_give_an_empty_dataset():
    dataset = curate([])

    assert (dataset.examples, dataset.calls, dataset.counts) == ((), 0, {})


def test_of_a_resumed_node_run_the_last_answer_is_kept():
    run = {"thread_id": "t", "attempt": "triage:1f0c"}

    dataset = curate([call(answer="first", **run), call(answer="last", **run)])

    assert texts(dataset) == ["last"]
    assert dataset.counts == {"resumed": 1}


def test_a_failed_resume_leaves_the_earlier_answer():
    run = {"thread_id": "t", "attempt": "triage:1f0c"}

    dataset = curate([call(answer="first", **run), call(error="Boom", **run)])

    assert texts(dataset) == ["first"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"attempt": "a"}, {"attempt": "b"}),
        ({"attempt": ""}, {"attempt": ""}),
        ({"attempt": "a", "site": "plan"}, {"attempt": "a", "site": "grade"}),
        ({"attempt": "a", "thread_id": "t1"}, {"attempt": "a", "thread_id": "t2"}),
        ({"attempt": "a", "text": "one"}, {"attempt": "a", "text": "two"}),
    ],
)
def test_answers_of_different_runs_are_no_resume(one, other):
    dataset = curate(
        [
            call(**{"thread_id": "t", **one}, answer="x"),
            call(**{"thread_id": "t", **other}, answer="y"),
        ]
    )

    assert texts(dataset) == ["x", "y"]


def test_of_the_same_context_and_answer_the_first_is_kept():
    calls = [call("hello", thread_id=f"t{i}") for i in range(3)]

    dataset = curate(reversed(calls))

    assert [example.thread_id for example in dataset.examples] == ["t0"]
    assert dataset.counts == {"duplicate": 2}
    assert dataset.calls == 3


def test_different_answers_to_one_request_stay():
    calls = [call("hello", answer=text, thread_id="t") for text in ("hi", "Hi", "hey")]

    assert texts(curate(calls)) == ["Hi", "hey", "hi"]


def test_the_same_content_at_another_site_is_another_example():
    dataset = curate([call(site="triage"), call(site="priority")])

    assert len(dataset.examples) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"tools": ({"type": "function", "function": {"name": "search"}},)},
        {"messages": [{"role": "system", "content": "x"}]},
    ],
)
def test_a_difference_anywhere_in_the_request_is_no_duplicate(change):
    assert len(curate([call(thread_id="t"), call(thread_id="t", **change)]).examples) == 2


def test_another_response_format_or_tool_choice_is_no_duplicate():
    plain = call(thread_id="t")
    as_json = plain.request.model_copy(
        update={"response_format": {"type": "json_object"}}
    )
    forced = plain.request.model_copy(update={"tool_choice": "required"})
    calls = [
        plain.model_copy(update={"call_id": str(i), "request": request})
        for i, request in enumerate([plain.request, as_json, forced])
    ]

    dataset = curate(calls)

    assert len(dataset.examples) == 3
    assert len({example.example_id for example in dataset.examples}) == 3


def tool_loop(thread: str, turns: int, ids: str) -> list[Call]:
    """A model that calls a tool in each turn: the user's message is always the same."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "find it"}]
    calls = []
    for turn in range(turns):
        answer = {"content": "", "tool_calls": [tool_call(f"{ids}{turn}", str(turn))]}
        calls.append(call(messages=list(messages), answer=answer, thread_id=thread))
        messages.append({"role": "assistant", **answer})
        messages.append(
            {"role": "tool", "tool_call_id": f"{ids}{turn}", "content": "nothing"}
        )
    return calls


def test_the_turns_of_a_tool_loop_are_separate_examples():
    dataset = curate(tool_loop("t", turns=6, ids="call_"))

    assert len(dataset.examples) == 6
    assert dataset.counts == {}


def test_ids_of_tool_calls_make_no_difference():
    loops = [*tool_loop("t1", turns=3, ids="a"), *tool_loop("t2", turns=3, ids="b")]

    dataset = curate(loops)

    assert dataset.counts == {"duplicate": 3}


def test_which_call_a_tool_result_belongs_to_makes_a_difference():
    asked = {
        "role": "assistant",
        "tool_calls": [tool_call("a", "1"), tool_call("b", "2")],
    }
    orders = [("a", "b"), ("b", "a")]
    calls = [
        call(
            thread_id="t",
            messages=[
                asked,
                {"role": "tool", "tool_call_id": first, "content": "yes"},
                {"role": "tool", "tool_call_id": second, "content": "no"},
            ],
        )
        for first, second in orders
    ]

    assert len(curate(calls).examples) == 2


def test_malformed_tool_calls_in_the_context_are_content_like_any_other():
    messages = [
        {"role": "assistant", "tool_calls": None},
        {"role": "assistant", "tool_calls": ["no object"]},
        {"role": "tool", "tool_call_id": None, "content": "\ud800"},
    ]

    assert len(curate([call(messages=messages)]).examples) == 1


def test_every_call_is_an_example_or_counted():
    calls = [
        call("a"),
        call("a"),
        call(error="E"),
        call("b", attempt="x", thread_id="t", answer="1"),
        call("b", attempt="x", thread_id="t", answer="2"),
    ]

    dataset = curate(calls)

    assert dataset.calls == 5
    assert dataset.counts == {"duplicate": 1, "error": 1, "resumed": 1}
    assert len(dataset.examples) == 2


def test_an_example_keeps_the_request_and_answer_objects_and_who_answered():
    one = call(site="reply", thread_id="t", model="gpt-ref", provider="nvidia")

    (example,) = curate([one]).examples

    assert example.request is one.request
    assert example.answer is one.answer
    assert (example.site, example.thread_id) == ("reply", "t")
    assert (example.model, example.provider) == ("gpt-ref", "nvidia")
    assert (example.task, example.expected) == ("", None)


@pytest.mark.parametrize("name", ["", "<script>alert(1)</script>", "../../etc", "a\0b"])
def test_names_of_sites_and_threads_may_be_anything(name):
    dataset = curate([call(site=name, thread_id=name)], split=ALL_TEST)

    assert len(dataset.examples_of(name, "test")) == 1


# Splits


def many_threads(n: int) -> list[Call]:
    return [
        call(f"{site} of {i}", site=site, thread_id=f"t{i}")
        for i in range(n)
        for site in ("triage", "reply")
    ]


def test_threads_are_split_by_their_shares():
    dataset = curate(many_threads(2000), seed=1)

    threads = {example.thread_id: example.split for example in dataset.examples}
    shares = {split: n / 2000 for split, n in Counter(threads.values()).items()}
    assert shares["train"] == pytest.approx(0.4, abs=0.04)
    assert shares["validation"] == pytest.approx(0.2, abs=0.04)
    assert shares["test"] == pytest.approx(0.4, abs=0.04)


def test_all_calls_of_a_thread_are_in_one_split_at_all_sites():
    splits = defaultdict(set)
    for example in curate(many_threads(200)).examples:
        splits[example.thread_id].add(example.split)

    assert {len(found) for found in splits.values()} == {1}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_may_have_everything(split):
    shares = SplitShares(**{"train": 0, "validation": 0, "test": 0, split: 1})

    dataset = curate(many_threads(50), split=shares)

    assert {example.split for example in dataset.examples} == {split}


@pytest.mark.parametrize("absent", ["train", "validation", "test"])
def test_a_split_without_a_share_gets_nothing(absent):
    shares = {"train": 0.5, "validation": 0.5, "test": 0.5, absent: 0.0}

    dataset = curate(many_threads(200), split=SplitShares(**shares))

    assert {example.split for example in dataset.examples} == shares.keys() - {absent}


def test_a_share_of_zero_gets_nothing_even_where_the_others_do_not_quite_add_up():
    shares = SplitShares(train=0.7, validation=0.3 - 1e-10, test=0)

    assert shares.split_at(1 - 2**-53) == "validation"


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        (0.5, 0.5, 0.5),
        (0.1, 0.1, 0.1),
        (-0.2, 0.6, 0.6),
        (1.2, -0.1, -0.1),
        (float("nan"), 0.5, 0.5),
    ],
)
def test_shares_that_are_none_are_refused_with_their_values(train, validation, test):
    with pytest.raises(ValueError, match=f"train={train}, validation={validation}"):
        SplitShares(train=train, validation=validation, test=test)


def test_shares_add_up_within_rounding():
    assert SplitShares(train=0.1, validation=0.2, test=0.7).test == 0.7


def test_threads_that_share_a_request_are_in_one_split():
    # With its own request each of 40 threads would be somewhere; "same" joins two by two.
    calls = [
        call(f"same {i // 2}", answer=f"answer {i}", thread_id=f"t{i:02}")
        for i in range(40)
    ]

    dataset = curate(calls)

    split_of = {example.thread_id: example.split for example in dataset.examples}
    assert all(split_of[f"t{i:02}"] == split_of[f"t{i + 1:02}"] for i in range(0, 40, 2))
    assert len(set(split_of.values())) > 1
    assert dataset.threads_joined == 40
    assert dataset.counts == {}


def test_threads_are_joined_over_others():
    calls = [
        call("one", answer="1", thread_id="a"),
        call("one", answer="2", thread_id="b"),
        call("two", answer="1", thread_id="b"),
        call("two", answer="2", thread_id="c"),
    ]

    for seed in range(20):
        dataset = curate(calls, seed=seed)
        assert len({example.split for example in dataset.examples}) == 1
        assert dataset.threads_joined == 3


def test_a_request_shared_by_two_sites_joins_nobody():
    calls = [call("same", site="a", thread_id="a"), call("same", site="b", thread_id="b")]

    assert curate(calls).threads_joined == 0


def test_a_request_that_every_thread_makes_does_not_pull_all_into_one_split():
    greeting = [
        call("hello", answer=f"hi {i}", thread_id=f"t{i}", site="greet")
        for i in range(500)
    ]
    own = [call(f"question {i}", thread_id=f"t{i}", site="reply") for i in range(500)]

    dataset = curate([*greeting, *own])

    sizes = {
        split: len(dataset.examples_of("reply", split))
        for split in ("train", "validation", "test")
    }
    assert sizes["train"] == pytest.approx(200, abs=40)
    assert sizes["test"] == pytest.approx(200, abs=40)
    greeted = {e.split for e in dataset.examples if e.site == "greet"}
    assert len(greeted) == 1
    assert dataset.counts == {"straddling": 500 - sizes[greeted.pop()]}
    assert dataset.threads_joined == 0


def test_the_rarest_requests_join_their_threads_first():
    def asked(text: str, threads: range) -> list[Call]:
        return [call(text, answer=f"{text} {i}", thread_id=f"t{i:03}") for i in threads]

    # Together they would be a group of 26 threads of 100, and 20 is the limit.
    calls = [*asked("common", range(15)), *asked("rare", range(14, 26))]
    calls += [call(f"own {i}", thread_id=f"t{i:03}") for i in range(100)]

    dataset = curate(calls)

    rare = [e for e in dataset.examples if e.request.messages[0]["content"] == "rare"]
    assert len(rare) == 12
    assert dataset.threads_joined == 12
    assert dataset.counts["straddling"] > 0


small_text = st.sampled_from(["a", "b", "c"])
recorded = st.lists(
    st.tuples(
        st.sampled_from(["t1", "t2", "t3", "t4", "t5"]),
        st.sampled_from(["plan", "grade"]),
        st.sampled_from([f"request {i}" for i in range(6)]),
        small_text,
        st.sampled_from(["", "x", "y"]),
        st.booleans(),
    ),
    max_size=40,
)


def as_calls(rows: list[tuple[str, str, str, str, str, bool]]) -> list[Call]:
    return [
        call(
            text,
            thread_id=thread,
            site=site,
            answer=answer,
            attempt=attempt,
            error="E" if failed else None,
            call_id=f"c{i:03}",
            sequence=i,
        )
        for i, (thread, site, text, answer, attempt, failed) in enumerate(rows)
    ]


@settings(max_examples=60, deadline=None)
@given(rows=recorded, seed=st.integers(0, 50))
def test_no_request_and_no_thread_is_in_two_splits(rows, seed):
    dataset = curate(as_calls(rows), seed=seed)

    splits = defaultdict(set)
    for example in dataset.examples:
        splits[example.thread_id].add(example.split)
        splits[example.site, example.request.key].add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert dataset.calls == len(dataset.examples) + sum(dataset.counts.values())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9), pairs=st.sets(st.tuples(*[st.integers(0, 99)] * 2)))
def test_no_request_is_in_two_splits_whatever_threads_share_it(seed, pairs):
    # 100 threads: groups may reach their limit of 20, and requests then straddle.
    calls = [
        call(f"request {request}", answer=f"{thread}", thread_id=f"t{thread}")
        for thread, request in sorted(pairs)
    ]

    splits = defaultdict(set)
    for example in curate(calls, seed=seed).examples:
        splits[example.thread_id].add(example.split)
        splits[example.request.key].add(example.split)
    assert all(len(found) == 1 for found in splits.values())


@settings(max_examples=40, deadline=None)
@given(rows=recorded, data=st.data())
def test_the_dataset_does_not_depend_on_the_order_of_the_calls(rows, data):
    calls = as_calls(rows)

    assert curate(data.draw(st.permutations(calls))) == curate(calls)


# Order and seeds


def test_the_order_is_drawn_by_the_seed_and_not_that_of_the_store():
    calls = [call(f"question {i}", thread_id=f"t{i}") for i in range(50)]

    def order(seed: int) -> list[str]:
        examples = curate(calls, split=ALL_TEST, seed=seed).examples
        return [example.thread_id for example in examples]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != [f"t{i}" for i in range(50)]
    assert sorted(order(0)) == sorted(order(1))


def test_the_seed_changes_the_splits_and_is_kept():
    calls = many_threads(50)

    def splits(seed: int) -> dict[str, str]:
        return {e.example_id: e.split for e in curate(calls, seed=seed).examples}

    assert splits(0) != splits(1)
    assert splits(0).keys() == splits(1).keys()
    assert curate(calls, seed=7).seed == 7


def test_example_ids_do_not_depend_on_what_else_was_recorded():
    one = call("a", thread_id="t")

    alone = curate([one]).examples[0].example_id
    among = {e.example_id for e in curate([one, *many_threads(10)], seed=3).examples}

    assert alone in among


# One example of each thread


def test_one_example_of_each_thread_is_drawn():
    calls = [
        call(f"turn {turn}", thread_id=f"t{i}", answer=f"{i}")
        for i in range(100)
        for turn in range(5)
    ]
    examples = curate(calls, split=ALL_TEST).examples

    drawn = one_per_thread(examples)

    assert len(drawn) == 100
    assert len({example.thread_id for example in drawn}) == 100
    turns = Counter(example.request.messages[0]["content"] for example in drawn)
    assert len(turns) == 5


def test_the_draw_depends_on_the_seed_and_not_on_the_order_given():
    calls = [call(f"{i} {turn}", thread_id=f"t{i}") for i in range(30) for turn in (0, 1)]
    examples = curate(calls, split=ALL_TEST).examples

    drawn = one_per_thread(examples)

    assert set(map(id, one_per_thread(reversed(examples)))) == set(map(id, drawn))
    assert one_per_thread(examples, seed=1) != drawn
    assert drawn == [example for example in examples if example in drawn]


# Truth


def test_truth_is_attached_by_the_request():
    known, unknown = call("known"), call("unknown")
    expected = Expected(grader="exact", reference={"answer": "42"})

    examples = with_truth(
        curate([known, unknown]).examples, {known.request.key: expected}
    )

    by_text = {e.request.messages[0]["content"]: e.expected for e in examples}
    assert by_text == {"known": expected, "unknown": None}


# A dataset


def test_examples_go_by_their_site_until_they_have_a_task():
    dataset = curate([call(site="reply")], split=ALL_TEST)
    example = dataset.examples[0].model_copy(update={"task": "reply~2"})
    with_task = dataset.model_copy(update={"examples": (example,)})

    assert dataset.examples_of("reply", "test") == dataset.examples
    assert dataset.examples_of("reply", "train") == ()
    assert with_task.examples_of("reply", "test") == ()
    assert with_task.examples_of("reply~2", "test") == (example,)


def test_the_representation_of_a_dataset_shows_no_content():
    assert "secret" not in repr(curate([call("secret", answer="secret")]))


def test_a_dataset_survives_json():
    dataset = curate(many_threads(3))

    assert Dataset.model_validate_json(dataset.model_dump_json()) == dataset
    assert isinstance(dataset.examples[0], Example)
