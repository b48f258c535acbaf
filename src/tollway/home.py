"""TOLLWAY_HOME: what lies in it, who may use it, and the secrets generated into it."""

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tollway.domain.keys import Secret
from tollway.settings import encryption_key
from tollway.store.server_errors import os_words
from tollway.store.server_socket import temporary_directories, try_socket


class StartError(Exception):
    """A setting that cannot be used, found out by trying; its text is the line to print."""

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable}: {reason}")


class HomeInUseError(StartError):
    """Another gateway works in this home."""


class Home:
    """The directory of one gateway, mode 0700. Making it raises StartError where that is impossible."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journals = path / "journals"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_ours(path)
            path.chmod(0o700)
            for directory in (self.journals, path / "run"):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other gateway out of this home; the kernel frees it when this process dies, however it dies."""
        with contextlib.ExitStack() as stack:
            try:
                lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, lock)
                self._take(lock)
            except OSError as error:
                raise _unusable(self.path, error) from None
            yield

    def _take(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            raise HomeInUseError(
                "TOLLWAY_HOME", f"{self.path} is in use by another gateway (process {owner or 'unknown'})"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def encryption_key(self) -> Secret:
        """The generated key, made at the first call; 64 hex digits."""
        path = self.path / "encryption_key"
        try:
            if not path.exists():
                _write_secret(path, secrets.token_hex(32))
            return encryption_key(path.read_text("ascii").strip())
        except OSError as error:
            raise _unusable(path, error) from None
        except ValueError as error:
            raise StartError("ENCRYPTION_KEY", f"the generated one in {path} {error}") from None

    @contextmanager
    def control_socket(self) -> Iterator[Path]:
        """A path for the control plane's Unix socket, in a directory that only this user enters."""
        path = self.path / "run" / "control.sock"
        if _takes_sockets(path):
            yield path
            path.unlink(missing_ok=True)
            return
        with _short_directory() as directory:
            yield Path(directory) / "control.sock"


def _require_ours(path: Path) -> None:
    """Raise StartError for a directory that somebody else uses: its mode is about to change."""
    found = {entry.name for entry in path.iterdir()} - {"lost+found"}
    if found and "journals" not in found and "postgres" not in found:
        raise StartError("TOLLWAY_HOME", f"{path} holds other files; it must be a directory of the gateway's own")


def _short_directory() -> tempfile.TemporaryDirectory[str]:
    """A private directory where a Unix socket can be. Raises StartError where there is none."""
    for parent in temporary_directories():
        with contextlib.suppress(OSError):
            directory = tempfile.TemporaryDirectory(prefix="tollway-", dir=parent)
            if _takes_sockets(Path(directory.name) / "control.sock"):
                return directory
            directory.cleanup()
    raise StartError("TMPDIR", "must name a directory with a short path that can be written, for a Unix socket")


def _takes_sockets(path: Path) -> bool:
    """Whether a Unix socket can be here, for which the place is made free."""
    try:
        path.unlink(missing_ok=True)
        try_socket(path)
    except OSError:
        return False
    return True


def _write_secret(path: Path, text: str) -> None:
    """Whole or not at all, also through a crash: a lost key is lost data."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(file, text.encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _unusable(path: Path, error: OSError) -> StartError:
    return StartError("TOLLWAY_HOME", f"cannot use {path}: {os_words(error)}")
