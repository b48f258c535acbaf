"""``tollway keys``."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from msgspec import UNSET

from tollway.cli.session import Session, session
from tollway.cli.words import AsJson, CommandError, command, group, moment, show_fields, show_json, show_table
from tollway.store import keys
from tollway.store.keys import Changes, NewSecret, VirtualKey

app = group("Virtual keys: make, list, show, rotate, revoke, limit them.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LARGEST = 2**31 - 1


def _limit(text: str) -> int | None:
    """A limit per minute, or ``none``."""
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST:
        raise typer.BadParameter(f"{text!r} is neither a whole number up to {_LARGEST} nor: none")
    return int(text)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration; write 30m, 24h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _expiry(text: str) -> datetime:
    """A date, or a duration from now."""
    expires_at = datetime.now(UTC) + _duration(text) if re.fullmatch(r"[0-9]+[a-z]", text) else moment(text)
    if expires_at <= datetime.now(UTC):
        raise typer.BadParameter(f"{text!r} is in the past")
    return expires_at


Key = Annotated[str, typer.Argument(help="A key's id (key_…), or its secret.", metavar="KEY")]
Name = Annotated[str | None, typer.Option("--name", help="What you call it.", metavar="NAME")]
Requests = Annotated[str | None, typer.Option("--requests-per-minute", help="A number, or: none.", metavar="N")]
Tokens = Annotated[str | None, typer.Option("--tokens-per-minute", help="A number, or: none.", metavar="N")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be repeated.", metavar="NAME")]
Expires = Annotated[str | None, typer.Option("--expires", help="30d, 12h, 2027-01-31, …", metavar="WHEN")]


@app.command()
@command
async def create(
    name: Name = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: Models = None,
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a virtual key. Its secret is shown now and never again.

    \b
    Examples:
      tollway keys create --name "Team Search"
      tollway keys create --requests-per-minute 600 --tokens-per-minute none --model gpt-4o --expires 90d
    """
    requests_per_minute = keys.DEFAULT_REQUESTS_PER_MINUTE if requests is None else _limit(requests)
    tokens_per_minute = keys.DEFAULT_TOKENS_PER_MINUTE if tokens is None else _limit(tokens)
    expires_at = None if expires is None else _expiry(expires)
    async with session() as opened:
        made = await keys.create(
            opened.connection,
            opened.hasher,
            name=name,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            allowed_models=models or None,
            expires_at=expires_at,
        )
    _show_secret(made, as_json)


@app.command("list")
@command
async def list_keys(as_json: AsJson = False) -> None:
    """List all keys with their limits and what they have spent.

    \b
    Examples:
      tollway keys list
      tollway keys list --json | jq '.[] | select(.totalCost != "0") | .id'
    """
    async with session() as opened:
        found = await keys.list_all(opened.connection)
    if as_json:
        show_json([_members(key) for key in found])
        return
    columns = ("id", "name", "key", "state", ">requests/min", ">tokens/min", ">spent $", ">requests", "made")
    rows = [
        (
            key.id,
            key.name,
            key.hint,
            _state(key),
            *map(_limit_text, (key.requests_per_minute, key.tokens_per_minute)),
            key.total_cost,
            key.requests,
            key.created_at,
        )
        for key in found
    ]
    show_table(columns, rows, "There are no keys yet; make one with: tollway keys create")


@app.command()
@command
async def show(key: Key, as_json: AsJson = False) -> None:
    """Show everything about one key but its secret.

    \b
    Example:
      tollway keys show key_3hK9…
    """
    async with session() as opened:
        found = await _found(opened, key)
    _show(found, as_json)


@app.command()
@command
async def rotate(
    key: Key,
    overlap: Annotated[
        str, typer.Option(help="How long the secret so far stays valid: 30m, 24h, 7d.", metavar="TIME")
    ] = "0s",
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret; its id, limits and costs stay.

    \b
    Example:
      tollway keys rotate key_3hK9… --overlap 24h
    """
    lasting = _duration(overlap)
    async with session() as opened:
        found = await _found(opened, key)
        made = await keys.rotate(opened.connection, opened.hasher, found.id, lasting)
    if made is None:
        raise CommandError(f"{key} is revoked")
    _show_secret(made, as_json)


@app.command()
@command
async def revoke(key: Key, as_json: AsJson = False) -> None:
    """End a key for good, in every running process within a second.

    \b
    Example:
      tollway keys revoke key_3hK9…
    """
    async with session() as opened:
        found = await _found(opened, key)
        await keys.revoke(opened.connection, found.id)
        _show(await _found(opened, found.id), as_json)


@app.command()
@command
async def limits(
    key: Key,
    requests: Requests = None,
    tokens: Tokens = None,
    models: Models = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="Lift the restriction to some models.")] = False,
    expires: Annotated[
        str | None, typer.Option("--expires", help="30d, 2027-01-31, …, or: none.", metavar="WHEN")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what a key may do; without options, show it. In force within a second.

    \b
    Examples:
      tollway keys limits key_3hK9… --requests-per-minute 600 --tokens-per-minute none
      tollway keys limits key_3hK9… --model gpt-4o --model demo/echo
    """
    if models and all_models:
        raise typer.BadParameter("--model and --all-models exclude each other")
    changes = Changes(
        requests_per_minute=UNSET if requests is None else _limit(requests),
        tokens_per_minute=UNSET if tokens is None else _limit(tokens),
        allowed_models=None if all_models else (models or UNSET),
        expires_at=UNSET if expires is None else None if expires.lower() == "none" else _expiry(expires),
    )
    async with session() as opened:
        found = await _found(opened, key)
        if changes != Changes():
            await keys.change(opened.connection, found.id, changes)
            found = await _found(opened, found.id)
    _show(found, as_json)


async def _found(opened: Session, key: str) -> VirtualKey:
    found = await keys.show(opened.connection, await opened.key_id(key))
    if found is None:
        raise CommandError(f"there is no key {key!r}; see: tollway keys list")
    return found


def _show_secret(made: NewSecret, as_json: bool) -> None:
    if as_json:
        show_json({"id": made.id, "virtualKey": made.secret.reveal()})
        return
    show_fields((("id", made.id), ("virtual key", made.secret.reveal())))
    typer.echo("Keep it now: it is not shown again.", err=True)


def _show(key: VirtualKey, as_json: bool) -> None:
    if as_json:
        show_json(_members(key))
        return
    show_fields(
        (
            ("id", key.id),
            ("name", key.name),
            ("virtual key", key.hint),
            ("state", _state(key)),
            ("requests per minute", _limit_text(key.requests_per_minute)),
            ("tokens per minute", _limit_text(key.tokens_per_minute)),
            ("models", "all" if key.allowed_models is None else list(key.allowed_models)),
            ("provider keys", list(key.providers)),
            ("expires", key.expires_at),
            ("previous secret until", key.previous_valid_until),
            ("spent", f"${key.total_cost:f} for {key.requests} requests"),
            ("tokens", f"{key.input_tokens} in, {key.output_tokens} out"),
            ("made", key.created_at),
            ("changed", key.updated_at),
        )
    )


def _members(key: VirtualKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "virtualKey": key.hint,
        "state": _state(key),
        "requestsPerMinute": key.requests_per_minute,
        "tokensPerMinute": key.tokens_per_minute,
        "models": _listed(key.allowed_models),
        "providerKeys": _listed(key.providers),
        "expiresAt": key.expires_at,
        "previousValidUntil": key.previous_valid_until,
        "revokedAt": key.revoked_at,
        "createdAt": key.created_at,
        "updatedAt": key.updated_at,
        "totalCost": f"{key.total_cost:f}",
        "requests": key.requests,
        "inputTokens": key.input_tokens,
        "outputTokens": key.output_tokens,
    }


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def _state(key: VirtualKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "valid"


def _limit_text(limit: int | None) -> str:
    return "none" if limit is None else str(limit)
