"""How many tokens a call used, in buckets that do not overlap where it matters for money."""

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one attempt, all zero or more.

    ``cached_input_tokens`` is a part of ``input_tokens``, ``reasoning_tokens`` a part of ``output_tokens``, as in
    OpenAI's usage object.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    measured: bool = True
    """True when the provider said it, False when we counted or estimated."""

    @property
    def total_tokens(self) -> int:
        """What counts against a limit of tokens."""
        return self.input_tokens + self.output_tokens
