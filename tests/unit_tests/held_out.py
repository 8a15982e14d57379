"""Examples of a made-up task, who answers them, and a cache of answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from unit_tests.fake_chat import FakeChat

from langchain_slm.curation import Dataset, SplitShares
from langchain_slm.evaluation.experiment import Candidate
from langchain_slm.recording.store import CachedAnswer
from langchain_slm.schema import (
    Answer,
    Binding,
    Call,
    Example,
    Expected,
    ModelSpec,
    Request,
    SplitName,
    Task,
    Usage,
)

TASK = Task(task_id="triage", site="triage", shape="label", labels=("no", "yes"))
REFERENCE = ModelSpec(
    name="ref",
    provider="openai",
    model="ref",
    usd_per_million_input_tokens=10,
    usd_per_million_output_tokens=10,
)


def right_answer(number: int) -> str:
    return "yes" if number % 2 else "no"


def example(
    number: int,
    *,
    split: SplitName = "test",
    thread: str | None = None,
    model: str = "ref",
    says: str | None = None,
) -> Example:
    """Question `number`, whose right answer is "yes" for odd numbers, else "no".

    What the reference says is right unless `says` is given: then the truth is known.
    """
    text = says or right_answer(number)
    return Example(
        example_id=f"e{number}",
        site="triage",
        thread_id=thread or f"t{number}",
        split=split,
        model=model,
        provider="openai",
        request=Request(messages=({"role": "user", "content": _question(number)},)),
        answer=Answer(
            message={"role": "assistant", "content": text},
            finish_reason="stop",
            usage=Usage(input_tokens=100, output_tokens=1),
        ),
        expected=None if says is None else truth_of(number),
        task="triage",
    )


def _question(number: int) -> str:
    """The last word gives it away, for heads that cannot count."""
    return f"Is {number} odd? It is {'uneven' if number % 2 else 'paired'}"


def truth_of(number: int) -> Expected:
    return Expected(grader="label", reference={"label": right_answer(number)})


def examples(count: int, *, split: SplitName = "test", first: int = 0) -> list[Example]:
    return [example(number, split=split) for number in range(first, first + count)]


def recorded(number: int, **changed: Any) -> Call:
    """Return the recorded call that `example(number)` is made of."""
    asked = example(number)
    call = Call(
        call_id=f"c{number}",
        trace_id=f"t{number}",
        thread_id=f"t{number}",
        graph="desk",
        site="triage",
        model="ref",
        provider="openai",
        request=asked.request,
        answer=asked.answer,
    )
    return call.model_copy(update=changed)


def dataset(listed: Iterable[Example]) -> Dataset:
    kept = tuple(listed)
    return Dataset(
        examples=kept,
        calls=len(kept),
        counts={},
        threads=len({each.thread_id for each in kept}),
        threads_joined=0,
        seed=0,
        split=SplitShares(),
    )


def number_of(messages: Sequence[BaseMessage]) -> int:
    return int(str(messages[-1].content).split()[1])


def answering(wrong: Callable[[int], bool] = lambda _: False) -> FakeChat:
    """Return a model that is right but where `wrong` says otherwise; 10 tokens, and 1."""

    def reply(messages: list[BaseMessage]) -> AIMessage:
        number = number_of(messages)
        return AIMessage(
            right_answer(number + wrong(number)),
            usage_metadata={"input_tokens": 10, "output_tokens": 1, "total_tokens": 11},
        )

    return FakeChat(reply=reply)


def candidate(
    model: FakeChat, name: str = "slm", *, usd: float | None = 1.0, **spec: object
) -> Candidate:
    """Return `model` as a candidate that costs `usd` per million tokens."""
    described: dict[str, object] = {
        "name": name,
        "provider": "openai",
        "model": name,
        "usd_per_million_input_tokens": usd,
        "usd_per_million_output_tokens": usd,
        **spec,
    }
    return Candidate(name, Binding(model=ModelSpec.model_validate(described)), model)


class Memory:
    """A cache of answers in memory."""

    def __init__(self, kept: Mapping[str, CachedAnswer] | None = None) -> None:
        self.kept = dict(kept or {})

    def cached_answer(self, key: str) -> CachedAnswer | None:
        return self.kept.get(key)

    def cache_answer(self, key: str, value: CachedAnswer) -> None:
        self.kept.setdefault(key, value)
