"""What a capability makes of a request: narrower, or an error (signals.v1, section 2.11)."""

from __future__ import annotations

import attrs

from actors.filters import Filter, InvalidFilter
from actors.filters.conjunction import conjunction
from actors.principal import Capability
from actors.protocol.codes import BAD_FILTER, FORBIDDEN
from actors.protocol.fields import Refused
from actors.protocol.requests import Hist, Mod, Pub, Sub

Restricted = Sub | Mod | Pub | Hist


def allowed(request: Restricted, capability: Capability) -> Restricted:
    """The request with the filter that counts: the client's AND the capability's.

    Raises: Refused.
    """
    match request:
        case Pub():
            if not capability.may_publish(request.draft.type):
                message = f"the token does not allow to publish {request.draft.type!r}"
                raise Refused(message, at="/signal/type", error=FORBIDDEN)
            return request
        case Hist() if not capability.hist:
            raise Refused("the token does not allow to read history", at="", error=FORBIDDEN)
        case Mod(change=change):
            if change.filter is None:
                return request
            filter_ = narrowed(change.filter, capability)
            return attrs.evolve(request, change=attrs.evolve(change, filter=filter_))
        case _:
            filter_ = narrowed(request.filter, capability)
            return request if filter_ is request.filter else attrs.evolve(request, filter=filter_)


def narrowed(filter_: Filter, capability: Capability, where: str = "") -> Filter:
    """The filter that counts; `where`: a JSON Pointer to the request.

    Raises: Refused, when it would let nothing pass or is over a limit of the language.
    """
    if capability.sub == "{}":
        return filter_
    try:
        both = None if capability.sub is None else conjunction(filter_.canonical, capability.sub)
    except InvalidFilter as error:
        message = f"this filter and the one of the token at once: {error}"
        raise Refused(message, at=f"{where}/filter{error.at}", error=BAD_FILTER) from None
    if both is None:
        raise Refused("the token does not allow anything of this filter", at=f"{where}/filter", error=FORBIDDEN)
    return both
