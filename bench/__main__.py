"""``python -m bench``: measure, print the table, write it as Markdown."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg

from bench import machine, processes, profile, report
from bench.measurements import hostile, idle, journal, posting, requests, start, streams, translation
from bench.programs import Place
from bench.run import FULL, QUICK, Lengths, Run

_RESULTS = Path(__file__).parent / "results"

_CHAPTERS: dict[str, tuple[str, Callable[[Run], list[report.Measure]]]] = {
    "start": ("Start, and memory at rest", start.starts),
    "import": ("Import", start.imports),
    "requests": ("Requests", requests.plain),
    "tls": ("Requests, TLS towards the upstream", requests.tls),
    "streams": ("Streams", streams.events),
    "translation": ("Translation for Mistral", translation.cost),
    "open-streams": ("Open streams", streams.memory),
    "journal": ("The journal", journal.notes),
    "idle": ("Idle connections", idle.connections),
    "posting": ("Posting a journal of calls to the ledger", posting.posting),
    "hostile": ("Hostile requests and answers", hostile.shapes),
}

_TROUBLE = (processes.BenchError, OSError, subprocess.SubprocessError, asyncpg.PostgresError)
"""What ends a chapter, but not the run."""


def main() -> int:
    """Do what the command line asks for; the value is the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every program we started is ended
    try:
        machine.check()
        return _profile(options) if options.what == "profile" else _measure(options)
    except machine.UnfitError as reason:
        print(f"bench: {reason}", file=sys.stderr)
        return 2
    except _TROUBLE as reason:
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="Measure Tollway beside nginx, and write a table.")
    parser.add_argument(
        "what", nargs="?", choices=("run", "profile"), default="run", help="profile: where the CPU goes"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, for a first impression")
    parser.add_argument("--only", action="append", choices=_CHAPTERS, metavar="NAME", help=", ".join(_CHAPTERS))
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: bench/results/latest.md; nowhere with --only; for profile bench/results/profile.txt",
    )
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    facts = machine.facts()
    busy = machine.others_at_work()
    chapters: dict[str, list[report.Measure]] = {}
    failed = False
    with _run(QUICK if options.quick else FULL) as run:
        if busy:
            run.notes.append(
                "the machine was busy with something else at the start, which shows in every number: measure again"
            )
        for name, (title, measure) in _CHAPTERS.items():
            if options.only and name not in options.only:
                continue
            run.say(f"{title} …")
            try:
                chapters[title] = measure(run)
            except _TROUBLE as reason:
                failed = True
                said = str(reason) or type(reason).__name__
                run.say(f"  FAILED: {said}")
                run.notes.append(f"FAILED, {title}: {said.splitlines()[0]}")
    length = f"{'quick, ' if options.quick else ''}in {time.monotonic() - begun:.0f} s"
    facts.append(("measured", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {length}"))
    text = report.markdown(facts, chapters, run.notes)
    print(text)
    if options.output or not options.only:  # a part must not take the place of the whole
        output = _written(options.output, "latest.md")
        output.write_text(text)
        run.say(f"written to {output}")
    return int(failed)


def _profile(options: argparse.Namespace) -> int:
    output = _written(options.output, "profile.txt")
    with _run(QUICK) as run:
        print(profile.record(run, output))
    run.say(f"stacks for a flame graph: {output}")
    return 0


@contextmanager
def _run(lengths: Lengths) -> Iterator[Run]:
    """A run in a temporary place, with this process on the core of the load."""
    program_core, other_core = machine.cores()
    os.sched_setaffinity(0, {other_core})
    # The home is a folder of its own: what an embedded PostgreSQL does to reach it must not depend on our files.
    with TemporaryDirectory(prefix="tollway-bench-") as folder, TemporaryDirectory(prefix="tollway-home-") as home:
        yield Run(Place(Path(folder), program_core, other_core), Path(home), lengths)


def _written(asked: Path | None, name: str) -> Path:
    output: Path = asked or _RESULTS / name
    output.parent.mkdir(parents=True, exist_ok=True)
    return output


if __name__ == "__main__":
    sys.exit(main())
