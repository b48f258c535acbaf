"""Bounds that follow from the machine."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollway.dataplane import machine
from tollway.dataplane.machine import LEAST_CONNECTIONS, OWN_FILES, buffered_bytes, connections
from tollway.http1.limits import ServerLimits
from tollway.settings import Settings, read

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize("files", [64, 100, 128, 256, 512, 1024, 4096, 20_000, 65_536, 2**20])
def test_clients_and_providers_share_what_the_process_does_not_need_itself(files: int) -> None:
    room = connections(files, ServerLimits())
    assert room.clients <= 20_000 and room.refused <= 256
    assert room.clients >= LEAST_CONNECTIONS and room.providers >= LEAST_CONNECTIONS
    if files >= 100:
        assert OWN_FILES + room.clients + room.refused + room.providers <= files
        assert room.providers >= room.clients, "a call is never without a place for its provider"


def test_usual_limits_are_put_to_use() -> None:
    assert connections(256, ServerLimits()) == (84, 12, 96)
    assert connections(1024, ServerLimits()) == (420, 60, 480)
    assert connections(2**20, ServerLimits())[:2] == (20_000, 256)


def settings(**environment: str) -> Settings:
    found = read(environment)
    assert isinstance(found, Settings)
    return found


@pytest.mark.parametrize(
    ("environment", "memory", "expected"),
    [
        ({}, 64 * GIB, 512 * MIB),
        ({}, 1 * GIB, 256 * MIB),
        ({}, 128 * MIB, 128 * MIB),  # four bodies of 32 MiB in any case
        ({"MAX_BODY_BYTES": str(GIB)}, 64 * GIB, 4 * GIB),
        ({"MAX_BUFFERED_BYTES": str(128 * MIB)}, 64 * GIB, 128 * MIB),
        ({"MAX_BUFFERED_BYTES": str(8 * GIB)}, 1 * GIB, 8 * GIB),
    ],
)
def test_what_may_be_held(environment: dict[str, str], memory: int, expected: int) -> None:
    assert buffered_bytes(settings(**environment), memory) == expected


def test_a_containers_memory_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LIMITS_OF_GROUPS", ())
    whole = machine.memory()
    assert whole > 64 * MIB
    for text, expected in (("max\n", whole), (f"{64 * MIB}\n", 64 * MIB), (f"{2**63 - 4096}\n", whole), ("", whole)):
        group = tmp_path / "memory.max"
        group.write_text(text)
        monkeypatch.setattr(machine, "_LIMITS_OF_GROUPS", (str(tmp_path / "none"), str(group)))
        assert machine.memory() == expected


@pytest.fixture
def fresh_look() -> Iterator[None]:
    machine._of_allocator.cache_clear()
    yield
    machine._of_allocator.cache_clear()


@pytest.mark.usefixtures("fresh_look")
def test_a_c_library_without_glibcs_functions_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """No such names."""

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Other())
    machine.keep_large_blocks_apart()
    machine.give_memory_back()
