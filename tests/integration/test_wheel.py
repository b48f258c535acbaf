"""The way without a checkout: the wheel, installed into an environment of its own, serves as ``make run`` does.

What it depends on is lent by the environment of the tests, so that nothing is fetched.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from fakes.client import Client
from fakes.gateway import READY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with nothing but the wheel in it."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", directory, ROOT)
    (wheel,) = directory.glob("tollway-*.whl")
    venv.create(directory / "venv")
    python = directory / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = (directory / "venv").glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done
    return done.stdout


def test_it_is_the_wheels_code_that_runs(installed: Path) -> None:
    where = run(installed / "python", "-c", "import tollway; print(tollway.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)


async def test_it_serves_and_stops(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": "0"}
    process = subprocess.Popen(
        [installed / "tollway", "serve"],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = READY.match(process.stdout.readline().rstrip("\n"))
        assert line
        made = subprocess.run(
            [installed / "tollway", "keys", "create", "--json"], env=environment, capture_output=True, text=True
        )
        key = json.loads(made.stdout)["virtualKey"]
        client = Client(int(line[1]))
        for _ in range(500):
            answer = await client.chat(key, "demo/echo", "Hello from the wheel")
            if answer.status != 401:  # a key that was made a moment ago
                break
        assert answer.text == "Hello from the wheel"
        assert (tmp_path / ".local" / "share" / "tollway" / "postgres").is_dir()
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        process.stdout.close()
    assert code == 0
