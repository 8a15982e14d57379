"""Ask candidates what the reference was asked, and judge their answers.

Answers are cached by content, so that an experiment that was killed repeats only the
calls that were in flight. A candidate is asked in batches from look to look, in the
order of its examples, and stops when the evidence decides. An endpoint's trouble is
retried, then counts as the candidate's failure and is reported apart; a wrong key or an
endpoint that nobody listens on ends the experiment. Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.utils import convert_to_messages
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_slm.economics import call_usd
from langchain_slm.errors import EndpointError
from langchain_slm.evaluation.evaluators import Evaluator
from langchain_slm.recording.store import CachedAnswer
from langchain_slm.routing.dialect import answer_of
from langchain_slm.schema import (
    Binding,
    Example,
    JsonObject,
    ModelSpec,
    Outcome,
    Request,
    content_hash,
)
from langchain_slm.selection import LOOK_EVERY, MIN_PAIRS, LookName

logger = logging.getLogger(__name__)
REFUSED = frozenset({401, 403})
TRANSIENT = frozenset({408, 409, 425, 429})
SERVER_ERROR = 500


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
    """

    name: str
    binding: Binding
    model: BaseChatModel

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


@dataclass(frozen=True, slots=True)
class Settings:
    """How an experiment asks.

    Attributes:
        concurrency: Calls in flight at the same time, over all candidates.
        attempts: Tries of a call that meets an endpoint's trouble.
        timeout_s: Wall-clock limit of one try.
        first_wait_s: Longest wait before the second try; doubles from then on.
    """

    concurrency: int = 16
    attempts: int = 4
    timeout_s: float = 60.0
    first_wait_s: float = 0.5


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


Progress = Callable[[str, int, int], None]  # candidate, pairs done, pairs at most


@dataclass
class Experiment:
    """Runs candidates over examples.

    Attributes:
        cache: Where paid answers are kept.
        settings: How it asks.
        counters: What it has done.
    """

    cache: AnswerCache
    settings: Settings = field(default_factory=Settings)
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.concurrency)

    async def run(
        self,
        candidate: Candidate,
        examples: Sequence[Example],
        *,
        reference: ModelSpec,
        evaluator_of: Callable[[Example], Evaluator],
        stop: Callable[[int, int, int], LookName] = lambda *_: "open",
        progress: Progress = lambda *_: None,
    ) -> list[Outcome]:
        """Return one outcome per example asked, in the order of `examples`.

        Args:
            candidate: Who is asked.
            examples: What to ask, in a random order that is fixed beforehand.
            reference: Who gave the recorded answers, for its price.
            evaluator_of: Judges the answers to an example, the reference's likewise.
            stop: Given n, b and c at each look; anything but "open" ends the run.
            progress: Told after each batch.

        Raises:
            EndpointError: If the endpoint refuses the key, does not know the model, or
                cannot be reached.
        """
        outcomes: list[Outcome] = []
        while len(outcomes) < len(examples):
            size = LOOK_EVERY if outcomes else MIN_PAIRS
            batch = examples[len(outcomes) : len(outcomes) + size]
            outcomes += await asyncio.gather(
                *(
                    self._outcome(candidate, each, reference, evaluator_of(each))
                    for each in batch
                )
            )
            progress(candidate.name, len(outcomes), len(examples))
            lost = sum(o.reference_passed and not o.candidate_passed for o in outcomes)
            won = sum(o.candidate_passed and not o.reference_passed for o in outcomes)
            if stop(len(outcomes), lost, won) != "open":
                break
        return outcomes

    async def _outcome(
        self,
        candidate: Candidate,
        example: Example,
        reference: ModelSpec,
        evaluator: Evaluator,
    ) -> Outcome:
        passed = evaluator.evaluate(example, example.answer).passed
        reference_usd = call_usd(reference, example.answer.usage)
        got = await self._answer(candidate, example.request)
        if isinstance(got, _Failed) or got.answer is None:
            return Outcome(
                example_id=example.example_id,
                reference_passed=passed,
                candidate_passed=False,
                usd=0.0,  # a failed request is not charged
                reference_usd=reference_usd,
                reason=got.error or "no answer",
                infrastructure_error=isinstance(got, _Failed) and got.endpoint,
            )
        usd = call_usd(candidate.binding.model, got.answer.usage)
        if got.answer.abstained:
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
        verdict = evaluator.evaluate(example, got.answer)
        return Outcome(
            example_id=example.example_id,
            reference_passed=passed,
            candidate_passed=verdict.passed,
            usd=usd,
            reference_usd=reference_usd,
            reason=verdict.reason,
        )

    async def _answer(
        self, candidate: Candidate, request: Request
    ) -> CachedAnswer | _Failed:
        key = candidate.key(request)
        kept = self.cache.cached_answer(key)
        if kept is not None:
            self.counters.cached += 1
            return kept
        async with self._slots:
            got = await self._ask(candidate, request)
        # A failure is not kept: the endpoint may be well again at the next run.
        if isinstance(got, CachedAnswer):
            self.cache.cache_answer(key, got)
        return got

    async def _ask(
        self, candidate: Candidate, request: Request
    ) -> CachedAnswer | _Failed:
        self.counters.asked += 1
        started_s = time.perf_counter()
        settings = self.settings
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(settings.attempts),
                wait=wait_random_exponential(multiplier=settings.first_wait_s, max=20),
                retry=retry_if_exception(is_transient),
                reraise=True,
            ):
                with attempt:
                    self.counters.retried += attempt.retry_state.attempt_number > 1
                    async with asyncio.timeout(settings.timeout_s):
                        message = await _invoke(candidate.model, request)
        except Exception as error:  # noqa: BLE001 - malformed bodies raise anything
            _raise_if_hopeless(candidate, error)
            return _Failed(_shown(error), endpoint=is_transient(error))
        answer = answer_of(message)
        self.counters.usd += call_usd(candidate.binding.model, answer.usage) or 0.0
        latency_s = time.perf_counter() - started_s
        return CachedAnswer(answer=answer, error=None, latency_s=latency_s)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A call without an answer: by the endpoint's trouble, or the candidate's own."""

    error: str
    endpoint: bool


def _shown(error: Exception) -> str:
    status = status_of(error)
    name = type(error).__name__
    return name if status is None else f"{name} (HTTP {status})"


async def _invoke(model: BaseChatModel, request: Request) -> AIMessage:
    options: JsonObject = dict(request.parameters)
    if request.tools:
        options["tools"] = list(request.tools)
    if request.tool_choice is not None:
        options["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        options["response_format"] = request.response_format
    return await model.ainvoke(convert_to_messages(list(request.messages)), **options)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of a client reports."""
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    if isinstance(status, int):
        return status
    # ChatNVIDIA raises plain exceptions that begin with "[404] Not Found".
    found = re.match(r"\[(\d{3})\]", str(error))
    return int(found.group(1)) if found else None


def _is_unreachable(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    if "APITimeoutError" in names or isinstance(error, TimeoutError):
        return False
    return bool(names & {"APIConnectionError", "ConnectionError", "ClientConnectorError"})


def is_transient(error: BaseException) -> bool:
    """Whether the endpoint may answer if asked again."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT or status >= SERVER_ERROR
    names = {cls.__name__ for cls in type(error).__mro__}
    clients = {"APIConnectionError", "ClientError", "RequestException", "TransportError"}
    return isinstance(error, TimeoutError | OSError) or bool(names & clients)


def _raise_if_hopeless(candidate: Candidate, error: Exception) -> None:
    spec = candidate.binding.model
    status = status_of(error)
    where = spec.base_url or f"the endpoint of {spec.provider}"
    if status in REFUSED:
        key = spec.api_key_env or "no key variable is named: add api_key_env"
        msg = f"{candidate.name}: {where} refuses the key (HTTP {status}; {key})"
        raise EndpointError(msg, candidate=candidate.name, status=status) from None
    if status is not None and _is_unknown_model(error):
        msg = (
            f"{candidate.name}: {where} does not know the model {spec.model!r} "
            f"(HTTP {status}); check `model` in the catalogue"
        )
        raise EndpointError(msg, candidate=candidate.name, status=status) from None
    if _is_unreachable(error):
        msg = (
            f"{candidate.name}: {where} cannot be reached ({type(error).__name__}); "
            "start the endpoint or correct base_url. Answers so far are kept"
        )
        raise EndpointError(msg, candidate=candidate.name) from None


def _is_unknown_model(error: Exception) -> bool:
    return getattr(error, "code", None) == "model_not_found" or (
        "model_not_found" in str(error)
    )
