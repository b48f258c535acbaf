"""The dialects, by the name that a provider's row in the database gives: what each offers."""

from collections.abc import Mapping

from tollway.providers.base import Adapter, SplittingAdapter
from tollway.providers.mistral.adapter import MistralChat
from tollway.providers.mistral.embeddings import MistralEmbeddings
from tollway.providers.mistral.fim import MistralCompletions
from tollway.providers.mistral.moderations import MistralModerations
from tollway.providers.openai import OpenAIChat, Quirks
from tollway.providers.openai_completions import OpenAICompletions
from tollway.providers.openai_endpoints import OpenAIEmbeddings, OpenAIModerations

CHAT: Mapping[str, Adapter] = {
    "openai": OpenAIChat(Quirks()),
    "mistral": MistralChat(),
}

EMBEDDINGS: Mapping[str, SplittingAdapter] = {
    "openai": OpenAIEmbeddings(),
    "mistral": MistralEmbeddings(),
}

COMPLETIONS: Mapping[str, Adapter] = {
    "openai": OpenAICompletions(Quirks()),
    "mistral": MistralCompletions(),
}

MODERATIONS: Mapping[str, Adapter] = {
    "openai": OpenAIModerations(),
    "mistral": MistralModerations(),
}


def adapters(dialect: str) -> Mapping[str, Adapter]:
    """What this dialect offers, by the name of the operation."""
    return {
        "chat/completions": CHAT[dialect],
        "embeddings": EMBEDDINGS[dialect],
        "completions": COMPLETIONS[dialect],
        "moderations": MODERATIONS[dialect],
    }
