"""One publication on its way to the shards: which groups get which signals, in one small message for each shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from actors.groups import FRAME_BYTES, FRAME_SIGNALS, Group, Groups
from actors.signals import Signal, SignalTexts

STEPS = 512  # evaluations between two moments for the rest of the server: some 0.3 ms
FRAMES_MAX = 100_000  # of one publication to one shard, some 8 MiB; what is beyond, the shard reads from the log


@attrs.frozen
class Delivery:
    """The same signals for some groups of a shard; what becomes the next frame of each.

    Attributes:
        groups: their numbers. afters: where each one's frame begins, its `a`. upto: where all of them end, their `b`.
        signals: their texts, shared by all deliveries of the publication; none only moves the cursors.
    """

    groups: tuple[int, ...]
    afters: tuple[int, ...]
    upto: int
    signals: tuple[SignalTexts, ...]


@attrs.define(eq=False)
class _Bundle:
    groups: list[int] = attrs.Factory(list)
    afters: list[int] = attrs.Factory(list)


@attrs.define(eq=False)
class Fanout:
    """Collects what every shard gets, and moves the groups' cursors.

    Attributes:
        shards: what each is to be sent. behind: those that get less than there is, and must compare.
        asked: filters that a signal was held against. refused: those of them that did not let it through.
    """

    shards: dict[str, list[Delivery]] = attrs.field(factory=dict, init=False)
    behind: set[str] = attrs.field(factory=set, init=False)
    asked: int = attrs.field(default=0, init=False)
    refused: int = attrs.field(default=0, init=False)
    _frames: dict[str, int] = attrs.field(factory=dict, init=False)

    def publish(self, groups: Groups, signals: Sequence[Signal]) -> Iterator[int]:
        """Evaluate the filters that may let a signal through; yields now and then so that others can run."""
        steps = 0
        for piece in _pieces(signals):
            # Bit n is set when the piece's signal n is for the group: small, and equal for groups that match the same.
            masks: dict[Group, int] = {}
            before = steps
            for n, signal in enumerate(piece):
                bit = 1 << n
                for group in groups.matching(signal):
                    if group is not None:
                        masks[group] = masks.get(group, 0) | bit
                    else:
                        self.refused += 1
                    steps += 1
                    if steps % STEPS == 0:
                        yield steps
            self.asked += steps - before
            same: dict[int, list[Group]] = {}
            for group, mask in masks.items():
                same.setdefault(mask, []).append(group)
            every = [SignalTexts(signal.json) for signal in piece] if same else []
            for mask, members in same.items():
                texts = tuple(text for n, text in enumerate(every) if mask >> n & 1)
                for at in range(0, len(members), STEPS):
                    self._add(members[at : at + STEPS], piece[-1].o, texts)
                    steps += STEPS
                    if at:
                        yield steps

    def move(self, groups: Iterable[Group], head: int) -> None:
        """Frames without signals that move the cursors of quiet groups to the head."""
        self._add(groups, head, ())

    def _add(self, groups: Iterable[Group], upto: int, signals: tuple[SignalTexts, ...]) -> None:
        bundles: dict[str, _Bundle] = {}
        for group in groups:
            for shard in group.shards:
                bundle = bundles.get(shard)
                if bundle is None:
                    bundle = bundles[shard] = _Bundle()
                bundle.groups.append(group.number)
                bundle.afters.append(group.cursor)
            group.cursor = upto
        for shard, bundle in bundles.items():
            count = self._frames[shard] = self._frames.get(shard, 0) + len(bundle.groups)
            if count > FRAMES_MAX:
                self.behind.add(shard)
            else:
                delivery = Delivery(tuple(bundle.groups), tuple(bundle.afters), upto, signals)
                self.shards.setdefault(shard, []).append(delivery)


def _pieces(signals: Sequence[Signal]) -> Iterator[Sequence[Signal]]:
    """What fits one frame each."""
    begin = size = 0
    for at, signal in enumerate(signals):
        if at > begin and (at - begin >= FRAME_SIGNALS or size + len(signal.json) > FRAME_BYTES):
            yield signals[begin:at]
            begin, size = at, 0
        size += len(signal.json)
    yield signals[begin:]
