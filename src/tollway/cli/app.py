"""All words of the command line."""

from typing import Annotated

import typer

from tollway.cli import db, keys, ledger, models, prices, serve, usage
from tollway.cli.words import group

app = group("An LLM gateway: OpenAI's API in front, many providers behind it, limits and costs exact.")
app.command("serve", help=serve.HELP)(serve.serve)
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(prices.app, name="prices")
app.add_typer(ledger.app, name="ledger")
app.command("usage")(usage.usage)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tollway {version('tollway')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """An LLM gateway: OpenAI's API in front, many providers behind it, limits and costs exact."""
