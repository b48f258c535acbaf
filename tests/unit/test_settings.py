"""The environment becomes settings, or lines that name the variable and the reason."""

from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.keys import Secret
from tollway.settings import VARIABLES, ChildConfig, Settings, parse, read

KEY = "0123456789abcdef" * 4


def good(**environ: str) -> Settings:
    settings = read({"HOME": "/nowhere", **environ})
    assert isinstance(settings, Settings), settings
    return settings


def bad(**environ: str) -> str:
    problems = read(environ)
    assert isinstance(problems, list), problems
    (line,) = problems
    assert "\n" not in line
    return line


def test_the_defaults_are_the_documented_ones() -> None:
    settings = good()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 3000, 1)
    assert settings.home == Path("~/.local/share/tollway").expanduser()
    assert settings.assumed_output_tokens == 1024
    assert (settings.connect_timeout_s, settings.first_byte_timeout_s) == (5.0, 120.0)
    assert (settings.idle_timeout_s, settings.request_timeout_s) == (120.0, 600.0)
    assert (settings.max_body_bytes, settings.keep_alive_s, settings.drain_seconds) == (33_554_432, 75.0, 600.0)
    assert (settings.log_level, settings.log_requests) == ("info", True)
    optional = (settings.database_url, settings.encryption_key, settings.iv, settings.admin_key, settings.redis_url)
    assert optional == (None,) * 5
    assert (settings.platform_keys, settings.base_urls) == ({}, {})


def test_every_variable_is_a_field_and_every_field_a_variable() -> None:
    assert [*(variable.field for variable in VARIABLES), "other_api_keys"] == list(Settings.__struct_fields__)


def test_the_credential_of_any_provider_comes_by_its_name() -> None:
    settings = good(GROQ_API_KEY="gsk-1", MY_LLM_API_KEY="k2", EMPTY_API_KEY="", ODD_API_KEY="with space")
    assert {name: key.reveal() for name, key in settings.platform_keys.items()} == {"groq": "gsk-1", "my_llm": "k2"}
    assert {key.reveal() for key in settings.secrets} >= {"gsk-1", "k2"}


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"PORT": "70000"}, "PORT: '70000' is not a whole number from 0 to 65535"),
        ({"PORT": "1_000"}, "PORT: '1_000' is not a whole number from 0 to 65535"),
        ({"PORT": "٣٠٠٠"}, "PORT: '\\u0663\\u0660\\u0660\\u0660' is not a whole number from 0 to 65535"),
        ({"HOST": "300.1.1.1"}, "HOST: '300.1.1.1' is neither an IP address nor a host name"),
        ({"HOST": "a b"}, "HOST: 'a b' is neither an IP address nor a host name"),
        ({"DRAIN_SECONDS": "nan"}, "DRAIN_SECONDS: 'nan' is not a number of seconds from 0 to 86400"),
        ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS: '-1' is not a number of seconds from 0 to 86400"),
        ({"CONNECT_TIMEOUT_S": "0"}, "CONNECT_TIMEOUT_S: '0' is not a number of seconds from 0.001 to 86400"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: 'loud' is not one of: debug, info, warning, error"),
        ({"IV": "12"}, "IV: must be 32 hex digits (make them with: openssl rand -hex 16)"),
        ({"DATABASE_URL": "mysql://h/d", "ENCRYPTION_KEY": KEY}, "DATABASE_URL: must begin with postgresql://"),
        ({"DATABASE_URL": "postgresql://h:port/d", "ENCRYPTION_KEY": KEY}, "DATABASE_URL: has a port that is not"),
        ({"DATABASE_URL": "postgresql://h/d?sslmode=bogus", "ENCRYPTION_KEY": KEY}, "DATABASE_URL: sslmode 'bogus'"),
        ({"DATABASE_URL": "postgresql://h/d", "PGSSLMODE": "x", "ENCRYPTION_KEY": KEY}, "DATABASE_URL: with the env"),
        ({"DATABASE_URL": "postgresql://h/d"}, "ENCRYPTION_KEY: must be set together with DATABASE_URL"),
        ({"ENCRYPTION_KEY": ""}, "ENCRYPTION_KEY: must be 64 hex digits"),
        ({"ADMIN_KEY": ""}, "ADMIN_KEY: must be printable ASCII"),
        ({"ADMIN_KEY": "changeme"}, "ADMIN_KEY: is a placeholder"),
        ({"HOST": "0.0.0.0"}, "ADMIN_KEY: must be set when HOST is not a loopback address ('0.0.0.0')"),
        ({"HOST": "::"}, "ADMIN_KEY: must be set when HOST is not a loopback address ('::')"),
        ({"HOST": "gateway.example"}, "ADMIN_KEY: must be set when HOST is not a loopback address"),
        ({"WORKERS": "2"}, "WORKERS: 2 is refused: limits are not exact across processes yet"),
        (
            {"MAX_BUFFERED_BYTES": "134217727"},
            "MAX_BUFFERED_BYTES: 134217727 is less than 4 times MAX_BODY_BYTES, 134217728",
        ),
        ({"MAX_BODY_BYTES": "100", "MAX_BUFFERED_BYTES": "399"}, "MAX_BUFFERED_BYTES: 399 is less than 4 times"),
        ({"WORKERS": "0"}, "WORKERS: '0' is not a whole number from 1"),
        ({"REDIS_URL": "http://h"}, "REDIS_URL: must begin with redis://"),
        (
            {"CORS_ALLOW_ORIGINS": "https://a/"},
            "CORS_ALLOW_ORIGINS: 'https://a/' is not an origin, scheme://host[:port]",
        ),
        ({"CORS_ALLOW_ORIGINS": "https://a/v1"}, "CORS_ALLOW_ORIGINS: 'https://a/v1' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "a.example"}, "CORS_ALLOW_ORIGINS: 'a.example' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://"}, "CORS_ALLOW_ORIGINS: 'https://' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://u@a"}, "CORS_ALLOW_ORIGINS: 'https://u@a' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://*.a.example"}, "CORS_ALLOW_ORIGINS: 'https://*.a.example' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://a:99999"}, "CORS_ALLOW_ORIGINS: 'https://a:99999' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://a:b"}, "CORS_ALLOW_ORIGINS: 'https://a:b' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://[::g]"}, "CORS_ALLOW_ORIGINS: 'https://[::g]' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://a\r\nx: y"}, "CORS_ALLOW_ORIGINS: 'https://a\\r\\nx: y' is not an origin"),
        ({"CORS_ALLOW_ORIGINS": "https://\u212a.example"}, "CORS_ALLOW_ORIGINS: 'https://\\u212a.example' is not"),
        ({"CORS_ALLOW_ORIGINS": "https://a, null"}, "CORS_ALLOW_ORIGINS: 'null' is the origin of every sandboxed page"),
        ({"CORS_ALLOW_ORIGINS": "*, https://a"}, "CORS_ALLOW_ORIGINS: * is every origin: name it alone"),
        ({"CORS_ALLOW_ORIGINS": " , "}, "CORS_ALLOW_ORIGINS: ' , ' names no origin"),
        ({"OPENAI_BASE_URL": "https://user:pw@h/v1"}, "OPENAI_BASE_URL: the address must"),
        ({"OPENAI_BASE_URL": "https://h/v1?x=1"}, "OPENAI_BASE_URL: the address must"),
        ({"MISTRAL_BASE_URL": "ftp://h"}, "MISTRAL_BASE_URL: the address must be http(s)://host"),
        ({"TLS_CERT_FILE": "/nowhere/c.pem"}, "TLS_KEY_FILE: must be set together with TLS_CERT_FILE"),
        ({"TLS_KEY_FILE": "/nowhere/k.pem"}, "TLS_CERT_FILE: must be set together with TLS_KEY_FILE"),
    ],
    ids=repr,
)
def test_what_cannot_be_used_is_named_with_its_reason(environ: dict[str, str], line: str) -> None:
    assert bad(**environ).startswith(line)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        ("https://a.example, http://localhost:5173,", ("https://a.example", "http://localhost:5173")),
        ("HTTPS://A.example:443, http://b:80 ,http://b", ("https://a.example", "http://b")),
        ("https://a:80,http://a:443", ("https://a:80", "http://a:443")),
        ("http://[0:0::1]:3000", ("http://[::1]:3000",)),
        ("app://obsidian.md,tauri://localhost", ("app://obsidian.md", "tauri://localhost")),
        ("chrome-extension://abcdefgh", ("chrome-extension://abcdefgh",)),
    ],
)
def test_origins_are_read_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    assert good(CORS_ALLOW_ORIGINS=text).cors_allow_origins == origins
    assert good(CORS_ALLOW_ORIGINS="").cors_allow_origins is None


def test_all_problems_are_listed() -> None:
    problems = read({"PORT": "x", "WORKERS": "y"})
    assert isinstance(problems, list)
    assert [problem.partition(":")[0] for problem in problems] == ["PORT", "WORKERS"]


@pytest.mark.parametrize(
    "name", ["ENCRYPTION_KEY", "IV", "ADMIN_KEY", "OPENAI_API_KEY", "MISTRAL_API_KEY", "DATABASE_URL", "REDIS_URL"]
)
def test_a_refused_secret_is_not_repeated(name: str) -> None:
    problems = read({name: "canary with spaces"})
    assert isinstance(problems, list)
    assert "canary" not in str(problems)


def test_secrets_do_not_print_themselves() -> None:
    settings = good(ADMIN_KEY="canary-admin", OPENAI_API_KEY="canary-openai", ENCRYPTION_KEY=KEY, IV="ab" * 16)
    assert "canary" not in repr(settings)
    assert KEY not in repr(settings)
    assert {secret.reveal() for secret in settings.secrets} == {"canary-admin", "canary-openai", KEY, "ab" * 16}


def test_an_empty_variable_is_unset() -> None:
    assert good(OPENAI_API_KEY="", DATABASE_URL="", TLS_CERT_FILE="", PORT="").port == 3000


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_a_loopback_host_needs_no_admin_key(host: str) -> None:
    assert good(HOST=host).host == host.strip("[]")


def test_any_host_may_be_served_with_an_admin_key() -> None:
    assert good(HOST="0.0.0.0", ADMIN_KEY="an-admin-key").host == "0.0.0.0"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:p%40ss@db.example:5432/name?sslmode=require",
        "postgres://user@h1:5432,h2:5433/name",
        "postgresql:///name?host=/run/postgresql",
    ],
)
def test_the_forms_of_a_libpq_uri_are_taken(url: str) -> None:
    assert good(DATABASE_URL=url, ENCRYPTION_KEY=KEY).database_url == Secret(url)


def test_a_base_url_loses_its_last_slash() -> None:
    assert good(MISTRAL_BASE_URL="http://127.0.0.1:8080/v1/").base_urls == {"mistral": "http://127.0.0.1:8080/v1"}


def test_commands_take_settings_that_could_not_serve() -> None:
    assert isinstance(parse({"HOST": "0.0.0.0", "DATABASE_URL": "postgresql://h/d"}), Settings)


class TestTls:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        issued = trustme.CA().issue_cert("localhost")
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return cert, key

    def test_a_matching_pair_is_taken(self, files: tuple[Path, Path]) -> None:
        cert, key = files
        assert good(TLS_CERT_FILE=str(cert), TLS_KEY_FILE=str(key)).tls_cert_file == cert

    def test_a_missing_file_is_named(self, files: tuple[Path, Path]) -> None:
        cert, key = files
        key.unlink()
        line = bad(TLS_CERT_FILE=str(cert), TLS_KEY_FILE=str(key))
        assert line.startswith("TLS_KEY_FILE: cannot read ")
        assert line.endswith("No such file or directory")

    def test_a_key_of_another_certificate_is_refused(self, files: tuple[Path, Path]) -> None:
        cert, key = files
        key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
        assert bad(TLS_CERT_FILE=str(cert), TLS_KEY_FILE=str(key)).startswith("TLS_CERT_FILE: cannot be used with")

    def test_junk_is_refused(self, files: tuple[Path, Path]) -> None:
        cert, key = files
        cert.write_text("junk")
        assert bad(TLS_CERT_FILE=str(cert), TLS_KEY_FILE=str(key)).startswith("TLS_CERT_FILE: cannot be used with")

    def test_an_encrypted_key_is_refused_and_nobody_is_asked(self, files: tuple[Path, Path]) -> None:
        from cryptography.hazmat.primitives import serialization as pem

        cert, key = files
        plain = pem.load_pem_private_key(key.read_bytes(), None)
        locked = pem.BestAvailableEncryption(b"password")
        key.write_bytes(plain.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, locked))
        assert bad(TLS_CERT_FILE=str(cert), TLS_KEY_FILE=str(key)).startswith("TLS_CERT_FILE: cannot be used with")


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)


@given(st.dictionaries(st.sampled_from([variable.name for variable in VARIABLES]), TEXT))
def test_any_environment_gives_settings_or_lines(environ: dict[str, str]) -> None:
    found = read(environ)
    if isinstance(found, list):
        assert found
        assert all("\n" not in line and line.partition(":")[0].isupper() for line in found)


def test_a_child_reads_what_the_supervisor_wrote() -> None:
    config = ChildConfig(
        settings=good(ADMIN_KEY='line\\and"quote', MISTRAL_API_KEY="canary-mistral"),
        database_url=Secret("postgresql://u:canary-db@h/d"),
        encryption_key=Secret(KEY),
        control_socket=Path("/run/ä/control.sock"),
        journals=Path("/journals"),
        worker=3,
        listen_fd=7,
    )
    line = config.encode()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert ChildConfig.decode(line) == config
    assert "canary" not in repr(config)
