"""A network between a browser and a server that can go silent, as one does that a phone has left."""

from __future__ import annotations

import socket
import threading  # noqa: TID251 - the browser is another process, and so is the server
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536


class Relay:
    """Passes on what comes to a port of its own; what goes through it is lost from `lose` on.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lost = threading.Event()  # of the connections there are; a new one has a new event
        self._sockets: list[socket.socket] = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self) -> None:
        """Both ends of the connections there are hear nothing more, not even that they have ended."""
        self._lost.set()
        self._lost = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(self._to)
                self._sockets += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target, self._lost), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, lost: threading.Event) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            if not lost.is_set():
                target.sendall(data)
        if not lost.is_set():
            target.shutdown(socket.SHUT_WR)
