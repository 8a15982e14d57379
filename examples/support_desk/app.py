"""A support desk: sort a ticket, assess it, look up what it names, draft an answer.

Every node asks the same general model. The draft is an acknowledgement: it goes to an
agent together with the evidence that was looked up, and promises nothing of its own.
"""

import os
from functools import cache
from typing import Annotated, Literal, TypedDict
from zlib import crc32

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel, ConfigDict, SecretStr

Label = Literal[
    "billing",
    "delivery",
    "returns",
    "fault",
    "account",
    "order_change",
    "product_question",
]
Priority = Literal["low", "normal", "high", "urgent"]


class Facts(BaseModel):
    """Facts of a ticket."""

    model_config = ConfigDict(extra="forbid")

    order_id: str | None
    product: str | None
    amount_usd: float | None
    action: Literal[
        "refund", "replacement", "information", "change", "cancellation", "access"
    ]
    upset: bool


class Ticket(TypedDict, total=False):
    """What the desk knows of a ticket; `subject` and `body` are its input."""

    subject: str
    body: str
    label: str
    priority: str
    facts: dict[str, object]
    messages: Annotated[list[AnyMessage], add_messages]
    reply: str


def prompt(system: str) -> ChatPromptTemplate:
    """Return a prompt of fixed instructions and the ticket's own text."""
    return ChatPromptTemplate([("system", system), ("user", "{subject}\n\n{body}")])


TRIAGE = prompt(
    "Sort the support ticket. Answer with one label: billing, delivery (parcels on "
    "their way), returns (and exchanges), fault, account (login, data), order_change "
    "(before dispatch), product_question. Of two problems take the one to solve first."
)
PRIORITY = prompt(
    "Set the ticket's priority. Answer with one word. urgent: danger, fraud, needed by "
    "tomorrow. low: a mere question, or it may wait. high: needed this week, or "
    "unusable. normal: the rest."
)
EXTRACT = prompt("Extract the facts of the ticket; null for what is not there.")
LOOKUP = prompt(
    "Look up every order and parcel number of the ticket at once, and the help page for "
    "a pure question. If there is nothing to look up, say 'none'."
)
REPLY = prompt("Acknowledge the ticket: its matter and the next step. Promise nothing.")


@cache
def _client(model: str, base_url: str, api_key: str) -> ChatOpenAI:
    return ChatOpenAI(
        model=model,
        base_url=base_url,
        api_key=SecretStr(api_key),
        temperature=0,
        max_retries=0,
    )


def desk_model() -> ChatOpenAI:
    """Return the desk's model, as the environment names it at this moment."""
    return _client(
        os.environ.get("SUPPORT_DESK_MODEL", "desk-large"),
        os.environ.get("SUPPORT_DESK_URL", "http://127.0.0.1:8000/v1"),
        os.environ.get("SUPPORT_DESK_API_KEY", "not-needed"),
    )


def _pick(key: str, *choices: str) -> str:
    return choices[crc32(key.encode()) % len(choices)]


@tool
def get_order(order_id: str) -> str:
    """Status of an order."""
    status = _pick(order_id, "received", "being packed", "sent", "delivered", "on hold")
    return f"{order_id}: {status}"


@tool
def track_parcel(tracking_id: str) -> str:
    """Where a parcel is."""
    place = _pick(tracking_id, "at the depot", "in the van", "in customs", "handed over")
    return f"{tracking_id}: {place}"


@tool
def search_help(
    topic: Literal["returns", "fit", "care", "warranty", "stock"],
) -> str:
    """Find a help page."""
    return f"help page: {topic}"


TOOLS = [get_order, track_parcel, search_help]


def _text(state: Ticket) -> dict[str, str]:
    return {"subject": state["subject"], "body": state["body"]}


def triage(state: Ticket) -> Ticket:
    """Sort the ticket into one of the desk's queues."""
    answer = (TRIAGE | desk_model()).invoke(_text(state))
    return {"label": answer.text.strip()}


def priority(state: Ticket) -> Ticket:
    """Say how soon the ticket must be dealt with."""
    answer = desk_model().invoke(PRIORITY.format_messages(**_text(state)))
    return {"priority": answer.text.strip()}


def extract(state: Ticket) -> Ticket:
    """Read the facts out of the ticket."""
    reader = desk_model().with_structured_output(Facts, method="json_schema")
    facts = (EXTRACT | reader).invoke(_text(state))
    return {"facts": Facts.model_validate(facts).model_dump()}


def lookup(state: Ticket) -> Ticket:
    """Ask for the evidence that the agent needs."""
    answer = (LOOKUP | desk_model().bind_tools(TOOLS)).invoke(_text(state))
    return {"messages": [answer]}


def wants_tools(state: Ticket) -> Literal["tools", "reply"]:
    """Look up evidence where the model called for some."""
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else "reply"


def reply(state: Ticket) -> Ticket:
    """Draft the acknowledgement."""
    return {"reply": (REPLY | desk_model()).invoke(_text(state)).text}


assess = (
    StateGraph(Ticket)
    .add_node("priority", priority)
    .add_node("extract", extract)
    .add_edge(START, "priority")
    .add_edge("priority", "extract")
    .add_edge("extract", END)
    .compile()
)
graph = (
    StateGraph(Ticket)
    .add_node("triage", triage)
    .add_node("assess", assess)
    .add_node("lookup", lookup)
    .add_node("tools", ToolNode(TOOLS))
    .add_node("reply", reply)
    .add_edge(START, "triage")
    .add_edge("triage", "assess")
    .add_edge("assess", "lookup")
    .add_conditional_edges("lookup", wants_tools)
    .add_edge("tools", "reply")
    .add_edge("reply", END)
    .compile(name="support_desk")
)
