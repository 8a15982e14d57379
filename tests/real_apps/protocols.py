"""The protocols of model providers, each in terms of OpenAI's chat API. Pure.

Only what LangChain's clients send and read. A protocol turns a request into one of
OpenAI's, and what was said into its own reply, whole or as the events of a stream.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from integration_tests.chat_requests import Body
from integration_tests.schema_server import Said, _completion, _events

USAGE = (10, 5)  # tokens of each request and answer


class Protocol(NamedTuple):
    """How a provider's endpoint is asked, and how it answers.

    Attributes:
        name: Of the protocol.
        asked: Turns the path and body of a request into a body of OpenAI's.
        whole: Makes the reply from OpenAI's body, what was said and a fresh id.
        events: Makes the events of a stream likewise; lines of server-sent events.
    """

    name: str
    asked: Callable[[str, Body], Body]
    whole: Callable[[Body, Said, str], Body]
    events: Callable[[Body, Said, str], Iterator[str]]


def protocol_of(path: str) -> Protocol | None:
    """Return the protocol that is spoken at a path; None for no model's endpoint."""
    plain = path.partition("?")[0]
    if plain.endswith(("/chat/completions", "/chat/completions/")):
        return OPENAI
    if plain.endswith("/responses"):
        return RESPONSES
    if plain.endswith("/v1/messages"):
        return ANTHROPIC
    if plain.endswith((":generateContent", ":streamGenerateContent")):
        return GEMINI
    return OLLAMA if plain.endswith("/api/chat") else None


def _sse(event: Body, name: str | None = None) -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(event)}\n\n"


def _function(name: str, schema: Any, described: str = "") -> Body:
    parameters = _lowered(schema or {})
    function = {"name": name, "description": described, "parameters": parameters}
    return {"type": "function", "function": function}


def _lowered(schema: Any) -> Any:
    """Return a schema with JSON Schema's names of types, which Gemini shouts."""
    if isinstance(schema, list):
        return [_lowered(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    lowered = {key: _lowered(value) for key, value in schema.items()}
    if isinstance(kind := lowered.get("type"), str):
        lowered["type"] = kind.lower()
    return lowered


def _called(call_id: str, name: str, arguments: str) -> Body:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _schema_wanted(schema: Any) -> Body:
    wanted = {"name": "wanted", "schema": _lowered(schema)}
    return {"type": "json_schema", "json_schema": wanted}


def _parts(content: Any) -> list[Body]:
    """Return the parts of a content; a text is one part."""
    return (
        [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    )


def _text(content: Any) -> str:
    return " ".join(part["text"] for part in _parts(content) if "text" in part)


# OpenAI's chat API: nothing to translate but the ids, which must be unique.


def _openai_asked(_: str, body: Body) -> Body:
    return body


def _openai_whole(asked: Body, said: Said, fresh: str) -> Body:
    whole = {**_completion(asked, said), "id": fresh}
    for call in whole["choices"][0]["message"].get("tool_calls") or ():
        call["id"] = f"call_{fresh}"
    return whole


def _openai_events(asked: Body, said: Said, fresh: str) -> Iterator[str]:
    for event in _events(asked, said):
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls") or ():
                call.update({"id": f"call_{fresh}"} if "id" in call else {})
        yield _sse({**event, "id": fresh})
    yield "data: [DONE]\n\n"


OPENAI = Protocol("openai", _openai_asked, _openai_whole, _openai_events)


# OpenAI's responses API.


def _responses_asked(_: str, body: Body) -> Body:
    items = body.get("input") or []
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    messages = [message for item in items for message in _responses_message(item)]
    if instructions := body.get("instructions"):
        messages.insert(0, {"role": "system", "content": instructions})
    asked = {
        "model": body.get("model"),
        "messages": messages,
        "stream": body.get("stream"),
    }
    tools = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
    if tools:
        asked["tools"] = [_function(t["name"], t.get("parameters")) for t in tools]
        choice = body.get("tool_choice") or "auto"
        if isinstance(choice, dict):
            choice = {"type": "function", "function": {"name": choice.get("name")}}
        asked["tool_choice"] = choice
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        asked["response_format"] = _schema_wanted(wanted.get("schema"))
    return asked


def _responses_message(item: Body) -> Iterator[Body]:
    kind = item.get("type", "message")
    if kind == "function_call":
        call = _called(item["call_id"], item["name"], item["arguments"])
        yield {"role": "assistant", "content": None, "tool_calls": [call]}
    elif kind == "function_call_output":
        result = {"tool_call_id": item["call_id"], "content": _text(item["output"])}
        yield {"role": "tool", **result}
    elif kind == "message":
        yield {"role": item["role"], "content": _text(item.get("content"))}


def _responses_whole(asked: Body, said: Said, fresh: str) -> Body:
    head = {"id": f"resp_{fresh}", "object": "response", "created_at": 1}
    tokens = {
        "input_tokens": USAGE[0],
        "output_tokens": USAGE[1],
        "total_tokens": sum(USAGE),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        **head,
        "status": "completed",
        "model": asked["model"],
        "output": list(_responses_output(said, fresh)),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": tokens,
    }


def _responses_output(said: Said, fresh: str) -> Iterator[Body]:
    if said.text:
        part = {"type": "output_text", "text": said.text, "annotations": []}
        head = {"type": "message", "id": f"msg_{fresh}", "status": "completed"}
        yield {**head, "role": "assistant", "content": [part]}
    for name, arguments in said.calls:
        call = {"call_id": f"call_{fresh}", "name": name, "arguments": arguments}
        head = {"type": "function_call", "id": f"fc_{fresh}", "status": "completed"}
        yield {**head, **call}


def _responses_events(asked: Body, said: Said, fresh: str) -> Iterator[str]:
    whole = _responses_whole(asked, said, fresh)
    events: list[Body] = [
        {"type": "response.created", "response": {**whole, "output": []}}
    ]
    for index, item in enumerate(whole["output"]):
        events.append(
            {"type": "response.output_item.added", "output_index": index, "item": item}
        )
        at = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "message":
            delta = {"content_index": 0, "delta": said.text, "logprobs": []}
            events[-1]["item"] = {**item, "content": []}
            events.append({"type": "response.output_text.delta", **at, **delta})
        else:
            events[-1]["item"] = {**item, "arguments": ""}
            delta = {"delta": item["arguments"]}
            events.append(
                {"type": "response.function_call_arguments.delta", **at, **delta}
            )
        events.append(
            {"type": "response.output_item.done", "output_index": index, "item": item}
        )
    events.append({"type": "response.completed", "response": whole})
    for number, event in enumerate(events):
        yield _sse({**event, "sequence_number": number}, event["type"])


RESPONSES = Protocol(
    "openai-responses", _responses_asked, _responses_whole, _responses_events
)


# Anthropic's messages API.


def _anthropic_asked(_: str, body: Body) -> Body:
    messages: list[Body] = []
    if system := body.get("system"):
        messages.append({"role": "system", "content": _text(system)})
    for message in body.get("messages") or ():
        messages.extend(_anthropic_message(message))
    asked = {
        "model": body.get("model"),
        "messages": messages,
        "stream": body.get("stream"),
    }
    tools = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    if tools:
        asked["tools"] = [_function(t["name"], t["input_schema"]) for t in tools]
        asked["tool_choice"] = _anthropic_choice(body.get("tool_choice") or {})
    wanted = body.get("output_format") or (body.get("output_config") or {}).get("format")
    if wanted and "schema" in wanted:
        asked["response_format"] = _schema_wanted(wanted["schema"])
    return asked


def _anthropic_choice(choice: Body) -> Any:
    kind = choice.get("type", "auto")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice["name"]}}
    return {"any": "required"}.get(kind, kind)


def _anthropic_message(message: Body) -> Iterator[Body]:
    parts = _parts(message["content"])
    for part in parts:
        if part["type"] == "tool_result":
            text = _text(part.get("content"))
            yield {"role": "tool", "tool_call_id": part["tool_use_id"], "content": text}
    calls = [
        _called(part["id"], part["name"], json.dumps(part["input"]))
        for part in parts
        if part["type"] == "tool_use"
    ]
    text = _text([part for part in parts if part["type"] == "text"])
    if text or calls:
        more = {"tool_calls": calls} if calls else {}
        yield {"role": message["role"], "content": text, **more}


def _anthropic_whole(asked: Body, said: Said, fresh: str) -> Body:
    content: list[Body] = [{"type": "text", "text": said.text}] if said.text else []
    for name, arguments in said.calls:
        call = {"id": f"toolu_{fresh}", "name": name, "input": json.loads(arguments)}
        content.append({"type": "tool_use", **call})
    head = {"id": f"msg_{fresh}", "type": "message", "role": "assistant"}
    return {
        **head,
        "model": asked["model"],
        "content": content,
        "stop_reason": "tool_use" if said.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": USAGE[0], "output_tokens": USAGE[1]},
    }


def _anthropic_events(asked: Body, said: Said, fresh: str) -> Iterator[str]:
    whole = _anthropic_whole(asked, said, fresh)
    begun = {**whole, "content": [], "stop_reason": None}
    yield _sse({"type": "message_start", "message": begun}, "message_start")
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty, delta = (
                {**block, "text": ""},
                {"type": "text_delta", "text": block["text"]},
            )
        else:
            half = {"partial_json": json.dumps(block["input"])}
            empty, delta = {**block, "input": {}}, {"type": "input_json_delta", **half}
        for name, more in (
            ("content_block_start", {"content_block": empty}),
            ("content_block_delta", {"delta": delta}),
            ("content_block_stop", {}),
        ):
            yield _sse({"type": name, "index": index, **more}, name)
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    done = {"type": "message_delta", "delta": ended, "usage": whole["usage"]}
    yield _sse(done, "message_delta")
    yield _sse({"type": "message_stop"}, "message_stop")


ANTHROPIC = Protocol("anthropic", _anthropic_asked, _anthropic_whole, _anthropic_events)


# Gemini's API.


def _gemini_asked(path: str, body: Body) -> Body:
    verb = path.partition("?")[0].rpartition(":")
    model = unquote(verb[0]).rpartition("/")[2]
    messages: list[Body] = []
    if system := body.get("systemInstruction"):
        messages.append({"role": "system", "content": _text(system.get("parts"))})
    for content in body.get("contents") or ():
        messages.extend(_gemini_message(content))
    asked: Body = {"model": model, "messages": messages}
    asked["stream"] = verb[2] == "streamGenerateContent"
    _gemini_tools(body, asked)
    wanted = body.get("generationConfig") or {}
    schema = wanted.get("responseJsonSchema") or wanted.get("responseSchema")
    if schema:
        asked["response_format"] = _schema_wanted(schema)
    elif wanted.get("responseMimeType") == "application/json":
        asked["response_format"] = {"type": "json_object"}
    return asked


def _gemini_tools(body: Body, asked: Body) -> None:
    offered = body.get("tools") or ()
    asked["searches"] = any("googleSearch" in t or "google_search" in t for t in offered)
    found = [each for tool in offered for each in tool.get("functionDeclarations") or ()]
    if not found:
        return
    asked["tools"] = [
        _function(t["name"], t.get("parametersJsonSchema") or t.get("parameters"))
        for t in found
    ]
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    allowed = calling.get("allowedFunctionNames") or ()
    choice: Any = {"ANY": "required", "NONE": "none"}.get(calling.get("mode"), "auto")
    if choice == "required" and len(allowed) == 1:
        choice = {"type": "function", "function": {"name": allowed[0]}}
    asked["tool_choice"] = choice


def _gemini_message(content: Body) -> Iterator[Body]:
    parts = content.get("parts") or []
    for part in parts:
        if result := part.get("functionResponse"):
            text = json.dumps(result.get("response"))
            yield {"role": "tool", "tool_call_id": result["name"], "content": text}
    calls = [
        _called(call["name"], call["name"], json.dumps(call.get("args") or {}))
        for part in parts
        if (call := part.get("functionCall"))
    ]
    text = _text([part for part in parts if "text" in part])
    if text or calls:
        role = "assistant" if content.get("role") == "model" else "user"
        yield {"role": role, "content": text, **({"tool_calls": calls} if calls else {})}


def _gemini_whole(asked: Body, said: Said, fresh: str) -> Body:
    parts: list[Body] = [{"text": said.text}] if said.text else []
    for name, arguments in said.calls:
        parts.append({"functionCall": {"name": name, "args": json.loads(arguments)}})
    content = {"role": "model", "parts": parts}
    candidate: Body = {"content": content, "finishReason": "STOP", "index": 0}
    if asked.get("searches"):
        candidate["groundingMetadata"] = _grounding(said.text)
    return {
        "candidates": [candidate],
        "modelVersion": asked["model"],
        "responseId": fresh,
        "usageMetadata": {
            "promptTokenCount": USAGE[0],
            "candidatesTokenCount": USAGE[1],
            "totalTokenCount": sum(USAGE),
        },
    }


def _grounding(text: str) -> Body:
    """Return what Gemini says of a search that it made itself."""
    web = {"uri": "https://example.com/found", "title": "example.com"}
    segment = {"startIndex": 0, "endIndex": len(text), "text": text}
    support = {"segment": segment, "groundingChunkIndices": [0]}
    return {
        "groundingChunks": [{"web": web}],
        "groundingSupports": [support],
        "webSearchQueries": ["what was asked"],
    }


def _gemini_events(asked: Body, said: Said, fresh: str) -> Iterator[str]:
    yield _sse(_gemini_whole(asked, said, fresh))


GEMINI = Protocol("gemini", _gemini_asked, _gemini_whole, _gemini_events)


# Ollama's API: a stream is a JSON object in each line.


def _ollama_asked(_: str, body: Body) -> Body:
    messages: list[Body] = []
    for index, message in enumerate(body.get("messages") or ()):
        calls = [
            _called(
                f"{index}", c["function"]["name"], json.dumps(c["function"]["arguments"])
            )
            for c in message.get("tool_calls") or ()
        ]
        more = {"tool_calls": calls} if calls else {}
        text = {"role": message["role"], "content": message.get("content") or ""}
        messages.append({**text, **more})
    asked: Body = {"model": body.get("model"), "messages": messages}
    asked["stream"] = body.get("stream", True)
    if body.get("tools"):
        asked["tools"] = body["tools"]
    wanted = body.get("format")
    if isinstance(wanted, dict):
        asked["response_format"] = _schema_wanted(wanted)
    elif wanted == "json":
        asked["response_format"] = {"type": "json_object"}
    return asked


def _ollama_whole(asked: Body, said: Said, _: str) -> Body:
    message: Body = {"role": "assistant", "content": said.text}
    if said.calls:
        named = [{"name": n, "arguments": json.loads(given)} for n, given in said.calls]
        message["tool_calls"] = [{"function": each} for each in named]
    head = {"model": asked["model"], "created_at": "2030-01-02T03:04:05Z"}
    counts = {"prompt_eval_count": USAGE[0], "eval_count": USAGE[1]}
    return {**head, "message": message, "done": True, "done_reason": "stop", **counts}


def _ollama_events(asked: Body, said: Said, fresh: str) -> Iterator[str]:
    whole = _ollama_whole(asked, said, fresh)
    yield json.dumps({**whole, "done": False, "done_reason": None}) + "\n"
    yield json.dumps({**whole, "message": {"role": "assistant", "content": ""}}) + "\n"


OLLAMA = Protocol("ollama", _ollama_asked, _ollama_whole, _ollama_events)
