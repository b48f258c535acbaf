"""Starting the mock provider that streams."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import processes
from bench.programs import Place, Upstream, clean_environment


@contextmanager
def upstream(place: Place, events: int, interval_s: float) -> Iterator[Upstream]:
    """Streams of ``events`` frames of content, on the core of the load."""
    port = processes.free_port()
    command = [sys.executable, "-m", "bench.sse_upstream", str(port), str(events), str(interval_s)]
    environment = clean_environment(PYTHONPATH=str(Path(__file__).parents[1]))
    log = place.make("sse-upstream") / "output.log"
    with processes.running(
        "the mock upstream", command, log, cores={place.other_core}, environment=environment
    ) as child:
        processes.wait_for_port(child, port)
        yield Upstream(port, child.pid)
