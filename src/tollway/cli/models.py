"""``tollway models``."""

from decimal import Decimal
from typing import NamedTuple

from tollway.cli.session import session
from tollway.cli.words import AsJson, command, group, show_json, show_table
from tollway.wire.json import decoder

app = group("Models: where they are served and what they cost.")

_names = decoder(list[str])

_MODELS = """
SELECT m.name, m.provider, COALESCE(m.upstream_name, m.name) AS upstream, m.fallback,
    COALESCE(m.input_cost_per_1k, b.input_cost_per_1k) AS input,
    COALESCE(m.output_cost_per_1k, b.output_cost_per_1k) AS output,
    CASE WHEN m.input_cost_per_1k IS NOT NULL AND m.output_cost_per_1k IS NOT NULL THEN 'set'
         WHEN b.input_cost_per_1k IS NOT NULL OR b.output_cost_per_1k IS NOT NULL THEN 'built-in'
         ELSE 'unknown' END AS price
FROM tollway.models m
LEFT JOIN tollway.builtin_prices b ON b.provider = m.provider AND b.model = COALESCE(m.upstream_name, m.name)
ORDER BY m.provider, m.name
"""


@app.command("list")
@command
async def list_models(as_json: AsJson = False) -> None:
    """List the models with their providers, fallbacks and prices (US dollars per 1,000 tokens).

    \b
    They are rows: change them in psql, for example
      tollway db psql -c 'UPDATE "LLMModels" SET fallback = $$mistral-small-latest$$ WHERE name = $$gpt-4o$$'
    """
    async with session() as opened:
        rows = await opened.connection.fetch(_MODELS)
    models = [Model(*row) for row in rows]
    if as_json:
        show_json([_members(model) for model in models])
        return
    columns = ("model", "provider", "called there", "fallback", ">input $/1k", ">output $/1k", "price")
    cells = [(m.name, m.provider, m.upstream_name, m.names, m.input_cost, m.output_cost, m.price) for m in models]
    show_table(columns, cells, "There are no models.")


class Model(NamedTuple):
    """A row of the list; costs are US dollars per 1,000 tokens."""

    name: str
    provider: str
    upstream_name: str
    fallback: str | None
    input_cost: Decimal | None
    output_cost: Decimal | None
    price: str

    @property
    def names(self) -> list[str]:
        """The models to try next."""
        text = self.fallback or "[]"
        try:
            return _names(text.encode())
        except ValueError:  # written past all checks
            return [text]


def _members(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "provider": model.provider,
        "upstreamName": model.upstream_name,
        "fallback": model.names,
        "inputCostPer1k": model.input_cost,
        "outputCostPer1k": model.output_cost,
        "price": model.price,
    }
