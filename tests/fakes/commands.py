"""The command line as processes, on a database of the test's own."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fakes.connections import connected

KEY = "5e" * 32


class Commands:
    """``tollway …`` with an environment of its own."""

    def __init__(self, directory: Path, **environ: str) -> None:
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(directory), **environ}

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tollway", *words],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def out(self, *words: str) -> str:
        done = self.run(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.out(*words, "--json"))

    def fails(self, code: int, *words: str, **environ: str) -> str:
        done = self.run(*words, **environ)
        assert done.returncode == code, done
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return done.stderr


def execute(url: str, *statements: str) -> None:
    async def run() -> None:
        async with connected(url) as connection:
            for statement in statements:
                await connection.execute(statement)

    asyncio.run(run())
