import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.admission.authenticate import KeyHasher, authenticate, presented_key
from tollway.domain.keys import KeyId, new_virtual_key
from tollway.domain.refusals import BadKey, ExpiredKey, KeysUnavailable, RevokedKey
from tollway.routing.snapshot import NOTHING, KeyGrant, Snapshot

NOW = 1_700_000_000.0
HASHER = KeyHasher(b"pepper" * 5)
SECRET = new_virtual_key()


def grant(*, expires_at: float | None = None, revoked: bool = False) -> KeyGrant:
    return KeyGrant(KeyId("key_1"), 60, 1000, None, expires_at, revoked, NOTHING)


def snapshot(known: KeyGrant) -> Snapshot:
    return Snapshot(1, {HASHER(SECRET.encode()): known}, {}, {})


def judge(authorization: bytes | None, known: KeyGrant, *, fresh: bool = True) -> object:
    headers = {} if authorization is None else {b"authorization": authorization}
    return authenticate(presented_key(headers), snapshot(known), HASHER, NOW, fresh=fresh)


@pytest.mark.parametrize("form", ["Bearer %s", "bearer %s", "BEARER  %s", "Bearer %s "])
def test_a_known_key_is_recognised_however_its_scheme_is_written(form: str) -> None:
    known = grant()
    assert judge((form % SECRET).encode(), known) is known


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer ", b"Bearer   ", b"%b", b"Basic %b", b"Token %b", b"Bearer%b", b"Bearer x%b",
     b"Bearer %bx", b"Bearer %b,%b", b"Bearer\t%b", b" Bearer %b"],
)  # fmt: skip
def test_anything_but_bearer_and_the_key_is_a_bad_key(header: bytes | None) -> None:
    header = header.replace(b"%b", SECRET.encode()) if header else header
    assert judge(header, grant()) == BadKey()


def test_an_overlong_key_is_bad_even_if_it_were_known() -> None:
    long = b"k" * 257
    known = Snapshot(1, {HASHER(long): grant()}, {}, {})
    assert authenticate(long, known, HASHER, NOW, fresh=True) == BadKey()


def test_an_unknown_key_is_bad_while_the_keys_are_known_to_be_current() -> None:
    assert judge(f"Bearer {new_virtual_key()}".encode(), grant()) == BadKey()


def test_an_unknown_key_is_not_judged_while_the_database_is_away() -> None:
    assert isinstance(judge(f"Bearer {new_virtual_key()}".encode(), grant(), fresh=False), KeysUnavailable)


def test_a_known_key_is_served_while_the_database_is_away() -> None:
    known = grant()
    assert judge(f"Bearer {SECRET}".encode(), known, fresh=False) is known


def test_a_missing_header_is_bad_also_while_the_database_is_away() -> None:
    assert judge(None, grant(), fresh=False) == BadKey()


@pytest.mark.parametrize(("expires_at", "expired"), [(NOW + 0.001, False), (NOW, True), (NOW - 1, True), (0.0, True)])
def test_a_key_ends_at_its_expiry(expires_at: float, expired: bool) -> None:
    answer = judge(f"Bearer {SECRET}".encode(), grant(expires_at=expires_at))
    assert (answer == ExpiredKey()) == expired


def test_a_revoked_key_is_refused_as_such_even_when_it_has_also_expired() -> None:
    assert judge(f"Bearer {SECRET}".encode(), grant(expires_at=NOW - 1, revoked=True)) == RevokedKey()


def test_the_hash_depends_on_the_pepper() -> None:
    assert KeyHasher(b"a" * 32)(b"secret") != KeyHasher(b"b" * 32)(b"secret")
    assert len(KeyHasher(b"a" * 32)(b"secret")) == 32


@given(st.binary(max_size=300))
def test_no_header_raises(header: bytes) -> None:
    assert judge(header, grant()) == BadKey()


OTHERS = (b"x-api-key", b"api-key", b"x-goog-api-key")


@pytest.mark.parametrize("name", OTHERS)
def test_the_key_may_come_in_the_header_of_another_api(name: bytes) -> None:
    assert presented_key({name: b"key"}) == b"key"
    assert presented_key({name: b"key", b"authorization": b"Bearer key"}) == b"key"
    assert presented_key({name: b"", b"authorization": b"Bearer key"}) == b"key", "an empty header holds no key"


def test_all_headers_may_hold_the_same_key() -> None:
    same = dict.fromkeys(OTHERS, b"key")
    assert presented_key(same) == b"key"
    assert presented_key({**same, b"authorization": b"bearer key"}) == b"key"


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-api-key": b"one", b"authorization": b"Bearer other"},
        {b"x-api-key": b"one", b"api-key": b"other"},
        {b"x-goog-api-key": b"one", b"x-api-key": b"one", b"authorization": b"Bearer other"},
        {b"x-api-key": b"one", b"authorization": b"Basic b25lOg=="},
        {b"x-api-key": b"one", b"authorization": b"one"},
        {b"x-api-key": b"one", b"authorization": b"Bearer "},
        {b"x-api-key": b"Bearer one", b"authorization": b"Bearer one"},
        {b"x-api-key": b"", b"api-key": b" "},
        {b"x-api-key": b"", b"authorization": b"Basic b25lOg=="},
        {b"proxy-authorization": b"Bearer one"},
        {b"x-authorization": b"Bearer one"},
        {b"cookie": b"api-key=one"},
        {},
    ],
    ids=repr,
)
def test_two_keys_that_differ_are_no_key_nor_is_any_other_header(headers: dict[bytes, bytes]) -> None:
    assert presented_key(headers) is None


_VALUES = st.sampled_from(
    [b"one", b"two", b"", b" ", b"Bearer one", b"bearer  one", b"Bearer two", b"Bearer", b"one, one"]
)


@given(st.dictionaries(st.sampled_from((*OTHERS, b"authorization")), _VALUES))
def test_a_key_is_presented_only_where_every_header_says_the_same(headers: dict[bytes, bytes]) -> None:
    def says(name: bytes, value: bytes) -> bytes:
        if name != b"authorization":
            return value.strip(b" ")
        return value[7:].strip(b" ") if value.lower().startswith(b"bearer ") else b"(not a bearer)"

    said = {says(*item) for item in headers.items() if item[1].strip(b" ")}
    expected = next(iter(said)) if len(said) == 1 and said != {b"(not a bearer)"} else None
    assert presented_key({name: value.strip(b" ") for name, value in headers.items()}) == expected
