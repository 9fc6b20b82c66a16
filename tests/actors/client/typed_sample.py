"""A program that uses the client as an application does; `mypy --strict` reads it, nobody runs it."""

from collections.abc import AsyncIterator, Iterator

from actors.client import (
    Ack,
    Ago,
    Cursor,
    CursorStore,
    F,
    FileCursorStore,
    Gap,
    Last,
    Signal,
    SignalClient,
    SnapSignal,
    SyncSignalClient,
)


async def token() -> str:
    return "secret"


async def follow(store: CursorStore) -> AsyncIterator[str]:
    condition = (F("/data/pct") >= 2.5) & ~F("/tags/venue").exists() | F("/entity").is_in(["a", "b"])
    async with SignalClient("https://h", token=token, cursor_store=store) as client:
        async with client.subscribe(types=["a.>"], where=condition, since=Last(3), overflow="latest", name="a") as sub:
            await sub.modify(filter={"where": F("/data/x") == 1}, backfill=Ago(1_000))
            async for item in sub:
                match item:
                    case Gap(after=after, upto=upto, reason=reason):
                        yield f"{after} {upto} {reason}"
                    case SnapSignal(o=o):
                        yield str(o)
                    case Signal(type=type_, entity=entity, data=data):
                        yield f"{type_} {entity} {data}"
            at: Cursor | None = sub.cursor
            yield str(at)
        ack: Ack = await client.publish("a", "b", {"p": 1}, id="k", tags={"v": "x", "n": 1.5, "b": True})
        yield f"{ack.offset} {client.rtt} {client.stats.dropped} {client.state.state}"
        async for signal in client.history(since=ack.epoch, reverse=True, limit=3):
            yield signal.id
        with client.events() as events:
            async for event in events:
                yield str(event)


def script() -> Iterator[str]:
    with SyncSignalClient("localhost", cursor_store=FileCursorStore("cursors.json")) as client:
        with client.subscribe(types=["a"], where=F("/data").contains("x"), overflow="error") as sub:
            item: Signal | Gap = sub.take(timeout_s=1)
            yield str(item)
            for item in sub:
                yield str(item)
        yield from (signal.id for signal in client.history(limit=1))
