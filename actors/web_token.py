"""JSON Web Tokens (RFC 7519): who the bearer of a signed token is, and a token for testing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import jwt

from actors.filters import Filter, InvalidFilter
from actors.filters.patterns import canonical_patterns
from actors.principal import Capability, Principal
from actors.settings import JwtSettings
from actors.token_keys import TokenKey

TOKEN_BYTES_MAX = 4_096  # a request's head has 8 KiB; it bounds what is parsed, and the capability with it
USER_CHARACTERS_MAX = 128

CAPABILITY = "cap"
_SHOWN = 64
_HERE = {  # whose clock is the platform's, checked below
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class InvalidToken(Exception):
    """The token lets nobody in. The text is for the operator, and has nothing of the token but its key's name.

    Attributes:
        told: what its bearer is told.
    """

    def __init__(self, message: str, told: str = "the token is not accepted") -> None:
        super().__init__(message)
        self.told = told


def verify(token: str, keys: Mapping[str, TokenKey], settings: JwtSettings, now: float) -> Principal:
    """Who the bearer is.

    Args:
        token: what was shown. keys: by `kid`; a token without one is checked with the only key.
        settings: what a token must say. now: seconds since the Unix epoch.

    Raises: InvalidToken.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise InvalidToken(f"a token of {len(token):,} characters; at most {TOKEN_BYTES_MAX:,}")
    claims = _signed(token, keys, settings)
    expires = _lifetime(claims, settings, now)
    return Principal(user=_user(claims), capability=_capability(claims), expires=expires)


def sign(claims: Mapping[str, Any], kid: str, key: TokenKey) -> str:
    """A token with these claims; the key has a half that signs."""
    return jwt.encode(dict(claims), key.sign, algorithm=key.algorithm, headers={"kid": kid})


def _signed(token: str, keys: Mapping[str, TokenKey], settings: JwtSettings) -> dict[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
        key = _key(header, keys)
        decoded: dict[str, Any] = jwt.decode(
            token,
            key.check,
            algorithms=[key.algorithm],
            audience=settings.audience,
            issuer=settings.issuer or None,
            options=cast("Any", {**_HERE, "require": ["exp", "aud", "sub", *(["iss"] if settings.issuer else [])]}),
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken(f"{type(error).__name__}{_detail(error)}") from None
    return decoded


def _key(header: Mapping[str, Any], keys: Mapping[str, TokenKey]) -> TokenKey:
    if "crit" in header:
        raise InvalidToken("an extension that must be understood (crit); none is known here")
    kid = header.get("kid")
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        known = ", ".join(keys) or "none"
        raise InvalidToken(f"no key {kid[:_SHOWN] if isinstance(kid, str) else kid!r} is known; known: {known}")
    if header.get("alg") != key.algorithm:
        raise InvalidToken(f"key {kid} is for {key.algorithm}, and the token says {str(header.get('alg'))[:_SHOWN]!r}")
    return key


def _detail(error: Exception) -> str:
    """What the library says of claims; of what it could not parse it might repeat something."""
    told = (
        jwt.InvalidAudienceError,
        jwt.InvalidIssuerError,
        jwt.MissingRequiredClaimError,
        jwt.InvalidSignatureError,
        jwt.InvalidAlgorithmError,
    )
    return f": {error}" if isinstance(error, told) else ""


def _lifetime(claims: Mapping[str, Any], settings: JwtSettings, now: float) -> float:
    expires = _time(claims, "exp")
    if now >= expires:
        raise InvalidToken(f"expired {now - expires:,.0f} s ago", "the token has expired")
    if expires > now + settings.max_age_s + settings.leeway_s:
        raise InvalidToken(f"valid for {expires - now:,.0f} s; at most {settings.max_age_s:,g} (auth.jwt.max_age_s)")
    for name in ("nbf", "iat"):
        if name in claims and _time(claims, name) > now + settings.leeway_s:
            raise InvalidToken(f"{name} is {claims[name] - now:,.0f} s ahead", "the token is not valid yet")
    return expires


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidToken(f"{name} is no number")
    if abs(value) > 2**53:
        raise InvalidToken(f"{name} is no time")
    return float(value)


def _user(claims: Mapping[str, Any]) -> str:
    user = claims["sub"]
    if not isinstance(user, str) or not 1 <= len(user) <= USER_CHARACTERS_MAX or not user.isprintable():
        raise InvalidToken(f"sub is no text of 1 to {USER_CHARACTERS_MAX} printable characters")
    return user


def _capability(claims: Mapping[str, Any]) -> Capability:
    """What the claim `cap` allows; what is not in it is not allowed."""
    value = claims.get(CAPABILITY)
    if not isinstance(value, dict):
        raise InvalidToken(f"the claim {CAPABILITY} is missing, or no object")
    fields = cast("dict[str, object]", value)
    try:
        return Capability(sub=_filter(fields.get("sub", [])), pub=_patterns(fields.get("pub", [])), **_flags(fields))
    except InvalidFilter as error:
        raise InvalidToken(f"{CAPABILITY}{error.at}: {error}") from None


def _filter(value: object) -> str | None:
    if value == []:
        return None
    try:
        return Filter.parse({"types": value} if isinstance(value, list) else value).canonical
    except InvalidFilter as error:
        raise InvalidFilter(str(error), at=f"/sub{error.at}") from None
    except RecursionError:
        raise InvalidFilter("nested too deep", at="/sub") from None


def _patterns(value: object) -> tuple[str, ...]:
    return () if value == [] else tuple(canonical_patterns(value, "/pub")) or (">",)


def _flags(fields: Mapping[str, object]) -> dict[str, Any]:
    flags = {name: fields.get(name, False) for name in ("hist", "admin")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise InvalidFilter("it is true or false", at=f"/{name}")
    return flags
