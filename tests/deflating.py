"""A client that compresses, on a stream: wsproto's permessage-deflate, which nobody here wrote."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage
from wsproto.extensions import PerMessageDeflate


class DeflatingClient:
    """One connection.

    Attributes:
        agreed: what the server answered about extensions.
        received: every byte after the handshake.
    """

    def __init__(self, stream, path, host, offer=None, subprotocols=()):
        self.stream = stream
        self.agreed = None
        self.received = b""
        self._wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._request = Request(
            host=host, target=path, extensions=[offer or PerMessageDeflate()], subprotocols=list(subprotocols)
        )
        self._message = []

    async def open(self):
        await self.stream.send_all(self._wire.send(self._request))
        accepted = await self._next()
        assert isinstance(accepted, AcceptConnection), accepted
        self.agreed = accepted.extensions

    async def send(self, message):
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        await self.stream.send_all(self._wire.send(event))

    async def ping(self, payload):
        await self.stream.send_all(self._wire.send(Ping(payload)))

    async def receive(self):
        """The next message, the payload of a pong, or code and reason of a close."""
        parts = []
        while True:
            event = await self._next()
            if isinstance(event, Pong):
                return event.payload
            if isinstance(event, CloseConnection):
                return event.code, event.reason
            assert isinstance(event, (TextMessage, BytesMessage)), event
            parts.append(event.data)
            if event.message_finished:
                return type(event.data)().join(parts)

    async def _next(self):
        while True:
            for event in self._wire.events():
                return event
            data = bytes(await self.stream.receive_some())
            assert data, "the connection ended"
            if self.agreed is not None:
                self.received += data
            self._wire.receive_data(data)


@asynccontextmanager
async def deflating(stream, path="/", host="localhost", offer=None, subprotocols=()):
    """A client whose handshake is done."""
    client = DeflatingClient(stream, path, host, offer, subprotocols)
    try:
        await client.open()
        yield client
    finally:
        await trio.aclose_forcefully(stream)
