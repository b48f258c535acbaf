"""``DATABASE_URL``: a libpq URI, read as libpq reads it, and what becomes of it with our driver.

Pure. Rules: (1) what libpq refuses is refused, in one line that repeats no value which may be secret; (2) every
parameter of libpq is in ``PARAMETERS``: it is obeyed, or harmless to leave, or refused with the reason, and never sent
to the server as a setting that it does not know; (3) what asks for more safety is never left out.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

SCHEMES = ("postgresql://", "postgres://")
_DEFAULT_PORT = 5432
DEFAULT_HOSTS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")  # noqa: S108  # where libpq looks
SYSTEM = "system"
"""In place of a file with root certificates: those that this machine trusts."""

TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_WRITABLE = ("any", "read-write", "primary")

_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of a path; the system's limit
_LEAST_TIMEOUT_MS = 1000
_UNITS_MS = {"us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


class Host(NamedTuple):
    """One place where the server may be."""

    address: str
    """A name, an IP address, or the directory of a Unix socket."""
    port: int

    @property
    def socket(self) -> str | None:
        """The path of the Unix socket, if it is one."""
        return f"{self.address.rstrip('/')}/.s.PGSQL.{self.port}" if self.address.startswith("/") else None

    @property
    def is_local(self) -> bool:
        """Whether what is said there stays on this machine."""
        if self.address.startswith("/") or self.address == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return False


class Tls(NamedTuple):
    """How a connection is encrypted, and whom we take for the server."""

    mode: str
    """One of ``TLS_MODES``."""
    root: str | None = None
    """A file of root certificates, or ``system``; None: ``~/.postgresql/root.crt``, if it is there."""
    certificate: str | None = None
    key: str | None = None
    password: str | None = None
    """Of the key."""
    revoked: str | None = None
    """A file of revocation lists."""
    revoked_directory: str | None = None
    minimum: str = "TLSv1.2"
    maximum: str | None = None
    direct: bool = False
    """Without asking in PostgreSQL's protocol first."""
    shows_certificate: bool = True
    """Whether a client certificate is shown, if there is one."""


class DatabaseUrl(NamedTuple):
    """What the driver is told. What is None is looked up by the driver as libpq would."""

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None
    database: str | None
    passfile: str | None
    tls: Tls
    application: str
    options: str | None
    """The server's settings, as on its command line."""
    connect_timeout_s: float | None
    """For each host; None: ours."""
    session: str
    """``any``, ``read-write`` or ``primary``."""
    random_order: bool
    kerberos_service: str | None
    kerberos_library: str | None


class Parameter(NamedTuple):
    """One of libpq's parameters."""

    variable: str | None
    """The environment variable that sets it where the URI does not."""
    meaning: str
    """What becomes of it, for people."""
    check: Callable[[str], str | None] = lambda _: None
    """What is wrong with a value, if anything; never with the value in it where that may be secret."""


class DatabaseUrlError(ValueError):
    """A URI that cannot be used; the text is one line for people, without secrets."""


def split(text: str) -> dict[str, str]:
    """The parameters of a URI by libpq's names. Raises DatabaseUrlError."""
    scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), None)
    if scheme is None:
        raise DatabaseUrlError(f"must begin with {' or '.join(SCHEMES)}")
    if not all(letter.isprintable() and not letter.isspace() for letter in text):
        raise DatabaseUrlError("holds spaces or control characters; write them percent-encoded, as in %20")
    # As libpq does it, by the first of these characters: a user name and a password may hold "?" and "#".
    rest = text.removeprefix(scheme)
    found: dict[str, str] = {}
    login, at, after = rest.partition("@")
    if at and "/" not in login:
        user, _, password = login.partition(":")
        found |= {"user": _decoded(user), "password": _decoded(password)}
        rest = after
    place, mark, query = rest.partition("?")
    place, _, database = place.partition("/")
    found |= _places(place) | {"dbname": _decoded(database)}
    found = {name: value for name, value in found.items() if value}
    return found | dict(_query(query)) if mark and query else found


def complete(text: str, environ: Mapping[str, str]) -> str:
    """The URI with what the environment sets and it does not, as libpq takes it; passwords stay where they are."""
    given = split(text)
    missing = {
        name: environ[parameter.variable]
        for name, parameter in PARAMETERS.items()
        if parameter.variable is not None
        and name not in ("password", "passfile", "service")
        and name not in given
        and environ.get(parameter.variable)
    }
    if not missing:
        return text
    added = "&".join(f"{name}={quote(value, safe='')}" for name, value in missing.items())
    return f"{text}{'&' if '?' in _after_login(text) else '?'}{added}"


def without_password(text: str) -> tuple[str, str]:
    """The URI without its password, for the eyes of other users of the machine, and the password, if there is one."""
    password = split(text).get("password", "")
    scheme = next(scheme for scheme in SCHEMES if text.startswith(scheme))
    rest = text.removeprefix(scheme)
    login, at, after = rest.partition("@")
    if at and "/" not in login:
        rest = f"{login.partition(':')[0]}@{after}"
    place, mark, query = rest.partition("?")
    kept = [pair for pair in query.split("&") if _decoded(pair.partition("=")[0]) != "password"]
    return scheme + place + (mark + "&".join(kept) if any(kept) else ""), password


def read(text: str) -> DatabaseUrl:
    """The URI in our driver's terms. Raises DatabaseUrlError."""
    given = split(text)
    for name, value in given.items():
        problem = PARAMETERS[name].check(value)
        if problem is not None:
            raise DatabaseUrlError(f"{name} {problem}")
    hosts = _hosts(given)
    several = "," in (given.get("host", "") or given.get("hostaddr", ""))
    return DatabaseUrl(
        hosts=hosts,
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
        passfile=given.get("passfile"),
        tls=_tls(given, hosts),
        application=given.get("application_name", "tollway"),
        options=given.get("options"),
        connect_timeout_s=_timeout(given),
        # A gateway writes; of several servers it wants the one that it can write to, also after they changed places.
        session=given.get("target_session_attrs", "read-write" if several else "any"),
        random_order=given.get("load_balance_hosts") == "random",
        kerberos_service=given.get("krbsrvname"),
        kerberos_library=given.get("gsslib"),
    )


def _after_login(text: str) -> str:
    login, at, after = text.partition("@")
    return after if at and "/" not in login.partition("//")[2] else text


def _places(place: str) -> dict[str, str]:
    hosts, ports = [], []
    for one in place.split(","):
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[:][^:]*|))(?::(.*))?", one)
        if match is None:
            raise DatabaseUrlError("names a host that cannot be read; an IPv6 address stands in brackets")
        hosts.append(_decoded(match[1] or match[2] or ""))
        ports.append(_decoded(match[3] or ""))
    return {"host": ",".join(hosts), "port": ",".join(ports)}


def _query(query: str) -> Iterator[tuple[str, str]]:
    for pair in query.removesuffix("&").split("&"):
        name, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise DatabaseUrlError("is followed by something other than name=value pairs, joined by &")
        name, value = _decoded(name), _decoded(value)
        if (name, value) == ("ssl", "true"):  # as JDBC writes it
            name, value = "sslmode", "require"
        if name not in PARAMETERS:
            shown = "" if "@" in query else f", {name[:40]!a}"  # or it is a piece of a password
            raise DatabaseUrlError(
                f"has a parameter that libpq does not know{shown}"
                " (a setting of the server is written as options=-c%20name%3Dvalue)"
            )
        yield name, value


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", text):
        raise DatabaseUrlError("holds a percent sign that no two hex digits follow; % itself is written as %25")
    raw = re.sub(rb"%(..)", lambda match: bytes.fromhex(match[1].decode()), text.encode())
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DatabaseUrlError("holds percent-encoded bytes that are not UTF-8") from None


def _hosts(given: Mapping[str, str]) -> tuple[Host, ...]:
    names = given["host"].split(",") if given.get("host") else []
    addresses = given["hostaddr"].split(",") if given.get("hostaddr") else []
    if names and addresses and len(names) != len(addresses):
        raise DatabaseUrlError(f"names {len(names)} hosts and {len(addresses)} hostaddr")
    # The driver knows one name of a server: the address is where it is, and _tls refuses what needs the other name.
    chosen = [address or name for name, address in zip(names, addresses, strict=True)] if names and addresses else []
    chosen = chosen or addresses or names
    ports = given["port"].split(",") if given.get("port") else [""]
    if not chosen or not any(chosen):
        chosen = list(DEFAULT_HOSTS)
        ports = ports[:1]
    if len(ports) == 1:
        ports *= len(chosen)
    if any(host.startswith("@") for host in chosen):
        raise DatabaseUrlError("names a socket without a file, which the driver does not know")
    if len(ports) != len(chosen):
        raise DatabaseUrlError(f"names {len(chosen)} hosts and {len(ports)} ports")
    hosts = tuple(Host(host or "localhost", _port(port)) for host, port in zip(chosen, ports, strict=True))
    for host in hosts:
        if host.socket is not None and len(host.socket.encode()) > _LONGEST_SOCKET:
            raise DatabaseUrlError(f"leads to a socket, and its path is above {_LONGEST_SOCKET} bytes: {host.socket!a}")
    return hosts


def _port(text: str) -> int:
    if not text:
        return _DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) < 65536:
        # Not shown: where a slash of a password was not encoded, it is a piece of that.
        raise DatabaseUrlError("has a port that is not a number from 1 to 65535; a / in a password is written as %2F")
    return int(text)


def _tls(given: Mapping[str, str], hosts: tuple[Host, ...]) -> Tls:
    root = given.get("sslrootcert") or None
    mode = given.get("sslmode", "verify-full" if root == SYSTEM else "prefer")
    if all(host.address.startswith("/") for host in hosts):
        mode = "disable"  # libpq speaks no TLS on a Unix socket, whatever is asked
    elif root == SYSTEM and mode != "verify-full":
        raise DatabaseUrlError("sslrootcert=system goes with sslmode=verify-full only: anybody has such a certificate")
    if given.get("channel_binding") == "require" and not all(host.is_local for host in hosts):
        # It makes sure that nobody stands between. Our driver cannot bind a channel, so the certificate must do it.
        if mode == "disable":
            raise DatabaseUrlError("channel_binding=require needs TLS, and sslmode=disable forbids it")
        if not mode.startswith("verify"):
            mode, root = ("verify-ca", root) if root else ("verify-full", SYSTEM)
    direct = given.get("sslnegotiation") == "direct"
    if direct and TLS_MODES.index(mode) < TLS_MODES.index("require"):
        raise DatabaseUrlError("sslnegotiation=direct goes with sslmode=require, verify-ca or verify-full only")
    if mode == "verify-full" and given.get("hostaddr") and given.get("host") != given["hostaddr"]:
        raise DatabaseUrlError("hostaddr with sslmode=verify-full is not supported: leave the address to the resolver")
    return Tls(
        mode,
        root,
        certificate=given.get("sslcert") or None,
        key=given.get("sslkey") or None,
        password=given.get("sslpassword") or None,
        revoked=given.get("sslcrl") or None,
        revoked_directory=given.get("sslcrldir") or None,
        minimum=given.get("ssl_min_protocol_version") or "TLSv1.2",
        maximum=given.get("ssl_max_protocol_version") or None,
        direct=direct,
        shows_certificate=given.get("sslcertmode") != "disable",
    )


def _timeout(given: Mapping[str, str]) -> float | None:
    seconds = int(given.get("connect_timeout") or 0)
    return float(seconds) if seconds > 0 else None


def _one_of(*words: str) -> Callable[[str], str | None]:
    def check(value: str) -> str | None:
        return None if value in words else f"{value[:40]!a} is not one of: {', '.join(words)}"

    return check


def _number(value: str) -> str | None:
    return None if re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*|", value) else f"{value[:40]!a} is not a number"


def _addresses(value: str) -> str | None:
    for one in filter(None, value.split(",")):
        try:
            ipaddress.ip_address(one)
        except ValueError:
            return f"{one[:40]!a} is not an IP address"
    return None


_SETTING = re.compile(r"(?<!\S)(?:-c\s*+|--)([A-Za-z][\w.-]*+)=((?:\\.|[^\s\\])*)")
_TRUE = re.compile(r"(?i)on|1|t(?:r(?:ue?)?)?|y(?:es?)?")


def _options(value: str) -> str | None:
    """Settings with which no session is of use to a gateway."""
    for name, text in _SETTING.findall(value):
        setting, text = name.lower().replace("-", "_"), re.sub(r"\\(.)", r"\1", text)
        if setting == "default_transaction_read_only" and _TRUE.fullmatch(text):
            return f"cannot be obeyed: {setting} is set, and the gateway writes"
        if setting in ("statement_timeout", "transaction_timeout") and 0 < _milliseconds(text) < _LEAST_TIMEOUT_MS:
            return f"cannot be obeyed: {setting} is below a second, which the gateway's statements may take"
    return None


def _milliseconds(text: str) -> float:
    """A time as PostgreSQL reads it; 0 for what it refuses."""
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})\s*(us|ms|s|min|h|d|)\s*", text)
    return float(found[1]) * _UNITS_MS[found[2] or "ms"] if found else 0


def _only(*words: str, because: str) -> Callable[[str], str | None]:
    """Values that ask for nothing; any other one cannot be obeyed, and would be missed."""

    def check(value: str) -> str | None:
        return None if value in words else f"cannot be obeyed: {because}"

    return check


def _session(value: str) -> str | None:
    problem = _one_of(*_WRITABLE, "read-only", "standby", "prefer-standby")(value)
    return problem or (None if value in _WRITABLE else f"{value} cannot be obeyed: the gateway writes")


_HARMLESS_LIVENESS = "ignored: every statement has a deadline of some seconds, which finds a dead connection sooner"
_DRIVER = "the driver has no such thing"

PARAMETERS: Mapping[str, Parameter] = {
    "host": Parameter("PGHOST", "obeyed: names, addresses and directories of Unix sockets, tried in turn"),
    "hostaddr": Parameter("PGHOSTADDR", "obeyed, but not with `sslmode=verify-full`", _addresses),
    "port": Parameter("PGPORT", "obeyed"),
    "dbname": Parameter("PGDATABASE", "obeyed"),
    "user": Parameter("PGUSER", "obeyed"),
    "password": Parameter("PGPASSWORD", "obeyed"),
    "passfile": Parameter("PGPASSFILE", "obeyed"),
    "require_auth": Parameter("PGREQUIREAUTH", "refused", _only("", because="the driver answers what the server asks")),
    "channel_binding": Parameter(
        "PGCHANNELBINDING",
        "`require`: the server's certificate is verified instead, by `sslrootcert` or by what the system trusts "
        "(not on this machine, where nobody stands between); `prefer`, `disable`: ignored",
        _one_of("disable", "prefer", "require"),
    ),
    "connect_timeout": Parameter("PGCONNECT_TIMEOUT", "obeyed, for each host; 0: five seconds", _number),
    "client_encoding": Parameter("PGCLIENTENCODING", "ignored: text always travels as UTF-8"),
    "options": Parameter(
        "PGOPTIONS",
        "obeyed, but for `search_path`; refused where it sets `default_transaction_read_only`, or a "
        "`statement_timeout` or `transaction_timeout` below a second",
        _options,
    ),
    "application_name": Parameter("PGAPPNAME", "obeyed; what the connection is for is added to it"),
    "fallback_application_name": Parameter(None, "ignored: the gateway has a name"),
    "keepalives": Parameter(None, _HARMLESS_LIVENESS, _number),
    "keepalives_idle": Parameter(None, _HARMLESS_LIVENESS, _number),
    "keepalives_interval": Parameter(None, _HARMLESS_LIVENESS, _number),
    "keepalives_count": Parameter(None, _HARMLESS_LIVENESS, _number),
    "tcp_user_timeout": Parameter(None, _HARMLESS_LIVENESS, _number),
    "replication": Parameter(
        None,
        "refused, unless it is switched off",
        _only("", "false", "off", "no", "0", because="the gateway needs a connection for statements"),
    ),
    "gssencmode": Parameter(
        "PGGSSENCMODE",
        "`disable`, `prefer`: ignored, there is no such encryption; `require`: refused",
        lambda value: (
            _one_of("disable", "prefer", "require")(value)
            or _only("disable", "prefer", because="the driver has no GSSAPI encryption, use TLS")(value)
        ),
    ),
    "sslmode": Parameter("PGSSLMODE", "obeyed", _one_of(*TLS_MODES)),
    "sslnegotiation": Parameter("PGSSLNEGOTIATION", "obeyed", _one_of("postgres", "direct")),
    "sslcompression": Parameter("PGSSLCOMPRESSION", "ignored: TLS compresses nothing any more, in libpq neither"),
    "sslcert": Parameter("PGSSLCERT", "obeyed"),
    "sslkey": Parameter("PGSSLKEY", "obeyed; a file"),
    "sslpassword": Parameter(None, "obeyed"),
    "sslcertmode": Parameter(
        "PGSSLCERTMODE",
        "`disable`, `allow`: obeyed; `require`: refused",
        lambda value: (
            _one_of("disable", "allow", "require")(value) or _only("disable", "allow", because=_DRIVER)(value)
        ),
    ),
    "sslrootcert": Parameter("PGSSLROOTCERT", "obeyed, `system` too"),
    "sslcrl": Parameter("PGSSLCRL", "obeyed"),
    "sslcrldir": Parameter("PGSSLCRLDIR", "obeyed"),
    "sslsni": Parameter("PGSSLSNI", "ignored: the server's name is always told", _one_of("0", "1")),
    "sslkeylogfile": Parameter(None, "ignored: keys are not written down"),
    "requirepeer": Parameter("PGREQUIREPEER", "refused", _only("", because=_DRIVER)),
    "ssl_min_protocol_version": Parameter("PGSSLMINPROTOCOLVERSION", "obeyed", _one_of("", *_TLS_VERSIONS)),
    "ssl_max_protocol_version": Parameter("PGSSLMAXPROTOCOLVERSION", "obeyed", _one_of("", *_TLS_VERSIONS)),
    "min_protocol_version": Parameter(
        "PGMINPROTOCOLVERSION",
        "refused above `3.0`",
        _only("", "3.0", because="the driver speaks version 3.0 of the protocol"),
    ),
    "max_protocol_version": Parameter("PGMAXPROTOCOLVERSION", "ignored: version 3.0 is below every maximum"),
    "krbsrvname": Parameter("PGKRBSRVNAME", "obeyed, where the package gssapi is installed"),
    "gsslib": Parameter("PGGSSLIB", "obeyed, where the package gssapi is installed", _one_of("", "gssapi", "sspi")),
    "gssdelegation": Parameter("PGGSSDELEGATION", "ignored: nothing is delegated"),
    "service": Parameter(
        "PGSERVICE", "refused in a URI, ignored in the environment", _only("", because="write its lines into the URI")
    ),
    "target_session_attrs": Parameter(
        "PGTARGETSESSIONATTRS",
        "`any`, `read-write`, `primary`: obeyed; with several hosts `read-write` where nothing is said; "
        "`read-only`, `standby`, `prefer-standby`: refused, the gateway writes",
        _session,
    ),
    "load_balance_hosts": Parameter("PGLOADBALANCEHOSTS", "obeyed", _one_of("disable", "random")),
    "scram_client_key": Parameter(None, "refused", _only("", because=_DRIVER)),
    "scram_server_key": Parameter(None, "refused", _only("", because=_DRIVER)),
    "oauth_issuer": Parameter(None, "refused", _only("", because=_DRIVER)),
    "oauth_client_id": Parameter(None, "refused", _only("", because=_DRIVER)),
    "oauth_client_secret": Parameter(None, "refused", _only("", because=_DRIVER)),
    "oauth_scope": Parameter(None, "refused", _only("", because=_DRIVER)),
}
"""All of libpq's, of PostgreSQL 18, and what becomes of each."""
