"""The service tier that an answer was made in, by its own words: what it costs depends on it."""

import msgspec
from msgspec.structs import replace

from tollway.domain.doubts import UNREADABLE_TIER, joined
from tollway.domain.usage import TIER, USUAL_TIERS, Usage
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null


class _Answer(msgspec.Struct, gc=False):
    service_tier: Raw | Unset = UNSET


_decode_answer = decoder(_Answer)
_decode_name = decoder(str)


def tier_of(answer: bytes | Raw) -> Raw | Unset:
    """What an answer, a chunk or a usage object has under that name."""
    try:
        return _decode_answer(answer).service_tier
    except UNREADABLE:
        return UNSET


def with_tier(usage: Usage, tier: Raw | Unset | None) -> Usage:
    """The usage with the service tier that the answer around it names; the usual one has no name."""
    if tier is None or isinstance(tier, Unset) or is_null(tier):
        return usage
    try:
        name = _decode_name(tier).lower()
    except UNREADABLE:
        name = "?"
    if name in USUAL_TIERS:
        return usage
    if TIER.fullmatch(name):
        return replace(usage, service_tier=name)
    return replace(usage, doubt=joined(usage.doubt, UNREADABLE_TIER))
