"""A callback that notes what tracers are told of a run."""

import threading
from typing import Any

from integration_tests.parity.scripts import text_of
from langchain_core.callbacks import BaseCallbackHandler


class Ear(BaseCallbackHandler):
    """Notes each event: its kind, name, run, parent, tags and metadata, and what is said.

    Attributes:
        heard: The events, as they came.
    """

    run_inline = True  # in the order in which they come, also in an event loop

    def __init__(self) -> None:
        self.heard: list[list[Any]] = []
        self._lock = threading.Lock()

    def _note(self, kind: str, said: Any, **about: Any) -> None:
        told = {
            name: about.get(name)
            for name in ("name", "run_id", "parent_run_id", "tags", "metadata")
        }
        told = {name: value for name, value in told.items() if value is not None}
        told |= {
            key: str(told[key]) for key in ("run_id", "parent_run_id") if key in told
        }
        with self._lock:
            self.heard.append([kind, said, told])

    def on_chain_start(self, serialized: Any, inputs: Any, **about: Any) -> None:
        self._note("chain starts", None, **about)

    def on_chain_end(self, outputs: Any, **about: Any) -> None:
        self._note("chain ends", None, **about)

    def on_chain_error(self, error: BaseException, **about: Any) -> None:
        self._note("chain fails", [type(error).__name__, str(error)], **about)

    def on_tool_start(self, serialized: Any, input_str: str, **about: Any) -> None:
        self._note("tool starts", input_str, **about)

    def on_tool_end(self, output: Any, **about: Any) -> None:
        self._note("tool ends", None, **about)

    def on_tool_error(self, error: BaseException, **about: Any) -> None:
        self._note("tool fails", [type(error).__name__, str(error)], **about)

    def on_retry(self, retry_state: Any, **about: Any) -> None:
        self._note("retry", retry_state.attempt_number, **about)

    def on_chat_model_start(self, serialized: Any, messages: Any, **about: Any) -> None:
        self._note("model starts", [text_of(each) for each in messages], **about)

    def on_llm_new_token(self, token: str, **about: Any) -> None:
        self._note("token", token, **about)

    def on_llm_end(self, response: Any, **about: Any) -> None:
        said = [each.text for part in response.generations for each in part]
        self._note("model ends", said, **about)

    def on_llm_error(self, error: BaseException, **about: Any) -> None:
        self._note("model fails", [type(error).__name__, str(error)], **about)
