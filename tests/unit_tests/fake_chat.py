"""The one fake of the chat-model protocol: answers from a function, keeps a log."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

Reply = Callable[[list[BaseMessage]], AIMessage | str]


class FakeChat(BaseChatModel):
    """A chat model that says what `reply` returns, or raises what it raises.

    `asked` holds the messages of each call and `options` its keyword arguments.
    Streams word by word.
    """

    model_name: str = "fake"
    reply: Reply = lambda messages: f"echo {messages[-1].content}"
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake-chat"

    def _answer(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> AIMessage:
        self.asked.append(messages)
        self.options.append(kwargs)
        answer = self.reply(messages)
        message = AIMessage(answer) if isinstance(answer, str) else answer
        message.response_metadata.setdefault("model_name", self.model_name)
        message.response_metadata.setdefault("finish_reason", "stop")
        if message.usage_metadata is None:
            message.usage_metadata = {
                "input_tokens": sum(len(str(m.content).split()) for m in messages),
                "output_tokens": len(str(message.content).split()),
                "total_tokens": 0,
            }
        return message

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._answer(messages, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        message = self._answer(messages, kwargs)
        words = str(message.content).split(" ") if message.content else []
        for index, word in enumerate(words):
            text = word if index == 0 else f" {word}"
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        calls = [
            {
                "name": c["name"],
                "args": str(c["args"]).replace("'", '"'),
                "id": c["id"],
                "index": i,
            }
            for i, c in enumerate(message.tool_calls)
        ]
        last = AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
        )
        yield ChatGenerationChunk(message=last)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, kwargs):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, kwargs):
            if run_manager:
                await run_manager.on_llm_new_token(
                    str(chunk.message.content), chunk=chunk
                )
            yield chunk

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        bound = [convert_to_openai_tool(tool) for tool in tools]
        if tool_choice:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=bound, **kwargs)
