"""Answers and examples to judge, each written in one line."""

import json
from collections.abc import Sequence

from langchain_slm.schema import Answer, Example, Expected, JsonObject, Request


def said(content: object) -> Answer:
    return Answer(message={"role": "assistant", "content": content})


def called(*calls: tuple[str, object]) -> Answer:
    made = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": name,
                "arguments": arguments
                if isinstance(arguments, str)
                else json.dumps(arguments),
            },
        }
        for number, (name, arguments) in enumerate(calls)
    ]
    return Answer(message={"role": "assistant", "content": None, "tool_calls": made})


def example_of(
    expected: Expected | None = None,
    *,
    answer: Answer | None = None,
    tools: Sequence[JsonObject] = (),
    schema: object = None,
) -> Example:
    response_format = {"type": "json_schema", "json_schema": {"schema": schema}}
    return Example(
        example_id="ex-7",
        site="node",
        thread_id="thread",
        split="test",
        model="gpt-ref",
        provider="openai",
        request=Request(
            messages=({"role": "user", "content": "Go"},),
            tools=tuple(tools),
            response_format=None if schema is None else response_format,
        ),
        answer=answer or said(""),
        expected=expected,
    )


def tool(name: str, *, required: object = (), **properties: object) -> JsonObject:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}
