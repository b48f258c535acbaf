"""``tollway serve``."""

import os

import typer

from tollway.settings import VARIABLES

_MEANINGS = "\n".join(
    f"  {variable.name}\n      {variable.meaning}\n      Default: "
    f"{variable.shown_default or variable.default or 'unset'}."
    for variable in VARIABLES
)

HELP = f"""Serve, in the foreground, until SIGTERM or Ctrl-C.

\b
Everything is set by environment variables:
{_MEANINGS}

\b
Example:
  PORT=4000 ADMIN_KEY=$(openssl rand -hex 16) tollway serve
"""


def serve() -> None:
    """The word with options; without any, ``cli/main.py`` takes the short way."""
    from tollway.supervisor import serve as run

    raise typer.Exit(run(os.environ))
