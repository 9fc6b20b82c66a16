"""The composition root: an app, a store on disk and a network, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import trio
from structlog.stdlib import BoundLogger

from runtime.app import App
from runtime.config import ServerConfig, TlsConfig
from runtime.faults import Faults
from runtime.frontend import serve_node
from runtime.node import open_node
from runtime.platform import Platform
from runtime.storage.bookmarks import Retention
from runtime.storage.shared import SharedStore
from runtime.tcp import TcpListener
from runtime.transport.certificate import Certificate, CertificateUnusable
from runtime.transport.config import TransportConfig
from runtime.transport.forwarded import Proxies, parse_networks


async def serve(
    app: App,
    *,
    config: ServerConfig,
    settings: Any,
    platform: Platform,
    ready: Callable[[str], None],
    faults: Faults | None = None,
) -> None:
    """Serve an app and return after a graceful shutdown.

    On SIGTERM or SIGINT the app may ask its clients to leave, which a second signal cuts short. Then it stops
    accepting, answers what it has begun, closes every socket with 1001, and commits. Under TLS, SIGHUP reads the
    certificate again, for the connections that come from then on; one that cannot be used changes nothing. Without TLS
    it is logged and changes nothing.

    Args:
        ready: called with the URL once connections are accepted.
        faults: what an operator may let fail, if the platform is one of `with_faults`.

    Raises:
        OSError: the address cannot be used. CertificateUnusable: what `[tls]` names cannot be used. Others: the data
            directory cannot be opened (see `SharedStore`).
    """
    log = structlog.stdlib.get_logger("heliograph")
    retention = Retention(age_s=config.history_days * 86_400, total_bytes=config.history_bytes)
    # From the beginning: a signal that nobody receives ends the process.
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        certificate = await _certificate(config.tls, platform, log)
        store = SharedStore(config.data, platform=platform, retention=retention)

        async def stop() -> None:
            async for number in signals:
                log.info("shutting_down", signal=signal.Signals(number).name)
                return

        listeners = await platform.listen(config.host, config.port)
        async with (
            open_node(
                app,
                settings=settings,
                store=store,
                platform=platform,
                log=log,
                objects=config.data / "objects",
                retention=retention,
                faults=faults,
            ) as node,
            _reloading(certificate, hangups, log),
        ):
            await serve_node(
                node,
                listeners,
                config=TransportConfig(
                    hosts=(config.host, *config.allowed_hosts),
                    origins=config.allowed_origins,
                    proxies=Proxies(trusted=parse_networks(config.proxy.trusted), family=config.proxy.headers),
                    connections=config.connections,
                    body_bytes=config.body_bytes,
                ),
                ready=lambda: ready(_url(config.host, listeners[0], tls=certificate is not None)),
                stop=stop,
                certificate=certificate,
            )


async def _certificate(config: TlsConfig, platform: Platform, log: BoundLogger) -> Certificate | None:
    if not config.certificate:
        return None
    certificate = await Certificate.read(Path(config.certificate), Path(config.key), platform.run_blocking)
    log.info("certificate_read", sha256=certificate.sha256)
    return certificate


@asynccontextmanager
async def _reloading(
    certificate: Certificate | None, hangups: AsyncIterator[int], log: BoundLogger
) -> AsyncGenerator[None]:
    """Read the certificate again on SIGHUP, while the block runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_reload, certificate, hangups, log)
        yield
        nursery.cancel_scope.cancel()


async def _reload(certificate: Certificate | None, hangups: AsyncIterator[int], log: BoundLogger) -> None:
    async for _ in hangups:
        if certificate is None:
            log.warning("nothing_to_reload", signal="SIGHUP", reason="there is no [tls]; the rest is read at the start")
            continue
        try:
            await certificate.reload()
        except CertificateUnusable as error:
            log.error("certificate_refused", reason=str(error), sha256=certificate.sha256)  # noqa: TRY400 -- says all
        else:
            log.info("certificate_read", sha256=certificate.sha256)


def _url(host: str, listener: trio.abc.Listener[trio.abc.Stream], *, tls: bool) -> str:
    assert isinstance(listener, TcpListener)
    port = listener.socket.getsockname()[1]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
