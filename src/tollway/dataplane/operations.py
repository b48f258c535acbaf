"""The operations that are served in every dialect that has them."""

from tollway.dataplane.attempts import attempt_reply, attempt_stream, prepare
from tollway.dataplane.calls import Operation, Way
from tollway.domain.asked import NoUsage

_TRANSLATED = Way(prepare, attempt_reply, attempt_stream)

CHAT = Operation("chat/completions", _TRANSLATED)
EMBEDDINGS = Operation("embeddings", _TRANSLATED)
COMPLETIONS = Operation("completions", _TRANSLATED)
MODERATIONS = Operation("moderations", _TRANSLATED, NoUsage.FREE)
MODELS = Operation("models", None, NoUsage.FREE, runs_model=False)
