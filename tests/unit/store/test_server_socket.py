"""Where the embedded PostgreSQL's socket may lie."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tollway.store import server_socket
from tollway.store.server_errors import EmbeddedError
from tollway.store.server_socket import Place, claim, claim_first, place_of, temporary_directories


@pytest.fixture
def short_path() -> Iterator[Path]:
    """What pytest makes is too long to begin with."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def data(short_path: Path) -> Path:
    path = short_path / "d"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def elsewhere(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory for temporary files."""
    path = short_path / "t"
    path.mkdir(mode=0o700)
    monkeypatch.setattr(server_socket, "temporary_directories", lambda: [str(path)])
    monkeypatch.setattr(server_socket, "_SYSTEM", ())
    return path


def test_with_the_data_the_server_knows_it_by_a_relative_name(data: Path) -> None:
    place = claim_first(data, None, "secret")
    assert place == Place(data / "socket", "socket")
    assert place_of(data, place.argument) == place
    assert place.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("odd", ["x" * 100, "a,b", "\udcff"], ids=["long", "comma", "no UTF-8"])
def test_what_no_client_would_understand_leads_elsewhere(data: Path, elsewhere: Path, odd: str) -> None:
    home = data / odd
    home.mkdir()
    place = claim_first(home, None, "secret")
    assert place.directory.parent == elsewhere
    assert place_of(home, place.argument) == place
    assert claim_first(home, None, "secret") == place, "the same again"
    second = data / f"{odd}2"
    second.mkdir()
    others = {claim_first(home, None, "another").directory, claim_first(second, None, "secret").directory}
    assert len(others | {place.directory}) == 3, "not to be foreseen, and each home has its own"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_where_others_could_replace_it_it_is_not_put(data: Path, elsewhere: Path, mode: int) -> None:
    elsewhere.chmod(mode)
    home = data / ("x" * 100)
    home.mkdir()
    with pytest.raises(EmbeddedError, match="others could replace it"):
        claim_first(home, None, "secret")
    elsewhere.chmod(mode | 0o1000)
    assert claim_first(home, None, "secret").directory.parent == elsewhere


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_below_a_strangers_directory_it_is_not_put(data: Path, elsewhere: Path) -> None:
    os.chown(elsewhere, 1, 1)
    home = data / ("x" * 100)
    home.mkdir()
    with pytest.raises(EmbeddedError, match="others could replace it"):
        claim_first(home, None, "secret")


def test_a_link_in_its_place_is_not_followed(data: Path, elsewhere: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file").touch()
    inside = place_of(data, "socket")
    inside.directory.symlink_to(treasure)
    claim(inside, None)
    assert not inside.directory.is_symlink(), "with the data, all is ours"
    outside = place_of(data, f"{elsewhere}/tollway-1")
    outside.directory.symlink_to(treasure)
    with pytest.raises(OSError):
        claim(outside, None)
    assert (treasure / "file").exists()


def test_what_was_left_is_removed_and_loose_rights_are_tightened(data: Path) -> None:
    place = place_of(data, "socket")
    place.directory.mkdir()
    place.directory.chmod(0o777)
    (place.directory / "file").touch()
    (place.directory / "link").symlink_to(data)
    (place.directory / "directory" / "deep").mkdir(parents=True)
    claim(place, None)
    assert list(place.directory.iterdir()) == []
    assert place.directory.stat().st_mode & 0o777 == 0o700
    assert data.exists()


def test_the_address_is_what_urls_can_hold() -> None:
    place = place_of(Path("/a b/%/é&?#'"), "socket")
    assert all("!" <= letter <= "~" for letter in place.query)
    assert parse_qs(place.query, strict_parsing=True) == {"host": ["/a b/%/é&?#'/socket"], "port": ["5432"]}


def test_directories_for_temporary_files_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", lambda: "/somewhere")
    assert temporary_directories()[0] == "/somewhere"
    monkeypatch.setattr("tempfile.gettempdir", none)
    assert temporary_directories() == ["/tmp", "/var/tmp"]
