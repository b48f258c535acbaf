"""A connection is made as DATABASE_URL says, with TLS as strict as asked; what cannot be done is refused at a start."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
import trustme

from fakes.connections import connected, database_url
from fakes.fixtures import StartGateway
from fakes.gateway import Gateway, StartFailedError
from fakes.given_server import GivenServer
from fakes.relay import Relay, socket_of
from tollway.store.outage import may_pass
from tollway.store.postgres import connect, create_pool
from tollway.store.uri import DatabaseUrlError

ENCRYPTION_KEY = "ab" * 32

AUTHORITY = trustme.CA()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's own ~/.postgresql, and no PG variables."""
    for name in ("PGUSER", "PGPASSWORD", "PGDATABASE", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def root(home: Path) -> str:
    path = home / "root.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return quote(str(path), safe="")


def context(*names: str, authority: trustme.CA = AUTHORITY, client: trustme.CA | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_alpn_protocols(["postgresql"])
    authority.issue_cert(*(names or ("localhost",))).configure_cert(made)
    if client is not None:
        client.configure_trust(made)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


async def answers(url: str) -> bool:
    connection = await connect(url, "test")
    try:
        return await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()


async def refusal(url: str) -> Exception:
    with pytest.raises((OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
        await answers(url)
    assert not may_pass(caught.value), f"would be waited for: {caught.value!r}"
    return caught.value


# TLS ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [False, True], ids=["asked for", "direct"])
async def test_a_certificate_is_verified_as_strictly_as_was_asked(postgres_url: str, root: str, direct: bool) -> None:
    more = "&sslnegotiation=direct" if direct else ""
    with Relay(postgres_url, context("localhost"), direct=direct) as relay:
        assert await answers(relay.url("localhost", f"sslmode=verify-full&sslrootcert={root}{more}"))
        assert await answers(relay.url("127.0.0.1", f"sslmode=verify-ca&sslrootcert={root}{more}"))
        assert await answers(relay.url("127.0.0.1", f"sslmode=require{more}"))
        wrong_name = await refusal(relay.url("127.0.0.1", f"sslmode=verify-full&sslrootcert={root}{more}"))
        assert isinstance(wrong_name, ssl.SSLCertVerificationError)
        unknown = await refusal(relay.url("localhost", f"sslmode=verify-full&sslrootcert=system{more}"))
        assert isinstance(unknown, ssl.SSLCertVerificationError)


async def test_an_old_version_of_tls_is_refused_where_a_newer_one_was_asked(postgres_url: str) -> None:
    old = context("localhost")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Relay(postgres_url, old) as relay:
        assert await answers(relay.url(query="sslmode=require&ssl_max_protocol_version=TLSv1.2"))
        with pytest.raises(OSError):
            await answers(relay.url(query="sslmode=require&ssl_min_protocol_version=TLSv1.3"))


async def test_tls_that_is_only_preferred_is_used_where_there_is_some(postgres_url: str) -> None:
    with Relay(postgres_url, context("localhost")) as relay:
        assert await answers(relay.url(query="sslmode=prefer"))
        assert await answers(relay.url(query="connect_timeout=3"))
    with Relay(postgres_url) as relay:
        for mode in ("disable", "allow", "prefer"):
            assert await answers(relay.url(query=f"sslmode={mode}"))


async def test_tls_that_is_required_and_not_there_is_refused(postgres_url: str, root: str) -> None:
    with Relay(postgres_url) as relay:
        for query in ("sslmode=require", f"sslmode=verify-full&sslrootcert={root}"):
            error = await refusal(relay.url(query=query))
            assert "does not speak TLS" in str(error)


async def test_channel_binding_is_made_up_for_by_the_certificate(postgres_url: str, root: str) -> None:
    away = "0.0.0.0"  # leads to this machine as well, but does not say so
    with Relay(postgres_url, context("localhost")) as relay:
        query = "sslmode=require&channel_binding=require"
        assert isinstance(await refusal(relay.url(away, query)), ssl.SSLCertVerificationError)
        assert await answers(relay.url(away, f"{query}&sslrootcert={root}"))
        assert await answers(relay.url(away, "sslmode=require"))
        assert await answers(relay.url("127.0.0.1", query)), "nobody stands between on this machine"
    with Relay(postgres_url) as relay:
        assert await answers(relay.url("127.0.0.1", "channel_binding=require"))


async def test_a_client_certificate_is_shown(postgres_url: str, home: Path) -> None:
    clients = trustme.CA()
    mine = clients.issue_cert("tollway@example.org")
    certificate, key = home / "c.pem", home / "k.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in mine.cert_chain_pems))
    mine.private_key_pem.write_to_path(key)
    with Relay(postgres_url, context("localhost", client=clients)) as relay:
        for mode in ("require", "prefer"):
            assert await answers(relay.url(query=f"sslmode={mode}&sslcert={certificate}&sslkey={key}"))
        with pytest.raises((OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)):
            await answers(relay.url(query="sslmode=require"))
        (home / ".postgresql").mkdir()
        certificate.rename(home / ".postgresql" / "postgresql.crt")
        key.rename(home / ".postgresql" / "postgresql.key")
        assert await answers(relay.url(query="sslmode=require"))
        with pytest.raises((OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)):
            await answers(relay.url(query="sslmode=require&sslcertmode=disable"))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sslmode=verify-full", "say sslrootcert=system"),
        ("sslmode=verify-ca", "say sslrootcert=system"),
        (
            "sslmode=verify-full&sslrootcert=/nowhere/root.pem",
            "sslrootcert cannot be used, '/nowhere/root.pem': No such",
        ),
        ("sslmode=require&sslrootcert={junk}", "sslrootcert cannot be used"),
        ("sslmode=require&sslrootcert={folder}", "sslrootcert cannot be used"),
        ("sslmode=require&sslcert=/nowhere/c.pem", "sslcert cannot be used"),
        ("sslmode=prefer&sslcert=/nowhere/c.pem", "sslcert cannot be used"),
        ("sslmode=require&sslcert={junk}&sslkey={junk}", "sslcert cannot be used"),
        ("sslmode=require&sslrootcert={root}&sslcrl=/nowhere/crl.pem", "sslcrl cannot be used"),
        ("sslmode=require&sslrootcert={root}&sslcrldir=/nowhere", "sslcrldir cannot be used"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(home: Path, root: str, query: str, reason: str) -> None:
    (home / "junk").write_text("no certificate")
    filled = query.format(junk=home / "junk", folder=home, root=root)
    error = await refusal(f"postgresql://u:canary@127.0.0.1:1/d?{filled}")
    assert isinstance(error, DatabaseUrlError)
    assert reason in str(error)
    assert "\n" not in str(error) and "canary" not in str(error)


async def test_the_files_of_libpqs_own_directory_count(postgres_url: str, home: Path) -> None:
    (home / ".postgresql").mkdir()
    AUTHORITY.cert_pem.write_to_path(home / ".postgresql" / "root.crt")
    with Relay(postgres_url, context("localhost")) as relay:
        assert await answers(relay.url("localhost", "sslmode=verify-full"))
    with Relay(postgres_url, context("localhost", authority=trustme.CA())) as relay:
        assert isinstance(await refusal(relay.url("localhost", "sslmode=require")), ssl.SSLCertVerificationError)


# Hosts ----------------------------------------------------------------------------------------------------------------


async def test_the_next_host_is_tried_where_one_refuses_is_silent_or_is_no_server(postgres_url: str) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    parts, address = urlsplit(postgres_url), socket_of(postgres_url)
    if isinstance(address, str):
        folder, _, port = address.rpartition("/.s.PGSQL.")
        good = f"{quote(folder, safe='')}:{port}"
    else:
        good = "{}:{}".format(*address)
    with Relay(postgres_url) as dead, Relay(postgres_url) as odd:
        dead.answer, odd.answer = silent, hangs_up
        for hosts in (f"127.0.0.1:1,{good}", f"127.0.0.1:{odd.port},{good}", f"127.0.0.1:{dead.port},{good}"):
            url = (
                f"postgresql://{parts.username}:{parts.password}@{hosts}{parts.path}?sslmode=disable&connect_timeout=1"
            )
            assert await answers(url)
        assert (dead.attempts, odd.attempts) == (1, 1)


async def test_of_several_servers_the_one_that_takes_writes_is_chosen(postgres_url: str, tmp_path: Path) -> None:
    parts = urlsplit(postgres_url)
    with GivenServer(tmp_path / "standby") as standby, Relay(postgres_url) as primary:
        async with connected(standby.direct_url) as connection:
            await connection.execute(f"CREATE DATABASE {parts.path[1:]}")
            await connection.execute(f"ALTER DATABASE {parts.path[1:]} SET default_transaction_read_only = on")
            await connection.execute(f"ALTER ROLE tollway PASSWORD '{parts.password}'")
        hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
        url = f"postgresql://tollway:{parts.password}@{hosts}{parts.path}?sslmode=disable"
        for more in ("", "&target_session_attrs=read-write", "&load_balance_hosts=random"):
            connection = await connect(url + more, "test")
            assert await connection.fetchval("SHOW default_transaction_read_only") == "off"
            await connection.close()
        assert standby.attempts >= 2
        alone = f"postgresql://tollway:{parts.password}@127.0.0.1:{standby.port}{parts.path}?sslmode=disable"
        with pytest.raises(asyncpg.InternalClientError) as caught:
            await answers(f"{alone}&target_session_attrs=read-write")
        assert may_pass(caught.value), "it may become the primary"


async def test_a_wrong_password_is_not_tried_at_the_next_host(postgres_url: str) -> None:
    with Relay(postgres_url) as one, Relay(postgres_url) as two:
        hosts = f"127.0.0.1:{one.port},127.0.0.1:{two.port}"
        error = await refusal(f"postgresql://tollway:wrong@{hosts}{urlsplit(postgres_url).path}?sslmode=disable")
        assert isinstance(error, asyncpg.InvalidPasswordError)
        assert (one.attempts, two.attempts) == (1, 0)


# Settings of a session ------------------------------------------------------------------------------------------------


async def test_a_session_has_the_settings_that_were_asked_for_and_our_search_path(postgres_url: str) -> None:
    more = "&options=-c%20work_mem%3D7MB%20-c%20search_path%3Dpublic&application_name=gw&connect_timeout=10"
    more += "&keepalives=1&keepalives_idle=5&tcp_user_timeout=1000&gssencmode=prefer&channel_binding=prefer"
    more += "&client_encoding=LATIN1&fallback_application_name=x&sslsni=1&sslcompression=1&max_protocol_version=3.2"
    show = "SELECT current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')"
    expected = ("7MB", "pg_catalog", "gw test")
    connection = await connect(postgres_url + more, "test")
    assert tuple(await connection.fetchrow(show)) == expected
    assert await connection.fetchval("SELECT '\u00e4\u20ac'::text") == "\u00e4\u20ac"
    await connection.close()
    pool = await create_pool(postgres_url + more, "test", max_size=1)
    for _ in range(2):
        async with pool.acquire() as connection:
            assert tuple(await connection.fetchrow(show)) == expected
            await connection.execute("SET search_path = public; SET work_mem = '1MB'")
    await pool.close()


async def test_a_password_may_come_from_a_file_or_the_environment(
    postgres_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = urlsplit(postgres_url).password
    bare = postgres_url.replace(f":{password}@", "@")
    file = home / "passes"
    file.write_text(f"*:*:*:*:{password}\n")
    file.chmod(0o600)
    assert await answers(f"{bare}&passfile={quote(str(file), safe='')}")
    monkeypatch.setenv("PGPASSWORD", str(password))
    assert await answers(bare)


# A start that cannot be is one line and exit code 2 -------------------------------------------------------------------


def refused_start(start: StartGateway, **settings: str) -> str:
    with pytest.raises(StartFailedError) as failure:
        start(ENCRYPTION_KEY=ENCRYPTION_KEY, **settings)
    assert failure.value.code == 2, failure.value
    (line,) = failure.value.stderr.splitlines()
    assert line.startswith("tollway: DATABASE_URL: "), line
    assert failure.value.stdout == ""
    assert "canary" not in line
    return line


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sslmode=bogus", "sslmode 'bogus' is not one of"),
        ("sslmode=verify-full", "sslrootcert=system"),
        ("sslmode=require", "does not speak TLS"),
        ("nosuch=canary", "a parameter that libpq does not know, 'nosuch'"),
        ("options=-c%20nosuch%3Dcanary", "unrecognized configuration parameter"),
        ("gssencmode=require", "gssencmode cannot be obeyed"),
        ("require_auth=scram-sha-256", "require_auth cannot be obeyed"),
        (f"host=/tmp/{'x' * 120}", f"/tmp/{'x' * 120}/.s.PGSQL"),
        ("host=/etc/passwd&port=5432", "Not a directory: '/etc/passwd/.s.PGSQL.5432'"),
        ("hostaddr=zzz", "hostaddr 'zzz' is not an IP address"),
        ("options=-c%20default_transaction_read_only%3Don", "the gateway writes"),
        ("options=-c%20statement_timeout%3D1", "statement_timeout is below a second"),
    ],
)
def test_a_start_with_what_cannot_be_used_ends_at_once(
    start_gateway: StartGateway, postgres_url: str, query: str, reason: str
) -> None:
    with Relay(postgres_url) as relay:
        line = refused_start(start_gateway, DATABASE_URL=relay.url(query=query))
        assert reason in line or "nosuch" in line


def test_a_start_with_what_is_no_postgresql_ends_at_once(start_gateway: StartGateway, postgres_url: str) -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await reader.read()

    with Relay(postgres_url) as relay:
        relay.answer = greets
        line = refused_start(start_gateway, DATABASE_URL=relay.url(query="connect_timeout=3"))
    assert line.endswith(f"port {relay.port} of 127.0.0.1 is no PostgreSQL's")


def test_a_start_with_a_wrong_login_or_database_ends_at_once(start_gateway: StartGateway, postgres_url: str) -> None:
    password = urlsplit(postgres_url).password
    wrong = postgres_url.replace(f":{password}@", ":canary@")
    assert "password authentication failed" in refused_start(start_gateway, DATABASE_URL=wrong)
    elsewhere = database_url(postgres_url, "nowhere")
    assert '"nowhere" does not exist' in refused_start(start_gateway, DATABASE_URL=elsewhere)


async def test_a_start_without_the_right_to_create_a_schema_ends_at_once(
    gateway_factory: Callable[[dict[str, str]], Gateway], empty_postgres_url: str
) -> None:
    async with connected(empty_postgres_url) as connection:
        await connection.execute("CREATE ROLE reader LOGIN PASSWORD 'x'")
    try:
        parts = urlsplit(empty_postgres_url)
        url = empty_postgres_url.replace(f"{parts.username}:{parts.password}@", "reader:x@")

        def start(**settings: str) -> Gateway:
            gateway = gateway_factory(settings)
            try:
                return gateway.start()
            finally:
                gateway.end()

        assert "permission denied for database" in await asyncio.to_thread(refused_start, start, DATABASE_URL=url)
    finally:
        async with connected(empty_postgres_url) as connection:
            await connection.execute("DROP OWNED BY reader CASCADE; DROP ROLE reader")


async def test_a_gateway_serves_with_all_that_hosts_hand_out(start_gateway: StartGateway, postgres_url: str) -> None:
    query = "connect_timeout=10&keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5"
    query += "&tcp_user_timeout=9000&gssencmode=prefer&channel_binding=require&target_session_attrs=read-write"
    with Relay(postgres_url) as relay:
        gateway = start_gateway(
            DATABASE_URL=relay.url(query=f"{query}&application_name=gw&sslmode=prefer"), ENCRYPTION_KEY=ENCRYPTION_KEY
        )
        key, _ = await gateway.new_key()
        assert (await gateway.client.chat(key, "demo/echo", "Hello")).text == "Hello"
        gateway.stop()


async def test_a_database_that_cannot_spell_every_text_is_refused(
    start_gateway: StartGateway, postgres_url: str
) -> None:
    async with connected(postgres_url) as psql:
        await psql.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
        try:
            line = await asyncio.to_thread(
                refused_start, start_gateway, DATABASE_URL=database_url(postgres_url, "latin")
            )
            assert "encoding is LATIN1" in line
        finally:
            await psql.execute("DROP DATABASE latin WITH (FORCE)")
