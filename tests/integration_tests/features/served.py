"""Models behind an endpoint on loopback, which says what an app's script says."""

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from integration_tests.features.app import site_of
from integration_tests.features.running import Models
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from unit_tests.endpoint import Endpoint


class Scripted(Endpoint):
    """Answers each request with what `script` says to its messages.

    Where JSON is asked for, it sends the arguments of the tool that the script calls.
    """

    script: Callable[[list[BaseMessage]], AIMessage | str]

    def reply(self, asked: dict[str, Any]) -> tuple[str, bytes]:
        said = self.script(messages_of(asked))
        message = AIMessage(said) if isinstance(said, str) else said
        once = copy.copy(self)  # requests are answered at once
        once.text, once.calls = message.text, message.tool_calls
        if asked.get("response_format"):
            once.text, once.calls = json.dumps(once.calls[0]["args"]), []
        once.finish = "tool_calls" if once.calls else "stop"
        return super(Scripted, once).reply(asked)

    def _tool_calls(self) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["args"])},
            }
            for index, call in enumerate(self.calls)
        ]


def messages_of(asked: dict[str, Any]) -> list[BaseMessage]:
    return convert_to_messages(asked["messages"])


class Served(Models):
    """Models of OpenAI's class, told apart by the name that a request says."""

    def __init__(self, endpoint: Scripted) -> None:
        self.endpoint = endpoint
        endpoint.script = lambda messages: self.reply(messages)  # noqa: PLW0108 - it changes
        super().__init__()

    def model(self, name: str) -> Any:
        return self.endpoint.openai(name)

    def asked(self) -> Counter[tuple[str, str]]:
        return Counter(
            (body["model"], site_of(messages_of(body))) for body in self.endpoint.asked
        )
