"""What every store must do, whatever database is behind it.

A new database is one more entry of `DATABASES`: the URL of an empty store.
"""

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_slm.errors import StoreError
from langchain_slm.recording.redaction import Finding
from langchain_slm.recording.store import CachedAnswer, SiteCalls, Store, open_store
from langchain_slm.schema import Answer, Call, Request, Usage

DATABASES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'slm.db'}",
}
ODD_NAMES = [
    "",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "a\0b line\nbreak\r\n",
    "n" * 10_000,
    "\ud800 lone \udfff",
    "back\\slash and \\u0000 and \\ud800",
    "x') OR '1'='1",
    'x"; DROP TABLE calls; --',
    " blank %_*? ",
    "parent/child#branch",
    "日本語 ñ 😀",
]


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return DATABASES[request.param](tmp_path)


@pytest.fixture
def store(url: str) -> Iterable[Store]:
    with open_store(url, redact=None) as opened:
        yield opened


def call(number: int = 1, **changes: Any) -> Call:
    fields: dict[str, Any] = {
        "call_id": f"call-{number}",
        "trace_id": f"trace-{number}",
        "thread_id": f"thread-{number // 2}",
        "graph": "desk",
        "site": "triage",
        "model": "gpt-ref",
        "provider": "openai",
        "request": Request(messages=({"role": "user", "content": f"question {number}"},)),
        "answer": Answer(message={"role": "assistant", "content": "billing"}),
    }
    return Call(**{**fields, **changes})


FIND = {"type": "function", "function": {"name": "find", "arguments": "{}"}}
FULL = call(
    request=Request(
        messages=({"role": "user", "content": [{"type": "text", "text": "Where?"}]},),
        tools=({"type": "function", "function": {"name": "find", "parameters": {}}},),
        tool_choice={"type": "function", "function": {"name": "find"}},
        response_format={"type": "json_object"},
        parameters={"temperature": 0.25, "stop": ["\n"], "max_tokens": 16, "x": None},
    ),
    answer=Answer(
        message={"role": "assistant", "content": None, "tool_calls": [FIND]},
        finish_reason="tool_calls",
        usage=Usage(input_tokens=40, output_tokens=7),
        abstained=True,
    ),
    latency_s=0.125,
    attempt="triage:0123",
)
FAILED = call(2, answer=None, error="TimeoutError: no answer")
FORCED = call(3, request=Request(messages=(), tool_choice="required"))


def only(store: Store, **wanted: str) -> Call:
    (found,) = store.calls(**wanted)
    return found


@pytest.mark.parametrize(
    "recorded", [FULL, FAILED, FORCED], ids=["full", "failed", "forced"]
)
def test_a_call_comes_back_as_it_went_in(store, recorded):
    sequence = store.add(recorded)

    assert only(store) == recorded.model_copy(update={"sequence": sequence})


def test_the_order_of_keys_is_kept_because_models_see_it(store):
    store.add(call(request=Request(messages=({"role": "user", "content": "", "a": 1},))))

    assert list(only(store).request.messages[0]) == ["role", "content", "a"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
def test_any_text_is_a_name_and_a_filter(store, name):
    names = {"graph": name, "site": name, "model": name}
    fields = ("call_id", "trace_id", "thread_id", "provider", "attempt", "error")
    odd = call(1, **names, **dict.fromkeys(fields, name))
    store.add_many([call(7, graph="g", site="s", model="m"), odd])

    found = only(store, **names)

    assert found == odd.model_copy(update={"sequence": 2})
    assert store.count(**names) == 1
    assert SiteCalls(name, name, name, name, 1) in store.sites()
    assert all(only(store, **{key: name}) == found for key in names)


TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=12)


def read_as_json(value: Any) -> Any:
    """JSON spells a character and the two surrogates that encode it alike."""
    return json.loads(json.dumps(value))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
).map(read_as_json)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3).map(read_as_json)
NUMBER = itertools.count()


@given(
    names=st.lists(TEXT, min_size=7, max_size=7),
    messages=st.lists(OBJECT, max_size=3),
    tools=st.lists(OBJECT, max_size=2),
    extras=st.tuples(
        st.none() | TEXT.map(read_as_json) | OBJECT, st.none() | OBJECT, OBJECT
    ),
    answer=st.none() | OBJECT,
    error=st.none() | TEXT,
    latency_s=st.floats(allow_nan=False),
)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_call_comes_back(
    store, names, messages, tools, extras, answer, error, latency_s
):
    trace_id, thread_id, graph, site, model, provider, attempt = names
    tool_choice, response_format, parameters = extras
    recorded = Call(
        call_id=f"any-{next(NUMBER)}",
        trace_id=trace_id,
        thread_id=thread_id,
        graph=graph,
        site=site,
        model=model,
        provider=provider,
        attempt=attempt,
        request=Request(
            messages=tuple(messages),
            tools=tuple(tools),
            tool_choice=tool_choice,
            response_format=response_format,
            parameters=parameters,
        ),
        answer=None if answer is None else Answer(message=answer, finish_reason=error),
        error=error,
        latency_s=latency_s,
    )

    sequence = store.add(recorded)

    found = [
        each for each in store.calls(graph=graph, site=site) if each.sequence == sequence
    ]
    assert found == [recorded.model_copy(update={"sequence": sequence})]


@pytest.mark.parametrize("latency_s", [math.nan, math.inf, 1e-320])
def test_odd_numbers_come_back(store, latency_s):
    store.add(call(latency_s=latency_s))

    assert repr(only(store).latency_s) == repr(latency_s)


def test_a_large_message_comes_back(store):
    large = call(
        request=Request(messages=({"role": "user", "content": "é\ud800" * 1_000_000},))
    )
    store.add(large)

    assert only(store).request == large.request


def test_sequences_ascend_and_are_the_order_of_reading(store):
    sequences = [store.add(call(number)) for number in (5, 3, 9)]

    assert sequences == [1, 2, 3]
    assert [(each.sequence, each.call_id) for each in store.calls()] == [
        (1, "call-5"),
        (2, "call-3"),
        (3, "call-9"),
    ]


def test_the_sequence_of_a_call_is_the_stores_to_give(store):
    assert store.add(call(sequence=77)) == 1


def test_adding_the_same_call_again_changes_nothing(store):
    store.add(call(1))
    first = store.add(FULL.model_copy(update={"call_id": "same"}))
    again = store.add(FULL.model_copy(update={"call_id": "same", "sequence": 9}))

    assert (first, again, store.count(), store.conflicts) == (2, 2, 2, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "other"},
        {"error": ""},
        {"latency_s": 1.0},
        {"answer": None},
        {"answer": Answer(message={"role": "assistant", "content": "other"})},
        {"request": Request(messages=())},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_of_two_calls_with_one_id_the_first_stays_and_the_other_is_counted(
    store, changes
):
    first = store.add(call(1))
    second = store.add(call(1, **changes))

    assert (first, second, store.conflicts) == (1, 1, 1)
    assert only(store) == call(1, sequence=1)


def test_filters_combine(store):
    for number, (graph, site, model) in enumerate(itertools.product("ab", "st", "mn")):
        store.add(call(number, graph=graph, site=site, model=model))

    assert store.count() == 8
    assert store.count(graph="a") == 4
    assert store.count(graph="a", site="t") == 2
    assert [each.call_id for each in store.calls(site="t", model="n")] == [
        "call-3",
        "call-7",
    ]
    assert list(store.calls(graph="none")) == []


def test_sites_are_counted_by_model_and_sorted(store):
    for number, (site, model) in enumerate(
        [("t", "m"), ("s", "n"), ("t", "m"), ("t", "a")]
    ):
        store.add(call(number, site=site, model=model))

    assert store.sites() == [
        SiteCalls("desk", "s", "n", "openai", 1),
        SiteCalls("desk", "t", "a", "openai", 1),
        SiteCalls("desk", "t", "m", "openai", 2),
    ]


def test_an_empty_store_has_nothing(store):
    assert (list(store.calls()), store.count(), store.sites()) == ([], 0, [])


def test_an_import_counts_what_was_new_and_reports_its_progress(store):
    store.add(call(3))
    seen: list[int] = []

    new = store.add_many((call(number) for number in range(1200)), progress=seen.append)

    assert (new, store.count(), store.conflicts) == (1199, 1200, 0)
    assert seen == [500, 1000, 1200]


def test_an_import_of_nothing_stores_nothing(store):
    assert store.add_many([], progress=pytest.fail) == 0


def test_an_import_that_fails_keeps_its_whole_batches(store):
    broken = call(700, request=Request(messages=({"content": object()},)))
    calls = [*(call(number) for number in range(700)), broken]

    with pytest.raises(StoreError, match="'call-700' was not stored"):
        store.add_many(calls)

    assert store.count() == 500


def test_reading_ends_with_what_was_there_when_it_began(store):
    store.add_many(call(number) for number in range(250))

    for read in store.calls():
        store.add(call(1000 + read.sequence))

    assert store.count() == 500


def test_a_paused_reader_stops_no_writer(store):
    store.add_many(call(number) for number in range(250))
    reader = store.calls()
    next(reader)

    assert store.add(call(999)) == 251
    assert len(list(reader)) == 249


def test_what_a_reader_changes_in_one_call_does_not_show_in_another(store):
    tools = ({"type": "function", "function": {"name": "find"}},)
    for number in (1, 2):
        store.add(call(number, request=Request(messages=(), tools=tools)))
    reader = store.calls()

    next(reader).request.tools[0]["function"]["name"] = "changed"

    assert next(reader).request.tools == tools


def test_calls_are_there_when_the_store_is_opened_again(url):
    with open_store(url) as store:
        store.add(FULL)
    with open_store(url, create=False) as store:
        assert store.add(call(2)) == 2
        assert store.count() == 2


def test_two_openings_see_each_others_calls(url, store):
    with open_store(url) as other:
        other.add(call(1))
        store.add(call(2))

        assert other.count() == store.count() == 2


def test_threads_lose_nothing_and_are_refused_nothing(store):
    sequences: list[int] = []

    def write(writer: int) -> None:
        sequences.extend(store.add(call(writer * 100 + number)) for number in range(100))
        assert store.count(site="triage") >= 100

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(sequences) == list(range(1, 801))
    assert store.count() == 800


def test_a_cached_answer_comes_back(store):
    value = CachedAnswer(answer=FULL.answer, error=None, latency_s=0.5)
    failed = CachedAnswer(answer=None, error="Timeout \ud800\0", latency_s=math.inf)
    store.cache_answer("key", value)
    store.cache_answer("odd \ud800\0 key", failed)

    assert store.cached_answer("key") == value
    assert store.cached_answer("odd \ud800\0 key") == failed
    assert store.cached_answer("other") is None


def test_the_first_cached_answer_stays(store):
    first = CachedAnswer(answer=FULL.answer, error=None, latency_s=0.5)
    store.cache_answer("key", first)
    store.cache_answer("key", CachedAnswer(answer=None, error="late", latency_s=9.0))

    assert store.cached_answer("key") == first


def test_cached_answers_are_there_when_the_store_is_opened_again(url):
    value = CachedAnswer(answer=FULL.answer, error=None, latency_s=0.5)
    with open_store(url) as store:
        store.cache_answer("key", value)
    with open_store(url) as store:
        assert store.cached_answer("key") == value
        assert store.count() == 0


def test_personal_data_is_redacted_unless_it_is_switched_off(url):
    mail = call(
        1, request=Request(messages=({"role": "user", "content": "ada@example.org"},))
    )
    with open_store(url) as store:
        store.add(mail)
        store.add(mail)  # redacted alike, and so the same call
    with open_store(url, redact=None) as store:
        store.add(mail.model_copy(update={"call_id": "plain"}))
        contents = [each.request.messages[0]["content"] for each in store.calls()]

    assert contents == ["<EMAIL_1>", "ada@example.org"]
    assert store.conflicts == 0


def test_of_a_cached_answer_only_the_error_is_redacted(url):
    answer = Answer(message={"role": "assistant", "content": "ada@example.org"})
    with open_store(url) as store:
        store.cache_answer("a", CachedAnswer(answer=answer, error=None, latency_s=0.5))
        error = "401: no such key sk-abcdefghij1234567890"
        store.cache_answer("b", CachedAnswer(answer=None, error=error, latency_s=0.5))

        kept, failed = store.cached_answer("a"), store.cached_answer("b")

    assert kept is not None
    assert kept.answer == answer
    assert failed == CachedAnswer(
        answer=None, error="401: no such key <KEY_1>", latency_s=0.5
    )


class Names:
    """A redactor of a user's own, that fails on one text."""

    def find(self, text: str) -> Iterable[Finding]:
        if "secret" in text:
            raise RuntimeError(text)
        if "Ada" in text:
            start = text.index("Ada")
            yield Finding(start, start + 3, "NAME")


def test_a_users_own_redactor_is_asked(url):
    named = call(1, request=Request(messages=({"role": "user", "content": "I am Ada."},)))
    with open_store(url, redact=Names()) as store:
        store.add(named)

        assert only(store).request.messages[0]["content"] == "I am <NAME_1>."


def failures(error: BaseException | None) -> str:
    """Everything that a logger would find in an error and behind it."""
    return (
        ""
        if error is None
        else repr(error) + failures(error.__cause__ or error.__context__)
    )


@pytest.mark.parametrize(
    "content",
    ["my secret", object(), {1, 2}, b"bytes"],
    ids=["redactor raises", "object", "set", "bytes"],
)
def test_a_call_that_cannot_be_redacted_or_encoded_is_dropped_without_a_word_of_it(
    url, content
):
    bad = call(1, request=Request(messages=({"role": "user", "content": content},)))
    with open_store(url, redact=Names()) as store:
        with pytest.raises(StoreError, match=r"'call-1' was not stored") as caught:
            store.add(bad)
        value = CachedAnswer(answer=None, error="secret", latency_s=0.0)
        with pytest.raises(StoreError, match=r"an answer was not stored"):
            store.cache_answer("key", value)

        assert store.count() == 0
        assert store.cached_answer("key") is None
    assert "secret" not in failures(caught.value)


def test_circular_and_bottomless_content_is_refused(store):
    circle: dict[str, Any] = {}
    circle["self"] = circle
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for number, content in enumerate((circle, deep)):
        bad = call(number).model_copy(
            update={"request": Request.model_construct(messages=({"content": content},))}
        )
        with pytest.raises(StoreError, match="was not stored"):
            store.add(bad)


def test_a_closed_store_says_so(url):
    store = open_store(url)
    store.close()
    store.close()

    for use in (lambda: store.add(call(1)), store.count, store.sites):
        with pytest.raises(StoreError, match="the store is closed; open it again"):
            use()
