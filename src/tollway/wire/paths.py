"""Every path of OpenAI's API that is relayed as it is, and what has to be known of each before a byte of it goes on.

Not here, and so unknown: paths that adapters serve (chat, embeddings, completions, moderations, models), the
administration of an organization, and WebSockets. A test holds the table against the official SDK.
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec


class ModelIn(Enum):
    """Where a call names its model."""

    NOWHERE = "nowhere"
    JSON = "json"
    """A member of a JSON body."""
    FORM = "form"
    """A field of ``multipart/form-data``; a client may send JSON there too, and its content type says so."""
    ELSEWHERE = "elsewhere"
    """In a stored object, or deeper in the body than anybody looks: nothing for a key that may use only some models."""


class PathRule(msgspec.Struct, frozen=True):
    """What holds for one method of one path."""

    template: str
    """The path without ``/v1``, with names in braces for its parameters: bounded, so fit for metrics."""
    model: ModelIn
    needs_own_key: bool
    """Only for a key with a provider key of its own: on a shared one, tenants would see each other's objects, or get
    a credential that works without the gateway, or spend money that no answer accounts for."""

    @property
    def names_object(self) -> bool:
        """Whether the path itself names something that may not be there."""
        return "{" in self.template

    @property
    def names_model(self) -> bool:
        """Whether a call says itself which model it wants."""
        return self.model in (ModelIn.JSON, ModelIn.FORM)


class KnownPath(msgspec.Struct, frozen=True):
    """A path that is in the table."""

    upstream: bytes
    """The client's bytes without ``/v1``."""
    rules: Mapping[bytes, PathRule]
    """By method; a method that is not here gets 405."""


_Row: TypeAlias = tuple[str, str] | tuple[str, str, ModelIn]

_JSON, _FORM, _ELSEWHERE = ModelIn.JSON, ModelIn.FORM, ModelIn.ELSEWHERE

# Methods, template, and where a POST names its model. Other methods have no body.
_ANY_KEY: tuple[_Row, ...] = (
    ("POST", "/audio/speech", _JSON),
    ("POST", "/audio/transcriptions", _FORM),
    ("POST", "/audio/translations", _FORM),
    ("POST", "/content_provenance_checks"),
    ("POST", "/decisions", _JSON),
    ("POST", "/images/edits", _FORM),
    ("POST", "/images/generations", _JSON),
    ("POST", "/images/variations", _FORM),
    ("POST", "/responses", _JSON),
    ("POST", "/responses/compact", _JSON),
    ("POST", "/responses/input_tokens", _JSON),
    ("GET", "/webhook_event_types"),
)

_OWN_KEY: tuple[_Row, ...] = (
    ("GET POST", "/agents", _JSON),
    ("GET POST", "/agents/automations", _ELSEWHERE),
    ("DELETE GET POST", "/agents/automations/{automation_id}", _ELSEWHERE),
    ("GET POST", "/agents/automations/{automation_id}/invocations", _ELSEWHERE),
    ("GET", "/agents/automations/{automation_id}/invocations/{invocation_id}"),
    ("POST", "/agents/automations/{automation_id}/pause"),
    ("POST", "/agents/automations/{automation_id}/resume", _ELSEWHERE),
    ("GET POST", "/agents/environments"),
    ("GET POST", "/agents/environments/templates"),
    ("DELETE GET POST", "/agents/environments/templates/{environment_template_id}"),
    ("GET", "/agents/environments/{environment_id}"),
    ("GET POST", "/agents/environments/{environment_id}/files"),
    ("GET POST", "/agents/sessions", _ELSEWHERE),
    ("DELETE GET POST", "/agents/sessions/{session_id}", _ELSEWHERE),
    ("GET", "/agents/sessions/{session_id}/artifacts"),
    ("DELETE GET", "/agents/sessions/{session_id}/artifacts/{artifact_id}"),
    ("GET", "/agents/sessions/{session_id}/artifacts/{artifact_id}/content"),
    ("GET POST", "/agents/sessions/{session_id}/events", _ELSEWHERE),
    ("GET", "/agents/sessions/{session_id}/items"),
    ("GET", "/agents/sessions/{session_id}/subagents"),
    ("GET", "/agents/sessions/{session_id}/subagents/{subagent_id}"),
    ("GET", "/agents/sessions/{session_id}/subagents/{subagent_id}/items"),
    ("GET", "/agents/sessions/{session_id}/subagents/{subagent_id}/turns"),
    ("GET", "/agents/sessions/{session_id}/subagents/{subagent_id}/turns/{turn_id}"),
    ("GET", "/agents/sessions/{session_id}/subagents/{subagent_id}/turns/{turn_id}/items"),
    ("GET", "/agents/sessions/{session_id}/traces"),
    ("GET", "/agents/sessions/{session_id}/turns"),
    ("GET", "/agents/sessions/{session_id}/turns/{turn_id}"),
    ("GET", "/agents/sessions/{session_id}/turns/{turn_id}/items"),
    ("DELETE GET POST", "/agents/{agent_id}", _JSON),
    ("GET POST", "/assistants", _JSON),
    ("DELETE GET POST", "/assistants/{assistant_id}", _JSON),
    ("GET POST", "/audio/voice_consents"),
    ("DELETE GET POST", "/audio/voice_consents/{consent_id}"),
    ("POST", "/audio/voices"),  # its ``model`` is the edition of a voice, not a model
    ("DELETE", "/audio/voices/{voice_id}"),
    ("GET POST", "/batches", _ELSEWHERE),
    ("GET", "/batches/{batch_id}"),
    ("POST", "/batches/{batch_id}/cancel"),
    ("GET", "/chat/completions"),
    ("DELETE GET POST", "/chat/completions/{completion_id}"),
    ("GET", "/chat/completions/{completion_id}/messages"),
    ("POST", "/chatkit/sessions", _ELSEWHERE),
    ("POST", "/chatkit/sessions/{session_id}/cancel"),
    ("GET", "/chatkit/threads"),
    ("DELETE GET", "/chatkit/threads/{thread_id}"),
    ("GET", "/chatkit/threads/{thread_id}/items"),
    ("GET POST", "/containers"),
    ("DELETE GET", "/containers/{container_id}"),
    ("GET POST", "/containers/{container_id}/files"),
    ("DELETE GET", "/containers/{container_id}/files/{file_id}"),
    ("GET", "/containers/{container_id}/files/{file_id}/content"),
    ("POST", "/conversations"),
    ("DELETE GET POST", "/conversations/{conversation_id}"),
    ("GET POST", "/conversations/{conversation_id}/items"),
    ("DELETE GET", "/conversations/{conversation_id}/items/{item_id}"),
    ("GET POST", "/evals"),
    ("DELETE GET POST", "/evals/{eval_id}"),
    ("GET POST", "/evals/{eval_id}/runs", _ELSEWHERE),
    ("DELETE GET", "/evals/{eval_id}/runs/{run_id}"),
    ("POST", "/evals/{eval_id}/runs/{run_id}/cancel"),
    ("GET", "/evals/{eval_id}/runs/{run_id}/output_items"),
    ("GET", "/evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}"),
    ("GET POST", "/files"),
    ("DELETE GET", "/files/{file_id}"),
    ("GET", "/files/{file_id}/content"),
    ("POST", "/fine_tuning/alpha/graders/run", _ELSEWHERE),
    ("POST", "/fine_tuning/alpha/graders/validate"),
    ("GET POST", "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions"),
    ("DELETE", "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}"),
    ("GET POST", "/fine_tuning/jobs", _JSON),
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}"),
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/cancel"),
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints"),
    ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/events"),
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/pause"),
    ("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/resume"),
    ("POST", "/live/sessions", _ELSEWHERE),
    ("POST", "/live/sessions/{session_id}/accept", _ELSEWHERE),
    ("GET", "/live/sessions/{session_id}/content"),
    ("POST", "/live/sessions/{session_id}/fork", _ELSEWHERE),
    ("POST", "/live/sessions/{session_id}/hangup"),
    ("POST", "/live/sessions/{session_id}/refer"),
    ("POST", "/live/sessions/{session_id}/reject"),
    ("DELETE", "/models/{model}"),
    ("POST", "/realtime/calls", _ELSEWHERE),
    ("POST", "/realtime/calls/{call_id}/accept", _JSON),
    ("POST", "/realtime/calls/{call_id}/hangup"),
    ("POST", "/realtime/calls/{call_id}/refer"),
    ("POST", "/realtime/calls/{call_id}/reject"),
    ("POST", "/realtime/client_secrets", _ELSEWHERE),
    ("POST", "/realtime/sessions", _JSON),
    ("POST", "/realtime/transcription_sessions", _ELSEWHERE),
    ("POST", "/realtime/translations/client_secrets", _ELSEWHERE),
    ("DELETE GET", "/responses/{response_id}"),
    ("POST", "/responses/{response_id}/cancel"),
    ("GET", "/responses/{response_id}/input_items"),
    ("GET", "/safety/alerts/{id}"),
    ("GET", "/safety/cases/{id}"),
    ("GET POST", "/skills"),
    ("DELETE GET POST", "/skills/{skill_id}"),
    ("GET", "/skills/{skill_id}/content"),
    ("GET POST", "/skills/{skill_id}/versions"),
    ("DELETE GET", "/skills/{skill_id}/versions/{version}"),
    ("GET", "/skills/{skill_id}/versions/{version}/content"),
    ("POST", "/threads"),
    ("POST", "/threads/runs", _JSON),
    ("DELETE GET POST", "/threads/{thread_id}"),
    ("GET POST", "/threads/{thread_id}/messages"),
    ("DELETE GET POST", "/threads/{thread_id}/messages/{message_id}"),
    ("GET POST", "/threads/{thread_id}/runs", _JSON),
    ("GET POST", "/threads/{thread_id}/runs/{run_id}"),
    ("POST", "/threads/{thread_id}/runs/{run_id}/cancel"),
    ("GET", "/threads/{thread_id}/runs/{run_id}/steps"),
    ("GET", "/threads/{thread_id}/runs/{run_id}/steps/{step_id}"),
    ("POST", "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs"),
    ("POST", "/uploads"),
    ("POST", "/uploads/{upload_id}/cancel"),
    ("POST", "/uploads/{upload_id}/complete"),
    ("POST", "/uploads/{upload_id}/parts"),
    ("GET POST", "/vaults"),
    ("DELETE GET POST", "/vaults/{vault_id}"),
    ("GET POST", "/vaults/{vault_id}/credentials"),
    ("DELETE GET POST", "/vaults/{vault_id}/credentials/{credential_id}"),
    ("GET POST", "/vector_stores"),
    ("DELETE GET POST", "/vector_stores/{vector_store_id}"),
    ("POST", "/vector_stores/{vector_store_id}/file_batches"),
    ("GET", "/vector_stores/{vector_store_id}/file_batches/{batch_id}"),
    ("POST", "/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel"),
    ("GET", "/vector_stores/{vector_store_id}/file_batches/{batch_id}/files"),
    ("GET POST", "/vector_stores/{vector_store_id}/files"),
    ("DELETE GET POST", "/vector_stores/{vector_store_id}/files/{file_id}"),
    ("GET", "/vector_stores/{vector_store_id}/files/{file_id}/content"),
    ("POST", "/vector_stores/{vector_store_id}/search"),
    ("GET POST", "/videos", _FORM),
    ("POST", "/videos/characters"),
    ("GET", "/videos/characters/{character_id}"),
    ("POST", "/videos/edits", _ELSEWHERE),
    ("POST", "/videos/extensions", _ELSEWHERE),
    ("DELETE GET", "/videos/{video_id}"),
    ("GET", "/videos/{video_id}/content"),
    ("POST", "/videos/{video_id}/remix", _ELSEWHERE),
    ("GET POST", "/webhook_endpoints"),
    ("DELETE GET POST", "/webhook_endpoints/{webhook_endpoint_id}"),
    ("POST", "/webhook_endpoints/{webhook_endpoint_id}/rotate_secret"),
    ("POST", "/webhook_endpoints/{webhook_endpoint_id}/test"),
)

_PARAMETER = b"{}"


class _Node(msgspec.Struct, gc=False):
    children: dict[bytes, "_Node"]
    rules: dict[bytes, PathRule]


def find(path: bytes) -> KnownPath | None:
    """What the table says of a path, with or without ``/v1`` and without a query; None if it does not hold it.

    A parameter stands for one segment in the client's bytes, percent-encoded or not, that steps nowhere else.
    """
    upstream = path.removeprefix(b"/v1")
    first, *segments = upstream.split(b"/")
    if first or len(segments) > _DEEPEST:
        return None
    rules = _walk(_ROOT, segments)
    return None if rules is None else KnownPath(upstream, rules)


def _walk(node: _Node, segments: list[bytes]) -> dict[bytes, PathRule] | None:
    """A segment that is in the table wins over a parameter, unless nothing comes of it."""
    if not segments:
        return node.rules or None
    segment, *rest = segments
    if (child := node.children.get(segment)) and (rules := _walk(child, rest)):
        return rules
    child = node.children.get(_PARAMETER)
    return _walk(child, rest) if child and not _steps(segment) else None


_SEPARATOR = re.compile(rb"[/\\]")


def _steps(segment: bytes) -> bool:
    """Whether a server that decodes before it splits would leave the place where this segment stands."""
    return not {b"", b".", b".."}.isdisjoint(_SEPARATOR.split(unquote_to_bytes(segment)))


def _rules() -> Iterator[tuple[bytes, PathRule]]:
    for needs_own_key, rows in ((False, _ANY_KEY), (True, _OWN_KEY)):
        for methods, template, *model_in in rows:
            for method in methods.split():
                model = model_in[0] if model_in and method == "POST" else ModelIn.NOWHERE
                yield method.encode(), PathRule(template, model, needs_own_key)


RULES = tuple(_rules())
"""The whole table, as pairs of method and rule."""


def _tree() -> _Node:
    root = _Node({}, {})
    for method, rule in RULES:
        node = root
        for segment in rule.template.encode().split(b"/")[1:]:
            name = _PARAMETER if segment.startswith(b"{") else segment
            node = node.children.setdefault(name, _Node({}, {}))
        node.rules[method] = rule
    return root


_ROOT = _tree()
_DEEPEST = max(rule.template.count("/") for _, rule in RULES)
