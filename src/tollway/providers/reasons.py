"""When a choice of a stream has really ended, and why.

Servers give a reason to end in their first chunk, in every chunk, or as an empty text. A reason is therefore kept back
until nothing can follow it, and a text that comes after it goes out all the same. What cannot be known while a stream
runs is whether a reason is meant. So a stream that breaks off counts as whole only by reasons that can be believed:

1. A choice that said something after a reason has shown that its reasons mean nothing.
2. A reason beside a text is believed of a choice that has said something without one before.
3. A reason alone is believed.
"""

_BEGINNING = 32  # characters of a text by which it is known again

_NONE = frozenset({"", "null", "none", "undefined"})


def real_reason(given: str | None) -> str | None:
    """The reason, if it is one: many words of many languages stand for none."""
    return None if given is None or given.strip().lower() in _NONE else given


class Ending:
    """What is known of the end of one choice."""

    __slots__ = ("_honest", "_late", "_liar", "begins", "reason", "usual", "watched")

    def __init__(self) -> None:
        self.reason: str | None = None
        """The last one that was given."""
        self.usual = "stop"
        """The reason that it has where nobody gives one."""
        self.watched = True
        """Whether what is said is to be noted by :meth:`said`: the first time, and once there is a reason."""
        self.begins = ""
        """How its content begins, if that was noted."""
        self._honest = False  # has said something without a reason
        self._liar = False  # has said something after a reason
        self._late = False  # … and given none since

    def said(self, reason: str | None, content: str | None = None) -> None:
        """Something was said, beside this reason."""
        self.begins = self.begins or (content or "")[:_BEGINNING]
        if self.reason is not None:
            self._liar = self._late = True
        elif reason is None:
            self._honest, self.watched = True, False

    def told(self, reason: str, *, beside_text: bool) -> None:
        """A reason was given."""
        if beside_text and not self._honest:
            self._liar = True  # as far as anybody can tell
        self.reason, self.watched, self._late = reason, True, False

    @property
    def ended(self) -> bool:
        """The last thing that came was a reason: if the provider ends the stream here, in order, it is whole."""
        return self.reason is not None and not self._late

    @property
    def believed(self) -> bool:
        """The stream is whole even if it breaks off here."""
        return self.ended and not self._liar
