"""Append-only files in which settlements wait for PostgreSQL.

A file is a row of frames: the mark, the length and the CRC-32 of the body, the body (MessagePack). The mark lets a
reader find the next good frame behind a damaged one, so that one bad sector costs one record.

A cleaner of old files or a careless restore may take a journal away while its writer lives. What was written is still
in the kernel's hands then, and goes into another file; where there can be none, its descriptor is kept until there can.

1. A record is in the kernel's hands when :meth:`Journal.append` returns: ``kill -9`` loses nothing.
2. A writer holds an exclusive lock on its file for as long as it lives. A file that can be locked has lost its writer.
3. A file appears under its final name only when it is locked: no reader mistakes a new file for an abandoned one.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import sys
import threading
import zlib
from pathlib import Path

import msgspec

from tollway.accounting.records import OldSettlement, Settlement

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A full file is left to the poster, which removes it when it is posted."""

MAX_RECORD_BYTES = 64 * 1024
"""A settlement has some 300 bytes, and a few names from outside that the edge bounds."""

MAX_WAITING = 10_000
"""Records kept in memory while the disk is full; beyond it the oldest are given up."""

SUFFIX = ".journal"

_MARK = b"\xf5TW\x01"
_HEAD = struct.Struct("<4sII")
_MAX_TEXT = 1024  # characters of each text of a record that would be too large
_READ_BYTES = 1024 * 1024  # at most so much is read and decoded in one go

_encode = msgspec.msgpack.Encoder().encode
# Not strict: numbers over 64 bits travel as text.
_decode = msgspec.msgpack.Decoder(Settlement | OldSettlement, strict=False).decode
_crc32 = zlib.crc32


class JournalFull(Exception):  # noqa: N818 - a state of the disk
    """The disk took no more. The record waits in memory: without :meth:`Journal.retry` it dies with the process."""


class Journal:
    """The journal of one worker process."""

    def __init__(self, directory: Path, started_unix: float, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self.directory = directory
        self._started = int(started_unix * 1000)
        self._max_file_bytes = max_file_bytes
        self._waiting: list[bytes] = []
        self._left: list[int] = []  # descriptors of files that were lost and are not saved yet
        self._saving = threading.Lock()
        self._given_up = 0
        self._path = Path()
        self._file = self._open()
        self._size = 0
        self.bytes_written = 0
        """Since the start, over all files."""

    @property
    def full(self) -> bool:
        """Whether records wait because the disk takes no more: no call should start whose cost cannot be noted."""
        return bool(self._waiting)

    def append(self, record: Settlement) -> None:
        """Write one record. Never fails for what the record says; raises JournalFull when the disk fails."""
        body = _encode_any(record)
        frame = _HEAD.pack(_MARK, len(body), _crc32(body)) + body
        if self._waiting:
            self._waiting.append(frame)
            self._given_up += max(0, len(self._waiting) - MAX_WAITING)
            del self._waiting[:-MAX_WAITING]
            if not self.retry():
                raise JournalFull
            return
        try:
            self._write(frame)
        except OSError as error:
            self._waiting.append(frame)
            raise JournalFull from error

    def retry(self) -> bool:
        """Write what waits; True when nothing waits any more."""
        try:
            while self._waiting:
                self._write(self._waiting[0])
                del self._waiting[0]
        except OSError:
            return False
        return True

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
        lost = self._file
        self._file, self._size = self._open(), 0
        self._left.append(lost)

    def rescue(self) -> int:
        """Copy what was lost to where the poster finds it; its bytes. In any thread. Raises OSError: call it again.

        Records that were posted already are harmless: each is posted once.
        """
        size = 0
        with self._saving:
            while self._left:
                size += _copy(self._left[0], self.directory)
                os.close(self._left.pop(0))
        return size

    def close(self) -> int:
        """Leave the file to the poster. How many records are lost: those that the disk did not take to the end."""
        self.retry()
        os.close(self._file)
        return self._given_up + len(self._waiting)

    def _write(self, frame: bytes) -> None:
        if self._size >= self._max_file_bytes:
            self._rotate()
        written = os.write(self._file, frame)
        if written != len(frame):
            os.ftruncate(self._file, self._size)
            raise OSError("the disk took only a part of a record")
        self._size += written
        self.bytes_written += written

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):  # no descriptor, no inode: the old file goes on
            following = self._open()
            os.close(self._file)
            self._file, self._size = following, 0

    def _open(self) -> int:
        # The random part keeps two machines apart that share a database: positions are stored by file name.
        name = f"worker-{self._started}-{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
        hidden = self.directory / f".{name}"
        file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(self.directory / name)
        except BaseException:
            os.close(file)
            raise
        self._path = self.directory / name
        return file


def _copy(lost: int, directory: Path) -> int:
    """Copy a file that nobody finds, by its descriptor, into one that the poster finds."""
    name = f"rescued-{os.getpid()}-{os.urandom(8).hex()}{SUFFIX}"
    hidden = directory / f".{name}"
    copied = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(lost, "rb", closefd=False) as source, open(copied, "wb") as copy:
            source.seek(0)
            shutil.copyfileobj(source, copy, _READ_BYTES)
            size = copy.tell()
        hidden.rename(directory / name)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return size


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a journal: its good records, and what was between them."""

    records: list[Settlement]
    ends: list[int]
    """Where each record's frame ends in the file."""
    position: int
    """Up to here everything is accounted for; read on from here."""
    damaged: list[bytes]
    """Pieces that are no frames, to be set aside."""


def read_records(path: Path, position: int, *, abandoned: bool, most: int = sys.maxsize) -> Chunk:
    """The next records of a journal, at most ``most`` and at most a mebibyte of them.

    ``abandoned`` says that the writer is gone: an unfinished frame at the end is then damage, else it is awaited.
    """
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(_READ_BYTES)
        at_end = abandoned and not file.read(1)
    records: list[Settlement] = []
    ends: list[int] = []
    damaged: list[bytes] = []
    start = 0
    while start < len(data) and len(records) < most:
        record, end = _frame(data, start)
        if record is not None:
            records.append(record)
            ends.append(position + end)
            start = end
            continue
        following = _next_frame(data, start + 1)
        if following is None:
            if at_end:
                following = len(data)
            elif len(data) < _READ_BYTES or start > 0:
                break  # perhaps the writer is in the middle of it, or it goes on in the next piece
            else:
                following = len(data) - MAX_RECORD_BYTES
        damaged.append(data[start:following])
        start = following
    return Chunk(records, ends, position + start, damaged)


def skip_records(path: Path, position: int) -> tuple[int, int]:
    """Count the next records without looking into them, at most a mebibyte of them; where to read on.

    It stops before what is no frame.
    """
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(_READ_BYTES)
    count = start = 0
    while (body := start + _HEAD.size) <= len(data):
        mark, length, _ = _HEAD.unpack_from(data, start)
        if mark != _MARK or length > MAX_RECORD_BYTES or body + length > len(data):
            break
        count += 1
        start = body + length
    return count, position + start


def is_abandoned(path: Path) -> bool:
    """Whether no process writes to this journal any more."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _frame(data: bytes, start: int) -> tuple[Settlement | None, int]:
    """The record whose frame starts here and where the frame ends; None where there is no whole, sound frame."""
    body = start + _HEAD.size
    if body > len(data):
        return None, start
    mark, length, checksum = _HEAD.unpack_from(data, start)
    end = body + length
    if mark != _MARK or length > MAX_RECORD_BYTES or end > len(data) or _crc32(data[body:end]) != checksum:
        return None, start
    try:
        record = _decode(data[body:end])
    except msgspec.DecodeError:
        return None, start
    return (record.as_settlement() if isinstance(record, OldSettlement) else record), end


def _next_frame(data: bytes, start: int) -> int | None:
    while (start := data.find(_MARK, start)) >= 0:
        if _frame(data, start)[0] is not None:
            return start
        start += 1
    return None


def _encode_any(record: Settlement) -> bytes:
    try:
        body = _encode(record)
    except (OverflowError, UnicodeEncodeError):
        pass
    else:
        if len(body) <= MAX_RECORD_BYTES:
            return body
    return _encode(["ended", *map(_encodable, msgspec.structs.astuple(record))])


def _encodable(value: object) -> object:
    if type(value) is int and value.bit_length() > 63:
        return str(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT].encode("utf-8", "replace").decode()
    return value
