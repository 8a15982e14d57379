"""What a call at the top level of a module does, by its name. Pure: a table."""

from __future__ import annotations

import sys
from typing import Literal

Kind = Literal[
    "environment",
    "model",
    "client",
    "call of a model or graph",
    "file",
    "network",
    "process",
    "output",
    "call",
    "unreadable",
]
# The last part of a called name, and what such a call does.
_BY_NAME: dict[str, Kind] = {
    **dict.fromkeys(("load_dotenv", "getenv", "dotenv_values", "putenv"), "environment"),
    **dict.fromkeys(
        ("invoke", "ainvoke", "stream", "astream", "batch", "abatch"),
        "call of a model or graph",
    ),
    **dict.fromkeys(("open", "read_text", "write_text", "read_bytes"), "file"),
    **dict.fromkeys(("write_bytes", "mkdir", "makedirs", "unlink"), "file"),
    **dict.fromkeys(("urlopen", "urlretrieve", "draw_mermaid_png"), "network"),
    **dict.fromkeys(("Popen", "system", "check_output", "check_call"), "process"),
    **dict.fromkeys(("print", "pprint", "display", "input"), "output"),
    **dict.fromkeys(("init_chat_model", "init_embeddings"), "model"),
    **dict.fromkeys(("create_agent", "create_react_agent"), "model"),
}
_BY_PACKAGE: dict[str, Kind] = {
    "requests": "network",
    "httpx": "network",
    "urllib": "network",
    "subprocess": "process",
    "shutil": "file",
}
_ENVIRONMENT = ("os.environ.get", "os.environ.setdefault", "os.environ.update")
# Classes of LangChain that are named as models are, and are none.
_NO_MODELS = ("ChatPrompt", "ChatMessage", "ChatGeneration", "ChatResult", "ChatPrompt")
# Packages whose calls only define something.
_DEFINING_PACKAGES = frozenset(
    {
        *(
            "langgraph",
            "langchain_core",
            "pydantic",
            "pydantic_settings",
            "annotated_types",
        ),
        *("typing", "typing_extensions", "dataclasses", "enum", "abc", "collections"),
        *("functools", "itertools", "operator", "re", "string", "textwrap", "logging"),
        *("warnings", "datetime", "uuid", "math", "random", "json", "pathlib", "copy"),
        *("contextlib", "contextvars", "inspect", "types", "zoneinfo", "__future__"),
        "langchain_slm",
    }
)
# Methods that only define something, whatever they belong to.
_DEFINING = frozenset(
    {
        *("add_node", "add_edge", "add_conditional_edges", "add_sequence", "compile"),
        *("set_entry_point", "set_finish_point", "set_conditional_entry_point"),
        *("bind", "bind_tools", "with_structured_output", "with_config", "with_retry"),
        *("with_fallbacks", "configurable_fields", "configurable_alternatives", "pipe"),
        *("from_messages", "from_template", "partial", "as_tool", "get_graph"),
        *("format", "join", "strip", "lower", "upper", "split", "replace", "append"),
        *("extend", "get", "items", "keys", "values", "update", "copy", "insert", "add"),
        *("setdefault", "pop", "startswith", "endswith", "encode", "decode", "title"),
        *(
            "resolve",
            "absolute",
            "setLevel",
            "addHandler",
            "setFormatter",
            "validator",
            "as_posix",
        ),
    }
)
_DEFINING_BUILTINS = frozenset(
    {
        *("list", "dict", "set", "tuple", "frozenset", "str", "int", "float", "bool"),
        *("len", "range", "enumerate", "zip", "sorted", "reversed", "min", "max", "sum"),
        *("isinstance", "issubclass", "type", "getattr", "hasattr", "callable", "repr"),
        *("any", "all", "map", "filter", "next", "iter", "property", "classmethod"),
        *("staticmethod", "id", "round", "abs", "super", "globals", "locals", "vars"),
    }
)


def effect_of_call(name: str, whole: str, *, discarded: bool) -> Kind | None:
    """Return what a call does; None for one that only defines something.

    Args:
        name: The called name, as the code writes it.
        whole: The same with the package that its first part was imported from.
        discarded: Whether its result is dropped: then it is called for what it does.
    """
    last, package = whole.rpartition(".")[2], whole.partition(".")[0]
    if whole.endswith(_ENVIRONMENT):
        return "environment"
    if package in _BY_PACKAGE:
        return _BY_PACKAGE[package]
    only_defines = (
        (package in _DEFINING_PACKAGES and not last.startswith(("invoke", "from_conn")))
        or whole.startswith("os.path.")
        or last in _DEFINING
        or name in _DEFINING_BUILTINS
    )
    if only_defines and last not in _BY_NAME:
        return None
    return _BY_NAME.get(last) or _of_other(package, name, last, discarded=discarded)


def _of_other(package: str, name: str, last: str, *, discarded: bool) -> Kind | None:
    if last.startswith(("Chat", "AzureChat")) and not last.startswith(_NO_MODELS):
        return "model"
    return _of_class(package, name, discarded=discarded) if last[:1].isupper() else "call"


def _of_class(package: str, name: str, *, discarded: bool) -> Kind | None:
    is_imported = package != name.partition(".")[0] or "." in name
    is_pythons = package in sys.stdlib_module_names
    if is_imported and not is_pythons:
        return "client"
    return "call" if discarded and not is_pythons else None
