"""References: read from an example, or made of the answer recorded in it. Pure: no I/O.

Refuses references that do not fit their grader. Free text gives no reference: two good
replies need not share a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from langchain_slm.errors import SLMError
from langchain_slm.evaluation.answers import (
    bare_label,
    json_answer,
    read_tool_calls,
    structured_object,
)
from langchain_slm.evaluation.json_values import first_violation, is_number
from langchain_slm.evaluation.tool_calls import WantedCall, accepting
from langchain_slm.schema import Answer, Example, Expected, JsonObject, Shape

T = TypeVar("T")


def reference_of(example: Example) -> JsonObject:
    """Return the reference of an example; empty where it has none."""
    return example.expected.reference if example.expected else {}


def reference_part(example: Example, key: str, kind: type[T]) -> T:
    """Return one part of the example's reference, which must be of the given type.

    Raises:
        SLMError: If the reference lacks it, or it is of another type.
    """
    reference = reference_of(example)
    value = reference.get(key)
    if key not in reference or not isinstance(value, kind):
        refuse(example, f'its reference holds no "{key}" of type {kind.__name__}')
    return value


def refuse(example: Example, why: str) -> NoReturn:
    """Raise what tells that the example, not the answer, is at fault.

    Raises:
        SLMError: Always.
    """
    msg = f"example {example.example_id} cannot be judged: {why}"
    raise SLMError(msg, example_id=example.example_id)


def wanted_calls(example: Example) -> list[WantedCall]:
    """Return the tool calls of the example's reference, none for grader "relevance".

    Raises:
        SLMError: If they are not of the form that `evaluators.ToolCallMatch` states.
    """
    if example.expected and example.expected.grader == "relevance":
        return []
    return [
        _wanted_call(example, call) for call in reference_part(example, "calls", list)
    ]


def _wanted_call(example: Example, call: object) -> WantedCall:
    name = call.get("name") if isinstance(call, dict) else None
    arguments = call.get("arguments") if isinstance(call, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        refuse(example, "a call of its reference has no name or no arguments")
    if not all(isinstance(accepted, list) for accepted in arguments.values()):
        refuse(example, "an argument of its reference has no list of accepted values")
    return WantedCall(name, arguments)


def response_schema_violation(example: Example, value: JsonObject) -> str | None:
    """Return how `value` breaks the response schema of the example's request.

    None if it is valid, or the request asks for no schema.

    Raises:
        SLMError: If the schema itself is unusable.
    """
    wrapper = (example.request.response_format or {}).get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if schema is None:
        return None
    try:
        return first_violation(schema, value)
    except (SchemaError, Unresolvable) as error:
        refuse(example, f"its response schema is unusable ({type(error).__name__})")


def as_reference(answer: Answer, shape: Shape, labels: Sequence[str]) -> Expected | None:
    """Return what agrees with `answer`, whether or not it keeps to its own rule.

    Args:
        answer: The reference model's own.
        shape: What kind of answer the task has; decides the grader.
        labels: The closed set of a task of shape "label".

    Returns:
        None for free text and for a label outside the closed set.

    Raises:
        MalformedError: If the answer has not that shape.
        RecursionError: If it is nested too deeply.
    """
    match shape:
        case "tool_call":
            return _calls_as_reference(answer)
        case "label":
            return _label_as_reference(answer.text, labels)
        case "structured":
            fields = structured_object(answer)
            return Expected(grader="fields", reference={"fields": fields})
        case "json":
            return _json_as_reference(answer)
        case "text":
            return None


def _calls_as_reference(answer: Answer) -> Expected:
    calls = [accepting(call) for call in read_tool_calls(answer)]
    grader = "bfcl_ast" if calls else "relevance"
    return Expected(grader=grader, reference={"calls": calls})


def _label_as_reference(text: str, labels: Sequence[str]) -> Expected | None:
    if labels and bare_label(text) not in map(bare_label, labels):
        return None
    reference: JsonObject = {"label": text.strip()}
    if labels:
        reference["labels"] = list(labels)
    return Expected(grader="label", reference=reference)


def _json_as_reference(answer: Answer) -> Expected:
    """The answer of a JSON text or, where it names none, its whole object."""
    found = json_answer(answer.text)
    if found is None:
        fields = structured_object(answer)
        return Expected(grader="fields", reference={"fields": fields})
    kind = "number" if is_number(found) else "literal"
    return Expected(grader=f"json_answer_{kind}", reference={"answer": found})
