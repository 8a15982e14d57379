"""Closing the clients of chat models that asked an endpoint on loopback."""

import asyncio

from langchain_core.language_models import BaseChatModel


async def close_clients(*models: BaseChatModel) -> None:
    """Close the connections of models, in the event loop that used them.

    Those of ChatOpenAI, which LangChain shares among all models of one `base_url` and
    keeps for the whole process. Other models are passed over.
    """
    for model in models:
        if (client := getattr(model, "root_client", None)) is not None:
            client.close()
        if (client := getattr(model, "root_async_client", None)) is not None:
            await client.close()
    await asyncio.sleep(0)  # a closed connection is gone at the loop's next turn
