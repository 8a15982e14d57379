"""Routers in the place of the models that a module makes."""

import importlib
import inspect
import pkgutil
import warnings

import pytest
from langchain_core.language_models import BaseChatModel

from langchain_slm.editing.chat_classes import SHARED, is_chat_model
from langchain_slm.editing.constructors import reliance
from langchain_slm.editing.inlining import inline, router_path
from langchain_slm.editing.syntax import Parsed, edited
from langchain_slm.errors import SourceError

HEAD = "from langchain_openai import ChatOpenAI\n"


def inlined(text, plan="slm-plan.json", **more):
    """The text with its routers, after a second run has changed nothing."""
    found = inline(Parsed(text, "app.py"), plan, relied={}, **more)
    new = edited(text, found.edits)
    again = inline(Parsed(new, "app.py"), plan, relied={}, **more)
    assert edited(new, again.edits) == new
    assert [each.reason for each in again.kept] == [each.reason for each in found.kept]
    return new


def kept(text, **more):
    """What stays as it is: its line, its code and the reason."""
    parsed = Parsed(text, "app.py")
    relied = {n: f"app.py:{line}" for n, line in reliance(parsed).classes.items()}
    found = inline(parsed, "slm-plan.json", relied={**relied, **more})
    return [(parsed.line(each.start), each.code, each.reason) for each in found.kept]


def the_reason(text):
    """Why the one call stays as it is."""
    parsed = Parsed(text, "app.py")
    relied = {n: f"app.py:{line}" for n, line in reliance(parsed).classes.items()}
    found = inline(parsed, "slm-plan.json", relied=relied)
    assert found.replaced == []
    assert found.edits == []
    (only,) = found.kept
    return only.reason


def router(call):
    return f"ChatRouter(default={call}, router=slm_router)"


def test_a_module_gets_its_imports_one_router_and_a_chat_router_for_each_model():
    text = '''"""Models."""

import os

from dotenv import load_dotenv
from langchain_openai import ChatOpenAI
from .tools import search

load_dotenv()

# What answers.
llm = ChatOpenAI(
    model="gpt-4o",  # for now
    temperature=0,
)


def make():
    return ChatOpenAI(model="gpt-4o-mini").bind_tools([search])
'''
    assert (
        inlined(text)
        == '''"""Models."""

import os
from pathlib import Path

from dotenv import load_dotenv
from langchain_openai import ChatOpenAI
from langchain_slm import ChatRouter, Router
from .tools import search

load_dotenv()

slm_router = Router(Path(__file__).with_name("slm-plan.json"))
# What answers.
llm = ChatRouter(default=ChatOpenAI(
    model="gpt-4o",  # for now
    temperature=0,
), router=slm_router)


def make():
    return ChatRouter(default=ChatOpenAI(model="gpt-4o-mini"), router=slm_router)\
.bind_tools([search])
'''
    )


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from langchain_openai import ChatOpenAI", "ChatOpenAI(model='x')"),
        ("from langchain_openai import ChatOpenAI as LLM", "LLM()"),
        ("from langchain_openai import AzureChatOpenAI", "AzureChatOpenAI()"),
        ("import langchain_openai", "langchain_openai.ChatOpenAI()"),
        ("import langchain_openai as lo", "lo.ChatOpenAI()"),
        (
            "import langchain_openai.chat_models",
            "langchain_openai.chat_models.ChatOpenAI()",
        ),
        ("from langchain_openai import chat_models", "chat_models.ChatOpenAI()"),
        ("from langchain_nvidia_ai_endpoints import ChatNVIDIA", "ChatNVIDIA(model='m')"),
        ("from langchain_anthropic import ChatAnthropic", "ChatAnthropic(**settings)"),
        ("from langchain_community.chat_models import ChatOllama", "ChatOllama()"),
        ("from langchain.chat_models import init_chat_model", "init_chat_model('a:b')"),
        (
            (
                "try:\n    from langchain_ollama import ChatOllama\n"
                "except ImportError:\n"
                "    from langchain_community.chat_models import ChatOllama"
            ),
            "ChatOllama()",
        ),
        (
            (
                "try:\n    from langchain_ollama import ChatOllama\n"
                "except ImportError:\n    ChatOllama = None"
            ),
            "ChatOllama()",
        ),
    ],
)
def test_a_class_is_known_by_what_was_imported(imports, call):
    assert router(call) in inlined(f"{imports}\nllm = {call}\n")


@pytest.mark.parametrize(
    "place",
    [
        "llm = {}",
        "llm: BaseChatModel = {}",
        "chain = prompt | {} | parser",
        "chain = prompt | ({}).bind_tools(tools)",
        "with_backup = {}.with_fallbacks(others)",
        "agent = create_agent({}, tools)",
        "agent = create_agent(model={}, tools=tools)",
        "models = {{'large': {}, 'lazy': lambda: 1}}",
        "def make(): return {}",
        "async def ask(x): return await {}.ainvoke(x)",
        "def ask(x, llm={}): return llm.invoke(x)",
        "class Node:\n    llm = {}",
        "class Node:\n    def __init__(self):\n        self.llm = {}",
        "@decorated({})\ndef node(state): ...",
        "answers = [{}.invoke(x) for x in questions]",
        "text = f'{{{}.invoke(x)}}'",
        "if large:\n    llm = {}",
        "with opened() as it:\n    llm = {}",
        "make = lambda: {}",
        "(llm := {})",
    ],
)
def test_a_model_is_replaced_wherever_it_is_made(place):
    call = "ChatOpenAI()"
    text = HEAD + place.format(call) + "\n"
    assert place.format(router(call)) in inlined(text)
    assert kept(text) == []


def test_the_models_of_one_expression_are_each_replaced():
    text = f"{HEAD}llm = ChatOpenAI().with_fallbacks([ChatOpenAI(model='b')])\n"
    first, second = router("ChatOpenAI()"), router("ChatOpenAI(model='b')")
    assert f"llm = {first}.with_fallbacks([{second}])\n" in inlined(text)


@pytest.mark.parametrize(
    ("plan", "path"),
    [
        ("slm-plan.json", 'Path(__file__).with_name("slm-plan.json")'),
        ("plans/a.json", 'Path(__file__).parents[0] / "plans/a.json"'),
        ("../slm-plan.json", 'Path(__file__).parents[1] / "slm-plan.json"'),
        ("../../x/a b.json", 'Path(__file__).parents[2] / "x/a b.json"'),
        ("/plans/a.json", 'Path("/plans/a.json")'),
    ],
)
def test_the_plan_is_found_from_the_file(plan, path):
    assert router_path(plan, "Path") == path
    assert f"slm_router = Router({path})\n" in inlined(f"{HEAD}x = ChatOpenAI()\n", plan)


def test_a_notebook_finds_the_plan_from_its_folder():
    text = f"{HEAD}\nx = ChatOpenAI()\n"
    new = inlined(text, "../slm-plan.json", is_notebook=True)
    assert 'slm_router = Router("../slm-plan.json")\n' in new
    assert "Path" not in new


def test_another_plan_replaces_the_path_alone():
    text = inlined(f"{HEAD}x = ChatOpenAI()\n")
    assert inlined(text, "b.json") == text.replace("slm-plan.json", "b.json")


def test_a_model_that_was_added_uses_the_router_that_is_there():
    text = inlined(f"{HEAD}x = ChatOpenAI()\n") + "y = ChatOpenAI(model='z')\n"
    assert inlined(text) == text.replace(
        "y = ChatOpenAI(model='z')", "y = " + router("ChatOpenAI(model='z')")
    )


def test_a_model_made_before_the_router_is_kept():
    text = inlined(f"{HEAD}x = ChatOpenAI()\n").replace(
        "slm_router = ", "early = ChatOpenAI()\nslm_router = "
    )
    assert kept(text) == [
        (6, "ChatOpenAI()", "stands before slm_router is made; move that line up")
    ]


def test_names_that_mean_something_else_are_left_alone():
    text = f"{HEAD}from fastapi import Router, Path\nslm_router = 1\nx = ChatOpenAI()\n"
    new = inlined(text)
    assert "from pathlib import Path as SlmPath\n" in new
    assert "from langchain_slm import ChatRouter, Router as SlmRouter\n" in new
    assert (
        'slm_slm_router = SlmRouter(SlmPath(__file__).with_name("slm-plan.json"))' in new
    )
    assert "x = ChatRouter(default=ChatOpenAI(), router=slm_slm_router)\n" in new


def test_a_function_is_kept_apart_by_two_lines_and_comments_stay_above_what_they_tell():
    text = f"{HEAD}\n\n# Makes it.\n# Slowly.\n@cache\ndef make(): return ChatOpenAI()\n"
    assert (
        'slm_router = Router(Path(__file__).with_name("slm-plan.json"))\n\n\n'
        "# Makes it.\n# Slowly.\n@cache\ndef make()" in inlined(text)
    )


def test_imports_inside_a_function_are_seen():
    text = (
        "#!/usr/bin/env python\n\ndef make():\n"
        "    from langchain_groq import ChatGroq\n\n"
        "    return ChatGroq()\n"
    )
    assert inlined(text) == (
        "#!/usr/bin/env python\n\nfrom pathlib import Path\n\n"
        "from langchain_slm import ChatRouter, Router\n\n"
        'slm_router = Router(Path(__file__).with_name("slm-plan.json"))\n\n\n'
        "def make():\n    from langchain_groq import ChatGroq\n\n"
        f"    return {router('ChatGroq()')}\n"
    )


def test_a_module_without_models_stays_as_it_is():
    text = "from langchain_core.prompts import ChatPromptTemplate as P\nx = P()\n"
    assert inlined(text) == text
    assert kept(text) == []


# What stays as it is

INIT = "from langchain.chat_models import init_chat_model\nimport os\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{INIT}x = init_chat_model()", "no model is given"),
        (f"{INIT}x = init_chat_model(None)", "no model is given"),
        (f"{INIT}x = init_chat_model(model_provider='a')", "no model is given"),
        (
            f"{INIT}x = init_chat_model('a:b', configurable_fields=('model',))",
            "its model is chosen when it is called",
        ),
        (f"{INIT}x = init_chat_model(**options)", "its arguments are not seen here"),
        (
            f"{INIT}x = init_chat_model(settings.model)",
            "whether settings.model is a name",
        ),
        (
            f"{INIT}x = init_chat_model(os.getenv('M'))",
            "whether os.getenv('M') is a name",
        ),
        (
            f"{INIT}def f(m):\n    return init_chat_model(m)",
            "whether m is a name or None",
        ),
        (
            f"{INIT}def f(m: str | None = None):\n    return init_chat_model(m)",
            "whether m is a name or None",
        ),
        (
            f"{INIT}for m in names:\n    init_chat_model(m)",
            "whether m is a name or None shows only when it runs",
        ),
        (f"{HEAD}table = {{'a': ChatOpenAI}}", "the class is used as a value"),
        (f"{HEAD}make = partial(ChatOpenAI, model='x')", "the class is used as a value"),
        (f"{HEAD}x = ChatOpenAI.model_validate(s)", "the class is used as a value"),
        (f"{HEAD}class Own(ChatOpenAI): ...", "is a class of its own"),
        (f"{HEAD}x: ChatOpenAI = ChatOpenAI()", "is annotated as ChatOpenAI"),
        (
            f"{HEAD}x: dict[str, ChatOpenAI] = {{1: ChatOpenAI()}}",
            "annotated as ChatOpen",
        ),
        (f"{HEAD}def f(x: ChatOpenAI = ChatOpenAI()): ...", "is annotated as ChatOpenAI"),
        (f"{HEAD}x = ChatOpenAI()\nx.model_name", "x: .model_name is used of it"),
        (f"{HEAD}x = ChatOpenAI()\nx.temperature = 0", "x: .temperature is used of it"),
        (f"{HEAD}x = ChatOpenAI()\ngetattr(x, 'client')", "x: .client is used of it"),
        (f"{HEAD}x = ChatOpenAI()\nx.model_copy()", "x: .model_copy is used of it"),
        (f"{HEAD}def f(x=ChatOpenAI()):\n    x.client", "x: .client is used of it"),
        (
            (
                f"{HEAD}class A:\n  def f(self):\n    self.x = ChatOpenAI()\n"
                "  def g(self): self.x.model_name"
            ),
            "x: .model_name is used of it",
        ),
        (f"{HEAD}x = ChatOpenAI().client", ".client is used of it"),
        (
            f"{HEAD}x = ChatOpenAI().configurable_fields(model=field)",
            "its model is chosen when it is called",
        ),
        (
            f"{HEAD}x = ChatOpenAI()\nisinstance(x, ChatOpenAI)",
            "the app asks whether a model is a ChatOpenAI, at app.py:3",
        ),
        (
            f"{HEAD}x = ChatOpenAI()\nisinstance(x, (str, ChatOpenAI))",
            "the app asks whether a model is a ChatOpenAI, at app.py:3",
        ),
        (
            f"{HEAD}x = ChatOpenAI()\nif type(x) is ChatOpenAI: ...",
            "the app asks whether a model is a ChatOpenAI, at app.py:3",
        ),
        (
            f"{HEAD}x = ChatOpenAI()\nmatch x:\n    case ChatOpenAI(): ...",
            "the app asks whether a model is a ChatOpenAI, at app.py:4",
        ),
        ("from langchain_openai import *\nx = ChatOpenAI()", "with a star (line 1)"),
        (
            "from .models import ChatOpenAI\nx = ChatOpenAI()",
            "ChatOpenAI is imported from the app",
        ),
        (
            f"{HEAD}if here:\n    from x import ChatOpenAI\ny = ChatOpenAI()",
            "may be any of langchain_openai.ChatOpenAI, x.ChatOpenAI",
        ),
        (
            f"{HEAD}def f():\n  global ChatOpenAI\n  ChatOpenAI = g()\nx = ChatOpenAI()",
            "may be any of ChatOpenAI, langchain_openai.ChatOpenAI",
        ),
        (
            "import langchain_openai\nx = getattr(langchain_openai, 'ChatOpenAI')()",
            "the class is given by its name",
        ),
        (
            "x = import_string('langchain_openai.ChatOpenAI')()",
            "the class is given by its name",
        ),
        (
            f"{HEAD}if TYPE_CHECKING:\n    x = ChatOpenAI()",
            "is for type checkers only: it never runs",
        ),
        (
            "from langchain.agents import create_agent\nx = create_agent('openai:gpt')",
            "the model is given by its name",
        ),
        (
            "from langgraph.prebuilt import create_react_agent as c\nx = c(model='a:b')",
            "the model is given by its name",
        ),
        ("import openai\nx = openai.OpenAI()", "opaque: calls the openai SDK itself"),
        (
            "from anthropic import Anthropic\nx = Anthropic()",
            "opaque: calls the anthropic",
        ),
        ("import litellm\nx = litellm.completion()", "opaque: calls the litellm SDK"),
        (
            "from google import genai\nx = genai.Client()",
            "opaque: calls the google.genai",
        ),
    ],
)
def test_what_is_not_certain_is_kept_with_the_reason(text, reason):
    assert reason in the_reason(f"{text}\n")


@pytest.mark.parametrize(
    "code",
    [
        "init_chat_model('openai:gpt-4o', temperature=0)",
        "init_chat_model(model=f'{provider}:{name}')",
        "init_chat_model('openai:' + name)",
        "init_chat_model(os.environ['MODEL'])",
        "init_chat_model(os.getenv('MODEL', 'openai:gpt-4o'))",
        "init_chat_model(os.getenv('MODEL') or 'openai:gpt-4o')",
        "init_chat_model(config.get('model', 'openai:gpt-4o'))",
        "init_chat_model('a' if large else 'b')",
        "init_chat_model(str(name))",
        "init_chat_model('a:b', configurable_fields=None)",
    ],
)
def test_a_model_that_is_surely_named_is_replaced(code):
    assert router(code) in inlined(f"{INIT}x = {code}\n")


@pytest.mark.parametrize(
    "function",
    [
        "def f(name: str):\n    return {}",
        "def f(given):\n    name = given.removeprefix('x')\n    return {}",
        "def f(given: str):\n    provider, name = given.split('/')\n    return {}",
        "name = 'openai:gpt-4o'\ndef f():\n    return {}",
    ],
)
def test_a_name_that_stands_for_a_text_is_one(function):
    call = "init_chat_model(name)"
    assert router(call) in inlined(f"{INIT}{function.format(call)}\n")


def test_errors_and_settings_of_an_sdk_make_no_model():
    text = "import openai\ntry: ...\nexcept openai.APIError: ...\nopenai.APIError()\n"
    assert kept(text) == []


def test_types_and_downloads_of_an_sdk_make_no_model():
    text = (
        "from google.genai import types\nfrom huggingface_hub import login, snapshot\n"
        "types.Part('x')\nlogin()\nimport openai.types\nopenai.types.Model()\n"
    )
    assert kept(text) == []


def test_annotations_and_casts_are_no_use_of_a_class():
    text = f"{HEAD}def f(x: ChatOpenAI) -> ChatOpenAI:\n    return cast(ChatOpenAI, x)\n"
    assert kept(text) == []


def test_what_another_file_asks_counts():
    text = f"{HEAD}x = ChatOpenAI()\n"
    assert kept(text, ChatOpenAI="other.py:7") == [
        (2, "ChatOpenAI()", "the app asks whether a model is a ChatOpenAI, at other.py:7")
    ]


def test_what_is_kept_stands_beside_what_is_replaced():
    text = (
        f"{HEAD}class Own(ChatOpenAI): ...\n\nx = Own()\ny = ChatOpenAI(\n  model='a')\n"
    )
    assert kept(text) == [
        (2, "Own", "is a class of its own: give it a model to call"),
        (4, "Own()", "Own is a class of its own"),
    ]
    assert router("ChatOpenAI(\n  model='a')") in inlined(text)


def test_too_deep_a_file_is_refused():
    with pytest.raises(SourceError, match="nested too deeply"):
        inlined(f"{HEAD}x = ChatOpenAI(){'.b()' * 700}\n")


# Names

PROVIDERS = (
    "langchain_anthropic",
    "langchain_google_genai",
    "langchain_groq",
    "langchain_nvidia_ai_endpoints",
    "langchain_ollama",
    "langchain_openai",
    "langchain_core",
)


def classes():
    for package in PROVIDERS:
        found = importlib.import_module(package)
        names = [each.name for each in pkgutil.iter_modules(found.__path__)]
        modules = [package, *(f"{package}.{name}" for name in names if name[0] != "_")]
        for name in modules:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    module = importlib.import_module(name)
                except ImportError:  # an optional part of it
                    continue
            for key, value in vars(module).items():
                if inspect.isclass(value) and key[0] != "_":
                    yield f"{name}.{key}", value


def test_the_names_of_chat_models_are_those_of_the_installed_packages():
    found = dict(classes())
    named = {name for name in found if is_chat_model(name)}
    models = {n for n, value in found.items() if issubclass(value, BaseChatModel)}
    abstract = {"BaseChatModel", "SimpleChatModel", "BaseChatOpenAI"}
    assert len(models) > 20
    assert {n for n in named if not issubclass(found[n], BaseChatModel)} == set()
    missing = {n for n in models - named if n.rpartition(".")[2] not in abstract}
    assert missing == set()


def test_what_is_shared_is_what_every_chat_model_has():
    known = {*dir(BaseChatModel), *BaseChatModel.model_fields}
    others = {"assign", "compile", "map", "pick", "run", "arun"}
    assert set(SHARED) - known - others == set()
