"""The dialects, by the name that a provider's row in the database gives."""

from collections.abc import Mapping

from tollway.providers.base import Adapter
from tollway.providers.mistral.adapter import MistralChat
from tollway.providers.openai import OpenAIChat, Quirks

CHAT: Mapping[str, Adapter] = {
    "openai": OpenAIChat(Quirks()),
    "mistral": MistralChat(),
}


def adapters(dialect: str) -> Mapping[str, Adapter]:
    """What this dialect offers, by the name of the operation."""
    return {"chat/completions": CHAT[dialect]}
