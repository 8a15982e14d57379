"""One request: the bound model first, the reference when its answer breaks its contract.

`Cascade` says who is asked next, judges, marks, and counts. After a chunk has reached the
app a failure is a `BrokenStreamError`, never a second answer glued to the first. All that
is asked for one request shares its attempts, its deadline and its dollars; the clients'
own retries are switched off, and the reference is asked again in their place.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from langchain_slm.errors import (
    BrokenStreamError,
    BudgetExceededError,
    DeadlineExceededError,
    EndpointError,
    IncompleteAnswerError,
    SLMError,
)
from langchain_slm.routing import allowance, asking, dialect
from langchain_slm.routing.asking import Ask, Result
from langchain_slm.routing.bill import Bill
from langchain_slm.routing.counters import Decided
from langchain_slm.routing.dialect import METADATA_KEY
from langchain_slm.routing.engine import Callee
from langchain_slm.routing.failures import (
    is_callers_fault,
    is_transient,
    is_typed,
    named,
    status_of,
    wait_s,
)
from langchain_slm.routing.holding import NOTHING_HELD, hold
from langchain_slm.routing.policy import Complete, Contract, is_truncated
from langchain_slm.routing.redacting import scrub_error
from langchain_slm.routing.turn import Turn, merged

if TYPE_CHECKING:
    from langchain_slm.routing.route import Route

logger = logging.getLogger(__name__)
COMPLETE = Complete()
LONGEST_PAUSE_S = 600.0  # before another try of a request without a deadline
REMEDIES = {
    "attempts used up": "raise `max_attempts`, or retry in fewer layers",
    "circuit open": "its endpoint failed again and again: see to it, or retry later",
    "spend limit": "give `prices` for it or raise the limit",
}


class Cascade:
    """One request from its first try to its answer or its failure.

    Attributes:
        settled: The app has its answer.
    """

    def __init__(self, route: Route, ask: Ask, *, streamed: bool = False) -> None:
        self._route, self._ask, self._streamed = route, ask, streamed
        self._engine = route.engine
        self._began, self._began_s = time.monotonic(), time.time()
        self._allowance = allowance.take(
            self._engine.limits, ask.place, ask.messages, self._began
        )
        self._target: Callee | None = route.bound  # None once it has been asked
        self._reference: Callee | None = None
        self._last: Turn | None = None
        self._asked: dict[str, int] = {}
        self._tries = 0
        self._bound_asked = False
        self._bill = Bill(self._engine, ask, self._allowance)
        self._mistake: Exception | None = None  # of the reference's last try
        self._failure: Exception | None = None
        self._marked = False
        self.settled = False
        self.reason: str | None = None
        self._contract = route.plain
        if self._target is not None:
            provider = self._target.provider
            self._contract, why = asking.contract(ask, route.plain, provider)
            if why is not None:
                self._refuse(why)

    @property
    def failure(self) -> Exception:
        """What reaches the app in the place of an answer."""
        return self._failure or SLMError("a request ended without an answer")

    # Who is asked next

    def next_turn(self) -> Turn | None:
        """Return the next try; None when the request is settled or has failed."""
        if self.settled or self._failure is not None:
            return None
        if (target := self._target) is not None:
            self._target = None
            if self._may_ask(target):
                self._last = self._turn_of_target(target)
                return self._last
            if self._failure is not None:
                return None
        turn = self._turn_of_reference()
        self._last = turn or self._last  # who was asked last
        return turn

    def _may_ask(self, target: Callee) -> bool:
        if self.reason is not None:  # pinned to its provider
            return False
        why = self._barred(target)
        if why is None and target.breaker is not None and not target.breaker.allows():
            why = "circuit open"
        if why is None:
            return True
        self._refuse(why)
        if not self._route.policy.escalates:
            late = why == "time used up"
            error = DeadlineExceededError("") if late else self._used_up(target, why)
            self._failure = self._final(error, target)
        return False

    def _barred(self, callee: Callee) -> str | None:
        """Return which limit keeps the bound model from being asked."""
        left = self._allowance
        if callee.is_remote:
            if left.deadline is not None and self._began >= left.deadline:
                return "time used up"
            # The last attempt is the reference's: nobody stands behind it.
            escalates = self._route.policy.escalates
            kept = 1 if escalates and self._engine.limits.max_attempts > 1 else 0
            if left.attempts <= kept:
                return "attempts used up"
        limit = self._engine.forbids(callee, self._ask, self._allowance.usd)
        if limit is not None and limit.at_limit == "refuse":
            return "spend limit"
        return None

    def _turn_of_target(self, target: Callee) -> Turn:
        policy = self._route.policy
        limit = self._allowance.deadline if target.is_remote else None
        if limit is not None and policy.escalates:
            # The other half is the reference's.
            limit = self._began + (limit - self._began) / 2
        held = NOTHING_HELD
        if not self._ask.direct:
            held = hold(self._ask.config.get("callbacks"), active=policy.escalates)
        return Turn(
            target,
            is_bound=True,
            policy=policy,
            contract=self._contract,
            held=held,
            limit=limit,
            last_limit=self._allowance.deadline if target.is_remote else None,
            wait_s=0.0,
            most_chunks=self._engine.limits.max_chunks,
            show=self._show,
        )

    def _turn_of_reference(self) -> Turn | None:
        reference = self._reference
        if reference is None:
            stated = dialect.stated_name(self._ask.options)
            reference = self._engine.reference(self._ask.source, stated)
            self._reference = reference
        pause_s = self._pause_s(reference)
        if pause_s is None:
            return None
        direct_policy = COMPLETE if self._ask.direct else None
        finish = reference.states_finish
        return Turn(
            reference,
            is_bound=False,
            policy=direct_policy,
            contract=Contract(finish_reason_required=finish),
            held=NOTHING_HELD,
            limit=self._allowance.deadline if reference.is_remote else None,
            wait_s=pause_s,
            most_chunks=self._engine.limits.max_chunks,
            show=self._show,
        )

    def _pause_s(self, reference: Callee) -> float | None:
        """Return how long to wait before the reference is asked; None for never again."""
        mistake, deadline = self._mistake, self._allowance.deadline
        error = self._end_of_tries(reference)
        if error is None:
            pause_s = 0.0
            if mistake is not None:
                spread = random.random()  # noqa: S311 - no secret
                pause_s = wait_s(mistake, self._tries - 1, spread=spread)
            # Without a deadline nobody waits as long as a server may ask for.
            until = time.monotonic() + LONGEST_PAUSE_S if deadline is None else deadline
            if time.monotonic() + pause_s < until:
                return pause_s
            error = mistake or DeadlineExceededError("")
        self._failure = self._final(error, reference)
        return None

    def _end_of_tries(self, reference: Callee) -> Exception | None:
        """Return why the reference is not asked (again); None where it may be."""
        mistake = self._mistake
        if mistake is not None:
            tries = None if self._ask.direct else reference.tries
            if not is_transient(mistake) or self._tries == tries:
                return mistake
        if reference.is_remote and self._allowance.attempts <= 0:
            return mistake or self._used_up(reference, "attempts used up")
        limit = self._engine.forbids(reference, self._ask, self._allowance.usd)
        return None if limit is None else self._used_up(reference, "spend limit")

    def _used_up(self, callee: Callee, what: str) -> BudgetExceededError:
        site = self._route.site
        before = self._before() if callee is self._reference else None
        said = f"; {before}" if before else ""
        if (failure := self._allowance.failure) is not None:
            said += f"; the request failed before: {failure}"
        msg = f"site {site!r}: {what}: {callee.name} is not asked{said}; {REMEDIES[what]}"
        return BudgetExceededError(msg, site=site, model=callee.name, limit=what)

    def _before(self) -> str | None:
        """Return what became of the bound model; None where it is not known yet."""
        if self.reason is None:
            return None
        how = "was asked before" if self._bound_asked else "was not asked"
        return f"{self._route.name} {how}: {self.reason}"

    # How it is asked

    def asked(self, turn: Turn, original: Callable[[Ask], Result]) -> Result:
        """Return the whole answer of the model whose turn it is."""
        self._begin(turn)
        return asking.answer(self._ask, turn, original)

    async def aasked(
        self, turn: Turn, original: Callable[[Ask], Awaitable[Result]]
    ) -> Result:
        """Return the whole answer of the model whose turn it is."""
        self._begin(turn)
        return await asking.aanswer(self._ask, turn, original)

    def streamed(
        self, turn: Turn, original: Callable[[Ask], Iterator[BaseMessage]]
    ) -> Iterator[BaseMessage]:
        """Return the chunks of the model whose turn it is."""
        self._begin(turn)
        return asking.chunks(self._ask, turn, original)

    def astreamed(
        self, turn: Turn, original: Callable[[Ask], AsyncIterator[BaseMessage]]
    ) -> AsyncIterator[BaseMessage]:
        """Return the chunks of the model whose turn it is."""
        self._begin(turn)
        return asking.achunks(self._ask, turn, original)

    def _begin(self, turn: Turn) -> None:
        callee, turn.begun = turn.callee, True
        if callee.is_remote:
            self._allowance.attempts -= 1
            self._asked[callee.name] = self._asked.get(callee.name, 0) + 1
        if turn.is_bound:
            self._bound_asked = True
        else:
            self._tries += 1

    # What came of it

    def accepts(self, turn: Turn, result: Result) -> bool:
        """Whether a whole answer is the app's; marks it if so."""
        message = asking.message_of(result)
        if message is None:
            if turn.judged:
                self._reject(turn, "no answer")
            else:
                self._settle(turn)
            return self.settled
        # Tokens that a listener was sent show tool arguments as they came: of a message
        # made of them LangChain repairs what was cut.
        heard = turn.held.chunks() if turn.held is not NOTHING_HELD else ()
        self._bill.charge(turn, message)
        why = turn.objection(merged(heard) if heard else message)
        if why is not None:
            self._reject(turn, why)
            return False
        if turn.is_bound and (added := dialect.restore(message, self._ask.options)):
            message.additional_kwargs = {**message.additional_kwargs, **added}
        self._settle(turn)
        self._show(message)
        turn.held.release()
        return True

    def completed(self, turn: Turn) -> Iterator[BaseMessage]:
        """Yield what is still due to the app, now that a stream has ended.

        Raises:
            BrokenStreamError: If chunks were given away of an answer that is no good.
        """
        if not turn.chunks:
            if turn.judged:
                self._reject(turn, "no answer")
            else:
                self._settle(turn)
            return
        whole = turn.whole()
        self._bill.charge(turn, whole)
        why = turn.objection(whole)
        if why is None and turn.judged and dialect.is_mended(whole):
            why = "incomplete (the arguments of a tool call)"
        cut = turn.is_open and is_truncated(dialect.answer_of(whole))
        if why is None:
            added = self._restored(turn, whole)
            self._settle(turn)
            yield from () if turn.is_open else turn.open()
            yield from added
            yield from self._priced(whole)
        elif not turn.is_open:
            self._reject(turn, why)
        elif cut:
            # The app may have set the limit itself, and sees the provider's reason.
            logger.info("site %r: %s: %s", self._route.site, turn.callee.name, why)
            self._settle(turn)
            yield _note(whole, reason=why)
            yield from self._priced(whole)
        else:
            turn.report(works=True)
            raise self._broken(turn, why)

    def _restored(self, turn: Turn, whole: AIMessage) -> list[BaseMessage]:
        """Return the chunk that adds what the source's parser looks for, if any."""
        added = dialect.restore(whole, self._ask.options) if turn.is_bound else {}
        if added and isinstance(whole, AIMessageChunk):
            return [AIMessageChunk(content="", id=whole.id, additional_kwargs=added)]
        whole.additional_kwargs.update(added)
        return []

    def _priced(self, whole: AIMessage) -> Iterator[BaseMessage]:
        # Of a stream the cost is known at its end only.
        if self._bill.usd is not None:
            yield _note(whole, usd=self._bill.usd)

    def failed(self, turn: Turn, error: Exception) -> None:
        """Take note that a try failed."""
        self.settled = False
        if turn.begun:  # else it waited for its turn until it was too late
            self._bill.waste(turn, error)
            turn.report(works=turn.charged or is_callers_fault(error))
        broken = error if isinstance(error, BrokenStreamError) else None
        if turn.is_bound and not self._route.policy.escalates:
            self._failure = self._final(error, turn.callee)
        elif turn.is_open or broken:
            self._failure = broken or self._broken(turn, named(error), error)
        elif not turn.is_bound:
            self._mistake = error
        else:
            self._refuse(named(error))

    def _reject(self, turn: Turn, why: str) -> None:
        self._bill.waste(turn)
        turn.report(works=True)
        if turn.is_bound:
            self._refuse(why)
            return
        site, name = self._route.site, turn.callee.name
        msg = f"site {site!r}: the answer of {name} is {why}; retry the call"
        self._mistake = IncompleteAnswerError(msg, site=site, model=name, reason=why)

    def _refuse(self, why: str) -> None:
        self.reason = why
        logger.info("site %r: %s escalated: %s", self._route.site, self._route.name, why)

    def _settle(self, turn: Turn) -> None:
        self.settled = True
        turn.report(works=True)

    def _broken(
        self, turn: Turn, why: str, cause: Exception | None = None
    ) -> BrokenStreamError:
        site, name = self._route.site, turn.callee.name
        msg = (
            f"site {site!r}: the stream of {name} failed after chunks had been released: "
            f"{why}; retry the call"
        )
        error = BrokenStreamError(msg, site=site, model=name, reason=why)
        if cause is not None:
            error.__cause__ = scrub_error(cause, turn.callee.secrets)
        return error

    def _final(self, error: Exception, callee: Callee) -> Exception:
        """Return what the app gets to see of a failure."""
        site, name = self._route.site, callee.name
        clean = scrub_error(error, callee.secrets)
        fields = {"site": site, "model": name, "status": status_of(error)}
        if isinstance(error, DeadlineExceededError):
            limit_s = self._engine.limits.deadline_s
            said = f" ({error})" if error.fields else ""  # of the model's own limits
            msg = f"site {site!r}: {name} did not answer within {limit_s} s{said}"
            final: Exception = DeadlineExceededError(msg, **fields, limit=limit_s)
        elif clean is error and (is_typed(error) or not self._ask.direct):
            final = error
        else:
            msg = (
                f"site {site!r}: {name} does not answer as a chat model: {named(error)}; "
                "check its base_url and what serves it"
            )
            final = EndpointError(msg, **fields)
            final.__cause__ = clean
        if callee is self._reference and (before := self._before()) is not None:
            final.add_note(before)
        return final

    # What is said of it

    def _show(self, message: BaseMessage) -> None:
        """Say in a message, or in the first chunk of one, who answers and why."""
        turn, route = self._last, self._route
        if self._marked or turn is None:
            return
        self._marked = True
        inner: Any = {}
        if turn.callee.is_router:  # it says which of its models answered
            inner = message.response_metadata.get(METADATA_KEY) or inner
        message.response_metadata = {
            **message.response_metadata,
            METADATA_KEY: {
                "site": route.site,
                "task": route.task,
                "model": inner.get("model", turn.callee.name),
                "provider": inner.get("provider", turn.callee.provider),
                "bound": route.name,
                "rule": route.rule,
                "plan": route.plan,
                "escalated": self._escalated(turn),
                "reason": self.reason,
                "attempts": sum(self._asked.values()),
                "usd": self._bill.usd if self.settled else None,
                "failed_usd": self._bill.failed_usd,
            },
        }

    def _escalated(self, turn: Turn) -> bool:
        return self._route.bound is not None and not turn.is_bound

    def ended(self) -> None:
        """Count the request; keep what it has left where it may be made again."""
        turn, route = self._last, self._route
        self._last = None  # it shows messages by a method of this object: a cycle
        error: type[BaseException] | None = None
        if self._failure is not None:
            error = type(self._failure)
            self._allowance.failure = self._allowance.failure or named(self._failure)
            allowance.leave(self._allowance, self._ask.place, self._ask.messages)
        elif not self.settled:  # cancelled, or left
            raised = sys.exc_info()[1] or self.failure
            error = type(raised)
            if isinstance(raised, asyncio.CancelledError):  # a node's time-out, say
                allowance.leave(self._allowance, self._ask.place, self._ask.messages)
            if turn is not None and turn.begun:
                self._bill.waste(turn, raised)
        reason = self.reason
        if reason is None and self._failure is not None:
            reason = named(self._failure)
        reference = turn.callee if turn is not None else self._reference or route.bound
        self._engine.ended(
            Decided(
                site=route.site,
                task=route.task,
                model=reference.name if reference else "",
                provider=reference.provider if reference else "",
                bound=route.name,
                rule=route.rule,
                plan=route.plan,
                escalated=turn is not None and self._escalated(turn),
                reason=reason,
                error=None if error is None else error.__name__,
                asked=self._asked,
                usd=self._bill.usd,
                failed_usd=self._bill.failed_usd,
                input_tokens=self._bill.usage.input_tokens if self.settled else None,
                output_tokens=self._bill.usage.output_tokens if self.settled else None,
                started_s=self._began_s,
                latency_s=time.monotonic() - self._began,
                streamed=self._streamed,
            )
        )


def _note(whole: AIMessage, **said: Any) -> AIMessageChunk:
    """Return a chunk that adds to what the first one says."""
    return AIMessageChunk(content="", id=whole.id, response_metadata={METADATA_KEY: said})
