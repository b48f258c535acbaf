"""Reading journals: their records in order, and what is damaged between them."""

import fcntl
import sys
from pathlib import Path

import msgspec

from tollway.accounting.frames import MARK, MAX_RECORD_BYTES, count_settlements, frame_at, next_frame
from tollway.accounting.records import Finished, Record

_READ_BYTES = 1024 * 1024  # at most so much is read and decoded in one go
_LAST_BYTES = 256  # more than the frame has that ends a file


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a journal: its good records, and what was between them."""

    records: list[Record]
    ends: list[int]
    """Where each record's frame ends in the file."""
    position: int
    """Up to here everything is accounted for; read on from here."""
    damaged: list[bytes]
    """Pieces that are no frames, to be set aside."""


def read_records(
    path: Path, position: int, *, abandoned: bool, most: int = sys.maxsize, under_way: bool = False
) -> Chunk:
    """The next records of a journal, at most ``most`` and at most a mebibyte of them.

    ``abandoned`` says that the writer is gone: an unfinished frame at the end is then damage, else it is awaited.
    Intents and checkpoints are passed over, unless ``under_way`` asks for them: who posts has no use for them.
    """
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(_READ_BYTES)
        at_end = abandoned and not file.read(1)
    records: list[Record] = []
    ends: list[int] = []
    damaged: list[bytes] = []
    start = 0
    while start < len(data) and len(records) < most:
        record, end = frame_at(data, start, under_way=under_way)
        if end > start:
            start = end
            if record is not None:
                records.append(record)
                ends.append(position + end)
            continue
        following = next_frame(data, start + 1)
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
    """Count the next settlements without looking into them, in at most a mebibyte; where to read on.

    It stops before what is no frame.
    """
    with path.open("rb") as file:
        file.seek(position)
        data = file.read(_READ_BYTES)
    count, end = count_settlements(data)
    return count, position + end


def left_in_order(path: Path) -> bool:
    """Whether the writer of an abandoned journal left nothing open in it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_BYTES))
        data = file.read()
    last = data.rfind(MARK)
    return last >= 0 and isinstance(frame_at(data, last)[0], Finished)


def is_abandoned(path: Path) -> bool:
    """Whether no process writes to this journal any more."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
