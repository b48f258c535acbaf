"""Whatever OpenAI would take, Mistral takes it from us, or we refuse it ourselves; and it is always the same bytes."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fakes import strict_mistral
from tollway.domain.refusals import BadRequest
from tollway.providers.table import adapters
from tollway.wire.chat_request import parse_chat

MISTRAL = adapters("mistral")["chat/completions"]
MODELS = ("mistral-small-latest", "magistral-small-latest", "mistral-large-4", "zai-glm-5-2", "codestral-latest")

words = st.sampled_from(["", "a", "Bonjour", "é\u2028", "{}"])
names = st.sampled_from(["f", "get_weather", "F-1", "x" * 64, "not a name"])
ids = st.sampled_from(["call_1", "call_2", "abcDEF123", "", "null"])
objects = st.dictionaries(st.sampled_from(["a", "type"]), st.none() | st.integers(0, 3) | words, max_size=2)


def maybe(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object in which each member may be missing."""
    return st.fixed_dictionaries({}, optional=members)


def typed(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


def spoken(role: str, content: st.SearchStrategy[Any], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"role": st.just(role), "content": content}, optional=more)


# --- messages -----------------------------------------------------------------------------------------------

text_parts = typed("text", text=words)
image_details = st.sampled_from(["auto", "low", "high", "original"])
images = st.fixed_dictionaries({"url": st.just("https://a/b")}, optional={"detail": image_details})
user_parts = st.one_of(
    text_parts,
    typed("image_url", image_url=images),
    typed("input_audio", input_audio=st.just({"data": "QUJD", "format": "wav"})),
    typed("file", file=maybe(file_data=st.just("data:application/pdf;base64,QUJD"), filename=words, file_id=words)),
)
texts = words | st.lists(text_parts, min_size=1, max_size=2)
functions = st.fixed_dictionaries({"name": names, "arguments": words})
calls = typed("function", function=functions, id=ids) | typed("custom", custom=st.just({"name": "c"}), id=ids)
systems = st.sampled_from(["system", "developer"]).flatmap(lambda role: spoken(role, texts, name=names))
users = spoken("user", words | st.lists(user_parts, min_size=1, max_size=3), name=names)
answers = spoken(
    "assistant",
    st.none() | texts | st.lists(typed("refusal", refusal=words), min_size=1, max_size=1),
    name=names,
    refusal=st.none() | words,
    reasoning_content=words,
    annotations=st.just([]),
    audio=st.none() | st.just({"id": "a"}),
    function_call=st.none() | functions,
    tool_calls=st.none() | st.lists(calls, max_size=2),
)
results = st.builds(
    lambda message, call_id: {**message, "tool_call_id": call_id}, spoken("tool", texts, name=names), ids
)
functions_results = st.fixed_dictionaries({"role": st.just("function"), "name": names, "content": words | st.none()})
strangers = st.one_of(systems, users, answers, results, functions_results)


@st.composite
def rounds(draw: st.DrawFn) -> list[Any]:
    """Calls and all their results, as OpenAI wants them."""
    asked = draw(st.lists(st.sampled_from(["call_1", "call_2", "abcDEF123"]), min_size=1, max_size=3, unique=True))
    made = [{"id": call_id, "type": "function", "function": draw(functions)} for call_id in asked]
    answered = [
        {"role": "tool", "tool_call_id": call_id, "content": draw(texts)} for call_id in draw(st.permutations(asked))
    ]
    return [{"role": "assistant", "content": draw(st.none() | words), "tool_calls": made}, *answered]


turns = st.one_of(rounds(), strangers.map(lambda message: [message]))
orderly = st.lists(st.one_of(rounds(), systems.map(lambda m: [m]), users.map(lambda m: [m])), max_size=4)
conversations = (orderly | st.lists(turns, max_size=5)).map(
    lambda lists: [message for turn in lists for message in turn]
)

# --- parameters ---------------------------------------------------------------------------------------------

definitions = st.fixed_dictionaries(
    {"name": names},
    optional={
        "description": st.none() | words | st.just(3),
        "parameters": st.none() | objects,
        "strict": st.none() | st.booleans() | words,
    },
)
tools = typed("function", function=definitions) | typed("custom", custom=st.just({"name": "c"}))
named = typed("function", function=names.map(lambda name: {"name": name}))
choices = st.one_of(
    st.sampled_from(["auto", "none", "required", "any", "sometimes"]),
    named,
    typed(
        "allowed_tools",
        allowed_tools=st.fixed_dictionaries(
            {"mode": st.sampled_from(["auto", "required"]), "tools": st.lists(named, max_size=2)}
        ),
    ),
)
formats = st.one_of(
    typed("text"),
    typed("json_object"),
    typed(
        "json_schema",
        json_schema=st.fixed_dictionaries(
            {"name": words},
            optional={
                "schema": st.none() | objects,
                "strict": st.none() | st.booleans(),
                "description": st.none() | words,
            },
        ),
    ),
)
efforts = st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max", "infinite"])
predictions = typed("content", content=words | st.lists(text_parts, max_size=2))
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans() | st.none(),
    "stream_options": maybe(include_usage=st.booleans(), include_obfuscation=st.booleans()) | st.none(),
    "max_tokens": st.integers(0, 9) | st.none(),
    "max_completion_tokens": st.integers(0, 9) | st.none(),
    "temperature": st.sampled_from([0, 0.0, -0.0, 1, 1.5, 1.50001, 2]) | st.none(),
    "top_p": st.sampled_from([0, 0.5, 1, 1.0]) | st.none(),
    "n": st.integers(1, 3) | st.none(),
    "stop": words | st.lists(words, max_size=4) | st.none(),
    "seed": st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1]) | st.none(),
    "frequency_penalty": st.floats(-2, 2) | st.none(),
    "presence_penalty": st.floats(-2, 2) | st.none(),
    "logit_bias": st.dictionaries(st.just("50256"), st.integers(-100, 100)) | st.none(),
    "logprobs": st.booleans() | st.none(),
    "top_logprobs": st.integers(0, 2) | st.none(),
    "response_format": formats | st.none(),
    "tools": st.lists(tools, max_size=3) | st.none(),
    "tool_choice": choices | st.none(),
    "parallel_tool_calls": st.booleans() | st.none(),
    "functions": st.lists(definitions, max_size=2) | st.none(),
    "function_call": st.sampled_from(["auto", "none", {"name": "f"}]) | st.none(),
    "reasoning_effort": efforts | st.none(),
    "verbosity": words | st.none(),
    "prediction": predictions | st.none(),
    "metadata": objects | st.none(),
    "store": st.booleans() | st.none(),
    "user": words,
    "safety_identifier": words,
    "prompt_cache_key": words | st.none(),
    "prompt_cache_retention": words,
    "service_tier": st.sampled_from(["auto", "default", "flex", "scale", "priority", "fast"]) | st.none(),
    "modalities": st.lists(st.sampled_from(["text", "audio"]), max_size=2) | st.none(),
    "audio": st.just({"voice": "a"}) | st.none(),
    "web_search_options": objects | st.none(),
    "moderation": objects | st.none(),
    "unheard_of": objects,
}
parameters = st.sets(st.sampled_from(sorted(MEMBERS)), max_size=5).flatmap(
    lambda chosen: st.fixed_dictionaries({name: MEMBERS[name] for name in sorted(chosen)})
)
"""A few at once: most of a larger crowd would be refused for one of its members."""


def judge(model: str, messages: list[Any], more: dict[str, Any]) -> None:
    body = json.dumps({"model": "asked", "messages": messages, **more}).encode()
    call = parse_chat(body)
    if isinstance(call, BadRequest):
        return
    request = MISTRAL.encode(call, model)
    assert request == MISTRAL.encode(call, model), "failover encodes again"
    if isinstance(request, BadRequest):
        assert request.status == 400
        assert request.code
    else:
        assert strict_mistral.refusal(request.path.decode(), request.body) is None, request.body.decode()


@given(st.sampled_from(MODELS), conversations)
def test_any_conversation_is_taken_or_refused_here(model: str, messages: list[Any]) -> None:
    judge(model, messages, {})


@given(st.sampled_from(MODELS), parameters)
def test_any_parameters_are_taken_or_refused_here(model: str, members: dict[str, Any]) -> None:
    judge(model, [{"role": "user", "content": "u"}], members)


@given(st.sampled_from(MODELS), conversations, st.lists(tools, min_size=1, max_size=3), choices)
def test_any_conversation_with_tools_is_taken_or_refused_here(
    model: str, messages: list[Any], defined: list[Any], choice: Any
) -> None:
    judge(model, messages, {"tools": defined, "tool_choice": choice})
