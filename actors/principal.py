"""Who somebody is and what they may do, whatever they proved it with."""

from __future__ import annotations

from functools import lru_cache

import attrs

from actors.filters.patterns import NameTest, compile_patterns

_CAPABILITIES_KEPT = 256


@attrs.frozen(kw_only=True)
class Capability:
    """What may be done; by default nothing (signals.v1, section 2.11).

    Attributes:
        sub: canonical text of the filter that every filter of theirs is ANDed with; None lets no signal pass.
        pub: patterns of the types that may be published.
        hist: pages of history may be read. admin: what concerns the server, not its signals, may be seen.
    """

    sub: str | None = None
    pub: tuple[str, ...] = ()
    hist: bool = False
    admin: bool = False

    def may_publish(self, type: str) -> bool:  # noqa: A002 - the protocol's word
        """Whether signals of this type may be published."""
        test = _types(self.pub)
        return bool(self.pub) and (test is None or bool(test(type)))


EVERYTHING = Capability(sub="{}", pub=(">",), hist=True, admin=True)


@attrs.frozen(kw_only=True)
class Principal:
    """Somebody who has been let in; deeply immutable, without the token that proved it.

    Attributes:
        user: a name for them; "" where nobody has to prove anything.
        capability: what they may do.
        expires: until when, in seconds since the Unix epoch; None: for as long as they like.
    """

    user: str
    capability: Capability
    expires: float | None = None


@attrs.frozen
class NotAccepted:
    """A token, or none, lets nobody in; `told`: what its bearer is told."""

    told: str


ANYBODY = Principal(user="", capability=EVERYTHING)


@lru_cache(maxsize=_CAPABILITIES_KEPT)
def _types(patterns: tuple[str, ...]) -> NameTest | None:
    return compile_patterns([] if patterns == (">",) else list(patterns))
