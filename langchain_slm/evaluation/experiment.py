"""Ask candidates what the reference was asked, and judge their answers.

Answers are cached by content, so that an experiment that was killed repeats only the
calls that were in flight. A candidate is asked in batches from look to look, in the
order of its examples, and stops when the evidence decides. An endpoint's trouble is
retried, then counts as the candidate's failure and is reported apart; a refused key, an
unknown model and an endpoint that nobody listens on end the experiment. Decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from langchain_core.language_models import BaseChatModel
from langchain_core.messages.utils import convert_to_messages
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.wait import wait_base

from langchain_slm.economics import call_usd
from langchain_slm.evaluation.evaluators import Evaluator
from langchain_slm.evaluation.trouble import (
    TOO_MANY,
    hopeless,
    is_transient,
    retry_after_s,
    shown,
    status_of,
)
from langchain_slm.recording.store import CachedAnswer
from langchain_slm.routing.dialect import (
    REPORTS_FINISH_REASON,
    answer_of,
    in_dialect_of,
    provider_name,
)
from langchain_slm.schema import (
    Answer,
    Binding,
    Example,
    JsonObject,
    ModelSpec,
    Outcome,
    Request,
    content_hash,
)
from langchain_slm.selection import LOOK_EVERY, MAX_PAIRS, MIN_PAIRS, LookName

T = TypeVar("T")
Stop = Callable[[int, int, int], LookName]  # n, lost pairs (b), won pairs (c)
Progress = Callable[[str, int, int], None]  # candidate, pairs done, pairs at most
_Locks = WeakValueDictionary[str, asyncio.Lock]


class AnswerCache(Protocol):
    """Keeps answers that were paid for."""

    def cached_answer(self, key: str) -> CachedAnswer | None:
        """Return the answer kept under `key`."""

    def cache_answer(self, key: str, value: CachedAnswer) -> None:
        """Keep an answer durably."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may take the reference's place.

    Attributes:
        name: Its name in the plan.
        binding: How to reach it again.
        model: The chat model itself.
        built_from: Threads that its prompts, thresholds or weights were chosen on; none
            of them may be evidence for it.
    """

    name: str
    binding: Binding
    model: BaseChatModel
    built_from: frozenset[str] = frozenset()

    def key(self, request: Request) -> str:
        """Return the cache key of its answer to `request`: all that decides it."""
        spec = self.binding.model
        artefact = self.binding.artefact
        identity = [
            spec.provider,
            spec.model,
            spec.base_url,
            artefact and artefact.sha256,
        ]
        return content_hash([identity, request.model_dump(mode="json")])


class Unanswered(Outcome):
    """The outcome of a call without an answer: its reason names an error, no content."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an experiment asks.

    Attributes:
        concurrency: Calls in flight at the same time, over all candidates, at least 1.
        attempts: Tries of a call that meets an endpoint's trouble, at least 1.
        timeout_s: Wall-clock limit of one try. A client may have a shorter one.
        first_wait_s: Longest wait before the second try; doubles from then on.
        rate_limit_wait_s: Wait after a 429 that names none, on top: limits are counted
            per minute.
        longest_wait_s: As far as an endpoint's Retry-After is honoured.

    Raises:
        ValueError: If one of them is outside its range.
    """

    concurrency: int = 16
    attempts: int = 4
    timeout_s: float = 60.0
    first_wait_s: float = 0.5
    rate_limit_wait_s: float = 10.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        waits = (self.first_wait_s, self.rate_limit_wait_s, self.longest_wait_s)
        if min(self.concurrency, self.attempts) < 1 or self.timeout_s <= 0:
            msg = (
                "needs concurrency >= 1, attempts >= 1 and timeout_s > 0, "
                f"not {self.concurrency}, {self.attempts} and {self.timeout_s}"
            )
            raise ValueError(msg)
        if min(waits) < 0:
            msg = f"a wait must be at least 0 s, not {min(waits)}"
            raise ValueError(msg)


@dataclass(slots=True)
class Counters:
    """What an experiment has done so far.

    Attributes:
        asked: Calls that went to a candidate.
        cached: Answers that were there already.
        retried: Tries after an endpoint's trouble.
        usd: Spent on calls whose price is known.
    """

    asked: int = 0
    cached: int = 0
    retried: int = 0
    usd: float = 0.0


@dataclass
class Experiment:
    """Runs candidates over examples, within one event loop.

    The answer of the reference to an example is judged once, whoever is compared.

    Attributes:
        cache: Where paid answers are kept.
        settings: How it asks.
        counters: What it has done.
    """

    cache: AnswerCache
    settings: Settings = field(default_factory=Settings)
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        settings = self.settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._locks: _Locks = WeakValueDictionary()
        self._reference_passed: dict[tuple[str, str], bool] = {}
        self._tries = AsyncRetrying(
            stop=stop_after_attempt(settings.attempts),
            wait=wait_random_exponential(
                multiplier=settings.first_wait_s, max=settings.longest_wait_s
            )
            + _AskedFor(settings),
            retry=retry_if_exception(is_transient),
            reraise=True,
        )

    async def run(
        self,
        candidate: Candidate,
        examples: Sequence[Example],
        *,
        reference: ModelSpec,
        evaluator_of: Callable[[Example], Evaluator],
        stop: Stop | None = None,
        progress: Progress = lambda *_: None,
    ) -> list[Outcome]:
        """Return one outcome per example asked, in the order of `examples`.

        Args:
            candidate: Who is asked.
            examples: What to ask, in a random order that is fixed beforehand.
            reference: Who gave the recorded answers, for its price.
            evaluator_of: Judges the answers to an example, the reference's likewise.
            stop: Given n, b and c at each look; anything but "open" ends the run.
                Without it every example is asked.
            progress: Told after each answer.

        Raises:
            EndpointError: If the endpoint refuses the key, does not know the model, or
                cannot be reached.
        """
        done = 0

        async def outcome_of(example: Example) -> Outcome:
            nonlocal done
            evaluator = evaluator_of(example)
            outcome = await self._outcome(candidate, example, reference, evaluator)
            done += 1
            progress(candidate.name, done, len(examples))
            return outcome

        outcomes: list[Outcome] = []
        while len(outcomes) < len(examples):
            size = _until_look(len(outcomes)) if stop else MAX_PAIRS
            batch = examples[len(outcomes) : len(outcomes) + size]
            outcomes += await together(outcome_of(example) for example in batch)
            if stop and _look(outcomes, stop) != "open":
                break
        return outcomes

    async def _outcome(
        self,
        candidate: Candidate,
        example: Example,
        reference: ModelSpec,
        evaluator: Evaluator,
    ) -> Outcome:
        passed = self._passed(example, evaluator)
        got = await self._answer(candidate, example.request)
        reference_usd = call_usd(reference, example.answer.usage)
        if isinstance(got, _Failed):
            return Unanswered(
                example_id=example.example_id,
                reference_passed=passed,
                candidate_passed=False,
                usd=0.0,  # errors are not charged; what a time-out cost nobody says
                reference_usd=reference_usd,
                reason=got.error,
                infrastructure_error=got.endpoint,
            )
        usd = call_usd(candidate.binding.model, got.usage)
        if got.abstained:
            both = None if usd is None or reference_usd is None else usd + reference_usd
            return Outcome(
                example_id=example.example_id,
                reference_passed=passed,
                candidate_passed=passed,
                usd=both,
                reference_usd=reference_usd,
                reason="abstained: the reference answered",
                escalated=True,
            )
        verdict = evaluator.evaluate(example, got)
        labels = candidate.binding.labels
        # At run time any other text is refused, however near an evaluator finds it.
        outside = bool(labels) and got.text not in labels
        return Outcome(
            example_id=example.example_id,
            reference_passed=passed,
            candidate_passed=verdict.passed and not outside,
            usd=usd,
            reference_usd=reference_usd,
            reason="label outside the closed set" if outside else verdict.reason,
        )

    def _passed(self, example: Example, evaluator: Evaluator) -> bool:
        key = (example.example_id, evaluator.name)
        if key not in self._reference_passed:
            verdict = evaluator.evaluate(example, example.answer)
            self._reference_passed[key] = verdict.passed
        return self._reference_passed[key]

    async def _answer(self, candidate: Candidate, request: Request) -> Answer | _Failed:
        key = candidate.key(request)
        # Where the same is being asked already, wait for that answer.
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = self.cache.cached_answer(key)
            if kept is not None and kept.answer is not None:
                self.counters.cached += 1
                return kept.answer
            started_s = time.perf_counter()
            async with self._slots:
                got = await self._ask(candidate, request)
            # A failure is not kept: the endpoint may be well again at the next run.
            # Nothing is awaited from the answer to here: no cancellation loses it.
            if isinstance(got, Answer):
                latency_s = time.perf_counter() - started_s
                value = CachedAnswer(answer=got, error=None, latency_s=latency_s)
                self.cache.cache_answer(key, value)
        return got

    async def _ask(self, candidate: Candidate, request: Request) -> Answer | _Failed:
        self.counters.asked += 1
        try:
            answer = await self._tried(candidate.model, request)
        except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
            if ended := hopeless(error, candidate.binding.model):
                raise ended from None
            return _Failed(shown(error), endpoint=is_transient(error))
        self.counters.usd += call_usd(candidate.binding.model, answer.usage) or 0.0
        if answer.finish_reason is None and _owes_finish_reason(candidate.model):
            # ChatNVIDIA makes an empty message of a body that is no completion.
            return _Failed("no completion (no finish_reason)", endpoint=False)
        return answer

    async def _tried(self, model: BaseChatModel, request: Request) -> Answer:
        """Ask until there is an answer, an error of its own, or no try left.

        The first try is made outside of tenacity, which costs 50 us.
        """
        try:
            return await self._once(model, request)
        except Exception as error:  # noqa: BLE001 - clients share no exceptions
            first = error
        async for attempt in self._tries.copy():
            with attempt:
                if attempt.retry_state.attempt_number == 1:
                    raise first
                self.counters.retried += 1
                return await self._once(model, request)
        raise first  # not reached: tenacity returns or raises

    async def _once(self, model: BaseChatModel, request: Request) -> Answer:
        # As a router will ask it: a candidate is judged on what it is asked then.
        options = in_dialect_of(model, _options(request))
        async with asyncio.timeout(self.settings.timeout_s):
            messages = convert_to_messages(list(request.messages))
            return answer_of(await model.ainvoke(messages, **options))


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results in order; where one fails, none of the others goes on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


@dataclass(frozen=True, slots=True)
class _Failed:
    """A call without an answer: by the endpoint's trouble, or the candidate's own."""

    error: str
    endpoint: bool


@dataclass(frozen=True, slots=True)
class _AskedFor(wait_base):
    """What the endpoint asks to wait, within bounds."""

    settings: Settings

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if error is None:
            return 0.0
        asked_s = retry_after_s(error)
        if asked_s is None:
            limited = status_of(error) == TOO_MANY
            return self.settings.rate_limit_wait_s if limited else 0.0
        return min(asked_s, self.settings.longest_wait_s)


def _until_look(n: int) -> int:
    """Pairs from `n`, which is 0 or a look, to the next look."""
    return LOOK_EVERY if n else MIN_PAIRS


def _look(outcomes: Sequence[Outcome], stop: Stop) -> LookName:
    lost = sum(o.reference_passed and not o.candidate_passed for o in outcomes)
    won = sum(o.candidate_passed and not o.reference_passed for o in outcomes)
    return stop(len(outcomes), lost, won)


def _owes_finish_reason(model: BaseChatModel) -> bool:
    return provider_name(model) in REPORTS_FINISH_REASON


def _options(request: Request) -> JsonObject:
    options: JsonObject = dict(request.parameters)
    if request.tools:
        options["tools"] = list(request.tools)
    if request.tool_choice is not None:
        options["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        options["response_format"] = request.response_format
    return options
