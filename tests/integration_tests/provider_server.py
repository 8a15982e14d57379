"""The chat protocols of Anthropic, Google, Groq and Ollama, on one loopback endpoint.

It says what it is told to say, in the form of the provider whose client asks, with the
reasoning and the signatures that such a provider's models add. `transcript` reads what
it was asked.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from integration_tests.misbehaving import Body, Misbehaving, Reply
from integration_tests.schema_server import Said
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_groq import ChatGroq
from langchain_ollama import ChatOllama

NAMES = {
    "anthropic": "claude-sonnet-5",
    "google_genai": "gemini-2.5-flash",
    "groq": "openai/gpt-oss-20b",
    "ollama": "llama3.1",
}
SIGNATURE = "c2lnbmF0dXJl"  # base64, as Google's must be
THOUGHT = "canary: what only the provider's model thought"
# The async tests have an event loop each: none must find the connections of another.
_CLOSE = {"Connection": "close"}
_SSE = {"Content-Type": "text/event-stream", **_CLOSE}


class ProviderServer(Misbehaving):
    """Says `said`; `asked` holds the requests, `paths` whose protocol each came by."""

    def __init__(self, said: Said | None = None) -> None:
        super().__init__(self._reply_to)
        self.said = said or Said("Hello.")

    def _reply_to(self, number: int, asked: Body) -> Reply:
        path = self.paths[number - 1]
        protocol = next(reply for part, reply in _PROTOCOLS.items() if part in path)
        return protocol(self.said, {**asked, "path": path})

    def source(self, provider: str, **settings: Any) -> BaseChatModel:
        """Return the chat model of a provider's package, with this as its endpoint."""
        root = self.url.removesuffix("/v1")
        make = _SOURCES[provider]
        return make(root, **{"model": NAMES[provider], **settings})


def _anthropic(root: str, **settings: Any) -> BaseChatModel:
    return ChatAnthropic(base_url=root, api_key="any", **settings)


def _google(root: str, **settings: Any) -> BaseChatModel:
    return ChatGoogleGenerativeAI(base_url=root, google_api_key="any", **settings)


def _groq(root: str, **settings: Any) -> BaseChatModel:
    return ChatGroq(base_url=root, api_key="any", **settings)


def _ollama(root: str, **settings: Any) -> BaseChatModel:
    return ChatOllama(base_url=root, **settings)


_SOURCES: Mapping[str, Callable[..., BaseChatModel]] = {
    "anthropic": _anthropic,
    "google_genai": _google,
    "groq": _groq,
    "ollama": _ollama,
}


def _events(*events: Body) -> Reply:
    """Return server-sent events, each named by its type if it has one."""
    lines = [
        (f"event: {event['type']}\n" if "type" in event else "")
        + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return Reply("".join(lines), headers=_SSE)


def _called(said: Said) -> Iterator[tuple[str, str, Any]]:
    for index, (name, arguments) in enumerate(said.calls):
        yield f"toolu_{index}", name, json.loads(arguments)


# Anthropic


def _messages_api(said: Said, asked: Body) -> Reply:
    blocks: list[Body] = [
        {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
    ]
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    for index, name, arguments in _called(said):
        blocks.append({"type": "tool_use", "id": index, "name": name, "input": arguments})
    reason = "tool_use" if said.calls else "end_turn"
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": blocks,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    if not asked.get("stream"):
        return Reply(message, headers=_CLOSE)
    begun = {**message, "content": [], "stop_reason": None}
    ended = {"stop_reason": reason, "stop_sequence": None}
    return _events(
        {"type": "message_start", "message": begun},
        *(event for at, block in enumerate(blocks) for event in _block(at, block)),
        {"type": "message_delta", "delta": ended, "usage": message["usage"]},
        {"type": "message_stop"},
    )


def _block(index: int, block: Body) -> Iterator[Body]:
    kind = block["type"]
    empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
    begun = {**block, **empty.get(kind, {"input": {}})}
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    deltas = {
        "text": [{"type": "text_delta", "text": block.get("text")}],
        "thinking": [
            {"type": "thinking_delta", "thinking": block.get("thinking")},
            {"type": "signature_delta", "signature": block.get("signature")},
        ],
        "tool_use": [
            {"type": "input_json_delta", "partial_json": json.dumps(block.get("input"))}
        ],
    }
    for delta in deltas[kind]:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


# Google


def _generate_content(said: Said, asked: Body) -> Reply:
    parts: list[Body] = [{"text": THOUGHT, "thought": True}]
    if said.text:
        parts.append({"text": said.text, "thoughtSignature": SIGNATURE})
    for _, name, arguments in _called(said):
        call = {"name": name, "args": arguments}
        parts.append({"functionCall": call, "thoughtSignature": SIGNATURE})
    content = {"role": "model", "parts": parts}
    whole = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 7,
            "candidatesTokenCount": 3,
            "totalTokenCount": 10,
        },
        "modelVersion": NAMES["google_genai"],
    }
    if ":streamGenerateContent" in asked["path"]:
        return _events(whole)
    return Reply(whole, headers=_CLOSE)


# Groq


def _groq_completions(said: Said, asked: Body) -> Reply:
    message: Body = {"role": "assistant", "content": said.text, "reasoning": THOUGHT}
    calls = [
        {
            "index": index,
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for index, (name, arguments) in enumerate(said.calls)
    ]
    if calls:
        message["tool_calls"] = calls
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    head = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
    end = {"index": 0, "finish_reason": "tool_calls" if calls else "stop"}
    if not asked.get("stream"):
        choice = {**end, "message": message}
        whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return Reply(whole, headers=_CLOSE)
    head["object"] = "chat.completion.chunk"
    begun = {"index": 0, "delta": message, "finish_reason": None}
    return _events(
        {**head, "choices": [begun]},
        {**head, "choices": [{**end, "delta": {}}], "x_groq": {"usage": usage}},
    )


# Ollama


def _ollama_chat(said: Said, asked: Body) -> Reply:
    message: Body = {"role": "assistant", "content": said.text, "thinking": THOUGHT}
    if said.calls:
        message["tool_calls"] = [
            {"function": {"name": name, "arguments": arguments}}
            for _, name, arguments in _called(said)
        ]
    whole = {
        "model": asked["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "message": message,
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 7,
        "eval_count": 3,
    }
    headers = {"Content-Type": "application/x-ndjson", **_CLOSE}
    return Reply(f"{json.dumps(whole)}\n", headers=headers)


_PROTOCOLS: Mapping[str, Callable[[Said, Body], Reply]] = {
    "/v1/messages": _messages_api,
    "enerateContent": _generate_content,
    "/openai/v1/chat/completions": _groq_completions,
    "/api/chat": _ollama_chat,
}


# What was asked


def transcript(path: str, asked: Body) -> list[str]:
    """Return a conversation line by line, whatever the protocol: who says what."""
    if "/v1/messages" in path:
        system = asked.get("system")
        told = [] if system is None else [{"role": "system", "content": system}]
        lines = _of_blocks([*told, *asked["messages"]])
    elif "enerateContent" in path:
        lines = _of_contents(asked)
    else:
        lines = _of_chat(asked["messages"])
    return [line for line in lines if not line.endswith(": ")]


def _of_blocks(messages: list[Body]) -> Iterator[str]:
    for message in messages:
        content, role = message["content"], message["role"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for block in content:
            if block["type"] == "text":
                yield f"{role}: {block['text']}"
            elif block["type"] == "tool_use":
                yield f"{role}: {block['name']}({json.dumps(block['input'])})"
            elif block["type"] == "tool_result":
                yield f"tool: {_text(block['content'])}"
            else:
                yield f"{role}: <{block['type']}>"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content)


def _of_contents(asked: Body) -> Iterator[str]:
    system = asked.get("systemInstruction")
    told = [] if system is None else [{**system, "role": "system"}]
    for content in [*told, *asked["contents"]]:
        role = {"model": "assistant"}.get(content["role"], content["role"])
        for part in content["parts"]:
            if part.get("thought"):
                yield f"{role}: <thinking>"
            elif "text" in part:
                yield f"{role}: {part['text']}"
            elif called := part.get("functionCall"):
                yield f"{role}: {called['name']}({json.dumps(called['args'])})"
            elif answered := part.get("functionResponse"):
                yield f"tool: {answered['response']['output']}"
            else:
                yield f"{role}: <{','.join(part)}>"


def _of_chat(messages: list[Body]) -> Iterator[str]:
    """Groq's, whose arguments are text, and Ollama's, whose arguments are objects."""
    for message in messages:
        role = message["role"]
        if message.get("thinking") or message.get("reasoning"):
            yield f"{role}: <thinking>"
        yield f"{role}: {_text(message.get('content') or '')}"
        for call in message.get("tool_calls") or ():
            name, given = call["function"]["name"], call["function"]["arguments"]
            told = given if isinstance(given, str) else json.dumps(given)
            yield f"{role}: {name}({told})"
