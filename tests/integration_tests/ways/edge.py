"""The endpoint that all apps call: it knows who asked which model, from where."""

import re
import threading
from collections import Counter, defaultdict

from integration_tests.misbehaving import Body, Reply, refusal
from integration_tests.schema_server import Said, SchemaServer

_SITE = re.compile(r"Site <(.*?)>")
_RUN = re.compile(r"Bergen (\d+)")
Asked = Counter[tuple[str, str]]


class Edge(SchemaServer):
    """Counts requests by site and model, for each run; a plain answer is signed.

    A model whose name begins with "down" is not available.
    """

    def __init__(self) -> None:
        super().__init__()
        self._runs = 0
        self._counting = threading.Lock()
        self._asked: defaultdict[int, Asked] = defaultdict(Counter)

    def question(self) -> tuple[int, str]:
        """Return the number of a run, and what only that run asks."""
        with self._counting:
            self._runs += 1
            return self._runs, f'What is the weather in "Bergen {self._runs}"?'

    def asked_in(self, run: int) -> Asked:
        """Return how often a run asked which model at which site."""
        with self._counting:
            return Counter(self._asked[run])

    def _reply_to(self, number: int, asked: Body) -> Reply:
        said = str(asked["messages"])
        run, site = _RUN.search(said), _SITE.search(said)
        key = site[1] if site else "?", asked["model"]
        with self._counting:
            self._asked[int(run[1]) if run else 0][key] += 1
        if asked["model"].startswith("down"):
            return refusal(503, Connection="close")
        return super()._reply_to(number, asked)

    def _answer(self, asked: Body) -> Said:
        said = super()._answer(asked)
        is_plain = not (said.calls or asked.get("response_format"))
        return Said(f"{asked['model']} says: {said.text}") if is_plain else said
