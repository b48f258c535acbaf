"""docs/compatibility.md, made from the tables that the code itself goes by.

``python tests/unit/test_compatibility.py`` writes it anew.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import pytest
from openai.types import EmbeddingCreateParams, ModerationCreateParams, completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.refusals import ClientFault, ModelNotPriced, NoAnswer
from tollway.providers.mistral import embeddings, fim, moderations, parameters
from tollway.providers.mistral.parameters import Rule, Verb
from tollway.providers.quirks import QUIRKS
from tollway.routing.retry import Step, decide
from tollway.wire import paths
from tollway.wire.openai_errors import to_http

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


def names_of(*params: type) -> frozenset[str]:
    """The members of the official SDK's parameters."""
    return frozenset(name for kind in params for base in kind.__mro__ for name in getattr(base, "__annotations__", ()))


ENDPOINTS: tuple[tuple[str, str, Mapping[str, Rule], frozenset[str]], ...] = (
    (
        "Chat completions",
        "`POST /v1/chat/completions`",
        parameters.RULES,
        names_of(
            chat_create_params.CompletionCreateParamsNonStreaming, chat_create_params.CompletionCreateParamsStreaming
        ),
    ),
    ("Embeddings", "`POST /v1/embeddings`", embeddings.RULES, names_of(EmbeddingCreateParams)),
    (
        "Completions",
        "`POST /v1/completions`; at Mistral: fill in the middle",
        fim.RULES,
        names_of(
            completion_create_params.CompletionCreateParamsNonStreaming,
            completion_create_params.CompletionCreateParamsStreaming,
        ),
    ),
    ("Moderations", "`POST /v1/moderations`", moderations.RULES, names_of(ModerationCreateParams)),
)
"""Each endpoint with the rules for Mistral and every parameter of OpenAI's."""

AT_OPENAI = {
    "model": "mapped: the provider's name of the model",
    "stream_options": "mapped: a stream is always asked for its usage",
    "encoding_format": "passed; the answer is put into it where the server has not done so",
}
CHAT_AT_OPENAI = {
    **AT_OPENAI,
    "messages": "passed; the bare address of a picture becomes an object",
    "max_tokens": "passed; max_completion_tokens for models that reason",
    "max_completion_tokens": "passed; max_tokens for servers that know only that",
}
"""What becomes of a parameter in OpenAI's own dialect, where it is not just passed."""

STEPS = {
    Step.RETURN: "told to the client",
    Step.NEXT: "the next model is tried",
    Step.NEXT_OR_SAME: "the next model is tried; without one, the same once more",
}

OPENAIS_CODES = {FailureKind.CONTEXT: "context_length_exceeded", FailureKind.CONTENT: "content_filter"}
"""What the client reads whatever the provider's code was."""

INTRODUCTION = """\
# Compatibility

What becomes of every parameter, error and path of OpenAI's API. A test compares this page with the code's own tables;
`python tests/unit/test_compatibility.py` writes it anew.

A provider that speaks OpenAI's dialect gets every member of the body as it came, unknown ones too, but for what the
tables say. Mistral refuses what it does not know, so its requests are made anew:

| word | meaning |
| --- | --- |
| passed | goes on as it came |
| mapped | goes on by another name or in another form |
| dropped | left out; the answer is the same without it |
| dropped with a warning | left out, and told in `x-tollway-warnings` (`dropped=user`); refused for a strict call |
| refused | 400 with the parameter as `param`; another provider of the model may still take it |

What is out of OpenAI's own ranges (more than 4 stop sequences or 128 tools, a temperature above 2 …) is refused for
OpenAI itself, whose row has the quirk `openai_ranges`, and passed to every other provider.

A call is strict with the header `x-tollway-strict: true`. A parameter that is null counts as missing at Mistral. One
that no table lists is dropped there with a warning.
"""

MESSAGES = """\
### Messages at Mistral

- `developer` is `system`. Names are dropped with a warning; a tool's is kept where it is a function's name. Other
  members that Mistral does not know are left out.
- Parts of type `text`, `refusal`, `image_url`, `input_audio`, `file` with its data and Mistral's own `thinking` are
  carried over; a `file_id` is another provider's and refused, as is every other type.
- Every call of a tool needs its result right behind it, and every result its call; else the request is refused.
- Calls and results in the form from before there were tools (`function_call`, role `function`) become those of tools.
- Ids of tool calls become nine letters or digits, the same id always the same; those that are stay.
- A system message after an answer or a tool becomes a user's, with a warning.
- Between a tool and a user goes a short message of the assistant.
- A trailing message of the assistant is continued (`prefix`); the answer comes without it.
"""

STREAMS = """\
## Streams

Frames are `data:` lines with one JSON object each, and `data: [DONE]` is the last, whatever the provider's look like.

- Usage comes in a last chunk with empty `choices` where `stream_options.include_usage` asks for it, and nowhere else.
- A role is told once for each choice, in its first chunk.
- A reason to end is told once for each choice, after all of its content, when nothing can follow it any more. Content
  never waits for it. An empty one is none, and of several the last one counts; one that never comes is completed.
- Tool calls carry an index, an id, a type and a name, each once, and begin with their name. A new id begins a new call
  only together with a name or another index, a known one together with a name and another index. A name may come in
  pieces; one that only repeats what was told is left out, and so are empty members of later pieces.
- What a model thought is left out of Mistral's answers; with the header `x-tollway-reasoning: true` it is shown as
  `reasoning_content`. Of a server of OpenAI's dialect it passes under the name that it has there (`reasoning_content`,
  `reasoning`). It is billed in any case.
- What was used is read in all spellings that servers have for it, and believed where it can be true:
  [Money](money.md#what-providers-say).
- What a server writes oddly is read, as long as it can be told what was said: frames with nothing in them are skipped
  (`null`, `[]`, `ping`, choices that are null …), a number, an object or a list of parts where a text belongs is its
  text, an object of arguments is its JSON, an index may be a text, NaN is null, half characters are joined or replaced,
  a delta that is missing is empty, and what clients need is completed. It holds for whole answers likewise, and for
  what stands around embeddings. What cannot be read is a failure, told in the provider's words if it is a text, unless
  every choice has ended before.
- An event without choices is an error if it says so (`error`, `exception`, `success: false`, a `status` or a `code` of
  failure), or if it has nothing but a message; not if it says that all is well, has an empty list of choices, or comes
  after every choice has ended.
- What stands beside a text and its reason to end is told once, with the text.
- A stream that breaks off after every choice has given a reason to end is whole, unless the server gives reasons that
  mean nothing, as in every chunk.
- A failure before the first content leads to the next model, and the client does not notice. After that it is a last
  frame with an `error` object, and no `[DONE]` follows. It has the provider's own message, code and type.
"""

ERRORS = """
- **A prompt that does not fit** is recognised by what the sentence means, whatever the status, also in the middle of a
  stream: of OpenAI's, Anthropic's and Google's servers, vLLM, SGLang, llama.cpp, LM Studio, Ollama, TGI, TabbyAPI and
  the like, Cohere, MiniMax and Zhipu. The message stays the server's own.
- **Words are looked for** in every form of an error that is known: beside the name of a status (`"error": "Bad
  Request"`), in an envelope, a list, a page, a plain text, JSON that is cut short, and a choice that ends with `error`.
- **An account without money** (402, or words such as "Insufficient Balance" with 400, 403 or 429) rests at once.
- **A 429 that names no usable time** comes back with `retry-after: 1`; 0 and times that are over count as a second.
- **An error that is compressed** counts by its status and its head; its body is not read.
- Secrets, addresses, names of hosts and of accounts in a provider's words are masked. What it says of its own state is
  told in our words until an answer has begun; the log and the ledger (`cause`) have its own. What it says of an account
  is told only to a key that brought its own provider key.
"""


def parameter_tables() -> Iterator[str]:
    for title, where, rules, known in ENDPOINTS:
        at_openai = CHAT_AT_OPENAI if rules is parameters.RULES else AT_OPENAI
        yield from (f"## {title}", "", f"{where}.", "")
        yield from ("| parameter | OpenAI's dialect | Mistral | how |", "| --- | --- | --- | --- |")
        for name, rule in rules.items():
            if name in known:
                yield f"| `{name}` | {at_openai.get(name, Verb.PASS.value)} | {rule.verb.value} | {rule.how} |"
        own = [name for name in rules if name not in known]
        if own:
            yield from ("", "Mistral's own, which OpenAI itself refuses:", "")
            yield from ("| parameter | Mistral | how |", "| --- | --- | --- |")
            yield from (f"| `{name}` | {rules[name].verb.value} | {rules[name].how} |" for name in own)
        yield ""
        if rules is parameters.RULES:
            yield MESSAGES


def quirks() -> Iterator[str]:
    """In what servers differ from OpenAI and from Mistral themselves."""
    yield from (
        "## Quirks",
        "",
        "What the row of a provider may say of its server ([adding a provider](adding-a-provider.md)):",
        "",
        "| quirk | meaning |",
        "| --- | --- |",
    )
    yield from (f"| `{name}` | {quirk.meaning} |" for name, quirk in QUIRKS.items())
    yield ""


def errors() -> Iterator[str]:
    """What becomes of a failure: computed, not told."""
    yield from (
        "## Errors",
        "",
        "Every error has OpenAI's form. Mistral's are translated: a 422 becomes a 400 with the member as `param`.",
        "Where no provider answered, `x-should-retry`, `retry-after` and `retry-after-ms` are true, and the message",
        "names each model that was tried.",
        "",
        "| at the provider | what follows | where nothing is left: status | code |",
        "| --- | --- | --- | --- |",
    )
    for kind in FailureKind:
        failure = UpstreamFailure(kind, "", code=OPENAIS_CODES.get(kind))
        step = decide(failure)
        own_fault = step is Step.RETURN or kind is FailureKind.UNSUPPORTED
        refusal = ClientFault(failure) if own_fault else NoAnswer((("model", failure),))
        error = to_http(ModelNotPriced("model") if kind is FailureKind.UNPRICED else refusal)
        code = json.loads(error.body)["error"]["code"]
        shown = f"`{code}`" if code else "says what is wrong"
        yield f"| {kind.value.replace('_', ' ')} | {STEPS[step]} | {error.status} | {shown} |"
    yield ERRORS


def other_paths() -> Iterator[str]:
    """What passes as it is."""
    yield from (
        "## Other paths",
        "",
        "Everything else of OpenAI's API passes as it is to a provider in OpenAI's dialect, with `/v1` and without.",
        "Unknown paths get 404, other methods 405. Not served: the administration of an organization, and WebSockets.",
        "",
        "With any key:",
        "",
        "| path | methods | names its model in |",
        "| --- | --- | --- |",
    )
    yield from path_rows(needs_own_key=False)
    yield from (
        "",
        "Only for a virtual key with a provider key of its own, as most of these work on objects that the provider",
        "stores; others get 403 `provider_key_required`:",
        "",
        "| path | methods | names its model in |",
        "| --- | --- | --- |",
    )
    yield from path_rows(needs_own_key=True)


def path_rows(*, needs_own_key: bool) -> Iterator[str]:
    chosen = [
        (rule.template, method, rule.model) for method, rule in paths.RULES if rule.needs_own_key is needs_own_key
    ]
    for template, group in groupby(chosen, key=lambda row: row[0]):
        rows = list(group)
        models = {model.value for _, _, model in rows} - {paths.ModelIn.NOWHERE.value}
        yield f"| `{template}` | {listed(method.decode() for _, method, _ in rows)} | {listed(models)} |"


def listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))


def page() -> str:
    """The whole page."""
    return "\n".join((INTRODUCTION, *parameter_tables(), *quirks(), *errors(), STREAMS, *other_paths(), ""))


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python tests/unit/test_compatibility.py"


@pytest.mark.parametrize(("rules", "known"), [pytest.param(*row[2:], id=row[0]) for row in ENDPOINTS])
def test_every_parameter_of_openais_has_a_rule(rules: Mapping[str, Rule], known: frozenset[str]) -> None:
    assert not known - rules.keys()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
