"""The router as middleware of LangChain's `create_agent`.

Needs the extra `agents`. The agent's own model stays its reference: it answers where
nothing is bound, and on escalation.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.language_models import BaseChatModel

from langchain_slm.errors import MissingExtraError
from langchain_slm.routing.chat_router import ChatRouter
from langchain_slm.routing.router import PlanLike, Router

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        ModelRequest,
        ModelResponse,
    )
except ImportError as error:
    msg = "RouterMiddleware needs langchain: pip install 'langchain-slm[agents]'"
    raise MissingExtraError(msg) from error

logger = logging.getLogger(__name__)


class RouterMiddleware(AgentMiddleware[Any, Any, Any]):
    """Lets a router answer the model calls of an agent.

    Args:
        router: What answers: a `Router`, or what one is made of: a plan, the path of a
            plan file, or `{site: chat model or "provider:model"}`.
        site: The site of the agent's calls; None for the path of the node that runs,
            which is `model` for an agent of its own, and `parent/model` for one that is
            a node of another graph.

    Example:
        `create_agent("openai:gpt-4o", tools, middleware=[RouterMiddleware(router)])`
    """

    def __init__(self, router: Router | PlanLike, *, site: str | None = None) -> None:
        super().__init__()
        self.router = router if isinstance(router, Router) else Router(router)
        self._site = site
        self._made: ChatRouter | None = None  # for the model that was asked for last

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Let the router answer one model call."""
        return handler(self._routed(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Let the router answer one model call."""
        return await handler(self._routed(request))

    def _routed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        model, made = request.model, self._made
        if isinstance(model, ChatRouter):
            return request
        if not isinstance(model, BaseChatModel):
            kind = type(model).__name__
            logger.warning("%s is no chat model: the router leaves it alone", kind)
            return request
        if made is None or made.default is not model:
            made = ChatRouter(default=model, router=self.router, site=self._site)
            self._made = made
        return request.override(model=made)
