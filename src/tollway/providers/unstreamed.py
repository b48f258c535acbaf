"""The half of an adapter that is the same for every operation that never answers with a stream."""

from collections.abc import Mapping
from typing import Any

from tollway.domain.failures import UpstreamFailure
from tollway.providers import classify
from tollway.providers.base import StreamDecoder


class Unstreamed:
    """To be inherited by an :class:`~tollway.providers.base.Adapter` of such an operation."""

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer whose status says so failed."""
        return classify.classify(status, headers, body)

    def decoder(self, call: Any) -> StreamDecoder:
        """Never asked for: such calls have no ``stream``."""
        raise AssertionError("this operation has no streams")
