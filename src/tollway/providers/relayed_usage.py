"""The usage object of an answer that was relayed: spelled as chat answers spell it, or as everything newer does."""

import msgspec

from tollway.domain.usage import Usage, told
from tollway.providers.usage import InputDetails, OutputDetails, Tokens, read_usage
from tollway.wire.json import UNREADABLE, Raw, decoder


class _Counts(msgspec.Struct, gc=False):
    input_tokens: Tokens
    output_tokens: Tokens


class _Full(_Counts, gc=False):
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


_decode_full = decoder(_Full)
_decode_counts = decoder(_Counts)


def read_any_usage(raw: Raw) -> Usage | None:
    """The counts of responses, images, sound or chat; None where there are none, as for what is billed by the second.

    What :func:`read_usage` promises holds here too: details that cannot be true are left out.
    """
    try:
        full = _decode_full(raw)
    except UNREADABLE:
        return _only_counts(raw) or read_usage(raw)
    into, out = full.input_tokens_details, full.output_tokens_details
    cached = (into.cached_tokens or 0) if into is not None else 0
    reasoning = (out.reasoning_tokens or 0) if out is not None else 0
    return told(full.input_tokens, full.output_tokens, cached, reasoning)


def _only_counts(raw: Raw) -> Usage | None:
    try:
        counts = _decode_counts(raw)
    except UNREADABLE:
        return None
    return Usage(counts.input_tokens, counts.output_tokens)
