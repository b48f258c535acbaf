"""What a fresh database begins with. It is written once: a row that somebody deleted does not come back.

Models have no prices here: the built-in list's are then in force, of whatever version it is.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

import asyncpg

_PROVIDERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("openai", "openai", "https://api.openai.com/v1", ("openai_ranges",)),
    ("mistral", "mistral", "https://api.mistral.ai/v1", ()),
    ("demo", "openai", "builtin:demo", ()),
)


class SeedModel(NamedTuple):
    """A model to begin with."""

    name: str
    provider: str
    fallback: str | None = None
    input_per_1k: Decimal | None = None
    """US dollars; None: what the built-in list says."""
    output_per_1k: Decimal | None = None


def _of(provider: str, *names: str) -> tuple[SeedModel, ...]:
    return tuple(SeedModel(name, provider) for name in names)


def _demo(name: str, fallback: str | None = None) -> SeedModel:
    """No list knows what a simulated answer costs."""
    return SeedModel(name, "demo", fallback, Decimal("0.0005"), Decimal("0.0015"))


# A test looks up which of them the built-in list knows.
MODELS = (
    *_of("openai", "gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-astra", "gpt-6-sol", "gpt-6-luna"),
    *_of("openai", "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"),
    *_of(
        "openai",
        "gpt-5.5",
        "gpt-5.4",
        "gpt-5.4-mini",
        "gpt-5.4-nano",
        "gpt-5.2",
        "gpt-5.1",
        "gpt-5",
        "gpt-5-mini",
        "gpt-5-nano",
    ),
    *_of("openai", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o", "gpt-4o-mini", "gpt-4-turbo", "gpt-4"),
    SeedModel("gpt-3.5-turbo", "openai", fallback="mistral-small-latest"),
    *_of("openai", "o1", "o3", "o3-mini", "o4-mini"),
    *_of("openai", "text-embedding-3-large", "text-embedding-3-small", "text-embedding-ada-002"),
    *_of("openai", "gpt-3.5-turbo-instruct", "davinci-002", "babbage-002"),
    *_of("openai", "omni-moderation-latest", "omni-moderation-2024-09-26"),
    *_of("openai", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"),
    *_of("openai", "whisper-1", "gpt-4o-mini-tts", "tts-1", "tts-1-hd"),
    *_of("openai", "gpt-image-2.6-sunburst", "gpt-image-2.6-flare", "gpt-image-2.5-sunburst", "gpt-image-2.5-flare"),
    *_of("openai", "gpt-image-2", "gpt-image-1.5", "gpt-image-1-mini"),
    *_of("mistral", "mistral-large-latest", "mistral-large-2512", "mistral-medium-latest", "mistral-small-latest"),
    *_of("mistral", "ministral-14b-2512", "ministral-8b-latest", "ministral-3b-2512", "codestral-latest"),
    *_of("mistral", "open-mistral-nemo", "mistral-embed", "codestral-embed", "mistral-moderation-latest"),
    _demo("demo/echo"),
    _demo("demo/slow"),
    _demo("demo/unreliable", fallback="demo/echo"),
    _demo("demo/stall"),
    _demo("demo/cut"),
)

_ADD = """
INSERT INTO tollway.models (name, provider, input_cost_per_1k, output_cost_per_1k, fallback) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO NOTHING
"""
_REMEMBER = """
UPDATE tollway.installation
SET seeded_models = ARRAY(SELECT unnest(seeded_models) UNION SELECT unnest($1::text[]) ORDER BY 1)
"""


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
        await add(connection, MODELS)


class Missing(NamedTuple):
    """What this release's seed has and a database has not."""

    new: list[SeedModel]
    """What it was never given."""
    removed: list[SeedModel]
    """What somebody has deleted."""


async def missing(connection: asyncpg.Connection) -> Missing:
    """Compare a database with the seed, by names; models of providers that it does not have are left out."""
    names = set(await connection.fetchval("SELECT array_agg(name) FROM tollway.models") or ())
    providers = set(await connection.fetchval("SELECT array_agg(name) FROM tollway.providers") or ())
    given = set(await connection.fetchval("SELECT seeded_models FROM tollway.installation"))
    absent = [model for model in MODELS if model.name not in names and model.provider in providers]
    return Missing(
        [model for model in absent if model.name not in given], [model for model in absent if model.name in given]
    )


async def add(connection: asyncpg.Connection, models: Sequence[SeedModel]) -> None:
    """Put models into the database and remember that they were; what is there already is left alone."""
    there = set(await connection.fetchval("SELECT array_agg(name) FROM tollway.models") or ())
    there.update(model.name for model in models)
    async with connection.transaction():
        await connection.executemany(
            _ADD,
            [
                (
                    model.name,
                    model.provider,
                    model.input_per_1k,
                    model.output_per_1k,
                    model.fallback if model.fallback in there else None,
                )
                for model in models
            ],
        )
        await connection.execute(_REMEMBER, [model.name for model in models])
