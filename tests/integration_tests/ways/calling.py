"""How a node calls its model: wrapped, streamed, in batches, at once, in threads."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from integration_tests.ways.way import Way, one_node, prompt, weather
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import (
    ContextThreadPoolExecutor,
    get_executor_for_config,
    run_in_executor,
)
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI


def with_retry():
    llm = ChatOpenAI(model="gpt-large").with_retry(stop_after_attempt=2)

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def with_config():
    llm = ChatOpenAI(model="gpt-large").with_config(
        tags=["mine"], metadata={"app": "desk"}, run_name="answer"
    )

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def with_fallbacks():
    llm = ChatOpenAI(model="gpt-large").with_fallbacks([ChatOpenAI(model="gpt-spare")])

    def node(state):
        return {"messages": [llm.invoke(prompt(state))]}

    return Way(one_node(node))


def with_all_of_them_async():
    llm = (
        ChatOpenAI(model="gpt-large")
        .with_retry(stop_after_attempt=2)
        .with_config(tags=["mine"])
        .with_fallbacks([ChatOpenAI(model="gpt-spare")])
    )

    async def node(state):
        return {"messages": [await llm.ainvoke(prompt(state))]}

    return Way(one_node(node), is_async=True)


def replaced_metadata():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        return {"messages": [llm.invoke(prompt(state), {"metadata": {"mine": 1}})]}

    return Way(one_node(node))


def batch():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        return {"messages": llm.batch([prompt(state)] * 3, {"max_concurrency": 2})}

    return Way(one_node(node))


def batch_as_completed():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        answers = dict(llm.batch_as_completed([prompt(state)] * 2))
        return {"messages": [answers[0], answers[1]]}

    return Way(one_node(node))


def abatch():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        return {"messages": await llm.abatch([prompt(state)] * 2)}

    return Way(one_node(node), is_async=True)


def abatch_as_completed():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        answered = llm.abatch_as_completed([prompt(state)] * 2)
        return {"messages": [message async for _, message in answered]}

    return Way(one_node(node), is_async=True)


def stream():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        return {"messages": ["".join(chunk.text for chunk in llm.stream(prompt(state)))]}

    return Way(one_node(node))


def astream():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        texts = [chunk.text async for chunk in llm.astream(prompt(state))]
        return {"messages": ["".join(texts)]}

    return Way(one_node(node), is_async=True)


def streams_switched_off():
    llm = ChatOpenAI(model="gpt-large", disable_streaming=True)

    def node(state):
        return {"messages": ["|".join(chunk.text for chunk in llm.stream(prompt(state)))]}

    return Way(one_node(node))


def streams_switched_off_async():
    llm = ChatOpenAI(model="gpt-large", streaming=False)

    async def node(state):
        return {"messages": [await llm.ainvoke(prompt(state))]}

    return Way(one_node(node), is_async=True)


def stream_that_is_left():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        async with aclosing(llm.astream(prompt(state))) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    return {"messages": [chunk.text]}
        return None

    return Way(one_node(node), is_async=True)


def astream_events():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        texts = [
            event["data"]["chunk"].text
            async for event in llm.astream_events(prompt(state), version="v2")
            if event["event"] == "on_chat_model_stream"
        ]
        return {"messages": ["".join(texts)]}

    return Way(one_node(node), is_async=True)


def generate():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        found = llm.generate([prompt(state), prompt(state)])
        return {"messages": [each[0].message for each in found.generations]}

    return Way(one_node(node))


def generator_node():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        text = ""
        for chunk in llm.stream(prompt(state)):
            text += chunk.text
        yield {"messages": [text]}

    return Way(one_node(node))


def generator_node_async():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        text = ""
        async for chunk in llm.astream(prompt(state)):
            text += chunk.text
        yield {"messages": [text]}

    return Way(one_node(node), is_async=True)


def gather():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        calls = [llm.ainvoke(prompt(state)) for _ in range(3)]
        return {"messages": await asyncio.gather(*calls)}

    return Way(one_node(node), is_async=True)


def create_task():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        first = asyncio.create_task(llm.ainvoke(prompt(state)))
        async with asyncio.TaskGroup() as group:
            second = group.create_task(llm.ainvoke(prompt(state)))
        return {"messages": [await first, second.result()]}

    return Way(one_node(node), is_async=True)


def thread_with_the_context():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        with ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            said = pool.submit(context.run, llm.invoke, prompt(state)).result()
        return {"messages": [said]}

    return Way(one_node(node))


def thread_with_the_config():
    llm = ChatOpenAI(model="gpt-large")

    def node(state, config: RunnableConfig):
        said = []
        ask = threading.Thread(
            target=lambda: said.append(llm.invoke(prompt(state), config))
        )
        ask.start()
        ask.join()
        return {"messages": said}

    return Way(one_node(node))


def threads_of_langchain():
    llm = ChatOpenAI(model="gpt-large")

    def node(state, config: RunnableConfig):
        with ContextThreadPoolExecutor(2) as pool:
            said = list(pool.map(llm.invoke, [prompt(state)] * 2))
        with get_executor_for_config(config) as pool:
            return {"messages": [*said, pool.submit(llm.invoke, prompt(state)).result()]}

    return Way(one_node(node))


def thread_of_asyncio():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state, config: RunnableConfig):
        first = await asyncio.to_thread(llm.invoke, prompt(state))
        second = await run_in_executor(config, llm.invoke, prompt(state))
        return {"messages": [first, second]}

    return Way(one_node(node), is_async=True)


def loop_in_a_synchronous_node():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        with asyncio.Runner() as runner:
            return {"messages": [runner.run(llm.ainvoke(prompt(state)))]}

    def anywhere(state):
        with ContextThreadPoolExecutor(1) as pool:  # the caller may have a loop
            return pool.submit(node, state).result()

    return Way(one_node(anywhere))


def loop_of_another_thread():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asked = asyncio.run_coroutine_threadsafe(llm.ainvoke(prompt(state)), loop)
        said = asked.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        return {"messages": [said]}

    return Way(one_node(node))


WAYS = [
    with_retry,
    with_config,
    with_fallbacks,
    with_all_of_them_async,
    replaced_metadata,
    batch,
    batch_as_completed,
    abatch,
    abatch_as_completed,
    stream,
    astream,
    streams_switched_off,
    streams_switched_off_async,
    stream_that_is_left,
    astream_events,
    generate,
    generator_node,
    generator_node_async,
    gather,
    create_task,
    thread_with_the_context,
    thread_with_the_config,
    threads_of_langchain,
    thread_of_asyncio,
    loop_in_a_synchronous_node,
    loop_of_another_thread,
]


# Where the app's first model is down.


def fallback_of_a_model():
    llm = ChatOpenAI(model="down-large", max_retries=0)
    both = llm.with_fallbacks([ChatOpenAI(model="gpt-spare")])

    def node(state):
        return {"messages": [both.invoke(prompt(state))]}

    return Way(one_node(node), {"node": ("down-large", "gpt-spare")})


def fallback_of_a_chain():
    llm = ChatOpenAI(model="down-large", max_retries=0).bind_tools([weather])
    spare = ChatOpenAI(model="gpt-spare").bind_tools([weather])
    chain = RunnableLambda(prompt) | llm.with_fallbacks([spare])
    node = chain | (lambda said: {"messages": [said]})
    return Way(one_node(node), {"node": ("down-large", "gpt-spare")})


FALLING_BACK = [fallback_of_a_model, fallback_of_a_chain]


# Out of reach: these calls keep the app's own model.


def bare_thread():
    llm = ChatOpenAI(model="gpt-large")

    def node(state):
        with ThreadPoolExecutor(1) as pool:
            return {"messages": [pool.submit(llm.invoke, prompt(state)).result()]}

    return Way(one_node(node))


def bare_executor_of_asyncio():
    llm = ChatOpenAI(model="gpt-large")

    async def node(state):
        loop = asyncio.get_running_loop()
        said = await loop.run_in_executor(None, llm.invoke, prompt(state))
        return {"messages": [said]}

    return Way(one_node(node), is_async=True)


def _raw(state):
    roles = {"system": "system", "human": "user"}
    said = [{"role": roles[m.type], "content": m.text} for m in prompt(state)]
    return {"model": "gpt-large", "messages": said}


def raw_sdk():
    client = OpenAI()

    def node(state):
        said = client.chat.completions.create(**_raw(state))
        return {"messages": [said.choices[0].message.content]}

    return Way(one_node(node))


def raw_sdk_async():
    client = AsyncOpenAI()

    async def node(state):
        stream = await client.chat.completions.create(**_raw(state), stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return {"messages": ["".join(said)]}

    return Way(one_node(node), is_async=True)


OUT_OF_REACH = [bare_thread, bare_executor_of_asyncio, raw_sdk, raw_sdk_async]
