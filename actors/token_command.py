"""`heliograph token`: a signed token for testing."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import click

from actors.settings import JwtSettings, Settings
from actors.web_token import InvalidToken, sign, verify
from runtime import ConfigError, load_config

_UNITS = {"s": 1, "m": 60, "h": 3_600}
_CONFIG = Path("heliograph.toml")


class UnusableError(click.ClickException):
    """What was asked for cannot be done, as with a wrong option."""

    exit_code = 2


def _duration(_: click.Context, __: click.Parameter, text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", text)
    if found is None:
        raise click.BadParameter(f"{text!r}: a whole number with s, m or h, such as 5m")
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@click.option("--user", required=True, help="Whose token it is (`sub`).")
@click.option("--sub", multiple=True, metavar="P", help="Types that may be received, such as 'price.>'; repeatable.")
@click.option("--pub", multiple=True, metavar="P", help="Types that may be published; repeatable.")
@click.option("--hist", is_flag=True, help="Pages of history may be read.")
@click.option("--admin", is_flag=True, help="The state of the sources may be seen.")
@click.option("--ttl", default="5m", show_default=True, callback=_duration, help="How long it is valid: 90s, 5m, 1h.")
@click.option("--kid", help="Which key signs.  [default: the first that can]")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=_CONFIG,
    show_default=True,
    help="The configuration with the key.",
)
def token(
    user: str,
    sub: tuple[str, ...],
    pub: tuple[str, ...],
    hist: bool,
    admin: bool,
    ttl: int,
    kid: str | None,
    config: Path,
) -> None:
    """Print a token for testing, signed with a key of [auth.jwt].

    That key is a secret (HS256), or in PEM the private one.
    """
    try:
        _, settings = load_config(config, Settings)
    except ConfigError as error:
        raise UnusableError(str(error)) from error
    click.echo(_signed(settings.auth.jwt, kid, user, {"sub": sub, "pub": pub, "hist": hist, "admin": admin}, ttl))


def _signed(settings: JwtSettings, kid: str | None, user: str, capability: dict[str, Any], ttl: int) -> str:
    keys = settings.parsed()
    able = [name for name, key in keys.items() if key.sign is not None]
    chosen = kid or next(iter(able), None)
    if chosen not in able:
        raise UnusableError(
            f"key {chosen!r} of auth.jwt.keys cannot sign; it needs a secret or a private key, "
            f"which have: {', '.join(able) or 'none'}"
        )
    now = int(time.time())  # noqa: TID251 - of the machine the token is for
    claims = {"sub": user, "aud": settings.audience, "iat": now, "exp": now + ttl, "cap": capability}
    signed = sign(claims | ({"iss": settings.issuer} if settings.issuer else {}), chosen, keys[chosen])
    try:
        verify(signed, keys, settings, now)
    except InvalidToken as error:
        raise UnusableError(f"the server would refuse it: {error}") from None
    return signed
