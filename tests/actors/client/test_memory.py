"""What a client has handed over it keeps nothing of. A million signals with `HYPOTHESIS_PROFILE=long`."""

from __future__ import annotations

import gc
import os
import sys

import anyio

from actors.client import MemoryCursorStore
from tests.actors.client.test_client import client_of

SIGNALS = 1_000_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 100_000
FRAME = 100
TENTH = SIGNALS // 10


async def test_memory_is_flat_however_many_signals_there_were(server, sig, live, autojump_clock):
    blocks = []
    async with (
        client_of(server, cursor_store=MemoryCursorStore()) as client,
        client.subscribe(name="read") as read,
        client.subscribe(name="latest", buffer=100, overflow="latest"),
        client.subscribe(name="dropped", buffer=100, overflow="drop_oldest"),
    ):
        link = await server.accept()
        await link.welcome(head=0)
        link.send(*(live(name, 0) for name in ("read", "latest", "dropped")))
        for first in range(0, SIGNALS, FRAME):
            link.send(sig(first, first + FRAME, *range(first + 1, first + FRAME + 1)))
            for _ in range(FRAME):
                await anext(read)
            if (first + FRAME) % TENTH == 0:
                await anyio.sleep(1)  # cursors are saved
                gc.collect()
                blocks.append(sys.getallocatedblocks())
    assert max(blocks[1:]) < blocks[0] + SIGNALS / 100, "one of a hundred signals, or more, left something behind"
