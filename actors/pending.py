"""What a group's next frames are made of: every signal as it came, or for `latest` the newest of each pair of names."""

from __future__ import annotations

from typing import Protocol

import attrs

from actors.protocol.messages import encode_sig, pack_sig
from actors.signals import SignalTexts, offset_of, pair_of

CONFLATED_BYTES = 262_144  # then a conflated frame leaves before its time


@attrs.frozen
class Frame:
    """All (but for `left_out` older ones of the same names) with `after < o ≤ upto`."""

    after: int
    upto: int
    signals: tuple[SignalTexts, ...]
    left_out: int = 0

    def text(self, *, g: int | None = None, s: str | None = None) -> str:
        """As JSON, for the group or for one subscription."""
        texts = [signal.json for signal in self.signals]
        return encode_sig(g=g, s=s, a=self.after, b=self.upto, signals=texts, left_out=self.left_out)

    def packed(self, g: int) -> bytes:
        """As MessagePack, for the group."""
        return pack_sig(g=g, a=self.after, b=self.upto, signals=self.signals, left_out=self.left_out)


class Pending(Protocol):
    """Signals that wait for the next flush of a group."""

    def extend(self, after: int, upto: int, signals: tuple[SignalTexts, ...], left_out: int) -> None:
        """Add all (but for `left_out` older ones of the same names) with `after < o ≤ upto`."""
        ...

    def frames(self, flushed: int) -> list[Frame]:
        """What is to be sent; `flushed`: where the last frame of the group ended."""
        ...

    def clear(self) -> None:
        """They were taken."""
        ...

    @property
    def is_full(self) -> bool:
        """They are to leave before their time."""
        ...


@attrs.define(eq=False)
class Everything:
    """Frame after frame as they came."""

    is_full: bool = attrs.field(default=True, init=False)
    _frames: list[Frame] = attrs.field(factory=list, init=False)

    def extend(self, after: int, upto: int, signals: tuple[SignalTexts, ...], left_out: int) -> None:
        """One more frame."""
        self._frames.append(Frame(after, upto, signals))

    def frames(self, flushed: int) -> list[Frame]:
        """One for each."""
        return self._frames.copy()

    def clear(self) -> None:
        """They were taken."""
        self._frames.clear()


@attrs.define(eq=False)
class Newest:
    """One frame with the newest signal of each type and entity."""

    _upto: int = attrs.field(default=0, init=False)
    _texts: dict[tuple[bytes, bytes], SignalTexts] = attrs.field(factory=dict, init=False)  # ascending
    _left_out: int = attrs.field(default=0, init=False)
    _size: int = attrs.field(default=0, init=False)

    @property
    def is_full(self) -> bool:
        """A frame must not grow without a bound."""
        return self._size >= CONFLATED_BYTES

    def extend(self, after: int, upto: int, signals: tuple[SignalTexts, ...], left_out: int) -> None:
        """Newer ones take the places of older ones."""
        for signal in signals:
            if offset_of(signal.json) <= self._upto:
                continue  # it came before
            pair = pair_of(signal.json)
            older = self._texts.pop(pair, None)
            if older is not None:
                self._left_out += 1
                self._size -= len(older.json)
            self._texts[pair] = signal
            self._size += len(signal.json)
        self._left_out += left_out
        self._upto = upto

    def frames(self, flushed: int) -> list[Frame]:
        """One, when there is anything new."""
        return [Frame(flushed, self._upto, tuple(self._texts.values()), self._left_out)] if self._upto > flushed else []

    def clear(self) -> None:
        """They were taken."""
        self._texts.clear()
        self._left_out = self._size = 0
