"""When a bound model's answer is not good enough. Pure: judges, never calls.

Only what can be verified without knowing the right answer is judged here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from langchain_slm.schema import Answer, JsonObject, canonical_json

# How the chat APIs of OpenAI (also its Responses API), Anthropic and Google say it,
# in lower case.
TRUNCATED = frozenset(
    {"length", "max_tokens", "incomplete", "model_context_window_exceeded"}
)
CALLED = frozenset({"tool_calls", "function_call", "tool_use"})
FILTERED = frozenset(
    {"content_filter", "refusal", "safety", "recitation", "blocklist"}
    | {"prohibited_content", "spii"}
)
CACHED_SCHEMAS = 512  # an app has a few; the bound only guards against made-up ones


@dataclass(frozen=True, slots=True)
class Contract:
    """What an answer must satisfy, whatever it says.

    Attributes:
        tools: JSON schema of the arguments by tool name.
        tool_required: Name of the tool that must be called, "" for any, None for none.
        schema: JSON schema of the text; None where there is none.
        is_json: The text must be a JSON object.
        labels: The closed set of texts; empty where there is none.
        finish_reason_required: The provider states one in every complete answer.
    """

    tools: dict[str, JsonObject] = field(default_factory=dict)
    tool_required: str | None = None
    schema: JsonObject | None = None
    is_json: bool = False
    labels: tuple[str, ...] = ()
    finish_reason_required: bool = False

    @property
    def needs_whole_answer(self) -> bool:
        """Whether nothing can be said before the answer is complete."""
        return bool(self.tools or self.is_json or self.labels)


def contract_of(
    tools: Sequence[JsonObject],
    tool_choice: str | JsonObject | None,
    response_format: JsonObject | None,
    *,
    schema: JsonObject | None = None,
    labels: tuple[str, ...] = (),
    finish_reason_required: bool = False,
) -> Contract:
    """Return the contract of a call; arguments as in `schema.Request`.

    `schema` is what JSON must satisfy where the response format itself names none.
    """
    wanted = response_format or {}
    return Contract(
        tools={} if tool_choice == "none" else _parameters(tools),
        tool_required=_required(tool_choice),
        schema=(wanted.get("json_schema") or {}).get("schema") or schema,
        is_json=wanted.get("type") in ("json_schema", "json_object"),
        labels=labels,
        finish_reason_required=finish_reason_required,
    )


def _parameters(tools: Sequence[JsonObject]) -> dict[str, JsonObject]:
    functions = [tool.get("function", {}) for tool in tools]
    return {f["name"]: f.get("parameters") or {} for f in functions if "name" in f}


def _required(choice: str | JsonObject | None) -> str | None:
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        return name if isinstance(name, str) else ""
    if choice in (None, "auto", "none"):
        return None
    return "" if choice == "required" else str(choice)


@runtime_checkable
class Policy(Protocol):
    """Decides whether the reference is asked after the bound model answered.

    One's own policy derives from this class and writes `objection`.
    """

    @property
    def escalates(self) -> bool:
        """Whether the reference may be asked at all; False hands failures to the app."""
        return True

    def waits(self, contract: Contract) -> bool:
        """Whether a stream is held back until its answer is complete and judged.

        Where not, its first text is shown at once, and an answer that is objected to
        afterwards can only end in an error.
        """
        del contract
        return True

    def objection(self, answer: Answer, contract: Contract) -> str | None:
        """Return why `answer` is not good enough, or None when it is.

        The reason reaches logs and the message's metadata: it quotes no content.
        """


class NeverEscalate(Policy):
    """Takes every answer, and lets every failure reach the app."""

    escalates = False

    def waits(self, contract: Contract) -> bool:
        """Return False: there is no judgement to wait for."""
        del contract
        return False

    def objection(self, answer: Answer, contract: Contract) -> str | None:
        """Return None: nothing is judged."""
        del answer, contract
        return None


class Complete(Policy):
    """Takes every answer that has an end: for a model that is the last to be asked."""

    def waits(self, contract: Contract) -> bool:
        """Return False: only the end is looked at."""
        del contract
        return False

    def objection(self, answer: Answer, contract: Contract) -> str | None:
        """Return that the end is missing where the provider always states one."""
        if answer.finish_reason is None and contract.finish_reason_required:
            return "incomplete (no finish_reason)"
        # Clients drop calls that they cannot read.
        calls = answer.tool_calls or answer.text.strip()
        if not calls and (answer.finish_reason or "").lower() in CALLED:
            return f"incomplete (no call, finish_reason {answer.finish_reason})"
        return None


class EscalateOnInvalid(Policy):
    """Asks the reference when the answer verifiably breaks its contract."""

    escalates = True

    def waits(self, contract: Contract) -> bool:
        """Return False for plain text, whose start nothing can be said against."""
        return contract.needs_whole_answer

    def objection(self, answer: Answer, contract: Contract) -> str | None:
        """Return the first breach of the contract, named without content."""
        calls = answer.tool_calls
        return (
            _incomplete(answer, contract, calls)
            or _bad_ids(answer)
            or _bad_tool_calls(calls, contract)
            or (None if calls else _bad_text(answer, contract))
        )


class EscalateBelowConfidence(EscalateOnInvalid):
    """Asks the reference also when the bound model is not sure of its answer.

    A model that reports no confidence is never sure. Heads report one. A chat model
    does with `logprobs=True`, where its endpoint sends them: the geometric mean of the
    probabilities of the text's tokens. It has none for the arguments of tool calls.

    Args:
        threshold: The least confidence that is enough, in [0, 1]. It means something
            only if it was found on calls like these, with this model.

    Raises:
        ValueError: If the threshold is outside its range.

    Example:
        >>> policy = EscalateBelowConfidence(0.9)
        >>> unsure = Answer(message={"content": "billing"}, confidence=0.625)
        >>> policy.objection(unsure, Contract())
        'low confidence: 0.625, 0.9 required'
    """

    def __init__(self, threshold: float) -> None:
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if not is_number or not 0 <= threshold <= 1:
            msg = (
                "threshold must be a number in [0, 1] (0 for any confidence), "
                f"not {threshold!r}"
            )
            raise ValueError(msg)
        self.threshold = threshold

    def waits(self, contract: Contract) -> bool:
        """Return True: how sure a model is shows at the end."""
        del contract
        return True

    def objection(self, answer: Answer, contract: Contract) -> str | None:
        """Return the first breach of the contract, or that the model is not sure."""
        if (why := super().objection(answer, contract)) is not None:
            return why
        if answer.confidence is None:
            return "no confidence"
        if answer.confidence < self.threshold:
            told = f"{answer.confidence:.3g}, {self.threshold:g} required"
            return f"low confidence: {told}"
        return None


def _incomplete(
    answer: Answer, contract: Contract, calls: list[JsonObject]
) -> str | None:
    if answer.abstained:
        return "abstained"
    if answer.finish_reason is None:
        if contract.finish_reason_required:
            return "incomplete (no finish_reason)"
    elif is_truncated(answer):
        return f"truncated (finish_reason {answer.finish_reason.lower()})"
    elif answer.finish_reason.lower() in FILTERED:
        return f"filtered (finish_reason {answer.finish_reason.lower()})"
    return None if calls or answer.text.strip() else "empty answer"


def is_truncated(answer: Answer) -> bool:
    """Whether the provider says that it stopped at a limit of length."""
    return (answer.finish_reason or "").lower() in TRUNCATED


def _bad_ids(answer: Answer) -> str | None:
    # The results of two calls of one id cannot be told apart.
    ids = [call.get("id") for call in answer.message.get("tool_calls") or ()]
    stated = [each for each in ids if each is not None]
    return "two tool calls of one id" if len(set(stated)) < len(stated) else None


def _bad_tool_calls(calls: list[JsonObject], contract: Contract) -> str | None:
    if contract.tool_required is not None and not calls:
        return "no tool call where one is required"
    for call in calls:
        name = call.get("name")
        if name not in contract.tools:
            return "unknown tool"
        if contract.tool_required and name != contract.tool_required:
            return "another tool than the required one"
        if (
            why := _bad_json(call.get("arguments") or "{}", contract.tools[name])
        ) is not None:
            return f"arguments of tool {name}: {why}"
    return None


def _bad_text(answer: Answer, contract: Contract) -> str | None:
    # To the letter: apps compare labels with `==`, and branch on them.
    if contract.labels and answer.text not in contract.labels:
        return "label outside the closed set"
    return _bad_json(answer.text, contract.schema or {}) if contract.is_json else None


def _bad_json(text: str, schema: JsonObject) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return "not JSON"
    if not isinstance(value, dict) and schema.get("type", "object") == "object":
        return "not a JSON object"
    return None if fits(value, schema) else "outside its schema"


def fits(value: object, schema: JsonObject) -> bool:
    """Whether `value` is valid under a JSON schema.

    Nothing is fetched for a `$ref`; a schema that is itself invalid, or beyond what can
    be checked, constrains nothing, as the provider did not enforce it either.
    """
    if not schema:
        return True
    validator = _validator(canonical_json(schema))
    try:
        return validator is None or bool(validator.is_valid(value))
    # A pattern may be of another language's regular expressions.
    except (Unresolvable, RecursionError, re.error):
        return True


@lru_cache(maxsize=CACHED_SCHEMAS)
def _validator(schema_json: str) -> Any:
    schema = json.loads(schema_json)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        return None
    return Draft202012Validator(schema, registry=Registry())
