"""A plan file that is replaced while its models are called."""

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from unit_tests.planned import decision, plan

from langchain_slm import Router
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.schema import Binding, ModelSpec
from langchain_slm.specialization.heads import Head, save_head

SITE = "node"
PROMPT = "hello"
AT_MOST_S = 600.0


class Plans:
    """Plan after plan in one file; the k-th binds the site to a head that says `m-k`.

    A head answers in process, so that calls take microseconds. An answer that is not the
    bound label would escalate: `ref` has no business here either.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "slm-plan.json"
        self.models: dict[str, str] = {}  # by the id of their plan
        self.write(0)

    def write(self, number: int) -> None:
        """Replace the file."""
        name = f"m-{number}"
        binding = Binding(
            model=ModelSpec(name=name, provider="head", model=name),
            artefact=save_head(_head(name), self.path.parent),
            labels=(name,),
        )
        coming = plan(decision(SITE, name, binding=binding)).sealed()
        self.newest = coming.content_hash[:12]
        self.models[self.newest] = name  # before anyone can answer by it
        write_plan(coming, self.path)

    def is_whole(self, answer: BaseMessage) -> bool:
        """Whether an answer, its model and its plan belong together."""
        about = answer.response_metadata["langchain_slm"]
        model = self.models[about["plan"]]
        return (answer.text, about["model"], about["bound"]) == (model, model, model)


def _head(label: str) -> Head:
    return Head(
        labels=(label, "other"),
        vocabulary=(PROMPT,),
        idf=(1.0,),
        weights=((9.0,), (-9.0,)),
        bias=(0.0, 0.0),
        threshold=0.5,
        trained_on=1,
        training_hash="made",
    )


class Reloads:
    """Makes `calls` or more, while the plan is replaced `reloads` times between them.

    `plans` counts the answers of each plan, and `mixed` those of two.
    """

    def __init__(self, plans: Plans, router: Router, *, calls: int, reloads: int) -> None:
        self.plans: Counter[str] = Counter()
        self.mixed = 0
        self.calls = 0
        self.reloads = 0
        self._plans, self._router = plans, router
        self._calls, self._reloads = calls, reloads
        self._lock = threading.Lock()
        self._until = time.monotonic() + AT_MOST_S

    def of_threads(self, model: BaseChatModel, at_a_time: int = 8) -> None:
        """Make the calls."""

        def caller() -> None:
            while self._goes_on():
                self._check(model.invoke(PROMPT))
                if self._is_ahead():
                    time.sleep(0.001)

        with ThreadPoolExecutor(at_a_time + 1) as pool:
            made = [pool.submit(caller) for _ in range(at_a_time)]
            for ended in [pool.submit(self._replace), *made]:
                ended.result()

    def of_tasks(self, model: BaseChatModel, at_a_time: int = 64) -> None:
        """Make the calls."""

        async def caller() -> None:
            while self._goes_on():
                self._check(await model.ainvoke(PROMPT))
                await asyncio.sleep(0.001 if self._is_ahead() else 0)

        async def all_of_them() -> None:
            callers = (caller() for _ in range(at_a_time))
            await asyncio.gather(asyncio.to_thread(self._replace), *callers)

        asyncio.run(all_of_them())

    def _goes_on(self) -> bool:
        is_due = self.calls < self._calls or self.reloads < self._reloads
        return is_due and time.monotonic() < self._until

    def _is_ahead(self) -> bool:
        """Whether the calls of the coming reload have been made already."""
        due = (self.reloads + 2) * self._calls / self._reloads
        return self.reloads < self._reloads and self.calls > due

    def _check(self, answer: BaseMessage) -> None:
        is_whole = self._plans.is_whole(answer)
        with self._lock:
            self.calls += 1
            self.mixed += not is_whole
            self.plans[answer.response_metadata["langchain_slm"]["plan"]] += 1

    def _replace(self) -> None:
        """Replace the plan after every so many calls, and see to it that it is loaded."""
        for number in range(1, self._reloads + 1):
            while self.calls < number * self._calls / self._reloads and self._goes_on():
                time.sleep(0.0005)
            self._plans.write(number)
            if number % 2:
                self._router.refresh()
            while self._router.plan_id != self._plans.newest and self._goes_on():
                time.sleep(0.0005)  # a call looks at the file
            self.reloads = number
