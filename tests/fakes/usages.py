"""Usages for tests, written as OpenAI tells them."""

from tollway.domain.usage import Usage


def told(input_tokens: int, output_tokens: int, cached_input_tokens: int = 0, reasoning_tokens: int = 0) -> Usage:
    """The usage of an answer whose counts contain each other: the cached in the input, the reasoning in the output.

    A part is never larger than its whole.
    """
    cached = min(cached_input_tokens, input_tokens)
    reasoning = min(reasoning_tokens, output_tokens)
    return Usage(input_tokens - cached, output_tokens - reasoning, cached, reasoning)
