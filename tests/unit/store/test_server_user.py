"""Which number the embedded PostgreSQL gets as its user id."""

import logging
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.store import server_user
from tollway.store.server_errors import EmbeddedError
from tollway.store.server_user import ServerUser, named_user, pick
from tollway.store.server_user import server_user as user_for

WINDOWS = (range(100, 110), range(10, 20))


def test_the_same_seed_finds_the_same_number() -> None:
    assert pick(WINDOWS, [range(1000)], 7, lambda _: True) == pick(WINDOWS, [range(1000)], 7, lambda _: True) == 107


@given(seed=st.integers(0, 2**64), taken=st.sets(st.integers(100, 109), max_size=9))
def test_a_number_that_somebody_has_is_passed_over(seed: int, taken: set[int]) -> None:
    number = pick(WINDOWS, [range(1000)], seed, lambda number: number not in taken)
    assert number is not None
    assert number in WINDOWS[0]
    assert number not in taken


def test_a_full_window_leads_to_the_next() -> None:
    assert pick(WINDOWS, [range(1000)], 3, lambda number: number < 100) == 13


def test_only_ids_that_the_namespace_knows_are_taken() -> None:
    assert pick(WINDOWS, [range(1), range(18, 102)], 3, lambda _: True) in (100, 101)
    assert pick(WINDOWS, [range(1), range(15, 17)], 3, lambda _: True) in (15, 16)
    assert pick(WINDOWS, [range(1)], 3, lambda _: True) is None


@given(seed=st.integers(0, 2**64))
def test_the_windows_hold_neither_root_nor_nobody_nor_anything_that_means_none(seed: int) -> None:
    for known in (range(2**32), range(65_536), range(10_000)):
        number = pick(server_user._WINDOWS, [known], seed, lambda _: True)
        assert number not in (None, 0, 65_534, 65_535, 2**31 - 1, 2**32 - 1, 2**32 - 2)


NOBODY = pwd.getpwnam("nobody")


def namespace(monkeypatch: pytest.MonkeyPatch, *known: range) -> None:
    """Be root where the system knows these ids."""

    def ids_of(name: str) -> Sequence[range]:
        return known

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(server_user, "_ids_of", ids_of)


def test_root_gets_a_number_of_the_namespace_the_same_for_each_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace(monkeypatch, range(65_536))
    user = user_for(tmp_path, tmp_path / "none")
    assert user is not None
    assert user.uid == user.gid
    assert 60_578 <= user.uid < 61_184
    assert user_for(tmp_path, tmp_path / "none") == user
    assert user_for(tmp_path / "another", tmp_path / "none") != user


def test_where_only_nobody_is_left_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    namespace(monkeypatch, range(1), range(NOBODY.pw_uid, NOBODY.pw_uid + 1))
    with caplog.at_level(logging.WARNING):
        assert user_for(tmp_path, tmp_path / "none") == ServerUser(NOBODY.pw_uid, NOBODY.pw_gid)
    (record,) = caplog.records
    assert "runs as nobody" in record.message


def test_where_root_is_alone_the_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace(monkeypatch, range(1))
    with pytest.raises(EmbeddedError, match="run as an ordinary user, or set DATABASE_URL"):
        user_for(tmp_path, tmp_path / "none")


def test_an_ordinary_user_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert user_for(tmp_path, tmp_path / "none") is None


def test_what_has_no_name_is_made_by_nobody_in_its_own_group() -> None:
    """Its group keeps other processes of that name from looking into it by /proc."""
    user = ServerUser(2_100_000_005, 2_100_000_005)
    assert named_user(user) == ServerUser(NOBODY.pw_uid, 2_100_000_005)
    assert named_user(ServerUser(NOBODY.pw_uid, 7)) == ServerUser(NOBODY.pw_uid, 7)
    assert named_user(None) is None
