"""Append-only files in which settlements wait for PostgreSQL, and what is under way is noted.

A file is a row of frames (``frames.py``); ``journal_reader.py`` reads it.

A cleaner of old files or a careless restore may take a journal away while its writer lives. What was written is still
in the kernel's hands then, and goes into another file; where there can be none, its descriptor is kept until there can.

1. A record is in the kernel's hands when the method that writes it returns: ``kill -9`` loses nothing. The disk has it
   when :meth:`Journal.sync` has been there: a power cut loses what came after that.
2. A writer holds an exclusive lock on its file for as long as it lives. A file that can be locked has lost its writer.
3. A file appears under its final name only when it is locked: no reader mistakes a new file for an abandoned one.
4. Each file stands for itself: it holds the rates of every price that it names, and the intent of every attempt that
   was under way when it was begun. A file whose writer left it in order says so at its end.
"""

import contextlib
import fcntl
import os
import shutil
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tollway.accounting.frames import card_of, framed, read_frames
from tollway.accounting.records import Checkpoint, Finished, Intent, Settlement
from tollway.domain.prices import Price

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A full file is left to the poster, which removes it when it is posted."""

NEXT_TRY_BYTES = 1024 * 1024
"""Where the next file cannot be begun, the full one takes so much more before that is tried again."""

MAX_WAITING = 10_000
"""Records kept in memory while the disk is full; beyond it the oldest are given up."""

SUFFIX = ".journal"

_RESCUED = "rescued-"
_COPY_BYTES = 1024 * 1024
_ONLY_A_PART = "the disk took only a part"
_PROBE = bytes(4096)  # a few records' worth, and no frame
_force = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter

_Key = tuple[str, int]
"""A call's id and the number of an attempt within it."""


class JournalFull(Exception):  # noqa: N818 - a state of the disk
    """The disk took no more. A settlement waits in memory: without :meth:`Journal.retry` it dies with the process."""


class Waiting(NamedTuple):
    """A settlement that the disk did not take."""

    key: _Key
    frames: bytes
    """It, and the card of its price."""


class _Fresh(NamedTuple):
    """A file that has just been made."""

    file: int
    path: Path
    size: int
    cards: dict[int, Price]


class _Left(NamedTuple):
    """A file that was lost."""

    file: int
    name: str
    last: bytes
    """A record that ends it."""


class Journal:
    """The journal of one worker process. But for what says so, its methods belong to the event loop's thread."""

    def __init__(self, directory: Path, started_unix: float, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self.directory = directory
        self._started = int(started_unix * 1000)
        self._max_file_bytes = max_file_bytes
        self._under_way: dict[_Key, bytes] = {}  # intents
        self._so_far: dict[_Key, bytes] = {}  # the last checkpoints of those
        self._waiting: deque[Waiting] = deque()
        self._given_up = 0
        self._cards: dict[int, Price] = {}  # the prices whose rates stand in the file
        self.full = False
        """Whether the disk took no more the last time."""
        self._left: list[_Left] = []  # files that were lost and are not saved yet
        self._unforced: list[int] = []  # files that were left and may not be on the disk yet
        self._closing = threading.Lock()  # held by whoever closes a descriptor, or uses one beside the loop
        self._forced = -1  # of bytes_written, what the disk has for certain
        self._named = Path()  # the file whose name it has
        self.bytes_written = 0
        """Since the start, over all files."""
        self._go_on_in(self._create())

    @property
    def under_way(self) -> int:
        """Attempts that are noted as sent and not yet as ended."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """Settlements that wait in memory."""
        return len(self._waiting)

    def intend(self, intent: Intent, price: Price | None = None) -> None:
        """Note an attempt that is about to be sent. Raises JournalFull; then nothing is noted."""
        if self._waiting and not self.retry():
            raise JournalFull
        frame = framed(intent)
        try:
            self._append(frame, price)
        except OSError as error:
            raise JournalFull from error
        self._under_way[intent.call_id, intent.attempt] = frame

    def note(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Note what of streams has come, in one write. A disk that takes nothing loses only these."""
        frames = [framed(one) for one in checkpoints]
        with contextlib.suppress(OSError):
            self._write(b"".join(frames))
            for one, frame in zip(checkpoints, frames, strict=True):
                if (one.call_id, one.attempt) in self._under_way:
                    self._so_far[one.call_id, one.attempt] = frame

    def append(self, record: Settlement, price: Price | None = None) -> None:
        """Note what an attempt came to. Never fails for what it says; raises JournalFull when the disk fails."""
        frame = framed(record)
        key = record.call_id, record.attempt
        if not self._waiting:
            try:
                self._append(frame, price)
            except OSError:
                pass
            else:
                self._ended(key)
                return
        self._waiting.append(Waiting(key, frame if price is None else card_of(price) + frame))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._given_up += 1
        if not self.retry():
            raise JournalFull

    def retry(self) -> bool:
        """Write what waits, and find out whether there is room again; whether there is."""
        try:
            while self._waiting:
                self._append(self._waiting[0].frames, None)
                self._ended(self._waiting.popleft().key)
            if self.full:
                self._write(_PROBE)
                os.ftruncate(self._file, self._size - len(_PROBE))
                self._size -= len(_PROBE)
        except OSError:
            return False
        return True

    def take_waiting(self, most: int) -> list[Waiting]:
        """Settlements that wait, the oldest first, to be delivered on another way. They wait no longer."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def delivered(self, taken: Sequence[Waiting]) -> None:
        """They have arrived."""
        for one in taken:
            self._ended(one.key)

    def give_back(self, taken: Sequence[Waiting]) -> None:
        """Have them wait again."""
        self._waiting.extendleft(reversed(taken))

    @property
    def unforced(self) -> bool:
        """Whether something was written that may not be on the disk yet."""
        return self._forced != self.bytes_written or bool(self._unforced)

    def sync(self) -> None:
        """Have what was written put on the disk. In any thread. Raises OSError: call it again."""
        with self._closing:
            while self._unforced:
                left = self._unforced.pop()
                try:
                    _force(left)
                finally:
                    os.close(left)
            written, file, path = self.bytes_written, self._file, self._path  # in this order: rather too little
            _force(file)
            if self._named != path:
                _force_directory(self.directory)
                self._named = path
            self._forced = written

    @property
    def lost(self) -> bool:
        """Whether the poster cannot find what was written: the file is gone, is another one, or was cut short."""
        ours = os.fstat(self._file)
        try:
            there = self._path.stat()
        except OSError:
            return True
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino) or ours.st_size < self._size

    @property
    def unsaved(self) -> bool:
        """Whether something is left to :meth:`rescue`."""
        return bool(self._left)

    def abandon(self) -> None:
        """Go on in a new file, and leave the one that was lost to :meth:`rescue`. Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._create()
        self._left.append(_Left(self._file, self._path.name, framed(Finished(fresh.path.name))))
        self._go_on_in(fresh)

    def rescue(self) -> int:
        """Copy what was lost to where the poster finds it; its bytes. In any thread. Raises OSError: call it again.

        Records that were posted already are harmless: each is posted once.
        """
        size = 0
        with self._closing:
            while self._left:
                lost = self._left[0]
                _write_whole(lost.file, lost.last)
                size += _copy(lost, self.directory)
                os.close(lost.file)
                del self._left[0]
        return size

    def close(self) -> int:
        """Leave the file to the poster. How many records are lost: those that the disk did not take to the end."""
        if self.retry() and not self._under_way:
            with contextlib.suppress(OSError):
                self._write(framed(Finished()))
        with contextlib.suppress(OSError):
            self.sync()
        os.close(self._file)
        return self._given_up + len(self._waiting)

    def _ended(self, key: _Key) -> None:
        """What an attempt came to is in good hands. Before that it stays under way, whatever file is begun."""
        self._under_way.pop(key, None)
        if self._so_far:
            self._so_far.pop(key, None)

    def _append(self, frame: bytes, price: Price | None) -> None:
        if self._size >= self._full_at:
            self._rotate()
        if price is None or price.id in self._cards:
            self._write(frame)
        else:
            self._write(card_of(price) + frame)
            self._cards[price.id] = price

    def _write(self, frames: bytes) -> None:
        size = len(frames)
        try:
            if os.write(self._file, frames) != size:
                os.ftruncate(self._file, self._size)
                raise OSError(_ONLY_A_PART)
        except OSError:
            self.full = True
            raise
        self.full = False
        self._size += size
        self.bytes_written += size

    def _rotate(self) -> None:
        self._full_at = self._size + NEXT_TRY_BYTES  # what is under way is written anew at each try
        with contextlib.suppress(OSError):  # no descriptor, no inode, no room: the old file goes on
            fresh, old = self._create(), self._file
            try:
                self._write(framed(Finished(fresh.path.name)))
            except OSError:
                fresh.path.unlink(missing_ok=True)
                os.close(fresh.file)
                raise
            self._go_on_in(fresh)
            self._unforced.append(old)
            fcntl.flock(old, fcntl.LOCK_UN)

    def _create(self) -> _Fresh:
        """A new file that holds what is under way."""
        # The random part keeps two machines apart that share a database: positions are stored by file name.
        name = f"worker-{self._started}-{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
        hidden = self.directory / f".{name}"
        file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            frames, cards = self._noted_anew()
            if frames:
                _write_whole(file, frames)
            hidden.rename(self.directory / name)
        except BaseException:
            os.close(file)
            hidden.unlink(missing_ok=True)
            raise
        return _Fresh(file, self.directory / name, len(frames), cards)

    def _go_on_in(self, fresh: _Fresh) -> None:
        self._file, self._path, self._size, self._cards = fresh
        self._full_at = self._max_file_bytes
        self.bytes_written += fresh.size

    def _noted_anew(self) -> tuple[bytes, dict[int, Price]]:
        """What is under way, with the cards of its prices; these by their ids."""
        intents = self._under_way.values()
        named = {one.price_id for one in read_frames(b"".join(intents)) if isinstance(one, Intent)} - {0}
        cards = {price_id: self._cards[price_id] for price_id in named}
        return b"".join([*map(card_of, cards.values()), *intents, *self._so_far.values()]), cards


def _write_whole(file: int, frames: bytes) -> None:
    """Write all. Raises OSError, perhaps in the middle."""
    if os.write(file, frames) != len(frames):
        raise OSError(_ONLY_A_PART)


def _force_directory(directory: Path) -> None:
    """Have the names of new files put on the disk."""
    opened = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def rescued_from(name: str) -> str:
    """The name of the journal that a rescued one repeats from its start; empty for any other journal."""
    return name.split("-", 2)[2] if name.startswith(_RESCUED) and name.count("-") > 1 else ""


def _copy(lost: _Left, directory: Path) -> int:
    """Copy a file that nobody finds, by its descriptor, into one that the poster finds."""
    name = f"{_RESCUED}{os.urandom(8).hex()}-{lost.name}"
    hidden = directory / f".{name}"
    copied = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(lost.file, "rb", closefd=False) as source, open(copied, "wb") as copy:
            source.seek(0)
            shutil.copyfileobj(source, copy, _COPY_BYTES)
            size = copy.tell()
            copy.flush()
            os.fsync(copied)
        hidden.rename(directory / name)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return size
