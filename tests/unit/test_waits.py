"""Every wait of the data plane has an end: here stands which, for each place that waits for something outside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import tollway

ROOT = Path(tollway.__file__).parent

POOL = "the sweep of the client's pool: first byte, silence, deadline of the call"
DIAL = "the time for connecting, in Dialer.dial"
DISK = "a local disk, as every write of the journal"
SLEEP = "it says itself how long"
DELIVERY = "the deadline of dataplane.reporting.deliver"
OUR_OWN = "waits for work, and is cancelled at the end of the process"

WAITS = {
    "http1.answer.StreamedResponse._wait: waiter": POOL,
    "http1.client.Client._exchange: answer.send": POOL,
    "http1.dial.Dialer._connect: loop.create_connection": DIAL,
    "http1.dial.Dialer._resolve: self._resolver": DIAL,
    "http1.dial._connect_unix: asyncio.get_running_loop().create_unix_connection": DIAL,
    "http1.dial.system_resolver: asyncio.get_running_loop().getaddrinfo": DIAL,
    "http1.exchange.ResponseStream.drained: self._waiter": "the sweep of the server: write_timeout_s",
    "http1.handshakes.TlsListener._accept: asyncio.sleep": SLEEP,
    "http1.handshakes.TlsListener._accept: self._loop.sock_accept": OUR_OWN,
    "http1.handshakes.TlsListener._shake: self._loop.connect_accepted_socket": "its ssl_handshake_timeout",
    "http1.proxy.open_tunnel: answer.status": DIAL,
    "http1.inbound.Connection._serve: server.handler": "whatever the handler waits for, in this list",
    "http1.inbound.Connection.more: upload.waiter": "the sweep of the server: body_window_s, body_total_s",
    "http1.server.Server._until_empty: asyncio.wait": SLEEP,
    "http1.server.Server.start: create": "listening waits for nobody",
    "http1.tls.TlsChannel.start: channel._shaken": DIAL,
    "dataplane.attempts._fetch: world.client.fetch": POOL,
    "dataplane.attempts.attempt_stream: open_answer": POOL,
    "dataplane.control.serve_control: world.client.fetch": POOL,
    "dataplane.passage._send: open_answer": POOL,
    "dataplane.books.Books.rescue: asyncio.to_thread": DISK,
    "dataplane.books.Books.sync: asyncio.to_thread": DISK,
    "dataplane.delivery.Delivery.deliver: asyncio.wait": DELIVERY,
    "dataplane.delivery.Delivery.finish: asyncio.wait": "FINISH_S, and then a cancelled task that awaits nothing more",
    "dataplane.delivery.Delivery.run: asyncio.sleep": SLEEP,
    "dataplane.delivery.Delivery.works: asyncio.wait": "the deadline of the call, and DELIVERY",
    "dataplane.offload.Offload.run: job.result": "bounded work, in turn: wire/structure.py",
    "dataplane.passage_request._read_form: anext": "as Connection.more",
    "dataplane.reporting.keep_house: asyncio.sleep": SLEEP,
    "dataplane.reporting.keep_reporting: asyncio.sleep": SLEEP,
    "dataplane.reporting._post: client.fetch": POOL,
    "dataplane.reporting.keep_checkpoints: asyncio.sleep": SLEEP,
    "dataplane.reporting.keep_synced: asyncio.sleep": SLEEP,
    "dataplane.serve.answer: asyncio.sleep": SLEEP,
    "dataplane.serve.answer: attempt_once": "attempt_reply, attempt_stream or attempt_passage, in this list",
    "dataplane.worker.configured: asyncio.wait": "the database may be away for ever; told to stop, it ends",
    "dataplane.worker.configured: starting": "it is done",
    "dataplane.worker.drain: asyncio.wait": SLEEP,
    "dataplane.worker.drain: draining": "after server.drain(0) it has seconds",
    "dataplane.worker.serve: line.stop.wait": OUR_OWN,
}
"""Function and what it awaits: what ends the wait, whatever the other side does. A new one belongs here, too."""


def folder(name: str) -> list[Path]:
    return sorted((ROOT / name).glob("*.py"))


def coroutines() -> set[str]:
    """Names of our own coroutine functions: what they wait for stands in them."""
    return {
        node.name
        for path in (*folder("http1"), *folder("dataplane"), ROOT / "store" / "configuration.py", ROOT / "child.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef)
    }


def waits(node: ast.AST, place: str) -> Iterator[tuple[str, ast.expr]]:
    """Where something is awaited, and what; ``async for`` and ``async with`` are over coroutines of our own."""
    for child in ast.iter_child_nodes(node):
        inner = place
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{place}.{child.name}"
        elif isinstance(child, ast.Await):
            awaited = child.value
            for one in (awaited.body, awaited.orelse) if isinstance(awaited, ast.IfExp) else (awaited,):
                yield place, one.func if isinstance(one, ast.Call) else one
        yield from waits(child, inner)


def test_everything_that_waits_is_known_to_end() -> None:
    ours = coroutines()
    found = set()
    for name in ("http1", "dataplane"):
        for path in folder(name):
            for place, awaited in waits(ast.parse(path.read_text(encoding="utf-8")), f"{name}.{path.stem}"):
                text = ast.unparse(awaited)
                if text.rpartition(".")[2] not in ours:
                    found.add(f"{place}: {text}")
    assert found == WAITS.keys(), f"new: {sorted(found - WAITS.keys())}; gone: {sorted(WAITS.keys() - found)}"
