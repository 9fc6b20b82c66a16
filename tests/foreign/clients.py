"""`python -m tests.foreign.clients NAME URL WANTED`: a client on one of Python's WebSocket libraries.

Writes a line of JSON with `received` whenever that has grown, and one with everything at the end.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections.abc import Callable

from tests.foreign.follower import SUBPROTOCOL, Follower

NORMAL = 1000
AGAIN_S = 0.05


def with_websockets(url: str, follower: Follower) -> int | None:
    """One connection: until the follower has everything, or it ends; returns the code it was closed with."""
    import websockets

    async def run() -> int | None:
        async with websockets.connect(url, subprotocols=[SUBPROTOCOL]) as ws:
            await ws.send(follower.hello())
            async for text in ws:
                hear(follower, text)
                if follower.done:
                    await ws.close(NORMAL)
        return ws.close_code

    return asyncio.run(run())


def with_aiohttp(url: str, follower: Follower) -> int | None:
    """The same."""
    import aiohttp

    async def run() -> int | None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=[SUBPROTOCOL], compress=15) as ws,
        ):
            await ws.send_str(follower.hello())
            async for message in ws:
                hear(follower, message.data)
                if follower.done:
                    await ws.close(code=NORMAL)
        return ws.close_code

    return asyncio.run(run())


def with_websocket_client(url: str, follower: Follower) -> int | None:
    """The same."""
    import websocket

    ws = websocket.create_connection(url, subprotocols=[SUBPROTOCOL])
    try:
        ws.send(follower.hello())
        while True:
            opcode, data = ws.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return struct.unpack_from("!H", data)[0] if data else None
            if not follower.done:
                hear(follower, data)
                if follower.done:
                    ws.send_close(NORMAL)
    finally:
        ws.shutdown()


def with_trio_websocket(url: str, follower: Follower) -> int | None:
    """The same."""
    import trio
    import trio_websocket

    async def run() -> int | None:
        async with trio_websocket.open_websocket_url(url, subprotocols=[SUBPROTOCOL]) as ws:
            await ws.send_message(follower.hello())
            while not follower.done:
                hear(follower, await ws.get_message())
            await ws.aclose(NORMAL)
        return ws.closed.code

    return trio.run(run)


def with_picows(url: str, follower: Follower) -> int | None:
    """The same."""
    import picows

    class Listener(picows.WSListener):
        code: int | None = None

        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            transport.send(picows.WSMsgType.TEXT, follower.hello().encode())

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                self.code = frame.get_close_code()
                transport.disconnect()
            elif frame.msg_type == picows.WSMsgType.TEXT and not follower.done:
                hear(follower, frame.get_payload_as_bytes())
                if follower.done:
                    transport.send_close(NORMAL)

    async def run() -> int | None:
        headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL}
        transport, listener = await picows.ws_connect(Listener, url, extra_headers=headers)
        await transport.wait_disconnected()
        return listener.code

    return asyncio.run(run())


CLIENTS: dict[str, Callable[[str, Follower], int | None]] = {
    "websockets": with_websockets,
    "aiohttp": with_aiohttp,
    "websocket-client": with_websocket_client,
    "trio-websocket": with_trio_websocket,
    "picows": with_picows,
}
"""By the name of the package; its module has underscores for hyphens, or no second word."""


def hear(follower: Follower, text: str | bytes) -> None:
    """Take a frame, and say how far it is."""
    follower.hear(text)
    print(json.dumps({"received": len(follower.offsets)}), flush=True)


def main(name: str, url: str, wanted: str) -> None:
    """Connect again until everything is there."""
    follower, code = Follower(int(wanted)), None
    while not follower.done:
        try:
            code = CLIENTS[name](url, follower)
        except AssertionError:
            raise
        except Exception as lost:  # noqa: BLE001 -- each library has its own error for a connection that is lost
            print(json.dumps({"lost": repr(lost)}), flush=True)
        if not follower.done:
            time.sleep(AGAIN_S)
    ended = {"code": code, "offsets": follower.offsets, "resumed": follower.resumed, "compressed": follower.compressed}
    print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
