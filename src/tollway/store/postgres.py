"""Connections to PostgreSQL: one set of habits for all of them, and the SQL that lies in files."""

import asyncio
import contextlib
import functools
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from tollway.store.outage import AWAY, may_pass
from tollway.store.uri import SYSTEM, DatabaseUrl, DatabaseUrlError, Host, Tls, read

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 10.0
"""No statement of the running gateway takes a tenth of it; a connection into nowhere is given up after it."""

_SEARCH_PATH = "pg_catalog"
"""Our statements name the schema of everything. Whatever else a search_path holds must not get between."""

_QUERIES = Path(__file__).parent / "queries"


async def connect(url: str, application: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> asyncpg.Connection:
    """A connection; ``application`` is what an administrator sees in ``pg_stat_activity``.

    Of several hosts the first one that will do. Raises DatabaseUrlError, and what asyncpg raises.
    """
    wanted = read(url)
    hosts = random.sample(wanted.hosts, len(wanted.hosts)) if wanted.random_order else wanted.hosts
    for host in hosts:
        try:
            return await _connect_to(host, wanted, application, command_timeout_s)
        except AWAY as error:
            if host is hosts[-1] or not may_pass(error):
                raise
    raise AssertionError("a URI has at least one host")


async def create_pool(url: str, application: str, *, max_size: int = 8) -> asyncpg.Pool:
    """A pool that opens connections when they are needed; making it does not ask the database."""

    async def open_one(*_: object, **__: object) -> asyncpg.Connection:
        return await connect(url, application)

    return await asyncpg.create_pool(
        connect=open_one, min_size=0, max_size=max_size, max_inactive_connection_lifetime=60, reset=_reset
    )


@functools.cache
def query(name: str) -> str:
    """The statement in ``queries/<name>.sql``."""
    return (_QUERIES / f"{name}.sql").read_text("utf-8")


async def _reset(connection: asyncpg.Connection) -> None:
    """Before it is used for something else; not the driver's way, which would drop the search_path of :func:`_ask`."""
    await connection.execute(f"RESET ALL; SET search_path = {_SEARCH_PATH}")


async def _connect_to(
    host: Host, wanted: DatabaseUrl, application: str, command_timeout_s: float
) -> asyncpg.Connection:
    arguments: dict[str, Any] = {
        "host": host.address,
        "port": host.port,
        "user": wanted.user,
        "password": wanted.password,
        "database": wanted.database,
        "passfile": wanted.passfile,
        "direct_tls": wanted.tls.direct,
        "target_session_attrs": wanted.session,
        "krbsrvname": wanted.kerberos_service,
        "gsslib": wanted.kerberos_library,
        "timeout": wanted.connect_timeout_s or CONNECT_TIMEOUT_S,
        "command_timeout": command_timeout_s,
        **({"ssl": False} if host.address.startswith("/") else await asyncio.to_thread(_tls, wanted.tls)),
    }
    settings = {"application_name": f"{wanted.application} {application}"}
    if wanted.options is not None:
        settings["options"] = wanted.options
    try:
        return await _ask(arguments, settings)
    except OSError as error:
        if "rejected SSL upgrade" in str(error):
            # Where TLS is only preferred, PostgreSQL's own no is none: the answer was something else.
            if wanted.tls.mode in ("allow", "prefer"):
                raise DatabaseUrlError(f"port {host.port} of {host.address} is no PostgreSQL's") from None
            raise DatabaseUrlError(f"sslmode={wanted.tls.mode}: the server does not speak TLS") from None
        if host.socket is not None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), host.socket) from None  # the event loop names none
        raise


async def _ask(arguments: dict[str, Any], settings: dict[str, str]) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(**arguments, server_settings=settings | {"search_path": _SEARCH_PATH})
    except asyncpg.PostgresError as error:
        if "startup parameter" not in str(error) or "search_path" not in str(error):
            raise
    # A pooler that passes on no setting of a session, PgBouncer for example.
    connection = await asyncpg.connect(**arguments, server_settings=settings)
    try:
        await connection.execute(f"SET search_path = {_SEARCH_PATH}")
    except BaseException:
        connection.terminate()
        raise
    return connection


def _tls(tls: Tls) -> dict[str, Any]:
    """The driver's arguments for it. Raises DatabaseUrlError for files that cannot be used."""
    if tls.mode == "disable":
        return {"ssl": False}
    context = _context(tls)
    if tls.mode not in ("allow", "prefer"):
        return {"ssl": context}
    # Falling back is the driver's own, and it takes files in a URI only.
    named = {
        "sslmode": tls.mode,
        "sslcert": tls.certificate if tls.shows_certificate else None,
        "sslkey": tls.key,
        "sslpassword": tls.password,
        "ssl_min_protocol_version": tls.minimum,
        "ssl_max_protocol_version": tls.maximum,
    }
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in named.items() if value is not None)
    return {"dsn": f"postgresql://?{query}"}


def _context(tls: Tls) -> ssl.SSLContext:
    """As libpq makes it; its files in ``~/.postgresql`` count where the URI names none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    context.minimum_version = ssl.TLSVersion[tls.minimum.replace(".", "_")]
    if tls.maximum is not None:
        context.maximum_version = ssl.TLSVersion[tls.maximum.replace(".", "_")]
    if tls.mode not in ("allow", "prefer"):
        _trust(context, tls)
    certificate = tls.certificate or _default("postgresql.crt")
    if certificate is not None and tls.shows_certificate:
        key = tls.key or _default("postgresql.key")
        _load("sslcert", certificate, lambda: context.load_cert_chain(certificate, key, lambda: tls.password or ""))
    return context


def _trust(context: ssl.SSLContext, tls: Tls) -> None:
    root = tls.root or _default("root.crt")
    if root == SYSTEM:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    elif root is not None:
        _load("sslrootcert", root, lambda: context.load_verify_locations(cafile=root))
    elif tls.mode != "require":
        raise DatabaseUrlError(
            f"sslmode={tls.mode} needs root certificates, and there is no ~/.postgresql/root.crt: "
            "name a file by sslrootcert, or say sslrootcert=system for those that this machine trusts"
        )
    else:
        return
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = tls.mode == "verify-full"
    revoked = tls.revoked or _default("root.crl")
    if revoked is not None:
        _load("sslcrl", revoked, lambda: context.load_verify_locations(cafile=revoked))
    if tls.revoked_directory is not None:
        _load("sslcrldir", tls.revoked_directory, lambda: context.load_verify_locations(capath=tls.revoked_directory))
    if revoked is not None or tls.revoked_directory is not None:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load(parameter: str, path: str, load: Callable[[], object]) -> None:
    try:
        Path(path).stat()
        load()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise DatabaseUrlError(f"{parameter} cannot be used, {path!a}: {reason}") from None


def _default(name: str) -> str | None:
    """A file of libpq's own directory, if it is there."""
    with contextlib.suppress(RuntimeError, OSError):
        path = Path.home() / ".postgresql" / name
        return str(path) if path.exists() else None
    return None
