"""One HTTP exchange over a stream, as a client."""

from __future__ import annotations

from collections.abc import Mapping

import h11
import trio

from runtime.actor.http import Response


async def write_request(
    stream: trio.abc.Stream, method: str, target: str, host: str, body: bytes, headers: Mapping[str, str]
) -> None:
    """Send a request and ask for the connection to be closed after the answer."""
    client = h11.Connection(h11.CLIENT)
    fields = {"host": host, "connection": "close", "content-length": str(len(body)), **headers}
    data = client.send(h11.Request(method=method, target=target, headers=list(fields.items())))
    await stream.send_all(data + client.send(h11.Data(data=body)) + client.send(h11.EndOfMessage()))


async def read_response(stream: trio.abc.Stream, method: str) -> Response:
    """Read one response to its end.

    Raises:
        ConnectionError: the connection ended before.
    """
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    status, headers, body = 0, {}, bytearray()
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            data = await stream.receive_some()
            if not data and client.their_state is h11.SEND_RESPONSE:
                raise ConnectionError("the server closed the connection before its answer was complete")
            client.receive_data(bytes(data))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Response(status, bytes(body), headers)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("the server closed the connection before its answer was complete")
