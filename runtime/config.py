"""`heliograph.toml` as attrs values, where a mistake names the key, what was seen and what is allowed.

The tables `[server]`, `[tls]` and `[proxy]` become a `ServerConfig`; every other table belongs to the app's settings
class.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import attrs

from runtime import limits
from runtime.tables import Tables
from runtime.transport.forwarded import Family, parse_networks

T = TypeVar("T")

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]


class ConfigError(Exception):
    """The configuration cannot be used; the text is all that a person needs to mend it."""


@attrs.frozen(kw_only=True)
class TlsConfig:
    """The table `[tls]`; without it the server speaks HTTP and WebSocket in the clear.

    Attributes:
        certificate: the file of the certificate, and of those that lead from it to its authority, as PEM.
        key: the file of its private key, as PEM, not encrypted.
    """

    certificate: str = ""
    key: str = ""

    def __attrs_post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key come together; set both, or neither")


def _check_networks(_: Any, __: attrs.Attribute[Any], texts: Sequence[str]) -> None:
    parse_networks(texts)


@attrs.frozen(kw_only=True)
class ProxyConfig:
    """The table `[proxy]`: whose word about a client's address, and the name it called, is believed.

    Attributes:
        trusted: addresses and networks of proxies, such as `127.0.0.1` and `10.0.0.0/8`.
        headers: what they set: `x-forwarded` (`X-Forwarded-For`, `-Proto`, `-Host`) or `forwarded` (RFC 7239).
    """

    trusted: tuple[str, ...] = attrs.field(default=(), validator=_check_networks)
    headers: Family = "x-forwarded"


@attrs.frozen(kw_only=True)
class ServerTable:
    """The table `[server]`.

    Attributes:
        host: the address to listen on; beyond this machine only with authentication (see `check_exposure`).
        port: the TCP port; 0 picks a free one.
        data: the folder of everything durable, made if missing; relative to the working directory.
        history_days: how long what was changed can be restored; 0 keeps nothing of it.
        history_bytes: how much of that is kept at most, the newest; as much again of SQL classes.
        allowed_hosts: names the `Host` header may have, beside `host` and the loopback names.
        allowed_origins: origins (`https://example.org`) a browser may connect from, beside the server's own.
        connections: open at the same time; beyond that a client gets 503.
        body_bytes: the longest request body.
        log_level: events below it are not logged.
        log_format: `auto` is `console` on a terminal and `json` elsewhere.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8787, validator=[attrs.validators.ge(0), attrs.validators.le(65_535)])
    data: Path = Path("data")
    history_days: float = attrs.field(default=30.0, validator=[attrs.validators.ge(0), attrs.validators.le(3_650)])
    history_bytes: int = attrs.field(default=1 << 30, validator=attrs.validators.ge(0))
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    connections: int = attrs.field(default=50_000, validator=attrs.validators.ge(1))
    body_bytes: int = attrs.field(default=limits.REQUEST_BODY_BYTES, validator=attrs.validators.ge(1))
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"


@attrs.frozen(kw_only=True)
class ServerConfig(ServerTable):
    """What an operator sets about the server, whatever app it serves.

    Attributes:
        tls: the table `[tls]`.
        proxy: the table `[proxy]`.
    """

    tls: TlsConfig = TlsConfig()
    proxy: ProxyConfig = ProxyConfig()


def load_config(
    path: Path | None, settings: type[T], *, environ: Mapping[str, str] = os.environ
) -> tuple[ServerConfig, T]:
    """Read a configuration file; with `path` None every key has its default.

    Args:
        path: a TOML file.
        settings: an attrs class whose fields are the file's other tables.
        environ: where `"env:NAME"` looks.

    Raises:
        ConfigError: every mistake of the file, one a line.
    """
    source = "the defaults" if path is None else str(path)
    document = {} if path is None else _parse(path)
    own = {name: document.pop(name, {}) for name in ("server", "tls", "proxy")}
    tables = Tables(environ)
    server = tables.structure(own["server"], ServerTable, path="server")
    tls = tables.structure(own["tls"], TlsConfig, path="tls")
    proxy = tables.structure(own["proxy"], ProxyConfig, path="proxy")
    values = tables.structure(document, settings, siblings=list(own))
    if server is None or tls is None or proxy is None or values is None:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in tables.mistakes))
    return ServerConfig(**attrs.asdict(server, recurse=False), tls=tls, proxy=proxy), values


@runtime_checkable
class Authenticates(Protocol):
    """What the settings of an app that knows authentication have.

    They may also have `authentication_key`, the key a person sets to switch it on, such as `auth.tokens`.
    """

    def authenticated(self) -> bool:
        """Whether every client must prove who it is."""
        ...


def check_exposure(config: ServerConfig, settings: object) -> None:
    """Refuse to be reachable from other machines without authentication.

    Raises:
        ConfigError: `host` is not a loopback address, and the settings have no authentication configured.
    """
    if _is_loopback(config.host):
        return
    remedy = 'set server.host (or --host) to "127.0.0.1"'
    if not isinstance(settings, Authenticates):
        missing = "this app has none"
    elif not settings.authenticated():
        missing = "none is configured"
        key = getattr(settings, "authentication_key", None)
        remedy = f"set {key}, or {remedy}" if key else f"configure it, or {remedy}"
    else:
        return
    raise ConfigError(
        f"server.host is {config.host!r}: listening for other machines needs authentication, and {missing}; {remedy}"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
