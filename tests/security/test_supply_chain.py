"""What is installed is what was meant, and what we hand out is what we wrote."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-dev.txt")

_LOGICAL_LINE = re.compile(r"(?:[^\\\n]|\\\n)+")
_PINNED = re.compile(
    r"""
    [A-Za-z0-9._-]+ (?:\[[a-z,]+\])? ==[^\s;]+  # name, extras, version
    (?: \s*;[^\\\n]* )?  # for which machines
    (?: [\s\\]+ --hash=sha256:[0-9a-f]{64} )+
    """,
    re.VERBOSE,
)


def unpinned(text: str) -> list[str]:
    """The requirements that could be met by something else than what was there when they were written."""
    lines = (match[0].strip() for match in _LOGICAL_LINE.finditer(text))
    return [line for line in lines if line and not line.startswith("#") and not _PINNED.fullmatch(line)]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_s44_every_dependency_is_pinned_with_its_hashes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("--hash=") > 20
    assert unpinned(text) == []
    assert "://" not in text, "whoever installs chooses the index"


@pytest.mark.parametrize("planted", ["idna\n", "idna==3.10\n", "idna>=3 \\\n    --hash=sha256:" + "0" * 64 + "\n"])
def test_s44_a_requirement_that_is_not_pinned_is_found(planted: str) -> None:
    assert unpinned(REQUIREMENTS[0].read_text(encoding="utf-8") + planted) == [planted.strip()]


def test_s44_the_set_up_takes_nothing_without_a_hash() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    commands = re.findall(r"^\s*pip_install .*", script, re.MULTILINE)
    assert commands
    assert script.count("pip install") == 1, "in pip_install"
    for command in commands:
        assert "--require-hashes" in command or "--no-deps" in command, command


def test_s43_a_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    subprocess.run([*command, "-w", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("tollway-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    package = {
        str(path.relative_to(source))
        for path in (source / "tollway").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == package
