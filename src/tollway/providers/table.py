"""The dialects, by the name that a provider's row in the database gives: what each offers, by the operation's name."""

from collections.abc import Callable, Mapping, Sequence

from tollway.providers.base import Adapter
from tollway.providers.mistral.adapter import MistralChat
from tollway.providers.mistral.embeddings import MistralEmbeddings
from tollway.providers.mistral.fim import MistralCompletions
from tollway.providers.mistral.moderations import MistralModerations
from tollway.providers.openai import OpenAIChat
from tollway.providers.openai_completions import OpenAICompletions
from tollway.providers.openai_endpoints import OpenAIEmbeddings, OpenAIModerations
from tollway.providers.quirks import Quirks, quirks_of


def _openai(quirks: Quirks) -> dict[str, Adapter]:
    return {
        "chat/completions": OpenAIChat(quirks),
        "embeddings": OpenAIEmbeddings(quirks),
        "completions": OpenAICompletions(quirks),
        "moderations": OpenAIModerations(),
    }


def _mistral(quirks: Quirks) -> dict[str, Adapter]:
    return {
        "chat/completions": MistralChat(quirks),
        "embeddings": MistralEmbeddings(),
        "completions": MistralCompletions(),
        "moderations": MistralModerations(),
    }


DIALECTS: Mapping[str, Callable[[Quirks], Mapping[str, Adapter]]] = {"openai": _openai, "mistral": _mistral}


def adapters(dialect: str, quirks: Sequence[str] = ()) -> Mapping[str, Adapter]:
    """What a provider of this dialect and with these quirks offers."""
    return DIALECTS[dialect](quirks_of(quirks))
