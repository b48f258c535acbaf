"""How a record stands in a file: the mark, the length and the CRC-32 of the body, the body (MessagePack).

The mark lets a reader find the next good frame behind a damaged one, so that one bad sector costs one record.
"""

import struct
import zlib

import msgspec

from tollway.accounting.records import OldSettlement, PriceCard, Record
from tollway.domain.prices import Price, rates_json

MAX_RECORD_BYTES = 256 * 1024
"""A settlement has some 150 bytes, and a few names from outside that the edge bounds; a price of 1,000 rates 90 KB."""

MARK = b"\xf5TW\x01"

_HEAD = struct.Struct("<4sII")
_MAX_TEXT = 1024  # characters of each text of a record that would be too large
_UNDER_WAY = (b"\xa4sent", b"\xa6so far")  # the tags of intents and checkpoints, behind one byte
_ENTRY = (b"\xa5ended", b"\xa7settled")  # those of settlements, behind three

_encode = msgspec.msgpack.Encoder().encode
# Not strict: numbers over 64 bits travel as text.
_decode = msgspec.msgpack.Decoder(Record | OldSettlement, strict=False).decode
_crc32 = zlib.crc32


def framed(record: Record) -> bytes:
    """The frame of a record, whatever it says."""
    try:
        body = _encode(record)
    except (OverflowError, UnicodeEncodeError):
        body = _encode_any(record)
    if len(body) > MAX_RECORD_BYTES:
        body = _encode_any(record)
    return _HEAD.pack(MARK, len(body), _crc32(body)) + body


def card_of(price: Price) -> bytes:
    """The frame that says the rates of a price; nothing where there are too many of them."""
    body = _encode(PriceCard(price.id, rates_json(price.rates).decode()))
    if len(body) > MAX_RECORD_BYTES:
        return b""  # the database has it from whoever made it
    return _HEAD.pack(MARK, len(body), _crc32(body)) + body


def frame_at(data: bytes, start: int, *, under_way: bool = True) -> tuple[Record | None, int]:
    """The record whose frame starts here and where the frame ends; that is ``start`` where no whole, sound one does.

    Without ``under_way`` intents and checkpoints are no records.
    """
    body = start + _HEAD.size
    if body > len(data):
        return None, start
    mark, length, checksum = _HEAD.unpack_from(data, start)
    end = body + length
    if mark != MARK or length > MAX_RECORD_BYTES or end > len(data) or _crc32(data[body:end]) != checksum:
        return None, start
    if not under_way and data.startswith(_UNDER_WAY, body + 1):
        return None, end
    try:
        record = _decode(data[body:end])
    except msgspec.DecodeError:
        return None, start
    return (record.as_settlement() if isinstance(record, OldSettlement) else record), end


def next_frame(data: bytes, start: int) -> int | None:
    """Where the next whole, sound frame starts."""
    while (start := data.find(MARK, start)) >= 0:
        if frame_at(data, start)[1] > start:
            return start
        start += 1
    return None


def read_frames(data: bytes) -> list[Record]:
    """The records of whole frames. Raises ValueError for anything else."""
    records: list[Record] = []
    start = 0
    while start < len(data):
        record, end = frame_at(data, start, under_way=True)
        if record is None:
            raise ValueError("no frame of a journal")
        records.append(record)
        start = end
    return records


def count_settlements(data: bytes) -> tuple[int, int]:
    """How many settlements whole frames hold, without looking into them, and where the frames end."""
    count = start = 0
    while (body := start + _HEAD.size) <= len(data):
        mark, length, _ = _HEAD.unpack_from(data, start)
        if mark != MARK or length > MAX_RECORD_BYTES or body + length > len(data):
            break
        count += data.startswith(_ENTRY, body + 3)
        start = body + length
    return count, start


def _encode_any(record: Record) -> bytes:
    """With numbers of any size, and texts of no more than a sensible one."""
    return _encode([record.__struct_config__.tag, *map(_encodable, msgspec.structs.astuple(record))])


def _encodable(value: object) -> object:
    if type(value) is int and value.bit_length() > 63:
        return str(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT].encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(count) for name, count in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_encodable, value))
    return value
