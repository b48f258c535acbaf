"""The dialects, by the name that a provider's row in the database gives."""

from collections.abc import Mapping

from tollway.providers.base import ChatAdapter
from tollway.providers.mistral.adapter import MistralChat
from tollway.providers.openai import OpenAIChat, Quirks

CHAT: Mapping[str, ChatAdapter] = {
    "openai": OpenAIChat(Quirks()),
    "mistral": MistralChat(),
}
