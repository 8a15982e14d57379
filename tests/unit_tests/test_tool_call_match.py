from collections.abc import Sequence

import pytest
from unit_tests.judged import called, example_of, said, tool

from langchain_slm.evaluation.evaluators import ToolCallMatch, Verdict
from langchain_slm.schema import Answer, Expected, JsonObject

TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
LIST, OBJECT, FLAG = {"type": "array"}, {"type": "object"}, {"type": "boolean"}


def calls_verdict(
    wanted: Sequence[tuple[str, JsonObject]], answer: Answer, *tools: JsonObject
) -> Verdict:
    calls = [{"name": name, "arguments": arguments} for name, arguments in wanted]
    expected = Expected(grader="bfcl_ast", reference={"calls": calls})
    return ToolCallMatch().evaluate(example_of(expected, tools=tools), answer)


def argument_passes(declared: object, accepted: list[object], value: object) -> bool:
    answer = called(("f", {"x": value}))
    return calls_verdict([("f", {"x": accepted})], answer, tool("f", x=declared)).passed


PLAY = tool("play", artist=TEXT, minutes=INTEGER)
QUEEN = ("play", {"artist": ["Queen"], "minutes": [20]})
ABBA = ("play", {"artist": ["ABBA"], "minutes": [15]})


def test_parallel_calls_pass_in_any_order():
    answer = called(
        ("play", {"artist": "ABBA", "minutes": 15}),
        ("play", {"artist": "Queen", "minutes": 20}),
    )
    assert calls_verdict([QUEEN, ABBA], answer, PLAY).passed


def test_one_call_cannot_stand_for_two():
    queen = ("play", {"artist": "Queen", "minutes": 20})
    verdict = calls_verdict([QUEEN, ABBA], called(queen, queen), PLAY)
    assert verdict.reason == '"play": "artist" has another value'


def test_each_reference_call_takes_the_first_call_that_matches():
    either = ("play", {"artist": ["Queen", "ABBA"], "minutes": [20]})
    queen = ("play", {"artist": ["Queen"], "minutes": [20]})
    answer = called(
        ("play", {"artist": "Queen", "minutes": 20}),
        ("play", {"artist": "ABBA", "minutes": 20}),
    )
    assert not calls_verdict([either, queen], answer, PLAY).passed
    assert calls_verdict([queen, either], answer, PLAY).passed


def test_over_calling_and_under_calling_have_reasons_of_their_own():
    play = ("play", {"artist": "Queen", "minutes": 20})
    over = calls_verdict([], called(play), PLAY)
    under = calls_verdict([QUEEN], said("Which song?"), PLAY)
    more = calls_verdict([QUEEN], called(play, play), PLAY)
    assert over.reason == "over-calling: 1 tool call(s), none wanted"
    assert under.reason == "under-calling: no tool call, 1 wanted"
    assert more.reason == "2 tool call(s), 1 wanted"
    assert not any(verdict.passed for verdict in (over, under, more))


def test_abstention_passes_only_without_a_tool_call():
    example = example_of(Expected(grader="relevance", reference={}), tools=[PLAY])
    assert ToolCallMatch().evaluate(example, said("No tool fits.")).passed
    assert not ToolCallMatch().evaluate(example, called(("play", "{broken"))).passed


def test_the_function_must_be_the_wanted_one_and_offered():
    assert (
        calls_verdict([QUEEN], called(("stop", {})), PLAY).reason
        == 'calls "stop", "play" wanted'
    )
    answer = called(("play", {"artist": "Queen", "minutes": 20}))
    assert calls_verdict([QUEEN], answer).reason == '"play" is not offered'


def test_a_mismatch_of_the_right_tool_is_told_before_one_of_another():
    answer = called(("stop", {}), ("play", {"artist": "Queen"}))
    verdict = calls_verdict([QUEEN, ABBA], answer, PLAY)
    assert verdict.reason == '"play" lacks "minutes"'


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"to": "Rome"}, '"fly" lacks the required "when"'),
        ({"to": "Rome", "when": 3, "gate": 1}, '"fly": "gate" is no parameter'),
        ({"to": "Rome", "when": 3, "seat": 1}, '"fly": "seat" is not wanted'),
        ({"when": 3}, '"fly" lacks "to"'),
        ({"to": "Rome", "when": "3"}, '"fly": "when" has another type'),
        ({"to": "Oslo", "when": 3}, '"fly": "to" has another value'),
    ],
)
def test_each_point_of_the_rule_gives_its_reason(arguments: JsonObject, reason: str):
    fly = tool("fly", required=["when"], to=TEXT, when=INTEGER, seat=INTEGER, meal=TEXT)
    wanted = ("fly", {"to": ["Rome"], "when": [3], "meal": ["", "vegan"]})
    verdict = calls_verdict([wanted], called(("fly", arguments)), fly)
    assert verdict.reason.startswith(reason)


@pytest.mark.parametrize("arguments", ["", "null", None])
def test_a_call_without_arguments_is_a_call(arguments: str | None):
    function = {"name": "now", "arguments": arguments}
    answer = Answer(message={"tool_calls": [{"id": "a", "function": function}]})
    verdict = calls_verdict([("now", {})], answer, {"function": {"name": "now"}})
    assert verdict.passed is (arguments != "null")


@pytest.mark.parametrize(
    ("declared", "accepted", "value", "passes"),
    [
        (INTEGER, [5], 5, True),
        (INTEGER, [5], 5.0, False),
        (INTEGER, [1], True, False),
        (NUMBER, [5.0], 5, True),
        (NUMBER, [1.0], True, False),
        (FLAG, [True], True, True),
        (FLAG, [True], 1, False),
        (TEXT, ["5"], 5, False),
        (INTEGER, ["", "n"], "n", True),  # a variable's name given for a number
        (INTEGER, ["n", 5], 5, True),
        (INTEGER, [5, "n"], "n", False),
        ({"type": ["string", "null"]}, ["a", None], None, True),
        ({"type": ["string", "null"]}, ["a"], 5, False),
        ({"anyOf": [TEXT, INTEGER]}, ["a", 5], 5, True),
        (True, [5], 5, True),
    ],
)
def test_types_are_those_of_the_schema_or_of_the_first_accepted_value(
    *, declared: object, accepted: list[object], value: object, passes: bool
):
    assert argument_passes(declared, accepted, value) is passes


@pytest.mark.parametrize(
    ("declared", "accepted", "value", "passes"),
    [
        (TEXT, ["San Francisco, CA"], "san francisco CA", True),
        (TEXT, ["it's 2*x^2"], 'IT"S 2x2', True),
        (TEXT, ["a/b-c_d.e"], "abcde", True),
        (TEXT, ["a;b"], "ab", False),
        (TEXT, [""], "", True),
        (LIST, [[1, 2], [2, 1]], [2, 1], True),
        (LIST, [[1, 2]], [2, 1], False),
        (LIST, [[1, 2]], [1], False),
        (LIST, [[1.0, 3.0]], [1, 3], True),
        (LIST, [["New York"]], ["new-york"], True),
        (LIST, [[["New York"]]], [["new-york"]], True),
        (LIST, [[True]], [1], False),
        (LIST, ["all"], ["all"], False),
        (OBJECT, [{"a": [1, 2], "b": ["X"]}], {"b": "x", "a": 2}, True),
        (OBJECT, [{"a": [1], "b": ["", "X"]}], {"a": 1}, True),
        (OBJECT, [{"a": [1], "b": ["X"]}], {"a": 1}, False),
        (OBJECT, [{"a": [1]}], {"a": 1, "c": 1}, False),
        (OBJECT, [{"a": [1]}, {"c": [2]}], {"c": 2}, True),
        (OBJECT, [{"a": [{"b": [1, 2]}]}], {"a": {"b": 2}}, True),
        (OBJECT, [{"a": 1}], {"a": 1}, True),
        (OBJECT, [{"a": [1]}], [1], False),
        (LIST, [[{"a": [1]}, {"a": [2, 3]}]], [{"a": 1}, {"a": 3}], True),
        (LIST, [[{"a": [1]}, {"a": [2, 3]}]], [{"a": 3}, {"a": 1}], False),
    ],
)
def test_values_are_compared_as_the_leaderboard_does(
    *, declared: object, accepted: list[object], value: object, passes: bool
):
    assert argument_passes(declared, accepted, value) is passes


def test_odd_tool_definitions_are_survived():
    odd = [
        {"type": "web_search"},
        {"function": {"name": None}},
        {"function": {"name": "f", "parameters": None}},
        {"function": {"name": "g", "parameters": {"properties": [], "required": True}}},
    ]
    for name in ("f", "g"):
        bare, surplus = called((name, {})), called((name, {"x": 1}))
        assert calls_verdict([(name, {})], bare, *odd).passed
        assert not calls_verdict([(name, {"x": [1]})], surplus, *odd).passed


def test_tool_calls_that_share_an_id_are_malformed():
    function = {"name": "play", "arguments": '{"artist": "Queen", "minutes": 20}'}
    twice = [{"id": "a", "function": function}] * 2
    verdict = calls_verdict([QUEEN, QUEEN], Answer(message={"tool_calls": twice}), PLAY)
    assert verdict.reason == "malformed: a tool call id occurs twice"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"artist": ', "no JSON at character 11"),
        ('{"minutes": NaN}', "NaN is no JSON"),
        ('{"minutes": 1e999}', "a number is out of range"),
        ('{"minutes": ' + "1" * 5000 + "}", "a number is out of range"),
        ('{"minutes": ' + "[" * 5000, "nested too deeply"),
        ("[]", "JSON, but no object"),
    ],
)
def test_malformed_arguments_say_how(arguments: str, reason: str):
    verdict = calls_verdict([QUEEN], called(("play", arguments)), PLAY)
    assert verdict.reason == f"malformed: arguments of tool call 1: {reason}"
