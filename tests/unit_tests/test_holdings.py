"""What is found of the models that a node calls, one way of holding them at a time."""

import asyncio
import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import openai
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware
from langchain.chat_models import init_chat_model
from langchain_core.language_models import FakeListLLM
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import BaseTool, StructuredTool, tool
from langchain_openai import ChatOpenAI
from langgraph.func import task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.pregel.remote import RemoteGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, PrivateAttr
from unit_tests.fake_chat import FakeChat

from langchain_slm.inspection.holdings import Holdings
from langchain_slm.inspection.sources import Sources
from langchain_slm.loading.graphs import load

PROMPT = ChatPromptTemplate.from_messages([("human", "{text}")])
big = FakeChat(model_name="big")
small = FakeChat(model_name="small")
models = {"big": big, "small": small}
chain = PROMPT | big
holder = SimpleNamespace(inside=SimpleNamespace(llm=big))
client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:1")


class Answer(BaseModel):
    text: str


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return "sunny"


@tool
def ask_big(question: str) -> str:
    """Ask a model."""
    return big.invoke(question).content


def read(runnable):
    reader = Holdings(Sources())
    reader.read(runnable)
    return reader


def found(runnable):
    return [
        ("/".join(each.inner), each.model, each.confidence, each.how)
        for each in read(runnable).found
    ]


def only(runnable):
    """Return the one holding that is found."""
    (holding,) = read(runnable).found
    return holding


CERTAIN_BIG = ("", "big", "certain")


def module_global(state):
    return big.invoke(state)


async def module_global_async(state):
    return await big.ainvoke(state)


def of_a_chain(state):
    return (PROMPT | big | str).invoke(state)


def chain_global(state):
    return chain.invoke(state)


def attributes_of_a_global(state):
    return holder.inside.llm.invoke(state)


def chosen_by_key(state):
    return models["big"].invoke(state)


def returned(state):
    return PROMPT | big


def piped_by_a_method(state):
    return PROMPT.pipe(big).invoke(state)


def in_a_lambda(state):
    ask = lambda text: [big.invoke(text)]  # noqa: E731 - as apps do
    return ask(state)


def streamed(state):
    yield from big.stream(state)


async def streamed_async(state):
    async for chunk in big.astream(state):
        yield chunk


def passed_to_a_helper(state):
    return helper(big, state)


def helper(llm, text):
    return llm.invoke(text)


def given_by_a_helper(state):
    return get_model().invoke(state)


def get_model(name=None):
    return big if name is None else models[name]


@functools.lru_cache
def cached_model():
    return big


def given_by_a_cache(state):
    return cached_model().invoke(state)


def assigned_twice(state):
    llm = small
    llm = big
    return llm.invoke(state)


def in_a_comprehension(state):
    return [llm.invoke(state) for llm in [big]]


def unpacked(state):
    _, llm = ("text", big)
    return llm.invoke(state)


async def gathered(state):
    return await asyncio.gather(*[big.ainvoke(each) for each in state])


async def in_a_task(state):
    return await asyncio.create_task(big.ainvoke(state))


async def by_reference(state):
    return await asyncio.to_thread(big.invoke, state)


def default_argument(state, llm=big):
    return llm.invoke(state)


def in_a_match(state):
    match state:
        case {"text": text}:
            return big.invoke(text)
        case _:
            return None


def in_a_handler(state):
    try:
        return state["text"]
    except KeyError:
        return big.invoke("")
    finally:
        state.clear()


def in_a_group_handler(state):
    try:
        return state["text"]
    except* KeyError:
        big.invoke("")


def in_a_context(state):
    with using(big) as llm:
        return llm.invoke(state)


@functools.wraps(helper)
def using(llm):
    yield llm


def by_getattr(state):
    return getattr(holder.inside, "llm").invoke(state)  # noqa: B009 - as apps do


def enumerated(state):
    return [llm.invoke(number) for number, llm in enumerate([big])]


def in_the_items(state):
    return {name: llm.invoke(state) for name, llm in {"a": big}.items()}


GLOBAL = ("module global",)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (module_global, GLOBAL),
        (module_global_async, GLOBAL),
        (of_a_chain, ("module global", "step of a chain")),
        (chain_global, ("module global", "step of a chain")),
        (attributes_of_a_global, GLOBAL),
        (chosen_by_key, GLOBAL),
        (returned, ("module global", "step of a chain")),
        (piped_by_a_method, ("module global", "step of a chain")),
        (in_a_lambda, GLOBAL),
        (streamed, GLOBAL),
        (streamed_async, GLOBAL),
        (passed_to_a_helper, GLOBAL),
        (given_by_a_cache, GLOBAL),
        (assigned_twice, GLOBAL),
        (in_a_comprehension, GLOBAL),
        (unpacked, GLOBAL),
        (gathered, GLOBAL),
        (in_a_task, GLOBAL),
        (by_reference, GLOBAL),
        (default_argument, ("default argument",)),
        (in_a_match, GLOBAL),
        (in_a_handler, GLOBAL),
        (in_a_group_handler, GLOBAL),
        (in_a_context, GLOBAL),
        (by_getattr, GLOBAL),
        (enumerated, GLOBAL),
        (in_the_items, GLOBAL),
    ],
)
def test_a_model_of_a_function_is_found_and_certain(function, how):
    holding = only(function)
    assert (holding.model, holding.confidence, holding.how) == ("big", "certain", how)
    assert (holding.class_name, holding.provider) == ("FakeChat", "fake-chat")
    assert holding.where[0].partition(":")[0].endswith("unit_tests/test_holdings.py")


def test_all_models_that_may_be_chosen_are_found():
    assert [each[1] for each in found(given_by_a_helper)] == ["big", "small"]

    def by_a_name_of_the_state(state):
        return models[state["name"]].invoke(state)

    def by_a_branch(state):
        llm = big if state["hard"] else small
        return llm.invoke(state)

    def in_a_loop(state):
        llm = big
        while state:
            llm.invoke(state)
            llm = small

    for function in (by_a_name_of_the_state, by_a_branch, in_a_loop):
        assert {each[1] for each in found(function)} == {"big", "small"}


def test_a_model_that_is_only_looked_at_is_not_called():
    def looks(state):
        print(big.model_name, big)  # noqa: T201 - as apps do
        return isinstance(big, FakeChat), len(models), big.get_num_tokens

    assert found(looks) == []


def test_a_closure_and_a_partial_are_told_apart():
    llm = big

    def closure(state):
        return llm.invoke(state)

    bound = functools.partial(helper, big)
    by_name = functools.partial(helper, llm=big)
    assert found(closure) == [(*CERTAIN_BIG, ("closure",))]
    assert found(bound) == [(*CERTAIN_BIG, ("partial",))]
    assert found(functools.partial(by_name, text="x")) == [(*CERTAIN_BIG, ("partial",))]


class Desk:
    shared = small

    def __init__(self):
        self.llm = big
        self.chain = PROMPT | big
        self.agents = {"x": SimpleNamespace(llm=big)}
        self._lazy = None

    def own(self, state):
        return self.llm.invoke(state)

    def of_chain(self, state):
        return self.chain.invoke(state)

    def of_class(self, state):
        return self.shared.invoke(state)

    def deep(self, state):
        return self.agents["x"].llm.invoke(state)

    def helped(self, state):
        return self._ask(state)

    def _ask(self, text):
        return self.llm.invoke(text)

    def lazy(self, state):
        if self._lazy is None:
            self._lazy = ChatOpenAI(model="gpt-lazy")
        return self._lazy.invoke(state)

    @property
    def model(self):
        raise AssertionError

    @functools.cached_property
    def other(self):
        return self.llm

    def of_property(self, state):
        return self.other.invoke(state)

    @staticmethod
    def static(state):
        return big.invoke(state)

    @classmethod
    def of_the_class(cls, state):
        return cls.shared.invoke(state)

    def __call__(self, state):
        return self.llm.invoke(state)


SELF = ("attribute of self",)


def test_a_model_of_an_object_is_found():
    desk = Desk()
    assert found(desk) == [(*CERTAIN_BIG, SELF)]
    for method in (desk.own, desk.deep, desk.helped, desk.of_property):
        assert found(method) == [(*CERTAIN_BIG, SELF)]
    assert found(desk.of_chain) == [(*CERTAIN_BIG, (*SELF, "step of a chain"))]
    assert found(desk.of_class) == [("", "small", "certain", SELF)]
    assert found(desk.static) == [(*CERTAIN_BIG, GLOBAL)]
    assert [each[1] for each in found(desk.of_the_class)] == ["small"]
    assert [each[1:3] for each in found(desk.lazy)] == [("gpt-lazy", "probable")]


class Better(Desk):
    def own(self, state):
        return super().own(state)

    def static(self, state):
        return super().static(state), super().gone(state)


def test_the_method_of_a_class_above_is_followed():
    assert found(Better().own) == [(*CERTAIN_BIG, SELF)]
    assert found(Better().static) == [(*CERTAIN_BIG, GLOBAL)]


def test_a_bound_method_that_calls_is_a_call():
    ask = chain.invoke

    def node(state):
        return ask(state)

    assert found(big.invoke) == [(*CERTAIN_BIG, ())]
    assert found(chain.ainvoke) == [(*CERTAIN_BIG, ("step of a chain",))]
    assert found(node) == [(*CERTAIN_BIG, ("step of a chain",))]


class Slotted:
    __slots__ = ("empty", "llm")

    def __init__(self):
        self.llm = big

    def ask(self, state):
        return (self.llm or self.empty).invoke(state)


class Private(BaseModel):
    _llm: FakeChat = PrivateAttr(default_factory=lambda: big)

    def ask(self, state):
        return self._llm.invoke(state)


@pytest.mark.parametrize("kind", [Slotted, Private])
def test_a_model_in_a_slot_or_a_private_attribute_is_found(kind):
    assert found(kind().ask) == [(*CERTAIN_BIG, SELF)]


class Trap:
    """Fails, or acts, as soon as anything of it is looked at the usual way."""

    acted = 0

    def __init__(self):
        vars(self)["llm"] = big

    def __getattr__(self, name):
        Trap.acted += 1
        raise AssertionError

    def __eq__(self, other):
        Trap.acted += 1
        raise AssertionError

    __hash__ = None

    def __bool__(self):
        Trap.acted += 1
        raise AssertionError

    def __iter__(self):
        Trap.acted += 1
        raise AssertionError

    def __len__(self):
        Trap.acted += 1
        raise AssertionError

    @property
    def __class__(self):
        Trap.acted += 1
        raise AssertionError

    @property
    def model(self):
        Trap.acted += 1
        return big

    def ask(self, state):
        return self.llm.invoke(state), self.model.invoke(state), self.gone.invoke(state)


trap = Trap()


def test_nothing_of_an_object_is_run():
    def node(state):
        for each in trap:
            each.invoke(state)
        return trap.llm.invoke(state), trap.gone.x, trap["x"], {**trap}, [*trap], trap()

    ask = Trap.ask.__get__(trap)
    Trap.acted = 0  # pytest looks at what a module holds
    read_property = (*CERTAIN_BIG, (*GLOBAL, *SELF))
    assert found(ask) == [(*CERTAIN_BIG, SELF), read_property]
    assert found(node) == [(*CERTAIN_BIG, GLOBAL)]
    assert found(functools.partial(helper, trap)) == []
    assert Trap.acted == 0


def test_a_cycle_and_a_recursion_end():
    def even(state):
        return odd(state)

    def odd(state):
        big.invoke(state)
        return even(state)

    ring = RunnableLambda(lambda state: ring)
    assert found(even) == [(*CERTAIN_BIG, GLOBAL)]
    assert found(ring) == []
    desk = Desk()
    desk.chain = desk
    assert found(desk.own) == [(*CERTAIN_BIG, SELF)]


def test_more_code_than_is_read_is_said(tmp_path):
    calls = [f"def f{n}(x):\n    f{n + 1}(x), f{n + 1}(x), f{n + 1}(x)" for n in range(8)]
    path = tmp_path / "many.py"
    path.write_text("\n".join([*calls, "def f8(x): ..."]))
    node = load(f"{path}:f0")
    assert read(node).exhausted
    assert not read(module_global).exhausted


def test_without_a_text_what_the_code_names_is_only_probable():
    names = {"big": big, "small": small, "limit": 3}
    exec("def node(state):\n    return big.invoke(state) if limit else 0", names)  # noqa: S102 - a REPL's
    holding = only(names["node"])
    assert (holding.model, holding.confidence) == ("big", "probable")
    assert "source is not at hand" in holding.reason


@pytest.mark.parametrize(
    ("runnable", "models_and_hows"),
    [
        (big, [("big", ("the node itself",))]),
        (PROMPT | big, [("big", ("step of a chain",))]),
        (RunnableParallel(a=big, b=small), [("big", ("step of a chain",)),
                                            ("small", ("step of a chain",))]),
        (RunnablePassthrough.assign(a=big), [("big", ("step of a chain",))]),
        (big.with_retry(), [("big", ())]),
        (big.with_config(tags=["x"]), [("big", ())]),
        (big.with_fallbacks([small]), [("big", ()), ("small", ("fallback",))]),
        (RunnableBranch((module_global, small), PROMPT),
         [("big", GLOBAL), ("small", ("step of a chain",))]),
        (RunnableLambda(module_global, module_global_async), [("big", GLOBAL)]),
        (RunnableGenerator(streamed), [("big", GLOBAL)]),
        (big.map(), [("big", ())]),
        (big.configurable_alternatives(ConfigurableField("x"), other=small),
         [("big", ("configurable",)), ("small", ("configurable",))]),
        (RunnableLambda(lambda state: chain), [("big", ("module global",
                                                        "step of a chain"))]),
    ],
)  # fmt: skip
def test_runnables_are_taken_apart(runnable, models_and_hows):
    holdings = read(runnable).found
    assert [(each.model, each.how) for each in holdings] == models_and_hows
    assert {each.confidence for each in holdings} == {"certain"}


def test_what_is_bound_is_named():
    llm = ChatOpenAI(model="gpt", api_key="x")

    def structured(state):
        return llm.with_structured_output(Answer).invoke(state)

    def bound(state):
        return llm.bind_tools([weather, Answer], tool_choice="any").invoke(state)

    for runnable in (structured, llm.with_structured_output(Answer)):
        assert only(runnable).options.response_format == "Answer"
    forced = only(bound).options
    assert (forced.tools, forced.forced) == (("weather", "Answer"), True)
    free = only(llm.bind_tools([weather, Answer])).options
    assert (free.tools, free.forced) == (("weather", "Answer"), False)
    assert only(llm.bind(model="other")).model == "other"
    by_method = only(llm.with_structured_output(Answer, method="function_calling"))
    assert by_method.options.response_format == "Answer"


def test_a_model_that_a_config_chooses_is_configurable():
    llm = init_chat_model("openai:gpt-x", configurable_fields=("model",))
    holding = only(llm.bind_tools([weather]))
    assert (holding.model, holding.provider) == ("gpt-x", "openai")
    assert holding.how == ("configurable",)
    assert holding.options.tools == ("weather",)
    assert holding.confidence == "certain"


def test_a_model_made_in_the_function_is_probable():
    def by_class(state):
        return ChatOpenAI(model="gpt-a").bind_tools([weather]).invoke(state)

    def by_name(state):
        return init_chat_model("anthropic:claude-b").invoke(state)

    def by_config(state, config: RunnableConfig):
        name = config["configurable"].get("model", "x")
        return init_chat_model(name, temperature=0).invoke(state)

    def by_context(state, runtime: Runtime[Answer]):
        return ChatOpenAI(model=runtime.context.text).invoke(state)

    def unloaded(state):
        from langchain_mistralai import ChatMistralAI  # noqa: PLC0415 - not installed

        return ChatMistralAI(model="mistral-c").invoke(state)

    seen = [
        (each.class_name, each.provider, each.model, each.how)
        for function in (by_class, by_name, by_config, by_context, unloaded)
        for each in read(function).found
    ]
    made = "made in the function"
    assert seen == [
        ("ChatOpenAI", "openai", "gpt-a", (made,)),
        ("init_chat_model", "anthropic", "claude-b", (made,)),
        ("init_chat_model", None, None, (made, "from config")),
        ("ChatOpenAI", "openai", None, (made, "from the run's context")),
        ("ChatMistralAI", "mistralai", "mistral-c", (made,)),
    ]
    assert {read(by_class).found[0].confidence} == {"probable"}


@dataclass
class Settings:
    model: str = "gpt-default"

    @classmethod
    def of(cls, config):
        configurable = config.get("configurable") or {}
        return cls(**{name: value for name, value in configurable.items() if name})


def test_the_default_of_settings_is_shown_with_how_a_run_changes_it():
    def node(state, config: RunnableConfig):
        return ChatOpenAI(model=Settings.of(config).model).invoke(state)

    holding = only(node)
    assert (holding.model, holding.confidence) == ("gpt-default", "probable")
    assert holding.how == ("made in the function", "from config")


def test_a_model_object_that_a_run_gives_is_probable():
    def node(state, config: RunnableConfig):
        return config["configurable"]["llm"].invoke(state)

    holding = only(node)
    assert (holding.class_name, holding.confidence) == (None, "probable")
    assert holding.how == ("from config",)
    assert "comes with a run" in holding.reason


def test_objects_that_the_code_makes_are_followed():
    class Worker:
        def __init__(self, llm):
            self.llm = llm

        def work(self, state):
            return self.llm.invoke(state)

    def node(state):
        return Worker(big).work(state)

    def holds(state):
        return Pair(llm=big, text="x").llm.invoke(state)

    assert [each[1] for each in found(node)] == ["big"]
    assert [each[1] for each in found(holds)] == ["big"]


@dataclass
class Pair:
    llm: object
    text: str


def test_tools_are_entered():
    assert found(ToolNode([weather, ask_big])) == [(*CERTAIN_BIG, ("tool", *GLOBAL))]

    def runs_tools(state):
        tools = {each.name: each for each in [weather, ask_big]}
        return tools[state["name"]].invoke(state)

    class Own(BaseTool):
        name: str = "own"
        description: str = "asks"

        def _run(self, question):
            return big.invoke(question)

    def made(question: str) -> str:
        """Ask."""
        return big.invoke(question)

    built = StructuredTool.from_function(made)
    for runnable in (runs_tools, ToolNode([Own()]), ToolNode([built])):
        assert [each[:3] for each in found(runnable)] == [CERTAIN_BIG]


def _graph(node=module_global, name="ask"):
    builder = StateGraph(MessagesState)
    builder.add_node(name, node)
    builder.add_edge(START, name)
    return builder


inner = _graph().compile()


def test_a_graph_that_a_function_invokes_is_entered():
    def invokes(state):
        return inner.invoke(state)

    def makes(state):
        builder = StateGraph(MessagesState)
        builder.add_node("first", module_global)
        builder.add_node(in_a_match)
        return builder.compile().invoke(state)

    assert found(invokes) == [("ask", "big", "certain", ("subgraph", *GLOBAL))]
    made = ("subgraph made in the function", *GLOBAL)
    assert found(makes) == [
        ("first", "big", "certain", made),
        ("in_a_match", "big", "certain", made),
    ]


def test_an_agent_that_a_function_makes_is_entered():
    def node(state):
        agent = create_agent("openai:gpt-x", [ask_big], name="helper")
        return agent.invoke(state)

    holdings = read(node).found
    assert [(each.inner, each.agent, each.model) for each in holdings] == [
        (("model",), "helper", "gpt-x"),
        (("tools",), "helper", "big"),
    ]
    assert holdings[0].options.tools == ("ask_big",)


@task
def draft(text):
    return big.invoke(text)


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_the_older_prebuilt_agent_is_known_too():
    def choose(state, runtime):
        return models[state["name"]]

    fixed = create_react_agent(big, [weather], prompt="Be brief")
    structured = create_react_agent(big, [], response_format=Answer)
    chosen = create_react_agent(choose, [weather])
    how = ("agent's closure", "step of a chain")
    (holding,) = read(fixed.nodes["agent"].bound).found
    assert (holding.model, holding.how, holding.options.tools) == (
        "big",
        how,
        ("weather",),
    )
    (holding,) = read(structured.nodes["generate_structured_response"].bound).found
    assert (holding.model, holding.options.response_format) == ("big", "Answer")
    both = read(chosen.nodes["agent"].bound).found
    assert [(each.model, each.confidence) for each in both] == [
        ("big", "certain"),
        ("small", "certain"),
    ]


def test_a_task_is_a_node_of_its_own():
    def node(state):
        return draft(state).result()

    assert found(node) == [("draft", "big", "certain", ("task", *GLOBAL))]


class Spare(AgentMiddleware):
    def __init__(self, llm):
        super().__init__()
        self.llm = llm

    def wrap_model_call(self, request, handler):
        return handler(request.override(model=self.llm))


class Watching(AgentMiddleware):
    def __init__(self, llm):
        super().__init__()
        self.llm = llm

    def wrap_tool_call(self, request, handler):
        self.llm.invoke("check")
        return handler(request)

    def before_model(self, state, runtime):
        self.llm.invoke("guard")


def test_the_models_of_an_agents_middleware_are_found_where_they_are_called():
    agent = create_agent(big, [weather], middleware=[Spare(small), Watching(small)])
    nodes = {name: node.bound for name, node in agent.nodes.items()}
    assert found(nodes["model"]) == [
        (*CERTAIN_BIG, ("agent's closure",)),
        ("", "small", "certain", ("middleware", *SELF)),
    ]
    assert [each[1:3] for each in found(nodes["tools"])] == [("small", "certain")]
    before = found(nodes["Watching.before_model"])
    assert before == [("", "small", "certain", ("middleware", *SELF))]


def test_the_models_of_langchains_own_middleware_are_found():
    agent = create_agent(big, [], middleware=[ModelFallbackMiddleware(small)])
    assert [each[1] for each in found(agent.nodes["model"].bound)] == ["big", "small"]


def raw_client(state):
    return client.chat.completions.create(model="gpt", messages=state)


def raw_client_made(state):
    return openai.OpenAI().responses.create(model="gpt", input=state)


def raw_function(state):
    import litellm  # noqa: PLC0415 - not installed

    return litellm.completion(model="gpt", messages=state)


def http_call(state):
    import httpx  # noqa: PLC0415 - as apps do

    return httpx.post("http://model.invalid", json=state).json()


@pytest.mark.parametrize(
    ("function", "package", "says"),
    [
        (raw_client, "openai", 'below LangChain (hooks=("openai_sdk",) reaches it)'),
        (raw_client_made, "openai", "calls the openai SDK itself"),
        (raw_function, "litellm", "calls the litellm SDK itself"),
        (http_call, "httpx", "calls a server with httpx"),
    ],
)
def test_a_raw_call_is_opaque(function, package, says):
    holding = only(function)
    assert (holding.class_name, holding.confidence) == (package, "opaque")
    assert holding.how == ("raw SDK",)
    assert says in holding.reason


class Streaming(FakeChat):
    def stream(self, *args, **kwargs):
        return super().stream(*args, **kwargs)


def in_a_thread(state):
    threading.Thread(target=module_global, args=(state,)).start()


def in_a_pool(state):
    with ThreadPoolExecutor() as pool:
        return list(pool.map(big.invoke, state)), pool.submit(module_global, state)


async def in_an_executor(state):
    return await asyncio.get_running_loop().run_in_executor(None, big.invoke, state)


def pinned(state):
    return big.bind_tools([{"type": "web_search"}]).invoke(state)


@pytest.mark.parametrize(
    ("runnable", "says"),
    [
        (Streaming(model_name="big"), "Streaming has its own stream"),
        (in_a_thread, "in a thread without the run's context"),
        (in_a_pool, "in a thread without the run's context"),
        (in_an_executor, "in a thread without the run's context"),
        (pinned, "the provider's own tools pin the call"),
        (big.bind(tools=[{"type": "web_search"}]), "the provider's own tools pin"),
        (big.bind(web_search_options={"x": 1}), "web_search_options pins the call"),
        (FakeListLLM(responses=["x"]), "a completion model"),
        (RemoteGraph("desk", url="http://127.0.0.1:1"), "a graph in another process"),
    ],
)
def test_what_no_binding_reaches_is_opaque_with_the_reason(runnable, says):
    holdings = read(runnable).found
    assert holdings
    assert all(each.confidence == "opaque" and says in each.reason for each in holdings)


def test_a_thread_with_the_context_is_reached():
    def node(state):
        context = contextvars.copy_context()
        with ThreadPoolExecutor() as pool:
            return pool.submit(context.run, big.invoke, state).result()

    assert [each[1:3] for each in found(node)] == [("big", "certain")]


def test_one_of_several_tool_lists_pins_nothing():
    def node(state):
        tools = [weather]
        if state["searches"]:
            tools = [{"type": "web_search"}]
        return big.bind_tools(tools).invoke(state)

    assert [each[1:3] for each in found(node)] == [("big", "certain")]


def test_a_model_given_to_code_that_is_not_read_is_probable():
    def node(state):
        return functools.reduce(state["fold"], [big], state["first"]), state["f"](big)

    holding = only(node)
    assert (holding.model, holding.confidence) == ("big", "probable")
    assert "passed on to" in holding.reason


def test_a_call_that_cannot_be_seen_is_noted():
    def node(state):
        return state["llm"].invoke("x"), unknown_name.invoke("y")  # noqa: F821 - as some apps

    reader = read(node)
    assert reader.found == []
    assert [note.partition(": ")[2] for note in reader.notes] == [
        "what state['llm'].invoke() calls cannot be seen",
        "what unknown_name.invoke() calls cannot be seen",
    ]
