"""Reads the golden files: requests and answers as JSON, streams as text in sections."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from tollway.providers.mistral.tools import short_id
from tollway.providers.table import DIALECTS, adapters
from tollway.wire.chat_request import ChatCall, parse_chat
from tollway.wire.completion_request import parse_completion
from tollway.wire.embeddings_request import parse_embeddings
from tollway.wire.model_call import ModelCall
from tollway.wire.moderation_request import parse_moderation

FOLDER = Path(__file__).parent / "golden"
NOW = 1_700_000_000
CHAT = {dialect: adapters(dialect)["chat/completions"] for dialect in DIALECTS}
MESSAGES = [{"role": "user", "content": "u"}]

PARSERS = {
    "chat/completions": parse_chat,
    "completions": parse_completion,
    "embeddings": parse_embeddings,
    "moderations": parse_moderation,
}

_SHORT_ID = re.compile(r"short_id ([\w:-]+)")


def cases(name: str) -> Any:
    """The cases of one JSON file, a list or lists by kind, ``short_id TEXT`` replaced by what it stands for."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return json.loads(with_ids(text))


def with_ids(text: str) -> str:
    return _SHORT_ID.sub(lambda match: short_id(match[1]), text)


def streams(folder: str) -> list[Path]:
    return sorted((FOLDER / folder).glob("*.txt"))


def sections(path: Path) -> dict[str, str]:
    """The sections of a stream's file by name, each with its line ends."""
    parts = re.split(r"^--- (\w+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def call(given: dict[str, object]) -> ChatCall:
    """The call for a body with these members. ``show_reasoning`` and ``strict`` are wishes, which come by header."""
    body = {"model": "asked", "messages": MESSAGES, **given}
    wishes = {name: body.pop(name, False) for name in ("show_reasoning", "strict")}
    parsed = parse_chat(json.dumps(body).encode(), NOW)
    assert isinstance(parsed, ChatCall), parsed
    return msgspec.structs.replace(parsed, **wishes)


def asked(operation: str, given: dict[str, object]) -> ModelCall:
    """The call of another operation for a body with these members."""
    parsed = PARSERS[operation](json.dumps({"model": "asked", **given}).encode(), NOW)
    assert isinstance(parsed, ModelCall), parsed
    return parsed
