"""Who may import whom: the picture of docs/ARCHITECTURE.md, kept honest."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tollway

ROOT = Path(tollway.__file__).parent

PURE = {"domain", "wire", "providers", "routing", "admission"}
IMPURE_MODULES = {"asyncio", "socket", "ssl", "os", "time", "logging", "random", "subprocess", "threading", "uvloop"}

ALLOWED = {
    "domain": set(),
    "http1": set(),
    "wire": {"domain"},
    "providers": {"domain", "wire"},
    "routing": {"domain"},
    "admission": {"domain", "routing"},
    "observe": {"domain"},
    "demo": {"domain", "wire"},
    "accounting": {"domain", "observe"},
    "store": {"domain", "routing"},
}
"""Folder → the other folders it may import. What is not listed (the shells and the composition roots) is free."""

NEVER = {
    "dataplane": {"controlplane", "cli", "demo"},
    "controlplane": {"dataplane", "cli", "http1"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if len(parts) > 1:
            yield parts[0], path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def folder_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "tollway" and len(parts) > 1 else None


@pytest.mark.parametrize("folder", sorted({*ALLOWED, *NEVER}))
def test_a_folder_imports_only_what_the_architecture_allows(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for owner, path in modules()
        if owner == folder
        for module in imports(path)
        if (target := folder_of(module)) is not None
        and target != folder
        and (target in NEVER.get(folder, set()) or (folder in ALLOWED and target not in ALLOWED[folder]))
    ]
    assert not wrong


def test_the_pure_folders_touch_nothing_outside() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for owner, path in modules()
        if owner in PURE
        for module in imports(path)
        if module.split(".")[0] in IMPURE_MODULES
    ]
    assert not wrong


def test_the_table_of_directions_names_folders_that_exist() -> None:
    assert {*ALLOWED, *NEVER} <= {owner for owner, _ in modules()}
