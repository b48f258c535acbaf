"""The operations that are served in every dialect that has them."""

from tollway.dataplane.attempts import attempt_reply, attempt_stream, prepare
from tollway.dataplane.calls import Operation
from tollway.wire.chat_request import parse_chat

CHAT = Operation("chat/completions", parse_chat, prepare, attempt_reply, attempt_stream)
