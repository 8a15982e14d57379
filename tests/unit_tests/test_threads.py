"""The opt-in for threads of the standard library."""

import asyncio
import gc
import math
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from unit_tests.fake_chat import FakeChat
from unit_tests.watching import one_node

from langchain_slm import open_store, record, rewrite
from langchain_slm.rewriting.scopes import SCOPE


def said(text):
    return FakeChat(model_name=text, reply=lambda _: text)


def _thread(ask):
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    return found


class Own(threading.Thread):
    def __init__(self, ask):
        super().__init__()
        self.ask, self.found = ask, []

    def run(self):
        self.found.append(self.ask())


def _own_thread(ask):
    thread = Own(ask)
    thread.start()
    thread.join()
    return thread.found


def _pool(ask):
    with ThreadPoolExecutor(2) as pool:
        return [pool.submit(ask).result()]


def _pool_map(ask):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: ask(), range(1)))


def _timer(ask):
    found = []
    timer = threading.Timer(0, lambda: found.append(ask()))
    timer.start()
    timer.join()
    return found


def _thread_in_thread(ask):
    found = []
    _thread(lambda: found.extend(_thread(ask)))
    return found


def _loops_executor(ask):
    async def main():
        return [await asyncio.get_running_loop().run_in_executor(None, ask)]

    return asyncio.run(main())


WAYS = [
    _thread,
    _own_thread,
    _pool,
    _pool_map,
    _timer,
    _thread_in_thread,
    _loops_executor,
]


def graph_of(way, model):
    return one_node(lambda state: {"log": way(lambda: model.invoke("x").text)}).compile()


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_of_a_node_calls_its_model_where_that_is_asked_for(way):
    reference, slm = said("reference"), said("slm")
    graph = graph_of(way, reference)
    reached = rewrite(graph, {"node": slm}, hooks=["threads"])
    assert reached.invoke({"text": ""})["log"] == ["slm"]
    assert reference.asked == []
    # Not asked for: the limit that the documentation states.
    assert rewrite(graph, {"node": slm}).invoke({"text": ""})["log"] == ["reference"]
    assert graph.invoke({"text": ""})["log"] == ["reference"]


async def test_async_nodes_reach_executors_too():
    reference, slm = said("reference"), said("slm")

    async def node(state):
        loop = asyncio.get_running_loop()
        return {"log": [(await loop.run_in_executor(None, reference.invoke, "x")).text]}

    reached = rewrite(one_node(node).compile(), {"node": slm}, hooks=["threads"])
    assert (await reached.ainvoke({"text": ""}))["log"] == ["slm"]


def test_a_worker_that_a_node_starts_keeps_no_scope():
    reference, slm = said("reference"), said("slm")
    with ThreadPoolExecutor(1) as pool:
        graph = one_node(
            lambda state: {"log": [pool.submit(reference.invoke, "x").result().text]}
        ).compile()
        reached = rewrite(graph, {"node": slm}, hooks=["threads"])
        assert reached.invoke({"text": ""})["log"] == ["slm"]
        assert pool.submit(SCOPE.get).result() is None
        assert pool.submit(reference.invoke, "x").result().text == "reference"


def test_calls_in_threads_are_recorded(tmp_path):
    graph = graph_of(_pool, said("reference"))
    url = f"sqlite:///{tmp_path}/slm.db"
    record(graph, url, hooks=["threads"]).invoke({"text": ""})
    with open_store(url) as store:
        assert [(each.site, each.calls) for each in store.sites()] == [("node", 1)]


def test_the_apps_own_context_does_not_travel():
    own = ContextVar("own", default="default")
    seen = []

    def node(state):
        own.set("of the node")
        _thread(lambda: seen.append(own.get()))

    rewrite(one_node(node).compile(), {}, hooks=["threads"]).invoke({"text": ""})
    assert seen == ["default"]


def test_the_threads_are_as_they_were_when_the_last_copy_has_gone():
    gc.collect()
    before = threading.Thread.start, ThreadPoolExecutor.submit
    copy = rewrite(one_node(lambda state: None).compile(), {}, hooks=["threads"])
    assert threading.Thread.start is not before[0]
    del copy
    gc.collect()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == before


@pytest.mark.parametrize("hooks", ["threads", ["thread"], [1]])
def test_a_hook_that_there_is_not_is_refused(hooks):
    with pytest.raises(ValueError, match="hooks are a collection of"):
        rewrite(one_node(lambda state: None).compile(), {}, hooks=hooks)


def test_a_thread_that_has_ended_is_as_it_was():
    threads = []

    def node(state):
        threads.extend([threading.Thread(), threading.Thread()])
        threads[1].run = own
        for thread in threads:
            thread.start()
            thread.join()
            with pytest.raises(RuntimeError, match="once"):
                thread.start()

    ran = []
    own = lambda: ran.append(SCOPE.get() is not None)  # noqa: E731
    rewrite(one_node(node).compile(), {}, hooks=["threads"]).invoke({"text": ""})
    assert ran == [True]
    assert "run" not in vars(threads[0])
    assert threads[1].run is own


def test_process_pools_work_as_before():
    context = multiprocessing.get_context("spawn")

    def node(state):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return {"log": [str(pool.submit(math.sqrt, 9).result(timeout=60))]}

    reached = rewrite(one_node(node).compile(), {}, hooks=["threads"])
    assert reached.invoke({"text": ""})["log"] == ["3.0"]
