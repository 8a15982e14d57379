"""An inspection as a Mermaid flowchart. Pure.

A name is never written as it is: nodes have generated ids, and a label is a quoted text
in which all but letters, digits and harmless marks are Mermaid's entities. LangGraph
allows any characters in a name, and a page may show the drawing.
"""

from __future__ import annotations

from collections.abc import Iterator

from langgraph.constants import END, START

from langchain_slm.inspection.findings import Holding
from langchain_slm.inspection.overview import ANYWHERE, Edge, Inspection, Node

MOST_LABEL = 80  # characters; LangGraph sets no limit
_HARMLESS = frozenset(" _-.,:/()@+=")
_STYLE = (
    "  classDef model stroke-dasharray: 4 2",
    "  classDef stop stroke-width: 3px",
)


def mermaid(found: Inspection) -> str:
    """Return an inspection as a flowchart: nodes, edges, and the models at each node."""
    return "\n".join(_Drawing(found).lines()) + "\n"


class _Drawing:
    def __init__(self, found: Inspection) -> None:
        self._found = found
        self._ids: dict[str, str] = {}
        ends = [end for edge in found.edges for end in (edge.source, edge.target)]
        for path in (*(node.path for node in found.nodes), *ends):
            self._ids.setdefault(path, f"n{len(self._ids)}")

    def lines(self) -> Iterator[str]:
        yield "flowchart TD"
        yield from self._level("", "  ")
        for edge in self._found.edges:
            yield f"  {self._edge(edge)}"
        yield from self._models()
        yield from _STYLE

    def _level(self, prefix: str, indent: str) -> Iterator[str]:
        """Yield the nodes of one graph, those of its subgraphs inside them."""
        for path in self._ids:
            if path in (f"{prefix}{START}", f"{prefix}{END}") or (
                path == ANYWHERE and not prefix
            ):
                yield f"{indent}{self._ids[path]}([{_label(path)}]):::stop"
        for node in self._found.nodes:
            if not self._is_of(node, prefix):
                continue
            if node.kind == "graph":
                yield f"{indent}subgraph {self._ids[node.path]}[{_label(node.path)}]"
                yield from self._level(f"{node.path}/", f"{indent}  ")
                yield f"{indent}end"
            else:
                yield f"{indent}{self._ids[node.path]}[{_label(node.path)}]"

    def _is_of(self, node: Node, prefix: str) -> bool:
        """Whether a node is one of the graph whose nodes begin with `prefix`."""
        above = [
            f"{each.path}/"
            for each in self._found.nodes
            if each.kind == "graph" and node.path.startswith(f"{each.path}/")
        ]
        return max(above, key=len, default="") == prefix

    def _edge(self, edge: Edge) -> str:
        source, target = self._ids[edge.source], self._ids[edge.target]
        if edge.kind == "edge":
            return f"{source} --> {target}"
        label = _label(edge.kind if edge.branch is None else edge.branch)
        return f"{source} -. {label} .-> {target}"

    def _models(self) -> Iterator[str]:
        drawn = 0
        for site in self._found.sites:
            owner = self._owner(site.path)
            for holding in site.models:
                text = _model_text(site.path, holding)
                yield f"  m{drawn}[/{_label(text)}/]:::model"
                if owner is not None:
                    yield f"  {owner} --- m{drawn}"
                drawn += 1

    def _owner(self, site: str) -> str | None:
        """Return the id of the innermost node that a site is at or below."""
        marks = ("", "/", "#", ":")
        above = [
            node.path
            for node in self._found.nodes
            if any(site.startswith(f"{node.path}{mark}") for mark in marks if mark)
            or site == node.path
        ]
        return self._ids[max(above, key=len)] if above else None


def _model_text(site: str, holding: Holding) -> str:
    what = holding.model or holding.class_name or "a model"
    where = site if len(site) <= MOST_LABEL // 2 else f"{site[: MOST_LABEL // 2]}..."
    return f"{what} ({holding.confidence}) at {where}"


def _label(text: str) -> str:
    """Return a text as a quoted label: no character of it can end the label."""
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    if len(printable) > MOST_LABEL:
        printable = f"{printable[: MOST_LABEL - 3]}..."
    escaped = "".join(
        c if (c.isascii() and c.isalnum()) or c in _HARMLESS else f"#{ord(c)};"
        for c in printable
    )
    return f'"{escaped or " "}"'
