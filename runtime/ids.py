"""Ids of actors, the same bits as Durable Objects' for the same unique key and name.

`key = SHA256(unique_key)`; the first half of an id is 16 bytes of `HMAC(key, name)` (or random), the second half is 16
bytes of `HMAC(key, first half)`, so that ids of another namespace and invented ids can be told.

A facet is stored under the id of the actor that it belongs to, followed by 16 random bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from functools import lru_cache

import attrs

from runtime import limits
from runtime.errors import InvalidId

ID_BYTES = 32
TOKEN_BYTES = 16
_NAMES_KEPT = 1_024
_HEX = re.compile(r"[0-9a-fA-F]{64}")


@attrs.frozen(repr=False)
class ActorId:
    """One actor: its namespace, its 32 bytes, and the name it was reached by, if any.

    Two ids are equal when namespace and bytes are; the name does not count. Where a facet is stored is one too, with
    more bytes and the facet's name; an app never sees it.
    """

    namespace: str
    raw: bytes
    name: str | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return self.raw.hex()

    def __repr__(self) -> str:
        if self.is_facet:
            return f"{self.namespace}({self.raw.hex()[:12]}…).facets({self.name!r})"
        return (
            f"{self.namespace}({self.name!r})" if self.name is not None else f"{self.namespace}({self.raw.hex()[:12]}…)"
        )

    @property
    def is_facet(self) -> bool:
        """It is where a facet is stored."""
        return len(self.raw) > ID_BYTES

    @property
    def depth(self) -> int:
        """1 for an actor of a namespace, 2 for a facet of it, 3 for a facet of that."""
        return 1 + (len(self.raw) - ID_BYTES) // TOKEN_BYTES


@attrs.frozen(repr=False)
class TextId(ActorId):
    """The id that a facet was given as a text: `str(id)` is that text, and it has no name. It leads nowhere."""

    @classmethod
    def of(cls, namespace: str, text: str) -> TextId:
        """The id that is this text."""
        return cls(namespace, text.encode("utf-8", "surrogatepass"))

    def __str__(self) -> str:
        return self.raw.decode("utf-8", "surrogatepass")

    def __repr__(self) -> str:
        return f"{self.namespace}({str(self)!r})"


@lru_cache(maxsize=_NAMES_KEPT)  # most requests are for few names, and two HMACs cost more than the rest of a stub
def id_from_name(namespace: str, name: str) -> ActorId:
    """The id of a name; the same for ever. The name is kept on the id up to 1,024 bytes."""
    key = _key(namespace)
    first = _mac(key, name.encode("utf-8", "surrogatepass"))
    kept = name if len(name.encode("utf-8", "surrogatepass")) <= limits.NAME_BYTES else None
    return ActorId(namespace, first + _mac(key, first), kept)


def new_unique_id(namespace: str, token_bytes: Callable[[int], bytes]) -> ActorId:
    """A random id that no name gives."""
    first = token_bytes(16)
    return ActorId(namespace, first + _mac(_key(namespace), first))


def id_from_string(namespace: str, text: str) -> ActorId:
    """The id that `str(id)` printed; it has no name.

    Raises:
        InvalidId: not 64 hex digits, or not an id of this namespace.
    """
    if not _HEX.fullmatch(text):
        raise InvalidId("Invalid Durable Object ID: must be 64 hex digits")
    raw = bytes.fromhex(text)
    if not hmac.compare_digest(_mac(_key(namespace), raw[:16]), raw[16:]):
        raise InvalidId("Durable Object ID is not valid for this namespace.")
    return ActorId(namespace, raw)


def facet_address(actor: ActorId, token: bytes, name: str) -> ActorId:
    """Where a facet of an actor is stored."""
    return ActorId(actor.namespace, actor.raw + token, name)


def end_below(actor: ActorId) -> bytes:
    """The end of the range of bytes in which the facets of an actor are, which begins after its own."""
    return actor.raw + b"\xff" * (limits.FACET_DEPTH * TOKEN_BYTES)


def _key(namespace: str) -> bytes:
    return hashlib.sha256(namespace.encode()).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")[:16]
