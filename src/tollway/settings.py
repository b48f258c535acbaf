"""The environment, read once at start into one frozen value; every problem is one line that names the variable.

``VARIABLES`` is the only list of settings: ``tollway serve --help`` and the documentation print it.
"""

import contextlib
import ipaddress
import math
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import msgspec

from tollway.domain.hosts import is_loopback
from tollway.domain.keys import Secret
from tollway.domain.unpriced import Unpriced
from tollway.routing.addresses import BUILTIN, base_url_problem
from tollway.store.uri import complete
from tollway.store.uri import read as read_database_url

_DAY_S = 86_400.0  # longer than any sensible wait; keeps a slip of the pen from meaning "for ever"
_LEAST_BODIES = 4  # of the largest ones must fit into a worker's memory at the same time
_MAX_SHOWN = 40  # characters of a refused value that an error line repeats
_OTHER_API_KEY = re.compile(r"([A-Z][A-Z0-9_]{0,99})_API_KEY")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_OWN_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535
_PLACEHOLDERS = {"changeme", "change-me", "change_me"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment says. Secrets are masked in ``repr``."""

    host: str
    port: int
    """0 lets the system choose; the ready line tells."""
    database_url: Secret | None
    home: Path
    encryption_key: Secret | None
    """64 hex digits."""
    iv: Secret | None
    """32 hex digits."""
    tls_cert_file: Path | None
    tls_key_file: Path | None
    admin_key: Secret | None
    workers: int
    assumed_output_tokens: int
    unpriced: Unpriced
    redis_url: Secret | None
    cors_allow_origins: tuple[str, ...] | None
    """Origins as browsers write them, or ``*`` alone."""
    openai_api_key: Secret | None
    mistral_api_key: Secret | None
    openai_base_url: str | None
    mistral_base_url: str | None
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    request_timeout_s: float
    stream_keepalive_s: float
    """0: none."""
    keep_alive_s: float
    max_body_bytes: int
    max_parallel_per_key: int
    max_buffered_bytes: int | None
    drain_seconds: float
    ledger_retention_days: int | None
    log_level: str
    log_requests: bool
    other_api_keys: dict[str, Secret] = {}
    """``<NAME>_API_KEY`` of providers that were added by a row, by the name in lower case."""

    @property
    def least_buffered_bytes(self) -> int:
        """A few of the largest bodies, each as it came and as it is sent."""
        return _LEAST_BODIES * self.max_body_bytes

    @property
    def platform_keys(self) -> dict[str, Secret]:
        """The platform's own credential for each provider that has one."""
        keys = {"openai": self.openai_api_key, "mistral": self.mistral_api_key, **self.other_api_keys}
        return {provider: key for provider, key in keys.items() if key is not None}

    @property
    def base_urls(self) -> dict[str, str]:
        """What is written into a provider's row at start, by provider."""
        urls = {"openai": self.openai_base_url, "mistral": self.mistral_base_url}
        return {provider: url for provider, url in urls.items() if url is not None}

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything that must never be printed, for the redaction of logs."""
        values = (getattr(self, field) for field in self.__struct_fields__)
        return (*(value for value in values if isinstance(value, Secret)), *self.other_api_keys.values())


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that a child process is told, as the first line of its standard input."""

    settings: Settings
    database_url: Secret
    encryption_key: Secret
    """64 hex digits, given or generated."""
    control_socket: Path
    """The Unix socket of the control plane; shorter than 100 bytes."""
    journals: Path
    worker: int = 0
    listen_fd: int = -1
    """The inherited socket to listen on, bound already: TCP for a worker, the control socket for the control plane."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything that must never be printed, for the redaction of logs."""
        return *self.settings.secrets, self.database_url, self.encryption_key

    def encode(self) -> bytes:
        """One line of JSON, secrets in clear: for a pipe, never for a file or a log."""
        return msgspec.json.encode(self, enc_hook=_to_text) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> "ChildConfig":
        """Raises msgspec.ValidationError for anything that :meth:`encode` did not write."""
        return msgspec.json.decode(line, type=cls, dec_hook=_from_text)


class Variable(NamedTuple):
    """One setting: its name in the environment, what it means, and how its text becomes a value."""

    name: str
    default: str | None
    """As it would stand in the environment; None: unset."""
    meaning: str
    parse: Callable[[str], object]
    """Raises ValueError with the reason, which must not repeat a secret."""
    shown_default: str = ""
    """For people, where ``default`` does not say it."""

    @property
    def field(self) -> str:
        """Its name in :class:`Settings`."""
        return self.name.lower().removeprefix("tollway_")


def read(environ: Mapping[str, str]) -> Settings | list[str]:
    """The settings of a gateway, or every reason why they cannot be used, one line each."""
    settings = parse(environ)
    return settings if isinstance(settings, list) else _contradictions(settings) or settings


def parse(environ: Mapping[str, str]) -> Settings | list[str]:
    """As :func:`read`, but each variable by itself: for commands that do not serve.

    An empty variable counts as unset, but for ``ADMIN_KEY`` and ``ENCRYPTION_KEY``: there it is more likely a mistake
    that would open a door.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    for variable in VARIABLES:
        text = environ.get(variable.name)
        if text is None or (not text and variable.name not in ("ADMIN_KEY", "ENCRYPTION_KEY")):
            text = variable.default
        try:
            values[variable.field] = None if text is None else variable.parse(text)
        except ValueError as error:
            problems.append(f"{variable.name}: {error}")
    url = values.get("database_url")
    if isinstance(url, Secret):
        try:
            values["database_url"] = _database_url(complete(url.reveal(), environ))
        except ValueError as error:
            problems.append(f"DATABASE_URL: with the environment's PG variables: {error}")
    return problems or msgspec.convert({**values, "other_api_keys": _other_api_keys(environ)}, Settings)


def _other_api_keys(environ: Mapping[str, str]) -> dict[str, Secret]:
    """What may be credentials of providers that were added by a row; without such a row nobody uses them."""
    known = {variable.name for variable in VARIABLES}
    keys = {}
    for name, text in environ.items():
        if name not in known and (match := _OTHER_API_KEY.fullmatch(name)):
            with contextlib.suppress(ValueError):  # somebody else's variable
                keys[match[1].lower()] = _credential(text)
    return keys


def encryption_key(text: str) -> Secret:
    """64 hex digits as a secret; raises ValueError with the reason for anything else."""
    return _hex(64)(text)


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.admin_key is None and not is_loopback(settings.host):
        problems.append(
            f"ADMIN_KEY: must be set when HOST is not a loopback address ({_shown(settings.host)}), "
            "or anybody on the network could create keys"
        )
    if settings.database_url is not None and settings.encryption_key is None:
        problems.append("ENCRYPTION_KEY: must be set together with DATABASE_URL (make one with: openssl rand -hex 32)")
    if settings.workers > 1:
        problems.append(
            f"WORKERS: {settings.workers} is refused: limits are not exact across processes yet, so only 1 is accepted"
        )
    if settings.max_buffered_bytes is not None and settings.max_buffered_bytes < settings.least_buffered_bytes:
        problems.append(
            f"MAX_BUFFERED_BYTES: {settings.max_buffered_bytes} is less than {_LEAST_BODIES} times MAX_BODY_BYTES, "
            f"{settings.least_buffered_bytes}"
        )
    return problems + _tls_problems(settings.tls_cert_file, settings.tls_key_file)


def _tls_problems(cert: Path | None, key: Path | None) -> list[str]:
    if cert is None and key is None:
        return []
    if key is None:
        return ["TLS_KEY_FILE: must be set together with TLS_CERT_FILE"]
    if cert is None:
        return ["TLS_CERT_FILE: must be set together with TLS_KEY_FILE"]
    for name, path in (("TLS_CERT_FILE", cert), ("TLS_KEY_FILE", key)):
        try:
            path.read_bytes()
        except OSError as error:
            return [f"{name}: cannot read {_shown(str(path))}: {error.strerror}"]
    try:
        # An encrypted key would make OpenSSL ask at the terminal; an empty password makes it fail instead.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM certificate with its unencrypted private key"
        return [f"TLS_CERT_FILE: cannot be used with TLS_KEY_FILE: {reason}"]
    return []


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…")


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", host) or host.replace(".", "").isdigit():
            raise ValueError(f"{_shown(text)} is neither an IP address nor a host name") from None
    return host


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(f"{_shown(text)} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _seconds(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not least <= seconds <= _DAY_S:
            raise ValueError(f"{_shown(text)} is not a number of seconds from {least:g} to {_DAY_S:g}")
        return seconds

    return parse


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{_shown(text)} is not one of: {', '.join(words)}")
        return text.lower()

    return parse


def _unpriced(text: str) -> Unpriced:
    try:
        return Unpriced.parse(text)
    except ValueError:
        raise ValueError(
            f"{_shown(text)} is not auto, refuse, allow or a price per 1,000 input and output tokens (0.01/0.03)"
        ) from None


def _switch(text: str) -> bool:
    return _choice("true", "false", "1", "0", "yes", "no", "on", "off")(text) in ("true", "1", "yes", "on")


def _hex(digits: int) -> Callable[[str], Secret]:
    def parse(text: str) -> Secret:
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", text):
            raise ValueError(f"must be {digits} hex digits (make them with: openssl rand -hex {digits // 2})")
        return Secret(text.lower())

    return parse


def _credential(text: str) -> Secret:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be printable ASCII characters without spaces, and not empty")
    if text.lower() in _PLACEHOLDERS:
        raise ValueError("is a placeholder; choose a secret of your own")
    return Secret(text)


def _url(text: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  # raises ValueError when it is no number
    except ValueError:
        raise ValueError(f"is not a URL that can be read; it begins with {' or '.join(schemes)}") from None
    if not text.startswith(schemes) or re.search(r"[^!-~]", text):
        raise ValueError(f"must begin with {' or '.join(schemes)} and hold no spaces or control characters")
    return url


def _database_url(text: str) -> Secret:
    read_database_url(text)
    return Secret(text)


def _redis_url(text: str) -> Secret:
    _url(text, ("redis://", "rediss://", "unix://"))
    return Secret(text)


def _base_url(text: str) -> str:
    problem = base_url_problem(text)
    if problem is not None or text.startswith(BUILTIN):
        raise ValueError(problem or "must be an address")
    return text.rstrip("/")


def _origins(text: str) -> tuple[str, ...]:
    """As browsers write them into ``Origin``: in lower case, and without the scheme's own port."""
    origins = tuple(dict.fromkeys(_origin(word.strip()) for word in text.split(",") if word.strip()))
    if "*" in origins and len(origins) > 1:
        raise ValueError("* is every origin: name it alone, or name the origins")
    if not origins:
        raise ValueError(f"{_shown(text)} names no origin")
    return origins


def _origin(text: str) -> str:
    if text == "*":
        return text
    if text.lower() == "null":
        raise ValueError("'null' is the origin of every sandboxed page and local file, so it cannot be allowed")
    match = _ORIGIN.fullmatch(text) if text.isascii() else None
    try:
        if match is None:
            raise ValueError
        scheme, host, port = match[1].lower(), match[2].lower(), int(match[3] or _OWN_PORTS.get(match[1].lower(), 0))
        if host.startswith("["):
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        if port > _MAX_PORT:
            raise ValueError
    except ValueError:
        raise ValueError(f"{_shown(text)} is not an origin, scheme://host[:port] without a path") from None
    return f"{scheme}://{host}" if port == _OWN_PORTS.get(scheme, 0) else f"{scheme}://{host}:{port}"


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("is not a path")
    try:
        return Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{_shown(text)} cannot be resolved: {error}") from None


def _to_text(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _from_text(kind: type, value: object) -> object:
    if kind in (Secret, Path) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(kind)


VARIABLES: tuple[Variable, ...] = (
    Variable("HOST", "127.0.0.1", "The address to listen on.", _host),
    Variable("PORT", "3000", "The port to listen on; 0 takes a free one.", _integer(0, 65_535)),
    Variable(
        "DATABASE_URL",
        None,
        "A libpq URI, postgresql://…, of your own PostgreSQL.",
        _database_url,
        "an embedded PostgreSQL under TOLLWAY_HOME",
    ),
    Variable(
        "TOLLWAY_HOME",
        "~/.local/share/tollway",
        "Directory of the embedded database, the journals and generated secrets.",
        _path,
    ),
    Variable(
        "ENCRYPTION_KEY",
        None,
        "64 hex digits; encrypts provider keys at rest.",
        encryption_key,
        "generated into TOLLWAY_HOME; required with DATABASE_URL",
    ),
    Variable("IV", None, "32 hex digits; only to read provider keys that the predecessor encrypted.", _hex(32)),
    Variable("TLS_CERT_FILE", None, "PEM file with the certificate chain; together with TLS_KEY_FILE: HTTPS.", _path),
    Variable("TLS_KEY_FILE", None, "PEM file with the private key of TLS_CERT_FILE.", _path),
    Variable(
        "ADMIN_KEY",
        None,
        "Bearer token of the admin surface (/api/*, /metrics).",
        _credential,
        "the admin surface is open, and only a loopback HOST is accepted",
    ),
    Variable("WORKERS", "1", "Data-plane processes; only 1 while limits are exact within one.", _integer(1, 1024)),
    Variable(
        "ASSUMED_OUTPUT_TOKENS",
        "1024",
        "Output tokens reserved against a token limit where a request names no cap.",
        _integer(1, 100_000_000),
    ),
    Variable(
        "UNPRICED",
        "auto",
        "What is done with calls on a shared provider key whose price is not known: auto refuses those that are billed "
        "by tokens, refuse all, allow none; a price such as 0.01/0.03 (US dollars per 1,000 input and output tokens) "
        "bills them, marked so.",
        _unpriced,
    ),
    Variable("REDIS_URL", None, "Shared limits and cache for many machines; not used yet.", _redis_url),
    Variable(
        "CORS_ALLOW_ORIGINS",
        None,
        "Origins of web pages that may call /v1/ paths from a browser, separated by commas, or * for all.",
        _origins,
    ),
    Variable("OPENAI_API_KEY", None, "Used where a virtual key brings no OpenAI key of its own.", _credential),
    Variable("MISTRAL_API_KEY", None, "Used where a virtual key brings no Mistral key of its own.", _credential),
    Variable("OPENAI_BASE_URL", None, "Written into the provider's row at start.", _base_url),
    Variable("MISTRAL_BASE_URL", None, "Written into the provider's row at start.", _base_url),
    Variable("CONNECT_TIMEOUT_S", "5", "Seconds to connect to a provider.", _seconds(0.001)),
    Variable("FIRST_BYTE_TIMEOUT_S", "120", "Seconds until a provider begins to answer.", _seconds(0.001)),
    Variable("IDLE_TIMEOUT_S", "120", "Seconds a provider may be silent within an answer.", _seconds(0.001)),
    Variable("REQUEST_TIMEOUT_S", "600", "Seconds for a request with all its attempts.", _seconds(0.001)),
    Variable(
        "STREAM_KEEPALIVE_S",
        "0",
        "Seconds of a provider's silence after which a stream's client gets a comment, again and again; 0: never.",
        _seconds(0),
    ),
    Variable(
        "KEEP_ALIVE_S",
        "75",
        "Seconds a client's connection may be idle between two requests; longer than a load balancer in front allows.",
        _seconds(1),
    ),
    Variable("MAX_BODY_BYTES", "33554432", "Largest request body.", _integer(1, 2**31 - 1)),
    Variable(
        "MAX_PARALLEL_PER_KEY",
        "1000",
        "Calls of one virtual key that may run at the same time.",
        _integer(1, 1_000_000),
    ),
    Variable(
        "MAX_BUFFERED_BYTES",
        None,
        "How much of requests and answers a worker holds at most; above it new calls are answered 503.",
        _integer(1, 2**50),
        "536870912; less on a machine with less than 2 GiB, and at least 4 times MAX_BODY_BYTES",
    ),
    Variable("DRAIN_SECONDS", "600", "How long SIGTERM lets running requests go on.", _seconds(0)),
    Variable(
        "LEDGER_RETENTION_DAYS",
        None,
        "Days after which a month's entries are forgotten once all of them are older; their sums stay.",
        _integer(1, 36_500),
        "kept for ever",
    ),
    Variable("LOG_LEVEL", "info", "debug, info, warning or error.", _choice("debug", "info", "warning", "error")),
    Variable("LOG_REQUESTS", "true", "One log line for every attempt at a provider and for every refusal.", _switch),
)
