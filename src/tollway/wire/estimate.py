"""How many tokens a prompt will be, before a provider has counted: almost free, and rather too many than too few."""

from msgspec.structs import replace

from tollway.domain.doubts import INTERIM_USAGE, OUTPUT_UNTOLD, PROMPT_UNTOLD, SPLIT_UNTOLD, joined
from tollway.domain.usage import Usage

BYTES_PER_TOKEN = 4
"""English text and code have 3.5 to 5 bytes per token; Chinese and Japanese 3 to 4 in UTF-8. The JSON around the text
(about 30 bytes for each message, 7 tokens here, 3 or 4 in truth) makes up for the low side."""

MEDIA_BYTES = 1_536 * BYTES_PER_TOKEN
"""What one image, sound or file counts for, whatever its size: a large picture in high detail is 765 to 1,445 tokens
(OpenAI's tiles), up to 1,536 patches elsewhere. Base64 says nothing about tokens."""

_REPLY_PRIMING = 3  # every answer is primed with three tokens of the provider's


def prompt_tokens_estimate(prompt_bytes: int) -> int:
    """Tokens for a prompt of ``ChatCall.prompt_bytes`` bytes."""
    return -(-prompt_bytes // BYTES_PER_TOKEN) + _REPLY_PRIMING


def output_tokens_estimate(content_bytes: int) -> int:
    """Tokens for so many bytes of generated text, for an answer that was cut before its usage came."""
    return -(-content_bytes // BYTES_PER_TOKEN)


def with_estimates(usage: Usage, prompt_tokens: int, said_tokens: int) -> Usage:
    """What a provider told, where a zero in it cannot be true, for an answer that was estimated so.

    No prompt has 0 tokens. An output of 0 beside a text is believed, as the provider asks no more for it, but in doubt;
    one that was not told is estimated. Of a total alone all is output that the prompt does not account for.
    """
    if not (usage.measured or usage.output_tokens):
        if SPLIT_UNTOLD not in usage.doubt:
            return replace(usage, output=said_tokens)
        output = min(usage.input, max(said_tokens, usage.input - prompt_tokens))
        return replace(usage, input=usage.input - output, output=output)
    if not usage.input_tokens:
        output = usage.output if usage.output_tokens else said_tokens
        doubt = joined(usage.doubt, PROMPT_UNTOLD)
        return replace(usage, input=prompt_tokens, output=output, measured=False, doubt=doubt)
    if said_tokens and not usage.output_tokens:
        return replace(usage, doubt=joined(usage.doubt, OUTPUT_UNTOLD))
    return usage


def with_later_text(usage: Usage, bytes_before: int, bytes_in_all: int) -> Usage:
    """A usage that was told when so many bytes of the text had come at most, and none after it.

    If the rest of the text alone is twice as much as it tells, it was interim: no text has that few tokens.
    """
    told = usage.output_tokens
    if output_tokens_estimate(bytes_in_all - bytes_before) <= 2 * told:
        return usage
    output = usage.output + output_tokens_estimate(bytes_in_all) - told
    return replace(usage, output=output, measured=False, doubt=joined(usage.doubt, INTERIM_USAGE))
