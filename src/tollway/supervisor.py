"""Starts and stops the processes of one gateway: the composition root of ``tollway serve``.

Rules: (1) every setting is tried before anything runs; (2) a child that dies is started again, ever more slowly;
(3) the end goes in one order: no new connections, workers drain, the control plane posts what they wrote, PostgreSQL
stops last; (4) secrets reach a child through a pipe, never through its arguments or its environment.
"""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tollway.child import GROUP_SIGNALS, READY
from tollway.domain.keys import Secret
from tollway.home import Home, StartError
from tollway.http1.proxy import Proxies
from tollway.observe import log
from tollway.settings import VARIABLES, ChildConfig, Settings, read

DRIVER = "asyncpg"

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STABLE_S = 30.0  # a child that lived this long may fail again without being made to wait for its past
_GRACE_S = 10.0  # beyond the drain: for cutting what still runs and writing it down
_POSTING_S = 30.0  # for the control plane's last batch; what it leaves lies in the journals for the next start
_MAX_FILES = 1 << 20
_SHORT_KEY = 16  # characters
_SETTINGS = frozenset(variable.name for variable in VARIABLES)

_log = logging.getLogger("tollway.supervisor")


class Database(Protocol):
    """The gateway's PostgreSQL, given or embedded."""

    async def open(self) -> Secret:
        """Its URL, once calls can be served. Raises StartError."""

    async def settle(self) -> None:
        """Return when it answers and its schema is current. Raises StartError."""

    async def keep(self) -> None:
        """Keep it running, if it is ours, until cancelled."""

    async def close(self) -> None:
        """Stop it, if it is ours."""


class Child:
    """One child process and its successors: started again whenever it dies, until it is told to stop."""

    def __init__(self, name: str, command: Sequence[str], listener: socket.socket) -> None:
        self.name = name
        self.fd = listener.fileno()
        self.config: asyncio.Future[ChildConfig] = asyncio.get_running_loop().create_future()
        """What the child is told; it loads its modules meanwhile, so that a database that starts costs no time."""
        self.ready = asyncio.Event()
        self.killed = False
        self._command = command
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Keep it running; returns after it was told to stop and has ended."""
        pause = _FIRST_PAUSE_S
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            began = clock()
            try:
                code = await self._live()
            except OSError as error:  # no memory, no descriptors: may pass
                code = error.errno or -1
            if self._stopping.is_set():
                if code != 0 and not self.killed:
                    _log.error("%s failed while it was stopping", self.name, extra={"exit_code": code})
                return
            pause = _FIRST_PAUSE_S if clock() - began > _STABLE_S else pause
            _log.error("%s died and is started again", self.name, extra={"exit_code": code, "pause_s": pause})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def stop(self) -> None:
        """Ask it to finish what it is doing and to end."""
        self._stopping.set()
        if self.config.done():
            self._tell(b"stop\n")
        else:
            self.config.cancel()

    def cut(self) -> None:
        """Ask it to end without waiting for running calls."""
        self._tell(b"cut\n")

    def kill(self) -> None:
        """End it: for a child that did not listen."""
        if self._process is not None and self._process.returncode is None:
            _log.error("%s did not end in time and is killed", self.name)
            self.killed = True
            self._process.kill()

    async def _live(self) -> int:
        environment = {name: text for name, text in os.environ.items() if name not in _SETTINGS}
        signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)  # inherited: nothing ends it before it can ignore them
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[self.fd],
                env=environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
        self.config.add_done_callback(self._configure)
        try:
            await self._hear(process)
            return await process.wait()
        finally:
            self.config.remove_done_callback(self._configure)

    def _configure(self, config: "asyncio.Future[ChildConfig]") -> None:
        if not config.cancelled():
            self._tell(config.result().encode())
        if self._stopping.is_set() and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # stopped before it began: the end of its input ends it

    def _tell(self, line: bytes) -> None:
        if self._process is not None and self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.write(line)

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line == READY:
                self.ready.set()


class Supervisor:
    """One gateway, from its first socket to its last process."""

    def __init__(
        self, settings: Settings, home: Home, database: Database, orders: "Orders", package: str = "tollway"
    ) -> None:
        self._settings = settings
        self._home = home
        self._database = database
        self._orders = orders
        self._package = package  # tests put stand-ins here

    async def run(self) -> int:
        """Serve until told to stop; the exit code. Raises StartError."""
        self._orders.follow()
        if self._orders.stopping.is_set():
            return 0
        with contextlib.ExitStack() as stack:
            public = stack.enter_context(listen(self._settings.host, self._settings.port))
            path = stack.enter_context(self._home.control_socket())
            private = stack.enter_context(listen_privately(path))
            control, worker = self._child("controlplane", private), self._child("dataplane", public)
            lives = [asyncio.create_task(child.run()) for child in (control, worker)]
            try:
                if await self._meanwhile(lives, self._configure(path, control, worker)):
                    self._announce(public.getsockname()[1])
                    await self._meanwhile(lives, self._database.keep())
            finally:
                public.close()  # or the kernel would go on taking connections that nobody serves
                await self._end(worker, lives[1], self._settings.drain_seconds + _GRACE_S, self._orders.cutting)
                never = asyncio.Event()  # whoever is in a hurry has no use for a bill that comes after the next start
                await self._end(control, lives[0], _POSTING_S, never)
                await self._database.close()
        return 1 if worker.killed or control.killed else 0

    def _child(self, module: str, listener: socket.socket) -> Child:
        # -P: a directory called "tollway" where the user happens to be is not our program.
        return Child(module, (sys.executable, "-P", "-m", f"{self._package}.{module}"), listener)

    async def _meanwhile(self, lives: "Sequence[asyncio.Task[None]]", work: Coroutine[Any, Any, object]) -> bool:
        """Do some work until it is done (True) or the gateway shall stop (False)."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._orders.stopping.wait())
        done, _ = await asyncio.wait({working, stopping, *lives}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, stopping):
            if task not in done:
                task.cancel()
        await asyncio.gather(*done)  # raises what went wrong
        await asyncio.gather(working, stopping, return_exceptions=True)
        return working in done and stopping not in done

    async def _configure(self, path: Path, control: Child, worker: Child) -> None:
        """Open the database, tell the children everything, wait until both work."""
        settings = self._settings
        key = settings.encryption_key or self._home.encryption_key()
        url = await self._database.open()
        for child in (control, worker):
            config = ChildConfig(
                settings=settings,
                database_url=url,
                encryption_key=key,
                control_socket=path,
                journals=self._home.journals,
                listen_fd=child.fd,
            )
            child.config.set_result(config)
        await control.ready.wait()
        await worker.ready.wait()
        await self._database.settle()

    def _announce(self, port: int) -> None:
        line = f"LLM proxy server listening on port {port}. Connected to PostgreSQL via {DRIVER}\n"
        with contextlib.suppress(OSError):  # nobody reads it: no reason to stop
            os.write(sys.stdout.fileno(), line.encode())
        settings = self._settings
        with contextlib.suppress(OSError, ValueError):  # no standard error, or one that is closed
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), next_steps(settings, port).encode())
        if settings.admin_key is None:
            _log.info(
                "without ADMIN_KEY, the admin surface is open to everybody on this machine, and to whomever a proxy or "
                "tunnel on it lets in: set it before anything forwards to this port"
            )
        elif len(settings.admin_key.reveal()) < _SHORT_KEY:
            _log.warning("ADMIN_KEY is short enough to be guessed")
        if settings.redis_url is not None:
            _log.warning("REDIS_URL is not used yet")

    async def _end(self, child: Child, life: "asyncio.Task[None]", within_s: float, cutting: asyncio.Event) -> None:
        """Stop a child and wait for its end, at most so long; once ``cutting`` is set, not for its running calls."""
        child.stop()
        told = asyncio.ensure_future(cutting.wait())
        done, _ = await asyncio.wait({life, told}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if life not in done:
            if told in done:
                child.cut()
                await asyncio.wait({life}, timeout=_GRACE_S)
            if not life.done():
                child.kill()
                await asyncio.wait({life})
        told.cancel()


def serve(environ: Mapping[str, str]) -> int:
    """The whole life of a gateway; its exit code. A setting that cannot be used is one line on standard error and 2."""
    orders = Orders()
    settings = read(environ)
    problems = list(proxy_problems(environ)) if isinstance(settings, Settings) else settings
    if not isinstance(settings, Settings) or problems:
        for problem in problems:
            print(f"tollway: {problem}", file=sys.stderr)
        return 2
    raise_limits()
    writer = log.start("supervisor", settings.log_level, settings.secrets)
    try:
        home = Home(settings.home)
        with home.locked():
            return asyncio.run(_serve(settings, home, orders))
    except StartError as error:
        writer.stop()
        print(f"tollway: {error}", file=sys.stderr)
        return 2
    finally:
        writer.stop()


async def _serve(settings: Settings, home: Home, orders: "Orders") -> int:
    from tollway.database import database_of  # brings the driver: after the cheap checks

    return await Supervisor(settings, home, database_of(settings, home), orders).run()


def next_steps(settings: Settings, port: int) -> str:
    """For somebody at a terminal who has just started it: how to make a first call, and where to read on."""
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(settings.host, settings.host)  # noqa: S104
    name = f"[{host}]" if ":" in host else host
    url = f"{'https' if settings.tls_cert_file else 'http'}://{name}:{port}"
    make = "tollway keys create" if settings.admin_key else f"curl -X POST {url}/api/generate-virtual-key"
    body = '{"model": "demo/echo", "messages": [{"role": "user", "content": "Hi"}]}'
    return f"""
  In another terminal, make a virtual key:
    {make}
  and talk to the simulated provider, which needs no key of its own:
    curl {url}/v1/chat/completions -H 'Authorization: Bearer <the virtual key>' -d '{body}'
  Read on in README.md ("One minute"), docs/demo.md and docs/operate.md. Ctrl-C ends the gateway.

"""


def proxy_problems(environ: Mapping[str, str]) -> Iterator[str]:
    """Why a worker could not use the proxies of the environment; one line that names the variable."""
    try:
        Proxies.read(environ)
    except ValueError as error:
        yield str(error)


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket, without SO_REUSEPORT, so that a taken port shows. Raises StartError.

    Of the addresses of a host name the first IPv4 address is taken, where there is one.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartError("HOST", f"{host} cannot be resolved: {error}") from None
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # "::" means every address of the machine
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError("PORT", f"{port} on {host} is already in use") from None
        variable = "HOST" if error.errno == errno.EADDRNOTAVAIL else "PORT"
        raise StartError(variable, f"cannot listen on port {port} of {host}: {error.strerror}") from None
    return listener


def listen_privately(path: Path) -> socket.socket:
    """A bound Unix socket that only this user may connect to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


class Orders:
    """What the operator wants, from the first moment on: make it before anything else.

    SIGTERM, SIGINT and SIGHUP stop; a second SIGINT, from somebody who waits at a terminal, cuts the drain short.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.cutting = asyncio.Event()
        numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup asks to ignore it
            numbers.remove(signal.SIGHUP)
        self._numbers = sorted(numbers)
        for number in self._numbers:
            signal.signal(number, self._note)

    def follow(self) -> None:
        """Go on in the running loop, which from now on wakes up for them."""
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.add_signal_handler(number, self._take, number)

    def _note(self, *_: object) -> None:
        self.stopping.set()  # nothing runs yet that could be cut short, and nobody waits yet for the event

    def _take(self, number: int) -> None:
        if number == signal.SIGINT:
            if self.stopping.is_set():
                self.cutting.set()
            else:
                _log.info("finishing what runs; interrupt once more to cut it short")
        self.stopping.set()


def raise_limits() -> None:
    """As many descriptors as allowed, for every connection is two; no core dumps, for memory holds secrets."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if most == resource.RLIM_INFINITY else most
    while now != resource.RLIM_INFINITY and wanted > now:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            break
        except (OSError, ValueError):  # macOS takes no more than kern.maxfilesperproc, whatever the limit says
            wanted //= 2
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
