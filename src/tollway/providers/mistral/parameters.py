"""Every parameter of OpenAI's chat request, and what becomes of it at Mistral. Mistral refuses what it does not know,
so the body is built from this list and never copied.
"""

import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from tollway.domain.refusals import BadRequest
from tollway.providers.mistral.draft import Draft, unsupported, unsupported_value
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null, members

MAX_TEMPERATURE = 1.5
"""Mistral's scale ends here, OpenAI's at 2."""

SEEDS = 2**31
"""Mistral takes no negative seeds: those are folded into this many."""

REASONING: tuple[tuple[tuple[str, ...], Mapping[str, str]], ...] = (
    (
        ("mistral-small-latest", "mistral-small-2603", "mistral-medium-3-5", "mistral-medium-2604", "magistral-"),
        dict.fromkeys(("none", "minimal"), "none") | dict.fromkeys(("low", "medium", "high", "xhigh", "max"), "high"),
    ),
    (
        ("mistral-large-4",),
        dict.fromkeys(("none", "minimal", "low"), "low")
        | {"medium": "medium"}
        | dict.fromkeys(("high", "xhigh", "max"), "high"),
    ),
    (
        ("zai-glm-",),
        dict.fromkeys(("none", "minimal", "low"), "low")
        | dict.fromkeys(("medium", "high"), "high")
        | dict.fromkeys(("xhigh", "max"), "max"),
    ),
)
"""Names of models (how they begin) and what they take for each of OpenAI's efforts. Others take none at all."""

SERVICE_TIERS: Mapping[str, str | None] = {
    "auto": None,
    "default": "standard_only",
    "priority": "auto",
    "fast": "auto",
}
"""OpenAI's names for tiers in Mistral's; None is Mistral's own default."""

Apply: TypeAlias = Callable[[Raw, Draft], BadRequest | None]


class Verb(enum.Enum):
    """What becomes of a parameter."""

    PASS = "passed"  # noqa: S105  (not a password)
    MAP = "mapped"
    DROP = "dropped"
    """No loss: the answer is the same without it."""
    WARN = "dropped with a warning"
    """The client loses something and is told."""
    REFUSE = "refused"


class Rule(NamedTuple):
    """What becomes of one parameter. ``how`` is for people; ``apply`` does what the verb alone does not say."""

    verb: Verb
    how: str = ""
    apply: Apply | None = None


def put_parameters(draft: Draft, rules: Mapping[str, Rule]) -> BadRequest | None:
    """Put every member of the client's body into the draft by its endpoint's rules."""
    for name, raw in draft.call.top.items():
        verb, _, apply = rules.get(name, _UNKNOWN)
        if is_null(raw):
            continue
        if apply is not None:
            try:
                refusal = apply(raw, draft)
            except UNREADABLE:
                refusal = BadRequest(f"Invalid '{name}'.", name, "invalid_value")
            if refusal is not None:
                return refusal
        elif verb is Verb.PASS:
            draft.body[name] = raw
        elif verb is Verb.WARN:
            draft.warn("dropped", name)
        elif verb is Verb.REFUSE:
            return unsupported(name)
    return None


class _Part(msgspec.Struct, gc=False):
    text: str


class _Prediction(msgspec.Struct, gc=False):
    content: str | list[_Part]


class _Schema(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    schema: Raw | Unset = UNSET
    description: str | None = None
    strict: bool | None = None


class _Format(msgspec.Struct, gc=False, omit_defaults=True):
    type: str
    json_schema: _Schema | None = None


_as_text = decoder(str)
_as_texts = decoder(list[str])
_as_flag = decoder(bool)
_as_int = decoder(int)
_as_number = decoder(float)
_as_prediction = decoder(_Prediction)
_as_format = decoder(_Format)


def _max_tokens(raw: Raw, draft: Draft) -> None:
    draft.body.setdefault("max_tokens", raw)  # the newer name wins, in whatever order they stand


def _max_completion_tokens(raw: Raw, draft: Draft) -> None:
    draft.body["max_tokens"] = raw


def _temperature(raw: Raw, draft: Draft) -> None:
    if _as_number(raw) > MAX_TEMPERATURE:
        draft.warn("clamped", "temperature")
        draft.body["temperature"] = MAX_TEMPERATURE
    else:
        draft.body["temperature"] = raw


def _top_p(raw: Raw, draft: Draft) -> None:
    temperature = draft.call.top.get("temperature")
    greedy = temperature is not None and not is_null(temperature) and _as_number(temperature) == 0
    if greedy and _as_number(raw) != 1:
        draft.warn("dropped", "top_p")
    else:
        draft.body["top_p"] = raw


def _n(raw: Raw, draft: Draft) -> BadRequest | None:
    if draft.call.n > 1 and _given(draft, "prediction"):
        return unsupported("n", "together with 'prediction' is not supported")
    draft.body["n"] = raw
    return None


def _seed(raw: Raw, draft: Draft) -> None:
    seed = _as_int(raw)
    draft.body["random_seed"] = seed if seed >= 0 else seed % SEEDS


def _logit_bias(raw: Raw, _: Draft) -> BadRequest | None:
    return unsupported("logit_bias") if members(raw) else None


def _logprobs(raw: Raw, draft: Draft) -> BadRequest | None:
    return _if_taken("logprobs", raw, draft) if _as_flag(raw) else None


def _top_logprobs(raw: Raw, draft: Draft) -> BadRequest | None:
    return _if_taken("top_logprobs", raw, draft) if _as_int(raw) else None


def _if_taken(name: str, raw: Raw, draft: Draft) -> BadRequest | None:
    if not draft.quirks.logprobs:
        return unsupported(name)
    draft.body[name] = raw
    return None


def _functions(_: Raw, draft: Draft) -> None:
    if _given(draft, "tools"):  # which say the same in the newer form
        draft.warn("dropped", "functions")


def _function_call(_: Raw, draft: Draft) -> None:
    if _given(draft, "tools") or not _given(draft, "functions"):
        draft.warn("dropped", "function_call")


def _response_format(raw: Raw, draft: Draft) -> BadRequest | None:
    form = _as_format(raw)
    if form.type not in ("text", "json_object", "json_schema"):
        return unsupported_value("response_format.type", form.type)
    if form.type != "json_schema":
        form.json_schema = None
    elif form.json_schema is None or form.json_schema.schema is UNSET or is_null(form.json_schema.schema):
        missing = "response_format.json_schema" + (".schema" if form.json_schema else "")
        return BadRequest(f"Missing required parameter: '{missing}'.", missing, "missing_required_parameter")
    draft.body["response_format"] = form
    return None


def _reasoning_effort(raw: Raw, draft: Draft) -> BadRequest | None:
    effort = _as_text(raw)
    for names, efforts in REASONING:
        if draft.model.startswith(names):
            if effort not in efforts:
                return unsupported_value("reasoning_effort", effort)
            draft.body["reasoning_effort"] = efforts[effort]
            return None
    draft.warn("dropped", "reasoning_effort")
    return None


def _prediction(raw: Raw, draft: Draft) -> None:
    content = _as_prediction(raw).content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    draft.body["prediction"] = {"type": "content", "content": text}


def _store(raw: Raw, draft: Draft) -> None:
    if _as_flag(raw):
        draft.warn("dropped", "store")


def _service_tier(raw: Raw, draft: Draft) -> None:
    tier = _as_text(raw)
    if tier not in SERVICE_TIERS:
        draft.warn("dropped", "service_tier")
    elif name := SERVICE_TIERS[tier]:
        draft.body["service_tier"] = name


def _modalities(raw: Raw, _: Draft) -> BadRequest | None:
    return None if _as_texts(raw) in ([], ["text"]) else unsupported("modalities", "other than text are not supported")


def elsewhere(raw: Raw, draft: Draft) -> None:
    """Taken care of by the adapter or a module of its own."""


def _given(draft: Draft, name: str) -> bool:
    raw = draft.call.top.get(name)
    return raw is not None and not is_null(raw)


_UNKNOWN = Rule(Verb.WARN, "not known to Mistral, which refuses what it does not know")

RULES: Mapping[str, Rule] = {
    "model": Rule(Verb.MAP, "the provider's name of the model", elsewhere),
    "messages": Rule(Verb.MAP, "see the table of messages", elsewhere),
    "stream": Rule(Verb.PASS),
    "stream_options": Rule(Verb.DROP, "Mistral always sends usage; the gateway shows it where it was asked for"),
    "max_tokens": Rule(Verb.MAP, "passed, unless max_completion_tokens is there", _max_tokens),
    "max_completion_tokens": Rule(Verb.MAP, "max_tokens", _max_completion_tokens),
    "temperature": Rule(Verb.MAP, "above 1.5: 1.5, with a warning", _temperature),
    "top_p": Rule(Verb.MAP, "dropped with a warning where temperature is 0", _top_p),
    "n": Rule(Verb.MAP, "refused together with prediction", _n),
    "stop": Rule(Verb.PASS),
    "seed": Rule(Verb.MAP, "random_seed; negative ones are folded", _seed),
    "frequency_penalty": Rule(Verb.PASS),
    "presence_penalty": Rule(Verb.PASS),
    "logit_bias": Rule(Verb.REFUSE, "tokens differ between models", _logit_bias),
    "logprobs": Rule(Verb.REFUSE, "false: dropped; passed where the provider has the quirk logprobs", _logprobs),
    "top_logprobs": Rule(Verb.REFUSE, "0: dropped; passed where the provider has the quirk logprobs", _top_logprobs),
    "response_format": Rule(Verb.MAP, "json_schema needs its schema; nulls are left out", _response_format),
    "tools": Rule(Verb.MAP, "functions only; parameters are filled in where missing", elsewhere),
    "tool_choice": Rule(Verb.MAP, "required: any; allowed_tools: fewer tools", elsewhere),
    "parallel_tool_calls": Rule(Verb.MAP, "only where there are tools", elsewhere),
    "functions": Rule(Verb.MAP, "tools, and the answer's calls back; beside tools: dropped with a warning", _functions),
    "function_call": Rule(Verb.MAP, "tool_choice; without functions: dropped with a warning", _function_call),
    "reasoning_effort": Rule(Verb.MAP, "to what the model takes; other models: dropped", _reasoning_effort),
    "verbosity": Rule(Verb.WARN),
    "prediction": Rule(Verb.MAP, "parts joined", _prediction),
    "metadata": Rule(Verb.PASS),
    "store": Rule(Verb.WARN, "false: dropped", _store),
    "user": Rule(Verb.WARN),
    "safety_identifier": Rule(Verb.WARN),
    "prompt_cache_key": Rule(Verb.PASS),
    "prompt_cache_retention": Rule(Verb.DROP),
    "prompt_cache_options": Rule(Verb.DROP),
    "service_tier": Rule(Verb.MAP, "default: standard_only; priority, fast: auto; flex, scale: dropped", _service_tier),
    "modalities": Rule(Verb.REFUSE, "text alone: dropped", _modalities),
    "audio": Rule(Verb.REFUSE),
    "web_search_options": Rule(Verb.REFUSE),
    "moderation": Rule(Verb.REFUSE, "a wish for safety is not left out in silence"),
    # Mistral's own, for clients that know whom they talk to
    "safe_prompt": Rule(Verb.PASS),
    "prompt_mode": Rule(Verb.PASS),
    "random_seed": Rule(Verb.PASS),
    "guardrails": Rule(Verb.PASS),
    "min_tokens": Rule(Verb.PASS),
    "top_k": Rule(Verb.PASS),
    "repetition_penalty": Rule(Verb.PASS),
    "prompt_logprobs": Rule(Verb.PASS),
}
"""The whole of OpenAI's chat request; ``docs/compatibility.md`` can be made from it."""
