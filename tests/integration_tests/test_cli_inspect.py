"""`langchain-slm inspect` on small projects: what it shows, that it misses nothing."""

import asyncio
import json
import os
import sys
from textwrap import dedent

import pytest
from langchain_core.messages import HumanMessage

from langchain_slm import open_store, record
from langchain_slm.cli import inspecting, main
from langchain_slm.loading.graphs import load_graph

assert inspecting  # adds the command
pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
SECRET = "sk-live-0123456789abcdef"  # noqa: S105 - must never be printed
HEAD = """
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from unit_tests.fake_chat import FakeChat

PROMPT = ChatPromptTemplate.from_messages([("human", "{text}")])


def model(name):
    return FakeChat(model_name=name)
"""
# Every way of holding a model that needs no network; each model has a name of its own.
NODES = f"""
{HEAD}
import asyncio
import functools
import threading

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.func import task
from langgraph.prebuilt import create_react_agent
from langgraph.types import Command, Send

from ..models import shared
from . import helpers

of_module = model("of-module")
in_dict = {{"a": model("in-dict")}}


def as_log(message):
    return {{"log": [message.content]}}


chain = PROMPT | model("in-chain") | as_log


def module_global(state):
    return {{"log": [of_module.invoke("x").content]}}


def of_another_module(state):
    return {{"log": [shared.llm.invoke("x").content, in_dict["a"].invoke("x").content]}}


def make_closure():
    llm = model("in-closure")

    async def closure(state):
        return {{"log": [(await llm.ainvoke("x")).content]}}

    return closure


def with_partial(llm, state):
    return {{"log": [llm.invoke("x").content]}}


def fails(messages):
    raise RuntimeError


class Desk:
    def __init__(self):
        self.llm = model("of-self")
        failing = FakeChat(model_name="failing", reply=fails)
        self.backup = failing.with_fallbacks([model("spare")])

    def method(self, state):
        return {{"log": [self.llm.invoke("x").content]}}


def bound(state):
    llm = model("bound")
    return {{"log": [str(llm.bind_tools([ask_tool]).invoke("x").content)]}}


def made(state, config):
    name = config["configurable"].get("name", "made-by-config")
    return {{"log": [helpers.get_model(name).invoke("x").content]}}


@functools.cache
def cached():
    return model("cached")


def of_cache(state):
    return {{"log": [cached().invoke("x").content]}}


def two_models(state):
    first, second = model("first"), shared.second
    return {{"log": [first.invoke("x").content, second.batch("xy")[0].content]}}


def streams(state):
    yield {{"log": [chunk.content for chunk in shared.streamed.stream("x")]}}


async def gathers(state):
    done = await asyncio.gather(*[shared.gathered.ainvoke("x") for _ in range(2)])
    return {{"log": [each.content for each in done]}}


def in_thread(state):
    thread = threading.Thread(target=shared.threaded.invoke, args=("x",))
    thread.start()
    thread.join()


@tool
def ask_tool(question: str) -> str:
    "Ask a model."
    return shared.in_tool.invoke(question).content


def calls_tool(messages):
    if messages[-1].type == "tool":
        return "done"
    call = {{"name": "ask_tool", "args": {{"question": "x"}}, "id": "1"}}
    return AIMessage("", tool_calls=[call])


class Other(AgentMiddleware):
    llm = model("of-middleware")

    def wrap_model_call(self, request, handler):
        return handler(request.override(model=self.llm))

    async def awrap_model_call(self, request, handler):
        return await handler(request.override(model=self.llm))

    def before_model(self, state, runtime):
        model("guard").invoke("x")


agent = create_agent(FakeChat(model_name="agent", reply=calls_tool), [ask_tool])
guarded = create_agent(model("never"), [], middleware=[Other()])
helper = create_agent(model("helper"), [], name="helper")
react = create_react_agent(model("react"), [])


def runs_agent(state):
    return {{"log": [helper.invoke({{"messages": "x"}})["messages"][-1].content]}}


@task
def draft(text):
    return shared.in_task.invoke(text).content


def runs_task(state):
    return {{"log": [draft("x").result()]}}


def fans_out(state):
    return Command(goto=[Send("fanned", {{}}), Send("fanned", {{}})])


def fanned(state):
    return {{"log": [shared.fanned.invoke("x").content]}}


def hidden(state):
    return {{"log": [state["box"][0].invoke("x").content]}}


def route(state):
    return "last" if shared.in_edge.invoke("x") else "last"


def last(state):
    return {{"messages": [shared.last.invoke("x")]}}
"""
GRAPH = """
import functools
import operator
from typing import Annotated

from langgraph.graph import END, START, MessagesState, StateGraph

from . import nodes


class State(MessagesState):
    log: Annotated[list, operator.add]
    text: str
    box: list


def build(config):
    builder = StateGraph(State)
    desk = nodes.Desk()
    steps = {
        "module_global": nodes.module_global,
        "of_another_module": nodes.of_another_module,
        "closure": nodes.make_closure(),
        "partial": functools.partial(nodes.with_partial, nodes.model("partial")),
        "method": desk.method,
        "fallback": (lambda state: "x") | desk.backup | nodes.as_log,
        "chain": nodes.chain,
        "bound": nodes.bound,
        "made": nodes.made,
        "cached": nodes.of_cache,
        "two_models": nodes.two_models,
        "streams": nodes.streams,
        "gathers": nodes.gathers,
        "in_thread": nodes.in_thread,
        "agent": nodes.agent,
        "guarded": nodes.guarded,
        "react": nodes.react,
        "runs_agent": nodes.runs_agent,
        "runs_task": nodes.runs_task,
        "hidden": nodes.hidden,
        "fans_out": nodes.fans_out,
    }
    before = START
    for name, step in steps.items():
        builder.add_node(name, step)
        builder.add_edge(before, name)
        before = name
    builder.add_node("fanned", nodes.fanned)
    builder.add_conditional_edges("fanned", nodes.route, ["last"])
    builder.add_node("last", nodes.last)
    return builder.compile()
"""
SHARED = f"""
{HEAD}
llm = model("of-another-module")
second, streamed, gathered = model("second"), model("streamed"), model("gathered")
threaded, in_tool, in_task = model("threaded"), model("in-tool"), model("in-task")
fanned, in_edge, last = model("fanned"), model("in-edge"), model("last")
"""
HELPERS = f"""
{HEAD}
def get_model(name):
    return model(name)
"""
CERTAIN = {
    ("module_global", "of-module"),
    ("of_another_module", "of-another-module"),
    ("of_another_module", "in-dict"),
    ("closure", "in-closure"),
    ("partial", "partial"),
    ("method", "of-self"),
    ("fallback", "failing"),
    ("fallback", "spare"),
    ("chain", "in-chain"),
    ("two_models", "second"),
    ("streams", "streamed"),
    ("gathers", "gathered"),
    ("agent/model", "agent"),
    ("agent/tools", "in-tool"),
    ("guarded/model", "never"),
    ("guarded/model", "of-middleware"),
    ("react/agent", "react"),
    ("runs_agent/model:helper", "helper"),
    ("runs_task/draft", "in-task"),
    ("fanned", "fanned"),
    ("fanned#route", "in-edge"),
    ("last", "last"),
}
PROBABLE = {
    ("bound", "bound"),
    ("made", None),
    ("cached", "cached"),
    ("two_models", "first"),
    ("guarded/Other.before_model", "guard"),
}
OPAQUE = {("in_thread", "threaded")}


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
    monkeypatch.setattr(os, "environ", kept)
    modules = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(modules):
        if name.split(".")[0] in ("desk", "graph", "app", "keyless", "helpers", "slow"):
            del sys.modules[name]


def write(files):
    for name, text in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)  # noqa: PTH103, PTH120 - in the folder that is current
        with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
            file.write(dedent(text))


@pytest.fixture
def project():
    write(
        {
            "langgraph.json": json.dumps(
                {
                    "dependencies": ["."],
                    "graphs": {
                        "desk": "./src/desk/flow/graph.py:build",
                        "small": {"path": "desk.small:graph", "description": "one"},
                    },
                    "env": ".env",
                }
            ),
            ".env": f"DESK_KEY={SECRET}\nDESK_NAME=desk\n",
            "src/desk/__init__.py": "",
            "src/desk/models/__init__.py": "",
            "src/desk/models/shared.py": SHARED,
            "src/desk/flow/__init__.py": "",
            "src/desk/flow/helpers.py": HELPERS,
            "src/desk/flow/nodes.py": NODES,
            "src/desk/flow/graph.py": GRAPH,
            "src/desk/small.py": SMALL,
        }
    )


SMALL = """
import os
from langgraph.graph import START, MessagesState, StateGraph
from unit_tests.fake_chat import FakeChat

key = os.environ["DESK_KEY"]
llm = FakeChat(model_name="small")


def answer(state):
    return {"messages": [llm.invoke(state["messages"])]}


builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile()
"""


def inspect(capsys, *arguments):
    code = main(["inspect", *arguments])
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    return code, out, err


def holdings(shown, *confidences):
    return {
        (site["site"], each["model"])
        for site in shown["sites"]
        for each in site["models"]
        if each["confidence"] in confidences
    }


def test_every_way_of_holding_a_model_is_found_or_told_by_the_traces(project, capsys):
    graph = load_graph("langgraph.json:desk")
    with open_store("sqlite:///slm.db") as store:
        recorded = record(graph, store=store, name="desk")
        hidden = sys.modules["desk.flow.nodes"].model("hidden")
        given = {"messages": [HumanMessage("x")], "text": "x", "box": [hidden]}
        asyncio.run(recorded.ainvoke(given))
        seen = {(each.site, each.model) for each in store.sites()}

    code, out, _ = inspect(capsys, "langgraph.json:desk", "--json")
    (shown,) = json.loads(out)["graphs"]
    assert code == 0
    assert holdings(shown, "certain") == CERTAIN
    assert holdings(shown, "probable") == PROBABLE
    assert holdings(shown, "opaque") == OPAQUE
    assert [note.partition(": ")[2] for note in shown["notes"]] == [
        "what state['box'][0].invoke() calls cannot be seen"
    ]

    code, out, _ = inspect(
        capsys, "langgraph.json:desk", "--json", "--store", "sqlite:///slm.db"
    )
    (traced,) = json.loads(out)["graphs"]
    told = holdings(traced, "certain", "probable", "opaque", "seen in traces only")
    assert holdings(traced, "seen in traces only") == {("hidden", "hidden")}
    assert seen - told == {("made", "made-by-config")}  # its name only a run knows
    # The agent's own model is overridden by its middleware.
    assert CERTAIN - seen == {("guarded/model", "never")}
    assert holdings(traced, "certain") == CERTAIN


def test_how_each_is_held_is_said(project, capsys):
    _, out, _ = inspect(capsys, "langgraph.json:desk", "--json")
    (shown,) = json.loads(out)["graphs"]
    held = {
        (site["site"], each["model"]): each["held"]
        for site in shown["sites"]
        for each in site["models"]
    }
    assert held["module_global", "of-module"] == ["module global"]
    assert held["closure", "in-closure"] == ["closure"]
    assert held["partial", "partial"] == ["partial"]
    assert held["method", "of-self"] == ["attribute of self"]
    assert held["fallback", "spare"] == ["step of a chain", "fallback"]
    assert held["chain", "in-chain"] == ["step of a chain"]
    assert held["bound", "bound"] == ["made in the function"]
    assert held["agent/model", "agent"] == ["agent's closure"]
    assert held["agent/tools", "in-tool"] == ["tool", "module global"]
    assert held["guarded/model", "of-middleware"][0] == "middleware"
    assert held["runs_agent/model:helper", "helper"][0] == "subgraph"
    assert held["runs_task/draft", "in-task"] == ["task", "module global"]
    assert held["fanned#route", "in-edge"] == ["conditional edge", "module global"]


def test_all_graphs_of_a_langgraph_json_are_shown(project, capsys):
    code, out, _ = inspect(capsys, "langgraph.json", "--json")
    graphs = json.loads(out)["graphs"]
    assert code == 0
    assert [(each["name"], each["variable"], each["type"]) for each in graphs] == [
        ("desk", "build", "CompiledStateGraph"),
        ("small", "graph", "CompiledStateGraph"),
    ]
    assert graphs[1]["env_file"]["exists"] is True
    assert graphs[1]["imports"] == [
        {
            "file": "src/desk/small.py",
            "line": 6,
            "kind": "environment",
            "what": "os.environ['DESK_KEY']",
        },
        {
            "file": "src/desk/small.py",
            "line": 7,
            "kind": "client",
            "what": "FakeChat()",
        },
    ]


def test_the_text_is_aligned(project, capsys):
    code, out, _ = inspect(capsys, "langgraph.json:small")
    assert code == 0
    assert out.replace(os.getcwd(), "HERE") == (  # noqa: PTH109 - the current folder
        "graph small = src/desk/small.py:graph (CompiledStateGraph)\n"
        "  environment: HERE/.env\n"
        "importing src/desk/small.py ran\n"
        "  src/desk/small.py:6  environment  os.environ['DESK_KEY']\n"
        "  src/desk/small.py:7  client       FakeChat()\n"
        "nodes\n"
        "  answer  function  src/desk/small.py:10\n"
        "edges\n"
        "  __start__ -> answer\n"
        "sites\n"
        "  answer  small (FakeChat, fake-chat)  certain  module global; "
        "src/desk/small.py:11\n"
        "                                                faces a human: yes; its node "
        "writes a message and may be the last\n"
        "\n"
    )


def test_a_drawing_is_printed(project, capsys):
    code, out, _ = inspect(capsys, "langgraph.json:small", "--mermaid")
    assert code == 0
    assert out == (
        "flowchart TD\n"
        '  n1(["__start__"]):::stop\n'
        '  n0["answer"]\n'
        "  n1 --> n0\n"
        '  m0[/"small (certain) at answer"/]:::model\n'
        "  n0 --- m0\n"
        "  classDef model stroke-dasharray: 4 2\n"
        "  classDef stop stroke-width: 3px\n"
    )


def test_what_an_import_would_run_is_shown_without_importing(project, capsys):
    code, out, _ = inspect(capsys, "langgraph.json:small", "--imports")
    assert code == 0
    assert "os.environ['DESK_KEY']" in out
    assert "desk.small" not in sys.modules
    code, out, _ = inspect(capsys, "langgraph.json", "--imports", "--json")
    graphs = json.loads(out)["graphs"]
    assert [each["name"] for each in graphs] == ["desk", "small"]
    assert {effect["kind"] for effect in graphs[0]["imports"]} >= {"client", "model"}
    assert "desk" not in sys.modules


KEYLESS = """
import openai
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph

print("imported")
llm = ChatOpenAI(model="gpt-x")
client = openai.OpenAI()


def node(state):
    return {"messages": llm.invoke("x")}


def raw(state):
    return client.chat.completions.create(model="gpt-x", messages=[])


graph = StateGraph(MessagesState)
graph.add_node("node", node)
graph.add_node("raw", raw)
graph.add_edge(START, "node")
"""


def test_a_missing_key_names_the_option_that_needs_none(capsys):
    write({"keyless.py": KEYLESS})
    code, out, err = inspect(capsys, "keyless.py:graph")
    assert (code, out) == (2, "")
    assert "imported" in err
    assert "at line 7" in err
    assert "set OPENAI_API_KEY, or inspect with --placeholder-keys" in err


def test_with_placeholders_an_app_needs_no_keys(capsys):
    write({"keyless.py": KEYLESS})
    code, out, err = inspect(capsys, "keyless.py:graph", "--placeholder-keys", "--json")
    assert code == 0
    (shown,) = json.loads(out)["graphs"]
    assert shown["placeholder_keys"] == ["OPENAI_API_KEY"]
    assert holdings(shown, "certain") == {("node", "gpt-x")}
    assert [each["class"] for each in shown["sites"][1]["models"]] == ["openai"]
    assert err.count("imported") == 2  # it is imported again with the placeholder
    assert "OPENAI_API_KEY" not in os.environ
    _, out, _ = inspect(capsys, "keyless.py:graph", "--placeholder-keys")
    assert "OPENAI_API_KEY was missing: a placeholder stood for it" in out


def test_with_placeholders_no_connection_leaves_this_machine(capsys):
    text = "import socket\nsocket.create_connection(('192.0.2.1', 443), 1)"
    write({"slow.py": text})
    code, _, err = inspect(capsys, "slow.py:graph", "--placeholder-keys")
    assert code == 2
    assert "no connection to 192.0.2.1: placeholders stand for keys" in err


def test_only_keys_of_known_clients_are_placed(capsys):
    write({"keyless.py": "import os\nos.environ['DESK_DATABASE']"})
    code, _, err = inspect(capsys, "keyless.py:graph", "--placeholder-keys")
    assert code == 2
    assert "set the environment variable DESK_DATABASE" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.py:graph"], "gone.py: no such file"),
        (["graph"], "is not PATH.py:VARIABLE"),
        (["langgraph.json:gone"], "no graph 'gone'; its graphs are: desk, small"),
        (["langgraph.json:small", "--store", "sqlite:///gone.db"], "gone.db"),
        (["langgraph.json:small", "--store", "mysql://x"], "sqlite"),
    ],
)
def test_bad_input_is_named(project, capsys, arguments, says):
    code, out, err = inspect(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err
    code, out, _ = inspect(capsys, *arguments, "--json")
    assert code == 2
    assert says in json.loads(out)["error"]["message"]


HOSTILE = [
    "<script>alert(1)</script>",
    "a\nb",
    "",
    "x" * 10_000,
    "\x00",
    "\ud800",
    "\x1b[2J",
]


def test_hostile_names_are_escaped_everywhere(capsys):
    nodes = "".join(f"builder.add_node({name!r}, answer)\n" for name in HOSTILE)
    text = SMALL.replace('builder.add_node("answer", answer)\n', nodes)
    text = text.replace('START, "answer"', f"START, {HOSTILE[0]!r}")
    write({"app.py": text.replace('os.environ["DESK_KEY"]', "''")})
    code, out, _ = inspect(capsys, "app.py:graph")
    assert code == 0
    assert all(character == "\n" or character.isprintable() for character in out)
    assert max(map(len, out.splitlines())) < 400
    assert "\\x1b[2J" in out
    code, out, _ = inspect(capsys, "app.py:graph", "--json")
    shown = json.loads(out)["graphs"][0]
    assert [site["site"] for site in shown["sites"]] == HOSTILE
    code, out, _ = inspect(capsys, "app.py:graph", "--mermaid")
    assert "<" not in out
    assert len([line for line in out.splitlines() if ":::model" in line]) == len(HOSTILE)


def test_a_graph_that_calls_nothing_says_how_to_find_more(capsys):
    text = SMALL.replace('llm.invoke(state["messages"])', "'x'")
    write({"app.py": text.replace('os.environ["DESK_KEY"]', "''")})
    code, out, _ = inspect(capsys, "app.py:graph")
    assert code == 0
    assert "sites\n  none found: record a run, and see --store\n" in out
