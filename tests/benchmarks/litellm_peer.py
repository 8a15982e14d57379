"""What `routing.py --litellm` runs in LiteLLM's environment: calls, on demand.

Reads `[setup, mode, calls, prompt]` per line, writes `[cpu_us, wall_us]` of each call or
chunk, measured as in `routing.py`. Needs nothing but LiteLLM.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import litellm

CHUNKS = 100
IN_FLIGHT = 64
CALLS_PER_STREAM = 20
WARM_CALLS = 3

Ask = Callable[..., Any]


def _asks(url: str) -> dict[str, tuple[Ask, Ask]]:
    """Return the synchronous and the asynchronous way to ask, by setup."""
    where = {"api_base": url, "api_key": "any", "max_retries": 0}
    parameters = {"model": "openai/small", **where}
    router = litellm.Router(
        [{"model_name": "small", "litellm_params": parameters}], num_retries=0
    )

    def completion(**asked: Any) -> Any:
        return litellm.completion(**parameters, **asked)

    def acompletion(**asked: Any) -> Awaitable[Any]:
        return litellm.acompletion(**parameters, **asked)

    def routed(**asked: Any) -> Any:
        return router.completion(model="small", **asked)

    def arouted(**asked: Any) -> Awaitable[Any]:
        return router.acompletion(model="small", **asked)

    return {
        "litellm.completion": (completion, acompletion),
        "litellm.Router": (routed, arouted),
    }


def _sync(ask: Ask, calls: int, prompt: Any) -> int:
    for _ in range(calls):
        ask(messages=prompt)
    return calls


def _stream(ask: Ask, calls: int, prompt: Any) -> int:
    streams = max(1, calls // CALLS_PER_STREAM)
    for _ in range(streams):
        for _chunk in ask(messages=prompt, stream=True):
            pass
    return streams * CHUNKS


async def _async(ask: Ask, calls: int, prompt: Any) -> int:
    for _ in range(calls):
        await ask(messages=prompt)
    return calls


async def _in_flight(ask: Ask, calls: int, prompt: Any) -> int:
    del calls
    await asyncio.gather(*(ask(messages=prompt) for _ in range(IN_FLIGHT)))
    return IN_FLIGHT


async def _astream(ask: Ask, calls: int, prompt: Any) -> int:
    streams = max(1, calls // CALLS_PER_STREAM)
    for _ in range(streams):
        async for _chunk in await ask(messages=prompt, stream=True):
            pass
    return streams * CHUNKS


SYNC = {"sync": _sync, "stream": _stream}
ASYNC = {"async": _async, "64 in flight": _in_flight, "astream": _astream}


def main() -> None:
    results, sys.stdout = sys.stdout, sys.stderr  # LiteLLM prints advice
    asks = _asks(sys.argv[1])
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            setup, mode, calls, prompt = json.loads(line)
            sync, asynchronous = asks[setup]
            if mode == "sync":
                _sync(sync, WARM_CALLS, prompt)
            elif mode == "async":
                runner.run(_async(asynchronous, WARM_CALLS, prompt))
            started = time.perf_counter(), time.process_time()
            if mode in SYNC:
                units = SYNC[mode](sync, calls, prompt)
            else:
                units = runner.run(ASYNC[mode](asynchronous, calls, prompt))
            wall = time.perf_counter() - started[0]
            cpu = time.process_time() - started[1]
            print(json.dumps([cpu / units * 1e6, wall / units * 1e6]), file=results)
            results.flush()


if __name__ == "__main__":
    main()
