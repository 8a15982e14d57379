"""Recorded calls to examples: filter, deduplicate, split. Pure: no I/O, no model calls.

It only takes out what cannot be evidence; no text is changed. Requests that are
nearly identical stay, and so do different answers to one request, for they show how
much a model varies. Personal data is taken out earlier, by `recording.redaction`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from langchain_slm.schema import (
    Answer,
    Call,
    Example,
    Expected,
    Frozen,
    JsonObject,
    Request,
    SplitName,
    content_hash,
)

# Finish reasons of OpenAI-like and Anthropic-like APIs under which part of the answer
# is missing; read without regard to case.
INCOMPLETE = {
    "length": "truncated",
    "max_tokens": "truncated",
    "content_filter": "filtered",
}

# Threads that share a request go to one split together, but no group grows past a
# twentieth of all threads: it can then move a split's share by five points at most.
# Without a limit, "hello" at the start of each thread puts all of them in one split.
MAX_JOINED_SHARE = 0.05
MIN_JOINED = 20  # with few threads a twentieth of them would join nobody


class SplitShares(Frozen):
    """The fraction of the threads that goes to each split.

    Attributes:
        train: What candidates are specialised on, in [0, 1].
        validation: What candidates are screened on, in [0, 1].
        test: What decides, in [0, 1]; 1 where nothing is trained or screened.

    Raises:
        ValueError: If a share is outside [0, 1] or their sum is not 1.
    """

    train: float = 0.4
    validation: float = 0.2
    test: float = 0.4

    @model_validator(mode="after")
    def _are_shares(self) -> Self:
        shares = (self.train, self.validation, self.test)
        inside = all(0 <= share <= 1 for share in shares)
        if not inside or not math.isclose(sum(shares), 1, abs_tol=1e-9):
            msg = (
                f"split shares train={self.train}, validation={self.validation}, "
                f"test={self.test}: each must be in [0, 1] and their sum must be 1"
            )
            raise ValueError(msg)
        return self

    def split_at(self, position: float) -> SplitName:
        """Return the split at `position`, in [0, 1); never one whose share is 0."""
        shares: tuple[tuple[SplitName, float], ...] = (
            ("train", self.train),
            ("validation", self.validation),
            ("test", self.test),
        )
        split: SplitName = "test"
        end = 0.0
        for name, share in shares:
            if share > 0:
                split, end = name, end + share
            if position < end:
                break
        return split


DEFAULT_SHARES = SplitShares()


class Dataset(Frozen):
    """Curated examples, and what became of the calls that they were made of.

    Attributes:
        examples: In an order that is random as to content and fixed by `seed`, so that
            the looks of a sequential test see no trend of the store.
        calls: Calls read: the examples and all that `counts` says was dropped.
        counts: Reason to number of calls dropped for it; only reasons that occurred.
        threads: Threads that have an example.
        threads_joined: Those that share a request with another thread and therefore
            its split.
        seed: What splits and order were drawn with.
        split: Shares asked for; threads are drawn one by one, so what came out differs.
    """

    examples: tuple[Example, ...] = Field(repr=False)
    calls: int
    counts: dict[str, int]
    threads: int
    threads_joined: int
    seed: int
    split: SplitShares

    def examples_of(self, name: str, split: SplitName) -> tuple[Example, ...]:
        """Return the examples of one task in one split, in the dataset's order.

        Args:
            name: A task id; examples that have no task yet go by their site.
            split: The split.
        """
        return tuple(
            example
            for example in self.examples
            if example.split == split and (example.task or example.site) == name
        )


class _Usable(NamedTuple):
    """A call that was answered; `question` and `identity` are hashes of its content."""

    call: Call
    answer: Answer
    question: str
    identity: str


def curate(
    calls: Iterable[Call], *, split: SplitShares = DEFAULT_SHARES, seed: int = 0
) -> Dataset:
    """Return the examples that `calls` hold, and count what was dropped and why.

    In this order, under these reasons in `Dataset.counts`:

    1. Success filter: "error", "no answer", "truncated", "filtered", "abstained",
       "empty" (neither text nor a tool call).
    2. "resumed": LangGraph runs a node again when its thread is resumed, under the same
       checkpoint namespace. Of one question asked again in it the last answer is kept.
    3. "duplicate": the same whole context, tools and answer at the same site; the first
       is kept. Ids of tool calls differ in every run and are not content.
    4. "straddling": a thread goes to one split at all its sites, and threads that share
       a request at a site go together. A request so common that it would draw a
       large part of all threads together stays in one split only.

    The result depends on `sequence`, then `call_id`, never on the order of `calls`.

    Args:
        calls: Recorded calls of any sites and threads.
        split: Shares of the splits.
        seed: What splits and order are drawn with.
    """
    ordered = sorted(calls, key=lambda call: (call.sequence, call.call_id))
    counts: Counter[str] = Counter()
    usable = _answered(ordered, counts)
    fresh = _last_of_each_attempt(usable)
    distinct = _first_of_each(fresh)
    shared = _shared_requests(distinct)
    groups = _joined_threads((each.call.thread_id for each in distinct), shared)
    splits = {
        thread: split.split_at(_position(seed, "split", group))
        for thread, group in groups.items()
    }
    homes = _homes(shared, splits, seed)
    kept = [each for each in distinct if _at_home(each, homes, splits)]
    counts["resumed"] = len(usable) - len(fresh)
    counts["duplicate"] = len(fresh) - len(distinct)
    counts["straddling"] = len(distinct) - len(kept)
    examples = [_example(each, splits[each.call.thread_id]) for each in kept]
    threads = {example.thread_id for example in examples}
    sizes = Counter(groups[thread] for thread in threads)
    return Dataset(
        examples=tuple(_shuffled(examples, seed)),
        calls=len(ordered),
        counts={reason: n for reason, n in counts.items() if n},
        threads=len(threads),
        threads_joined=sum(n for n in sizes.values() if n > 1),
        seed=seed,
        split=split,
    )


def one_per_thread(examples: Iterable[Example], *, seed: int = 0) -> list[Example]:
    """Return one example of each thread, in the order of `examples`.

    A thread is the unit of evidence: ten correlated pairs of each thread turn a
    nominal error of 5 % into 10-14 %. Which example stands for its thread is drawn,
    not the first or the last, for those are easier or harder than the rest.

    Args:
        examples: Those of one decision (one task, or one site).
        seed: What the choice is drawn with; it does not depend on the order given.
    """
    listed = list(examples)
    chosen: dict[str, tuple[float, str]] = {}
    for example in listed:
        rank = (_position(seed, "thread", example.example_id), example.example_id)
        chosen[example.thread_id] = min(chosen.get(example.thread_id, rank), rank)
    winners = {example_id for _, example_id in chosen.values()}
    return [example for example in listed if example.example_id in winners]


def with_truth(
    examples: Iterable[Example], truth: Mapping[str, Expected]
) -> tuple[Example, ...]:
    """Return the examples with what a right answer is, where `truth` knows it.

    Args:
        examples: Any examples; those that `truth` does not name stay as they are.
        truth: `Request.key` to the right answer.
    """
    return tuple(
        example.model_copy(update={"expected": truth[key]})
        if (key := example.request.key) in truth
        else example
        for example in examples
    )


def _position(seed: int, purpose: str, name: str) -> float:
    """Return a number in [0, 1) that is uniform over names; apart for each purpose."""
    text = f"{seed}/{purpose}/{name}".encode(errors="backslashreplace")
    # 52 bits: as many as a float holds exactly, so that 1.0 is never reached.
    return int(hashlib.sha256(text).hexdigest()[:13], 16) / 16**13


def _shuffled(examples: Iterable[Example], seed: int) -> list[Example]:
    return sorted(
        examples, key=lambda example: _position(seed, "order", example.example_id)
    )


def _answered(calls: Iterable[Call], counts: Counter[str]) -> list[_Usable]:
    """Return the calls with an answer to learn from; count the others by reason."""
    usable = []
    for call in calls:
        reason = _failure(call)
        if reason is None and call.answer is not None:
            usable.append(_usable(call, call.answer))
        else:
            counts[reason or "no answer"] += 1
    return usable


def _failure(call: Call) -> str | None:
    """Return why the call shows nothing of a model's answers; None if it does."""
    if call.error is not None:
        return "error"
    if call.answer is None:
        return "no answer"
    incomplete = INCOMPLETE.get((call.answer.finish_reason or "").casefold())
    if incomplete:
        return incomplete
    if call.answer.abstained:
        return "abstained"
    if not call.answer.text.strip() and not call.answer.tool_calls:
        return "empty"
    return None


def _usable(call: Call, answer: Answer) -> _Usable:
    request = call.request
    question = _question(request)
    content = [
        question,
        request.tool_choice,
        request.response_format,
        answer.message.get("content") or "",
        answer.tool_calls,
    ]
    return _Usable(call, answer, question, content_hash(content))


def _question(request: Request) -> str:
    """Return `Request.key` without the ids of tool calls, which differ in every run."""
    if not any("tool_calls" in m or "tool_call_id" in m for m in request.messages):
        return request.key
    numbers: dict[object, int] = {}
    messages = [_with_numbered_calls(m, numbers) for m in request.messages]
    return content_hash([messages, request.tools])


def _with_numbered_calls(message: JsonObject, numbers: dict[object, int]) -> JsonObject:
    """Return the message with its tool-call ids replaced by their order of appearance."""
    changed = dict(message)
    if "tool_call_id" in message:
        name = str(message["tool_call_id"])
        changed["tool_call_id"] = numbers.setdefault(name, len(numbers))
    if isinstance(message.get("tool_calls"), list):
        changed["tool_calls"] = [
            {**call, "id": numbers.setdefault(str(call.get("id")), len(numbers))}
            if isinstance(call, dict)
            else call
            for call in message["tool_calls"]
        ]
    return changed


def _last_of_each_attempt(usable: Sequence[_Usable]) -> list[_Usable]:
    """Drop what a resume of the thread asked again; calls without attempt all stay."""
    last = {_attempt(each): position for position, each in enumerate(usable)}
    return [
        each
        for position, each in enumerate(usable)
        if not each.call.attempt or last[_attempt(each)] == position
    ]


def _attempt(each: _Usable) -> tuple[str, str, str, str]:
    call = each.call
    return call.thread_id, call.site, call.attempt, each.question


def _first_of_each(usable: Iterable[_Usable]) -> list[_Usable]:
    """Drop repetitions of the same whole context and answer at the same site."""
    first: dict[tuple[str, str], _Usable] = {}
    for each in usable:
        first.setdefault((each.call.site, each.identity), each)
    return list(first.values())


def _shared_requests(distinct: Iterable[_Usable]) -> dict[tuple[str, str], set[str]]:
    """Return site and question of requests of several threads, with those threads."""
    first: dict[tuple[str, str], str] = {}
    shared: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for each in distinct:
        thread, question = each.call.thread_id, (each.call.site, each.question)
        if first.setdefault(question, thread) != thread:
            shared[question] |= {first[question], thread}
    return shared


def _joined_threads(
    threads: Iterable[str], shared: Mapping[tuple[str, str], set[str]]
) -> dict[str, str]:
    """Return each thread's group, named by its smallest thread id.

    Threads with an identical request at a site are one group, the rarest requests
    first, as long as the group stays within its limit.
    """
    root = {thread: thread for thread in threads}
    size = dict.fromkeys(root, 1)
    limit = max(MIN_JOINED, int(len(root) * MAX_JOINED_SHARE))
    for _, askers in sorted(shared.items(), key=lambda item: (len(item[1]), item[0])):
        roots = {_root(root, thread) for thread in askers}
        total = sum(size[each] for each in roots)
        if total <= limit:
            group = min(roots)
            root.update(dict.fromkeys(roots, group))
            size[group] = total
    return {thread: _root(root, thread) for thread in root}


def _root(root: dict[str, str], thread: str) -> str:
    """Return the group of `thread`, shortening the way to it (union-find)."""
    while root[thread] != thread:
        root[thread] = root[root[thread]]
        thread = root[thread]
    return thread


def _homes(
    shared: Mapping[tuple[str, str], set[str]],
    splits: Mapping[str, SplitName],
    seed: int,
) -> dict[tuple[str, str], SplitName]:
    """Return the one split that each shared request may be in: the leak check.

    It is the split of one of its threads, drawn without regard to answers, so that
    a common request is neither always trained on nor always tested.
    """
    return {
        question: splits[min(threads, key=lambda t: (_position(seed, "home", t), t))]
        for question, threads in shared.items()
    }


def _at_home(
    each: _Usable,
    homes: Mapping[tuple[str, str], SplitName],
    splits: Mapping[str, SplitName],
) -> bool:
    own = splits[each.call.thread_id]
    return homes.get((each.call.site, each.question), own) == own


def _example(each: _Usable, split: SplitName) -> Example:
    call = each.call
    return Example(
        example_id=content_hash([call.site, call.thread_id, each.identity]),
        site=call.site,
        thread_id=call.thread_id,
        split=split,
        model=call.model,
        provider=call.provider,
        request=call.request,
        answer=each.answer,
    )
