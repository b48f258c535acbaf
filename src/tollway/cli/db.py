"""``tollway db``."""

import os
import shutil
import signal
import subprocess
from typing import Annotated

import typer

from tollway.cli.session import database_url, encryption_key, settings_of_commands
from tollway.cli.words import CommandError, command, group, say
from tollway.database import prepare
from tollway.store.embedded import running_url
from tollway.store.migrate import head
from tollway.store.server_binaries import psql as bundled_psql
from tollway.store.uri import without_password

app = group("The gateway's PostgreSQL: its address, a prompt, its schema.")


@app.command()
@command
async def url() -> None:
    """Print the URI of the configured database, or of the running embedded one.

    \b
    It holds the password. Example:
      psql "$(tollway db url)" -c 'SELECT * FROM "Users"'
    """
    settings = settings_of_commands()
    if settings.database_url is not None:
        say(settings.database_url.reveal())
        return
    running = running_url(settings.home)
    if running is None:
        raise CommandError("the embedded PostgreSQL does not run; start the gateway with: tollway serve")
    say(running)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@command
async def psql(
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed to psql.", metavar="[PSQL OPTIONS]")] = None,
) -> None:
    """Open psql on the database; without a running gateway the embedded one is started for as long.

    \b
    Examples:
      tollway db psql
      tollway db psql -c 'SELECT id, "totalCost" FROM "Users"'
    """
    program = shutil.which("psql") or str(bundled_psql())
    if not os.access(program, os.X_OK):
        raise CommandError("there is no psql on this machine; any PostgreSQL client works with: tollway db url")
    async with database_url(settings_of_commands()) as where:
        address, password = without_password(where.reveal())  # arguments are shown to all users of the machine
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is psql's: it cancels a statement
        environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
        code = subprocess.call([program, f"--dbname={address}", *(arguments or ())], env=environment)  # noqa: S603, ASYNC221
    raise typer.Exit(code)


@app.command()
@command
async def migrate() -> None:
    """Bring the schema up to date; serving does so by itself at its start.

    \b
    Example:
      DATABASE_URL=postgresql://… ENCRYPTION_KEY=… tollway db migrate
    """
    settings = settings_of_commands()
    key = encryption_key(settings)
    async with database_url(settings, create=True) as where:
        await prepare(where, settings, key)
    say(f"The database is at schema version {head()}.")
