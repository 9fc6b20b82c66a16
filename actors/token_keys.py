"""The keys that tokens are signed with: from the configuration, and from a JWKS file (RFC 7517)."""

from __future__ import annotations

import json
from typing import Any, Literal, cast, get_args

import attrs
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]

SECRET_BYTES_MIN = 32  # RFC 7518, section 3.2
RSA_BITS_MIN = 2_048  # RFC 7518, section 3.3
RSA_BITS_MAX = 8_192  # checking a signature takes 16 times as long as with 2,048
JWKS_BYTES_MAX = 262_144
JWKS_KEYS_MAX = 64
KID_CHARACTERS_MAX = 128

_KINDS: dict[str, Any] = {
    "RS256": rsa.RSAPublicKey,
    "ES256": ec.EllipticCurvePublicKey,
    "EdDSA": ed25519.Ed25519PublicKey,
}
_PRIVATE = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
_OF_TYPE = {"oct": "HS256", "RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}


class InvalidKey(ValueError):
    """The text is no key that tokens can be checked with; what it says has nothing of the text."""


@attrs.frozen(eq=False)
class TokenKey:
    """A key, with the one algorithm that it is for: what a token says about its algorithm decides nothing.

    Attributes:
        check: what signatures are checked with. sign: what they are made with, when that is known.
    """

    algorithm: Algorithm
    check: Any = attrs.field(repr=False)
    sign: Any = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, algorithm: Algorithm, text: str) -> TokenKey:
        """A secret for `HS256`; for the others a public key in PEM, or a private one, whose public half checks.

        Raises: InvalidKey.
        """
        if algorithm == "HS256":
            return cls._secret(text.encode())
        try:
            data = text.encode()
            found: Any = (
                serialization.load_pem_private_key(data, None)
                if "PRIVATE KEY-----" in text
                else serialization.load_pem_public_key(data)
            )
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidKey(f"for {algorithm} it is a key in PEM, without a password") from None
        private = found if isinstance(found, _PRIVATE) else None
        return cls._public(algorithm, found if private is None else private.public_key(), private)

    @classmethod
    def _secret(cls, secret: bytes) -> TokenKey:
        if len(secret) < SECRET_BYTES_MIN:
            raise InvalidKey(
                f"a secret of {len(secret)} bytes; at least {SECRET_BYTES_MIN}, such as `openssl rand -hex 32` prints"
            )
        # The library refuses PEM as a secret when a token comes; better here, where somebody can mend it.
        if b"-----BEGIN" in secret:
            raise InvalidKey("a secret that is a key in PEM; say its algorithm")
        return cls("HS256", secret, secret)

    @classmethod
    def _public(cls, algorithm: Algorithm, public: Any, private: Any = None) -> TokenKey:
        kind = _KINDS[algorithm]
        if not isinstance(public, kind):
            raise InvalidKey(f"for {algorithm} it is {kind.__name__}, not {type(public).__name__.lstrip('_')}")
        if isinstance(public, rsa.RSAPublicKey) and not RSA_BITS_MIN <= public.key_size <= RSA_BITS_MAX:
            raise InvalidKey(
                f"an RSA key of {public.key_size:,} bits; {RSA_BITS_MIN:,} to {RSA_BITS_MAX:,} are allowed"
            )
        if isinstance(public, ec.EllipticCurvePublicKey) and not isinstance(public.curve, ec.SECP256R1):
            raise InvalidKey(f"for {algorithm} the curve is P-256, not {public.curve.name}")
        return cls(algorithm, public, private)


def parse_jwks(data: bytes) -> dict[str, TokenKey]:
    """The keys of a JWKS document by their `kid`; those for encryption, or of other kinds, are left out.

    A key without `alg` is for the usual algorithm of its type.

    Raises: InvalidKey.
    """
    if len(data) > JWKS_BYTES_MAX:
        raise InvalidKey(f"a JWKS of {len(data):,} bytes; at most {JWKS_BYTES_MAX:,}")
    try:
        keys = json.loads(data)["keys"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise InvalidKey('no JWKS; it is a JSON object with an array "keys"') from None
    if not isinstance(keys, list) or len(keys) > JWKS_KEYS_MAX:
        raise InvalidKey(f'a JWKS has an array "keys" of at most {JWKS_KEYS_MAX}')
    found: dict[str, TokenKey] = {}
    for position, value in enumerate(keys):
        if not isinstance(value, dict):
            raise InvalidKey(f"key {position + 1} of the JWKS is no object")
        fields = cast("dict[str, Any]", value)
        named = fields.get("alg", _OF_TYPE.get(str(fields.get("kty"))))
        if fields.get("use", "sig") != "sig" or named not in get_args(Algorithm):
            continue
        algorithm = cast("Algorithm", named)
        kid = fields.get("kid")
        if not isinstance(kid, str) or not kid or len(kid) > KID_CHARACTERS_MAX or kid in found:
            raise InvalidKey(f"key {position + 1} of the JWKS has no kid, a long one, or that of another")
        try:
            key = jwt.PyJWK({**fields, "alg": algorithm}, algorithm).key
            found[kid] = TokenKey._secret(key) if algorithm == "HS256" else TokenKey._public(algorithm, _half(key))
        except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            shown = str(error) if isinstance(error, InvalidKey) else "cannot be read"
            raise InvalidKey(f"key {position + 1} of the JWKS: {shown}") from None
    return found


def _half(key: Any) -> Any:
    return key.public_key() if isinstance(key, _PRIVATE) else key
