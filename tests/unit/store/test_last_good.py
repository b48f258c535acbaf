"""The file of the last good configuration comes back whole, or not at all and with a reason."""

import os
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from tollway.domain.keys import KeyHash, KeyId, Secret
from tollway.routing.snapshot import NOTHING, KeyGrant, KeyTable, ModelRow, ProviderRow, Rows
from tollway.store import last_good as module
from tollway.store.last_good import FILE_NAME, LastGoodFile, UnusableError
from tollway.store.vault import Vault

VAULT = Vault(b"k" * 32)
GIVEN = Secret("postgresql://u:p@h:5433/d?sslmode=require")

ROWS = Rows(
    (ProviderRow("openai", "openai", "https://api.openai.com/v1", "2", ["logprobs"]),),
    (
        ModelRow("a", "openai", "b", ["c"], *map(Decimal, ("0.1", "0.2", "0.3")), "[1]", "[2]", True, True, "drain"),
        ModelRow("c", "openai", None, [], *[None] * 4),
    ),
)
FULL = KeyGrant(KeyId("key_1"), 60, 100_000, frozenset({"a", "b"}), 4e9, True, {"openai": "v1.sealed"})
EMPTY = KeyGrant(KeyId("key_2"), None, 0, None, None, False, NOTHING)


def table(number: int) -> KeyTable:
    draft = KeyTable().draft()
    for one in range(number):
        draft.put(KeyHash(one.to_bytes(32, "little")), FULL if one % 2 else EMPTY)
    return draft.done()


def file(home: Path, vault: Vault = VAULT, url: Secret | None = GIVEN) -> LastGoodFile:
    return LastGoodFile(home, vault, url)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    return pauses


def test_the_examples_leave_no_field_at_its_default() -> None:
    assert all(msgspec.structs.astuple(FULL))
    assert all(ROWS.models[0]) and all(ROWS.providers[0])


@pytest.mark.parametrize("number", [0, 1, 2, 199, 200, 201, 1000])
def test_what_was_saved_comes_back(tmp_path: Path, number: int) -> None:
    assert file(tmp_path).load() is None
    keys = table(number)
    before = time.time()
    assert file(tmp_path).save(7, keys, ROWS)
    found = file(tmp_path).load()
    assert found is not None
    assert (found.revision, dict(found.keys), found.rows) == (7, dict(keys), ROWS)
    assert abs(found.current_at - before) < 10


def test_keys_with_the_same_list_of_models_share_it(tmp_path: Path) -> None:
    file(tmp_path).save(7, table(10), ROWS)
    found = file(tmp_path).load()
    assert found is not None
    assert len({id(grant.models) for grant in found.keys.values() if grant.models is not None}) == 1


def test_the_file_is_for_its_owner_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    os.umask(0o022)
    (tmp_path / f"{FILE_NAME}.new").write_text("of a process that was killed")
    for _ in range(2):
        file(tmp_path).save(7, table(3), ROWS)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_large_table_is_encoded_in_small_steps(tmp_path: Path, no_pauses: list[float]) -> None:
    pieces = list(file(tmp_path)._pieces(7, table(10_000), ROWS))
    assert len(pieces) >= 10_000 / module._CHUNK
    assert max(map(len, pieces)) < 64 * 1024
    file(tmp_path).save(7, table(10_000), ROWS)
    assert len(no_pauses) == len(pieces), "the event loop gets its turn after each"


def test_a_configuration_that_is_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path).save(7, table(1), ROWS)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 2000)
    assert not file(tmp_path).save(8, table(1000), ROWS)
    found = file(tmp_path).load()
    assert found is not None and found.revision == 7
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_save_that_is_stopped_leaves_the_file_before(tmp_path: Path) -> None:
    file(tmp_path).save(7, table(1), ROWS)
    stopped = file(tmp_path)
    stopped.stop()
    with pytest.raises(OSError):
        stopped.save(8, table(1000), ROWS)
    found = file(tmp_path).load()
    assert found is not None and found.revision == 7
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    file(tmp_path).save(7, table(3), ROWS)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    damaged: list[bytes] = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole + b"x", whole * 2, b"\0" * len(whole)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UnusableError) as refusal:
            file(tmp_path).load()
        assert "\n" not in str(refusal.value)


def newer(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(module._VERSION, b"x\n", 1))


def old(path: Path) -> None:
    long_ago = time.time() - module.MAX_AGE_S - 60
    os.utime(path, (long_ago, long_ago))


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nothing(path: Path) -> None:
    assert path.exists()


@pytest.mark.parametrize(
    ("change", "reader", "reason"),
    [
        (nothing, {"vault": Vault(b"o" * 32)}, "another ENCRYPTION_KEY"),
        (nothing, {"url": None}, "another database"),
        (nothing, {"url": Secret("postgresql://u:p@h:5433/other")}, "another database"),
        (nothing, {"url": Secret("postgresql://u:p@h:5434/d")}, "another database"),
        (newer, {}, "another version"),
        (old, {}, "too old"),
        (unreadable, {}, "cannot be read"),
    ],
)
def test_a_file_that_does_not_belong_here_is_not_used(
    tmp_path: Path, change: Callable[[Path], None], reader: dict[str, object], reason: str
) -> None:
    file(tmp_path).save(7, table(3), ROWS)
    change(tmp_path / FILE_NAME)
    with pytest.raises(UnusableError, match=reason):
        file(tmp_path, **reader).load()


def test_a_new_password_or_other_parameters_are_the_same_database(tmp_path: Path) -> None:
    file(tmp_path).save(7, table(3), ROWS)
    assert file(tmp_path, url=Secret("postgresql://u:new@h:5433/d?connect_timeout=3")).load() is not None


def test_a_file_that_was_written_whole_by_something_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [
        [module._frame(module._Head(file(tmp_path)._place, 7)), module._frame({"rows": 1})],
        [module._frame(module._Head(file(tmp_path)._place, 7))],
        [module._frame(module._Head(file(tmp_path)._place, 7)), module._frame(ROWS), module._frame([["x"]])],
    ]
    for some in pieces:
        monkeypatch.setattr(LastGoodFile, "_pieces", lambda *_, some=some: [module._MAGIC + module._VERSION, *some])
        file(tmp_path).save(7, table(3), ROWS)
        with pytest.raises(UnusableError, match="cannot be read"):
            file(tmp_path).load()


def test_what_is_still_so_is_as_good_as_new(tmp_path: Path) -> None:
    file(tmp_path).save(7, table(3), ROWS)
    old(tmp_path / FILE_NAME)
    file(tmp_path).confirm()
    found = file(tmp_path).load()
    assert found is not None and time.time() - found.current_at < 10
