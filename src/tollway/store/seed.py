"""What a fresh database begins with. It is written once: a row that somebody deleted does not come back."""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

import asyncpg

_PROVIDERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("openai", "openai", "https://api.openai.com/v1", ("openai_ranges",)),
    ("mistral", "mistral", "https://api.mistral.ai/v1", ()),
    ("demo", "openai", "builtin:demo", ()),
)


class SeedModel(NamedTuple):
    """A model to begin with; costs are US dollars per million tokens, as providers publish them."""

    name: str
    provider: str
    input: str
    output: str = "0"
    cached_input: str | None = None
    fallback: str | None = None


# Chat and embedding models. A test compares the prices with the built-in list, so that its updates show here.
MODELS = (
    SeedModel("gpt-6.1-sol", "openai", "2", "10", "0.1"),
    SeedModel("gpt-6.1-terra", "openai", "1", "5", "0.05"),
    SeedModel("gpt-6-astra", "openai", "10", "50", "1"),
    SeedModel("gpt-6-sol", "openai", "2", "10", "0.2"),
    SeedModel("gpt-6-luna", "openai", "0.1", "0.5", "0.01"),
    SeedModel("gpt-5.6-sol", "openai", "4", "20", "0.4"),
    SeedModel("gpt-5.6-terra", "openai", "2", "12", "0.2"),
    SeedModel("gpt-5.6-luna", "openai", "0.2", "1.2", "0.02"),
    SeedModel("gpt-5.5", "openai", "5", "30", "0.5"),
    SeedModel("gpt-5.4", "openai", "2.5", "15", "0.25"),
    SeedModel("gpt-5.4-mini", "openai", "0.75", "4.5", "0.075"),
    SeedModel("gpt-5.4-nano", "openai", "0.2", "1.25", "0.02"),
    SeedModel("gpt-5.2", "openai", "1.75", "14", "0.175"),
    SeedModel("gpt-5.1", "openai", "1.25", "10", "0.125"),
    SeedModel("gpt-5", "openai", "1.25", "10", "0.125"),
    SeedModel("gpt-5-mini", "openai", "0.25", "2", "0.025"),
    SeedModel("gpt-5-nano", "openai", "0.05", "0.4", "0.005"),
    SeedModel("gpt-4.1", "openai", "2", "8", "0.5"),
    SeedModel("gpt-4.1-mini", "openai", "0.4", "1.6", "0.1"),
    SeedModel("gpt-4.1-nano", "openai", "0.1", "0.4", "0.025"),
    SeedModel("gpt-4o", "openai", "2.5", "10", "1.25"),
    SeedModel("gpt-4o-mini", "openai", "0.15", "0.6", "0.075"),
    SeedModel("gpt-4-turbo", "openai", "10", "30"),
    SeedModel("gpt-4", "openai", "30", "60"),
    SeedModel("gpt-3.5-turbo", "openai", "0.5", "1.5", fallback="mistral-small-latest"),
    SeedModel("o1", "openai", "15", "60", "7.5"),
    SeedModel("o3", "openai", "2", "8", "0.5"),
    SeedModel("o3-mini", "openai", "1.1", "4.4", "0.55"),
    SeedModel("o4-mini", "openai", "1.1", "4.4", "0.275"),
    SeedModel("text-embedding-3-large", "openai", "0.13"),
    SeedModel("text-embedding-3-small", "openai", "0.02"),
    SeedModel("text-embedding-ada-002", "openai", "0.1"),
    SeedModel("mistral-large-latest", "mistral", "2", "6"),
    SeedModel("mistral-large-2512", "mistral", "0.5", "1.5", "0.05"),
    SeedModel("mistral-medium-latest", "mistral", "1.5", "7.5", "0.15"),
    SeedModel("mistral-small-latest", "mistral", "0.15", "0.6", "0.015"),
    SeedModel("ministral-14b-2512", "mistral", "0.2", "0.2", "0.02"),
    SeedModel("ministral-8b-latest", "mistral", "0.15", "0.15", "0.015"),
    SeedModel("ministral-3b-2512", "mistral", "0.1", "0.1", "0.01"),
    SeedModel("codestral-latest", "mistral", "0.3", "0.9"),
    SeedModel("open-mistral-nemo", "mistral", "0.15", "0.15"),
    SeedModel("mistral-embed", "mistral", "0.1", "0.1"),
    SeedModel("codestral-embed", "mistral", "0.15", "0", "0.015"),
    SeedModel("demo/echo", "demo", "0.5", "1.5"),
    SeedModel("demo/slow", "demo", "0.5", "1.5"),
    SeedModel("demo/unreliable", "demo", "0.5", "1.5", fallback="demo/echo"),
    SeedModel("demo/stall", "demo", "0.5", "1.5"),
    SeedModel("demo/cut", "demo", "0.5", "1.5"),
)


OTHER_MODELS: Mapping[str, tuple[str, ...]] = {
    "openai": (
        *("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002"),
        *("omni-moderation-latest", "omni-moderation-2024-09-26"),
        *("gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize", "whisper-1"),
        *("gpt-4o-mini-tts", "tts-1", "tts-1-hd"),
        *("gpt-image-2.6-sunburst", "gpt-image-2.6-flare", "gpt-image-2.5-sunburst", "gpt-image-2.5-flare"),
        *("gpt-image-2", "gpt-image-1.5", "gpt-image-1-mini"),
    ),
    "mistral": ("mistral-moderation-latest",),
}
"""Models of other endpoints, by provider. Many are not billed by tokens; the built-in list says what it knows."""


async def seed(connection: asyncpg.Connection, base_urls: Mapping[str, str] | None = None) -> None:
    """Fill a database that never was filled, and put the given addresses, by provider, into the providers' rows.

    Raises ValueError for an address that no provider may have.
    """
    if not await connection.fetchval("SELECT seeded_at IS NOT NULL FROM tollway.installation"):
        await _fill(connection)
    for provider, url in (base_urls or {}).items():
        try:
            await connection.execute(
                "UPDATE tollway.providers SET api_base = $2 WHERE name = $1 AND api_base <> $2", provider, url
            )
        except asyncpg.CheckViolationError as error:
            raise ValueError(str(error)) from error


async def _fill(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        mark = "UPDATE tollway.installation SET seeded_at = now() WHERE seeded_at IS NULL RETURNING true"
        if not await connection.fetchval(mark):
            return  # another gateway was faster
        await connection.executemany(
            "INSERT INTO tollway.providers (name, dialect, api_base, quirks) VALUES ($1, $2, $3, $4)", _PROVIDERS
        )
        await connection.executemany(
            "INSERT INTO tollway.models (name, provider, input_cost_per_1k, output_cost_per_1k, "
            "cached_input_cost_per_1k, fallback) VALUES ($1, $2, $3, $4, $5, $6)",
            [
                (
                    model.name,
                    model.provider,
                    *map(_per_1k, (model.input, model.output, model.cached_input)),
                    model.fallback,
                )
                for model in MODELS
            ],
        )
        await connection.executemany(
            "INSERT INTO tollway.models (name, provider) VALUES ($1, $2)",
            [(name, provider) for provider, names in OTHER_MODELS.items() for name in names],
        )


def _per_1k(per_million: str | None) -> Decimal | None:
    return None if per_million is None else Decimal(per_million).scaleb(-3)
