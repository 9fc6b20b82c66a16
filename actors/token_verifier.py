"""The actor that checks signed tokens: it has the keys, and reads a JWKS file again when that has changed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from actors.principal import NotAccepted, Principal
from actors.token_keys import JWKS_BYTES_MAX, InvalidKey, TokenKey, parse_jwks
from actors.web_token import InvalidToken, verify
from runtime import Actor, Context

if TYPE_CHECKING:
    from actors.env import Env

VERIFIER = "tokens"
LOOK_S = 2.0  # between two looks at the file


class TokenVerifier(Actor["Env"]):
    """Checks tokens with the keys of `[auth.jwt]`; nothing of a token is kept, or logged."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        settings = env.settings.auth.jwt
        self._settings = settings
        self._configured = settings.parsed()
        self._keys: dict[str, TokenKey] = dict(self._configured)
        self._looked = -math.inf
        self._seen: object = None
        if settings.jwks:
            ctx.block_concurrency_while(self._look)  # the first token does not come before the keys

    async def begin(self) -> None:
        """The server is up: a file that cannot be used is told at once."""

    async def principal(self, token: str) -> Principal | NotAccepted:
        """Who shows this token."""
        if self._settings.jwks and self.ctx.now() >= self._looked + LOOK_S:
            await self._look()
        try:
            return verify(token, self._keys, self._settings, self.ctx.now())
        except InvalidToken as error:
            self.ctx.log.info("a token is not accepted", reason=str(error))
            return NotAccepted(error.told)

    async def _look(self) -> None:
        """Read the file if it has changed; when it cannot be read, the keys from before stay."""
        self._looked = self.ctx.now()
        try:
            read = await self.ctx.run_blocking(_read, Path(self._settings.jwks), self._seen)
            if read is None:
                return
            self._seen, data = read
            self._keys = {**parse_jwks(data), **self._configured}
        except (OSError, InvalidKey) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.ctx.log.warning("the JWKS file cannot be used", path=self._settings.jwks, reason=reason)
        else:
            self.ctx.log.info("keys were read", path=self._settings.jwks, kids=sorted(self._keys))


def _read(path: Path, seen: object) -> tuple[object, bytes] | None:
    """What tells this version of the file from others, and its bytes; None when it was seen."""
    with path.open("rb") as file:
        status = path.stat()
        version = (status.st_ino, status.st_size, status.st_mtime_ns)
        return None if version == seen else (version, file.read(JWKS_BYTES_MAX + 1))
