"""Cursors in a store: where a subscription goes on after a restart, how often they are written, what is none."""

import itertools
import json

import anyio
import pytest

from actors.client import Cursor, FileCursorStore, InvalidCursorFile, MemoryCursorStore
from tests.actors.client.test_client import client_of, offsets, take


class Counting(MemoryCursorStore):
    def __init__(self):
        super().__init__()
        self.writes = []

    async def save(self, cursors):
        self.writes.append((anyio.current_time(), dict(cursors)))
        await super().save(cursors)


async def begin(server, live, at=0):
    link = await server.accept()
    hello = await link.welcome(head=at)
    link.send(live("px", at))
    return link, hello["subs"][0]["from"]


async def test_a_named_subscription_goes_on_behind_what_the_application_was_done_with(
    server, sig, live, autojump_clock
):
    store = MemoryCursorStore()
    async with client_of(server, cursor_store=store) as client:
        async with client.subscribe(name="px", since="earliest") as sub:
            link, since = await begin(server, live)
            assert since == "earliest"
            link.send(sig(0, 9, 3, 4, 5))
            assert offsets(await take(sub, 3)) == [3, 4, 5]
    async with client_of(server, cursor_store=store) as client:
        async with client.subscribe(name="px", since="earliest"):
            _, since = await begin(server, live, 9)
            assert since == {"cursor": "k3F9:4"}, "5 was in the application's hand"
        async with client.subscribe(name="px", types=["a.>"], since="earliest"):
            await anyio.wait_all_tasks_blocked()
    assert len(store.cursors) == 1, "another filter has a cursor of its own"


async def test_a_subscription_without_a_name_is_not_stored(server, sig, live, autojump_clock):
    store = Counting()
    async with client_of(server, cursor_store=store) as client, client.subscribe() as sub:
        link = await server.accept()
        await link.welcome()
        link.send(live("sub-1", 0), sig(0, 2, 1, 2))
        await take(sub, 2)
    assert store.writes == []


async def test_the_store_is_written_at_most_every_half_second_and_at_the_end(server, sig, live, autojump_clock):
    store = Counting()
    async with client_of(server, cursor_store=store) as client, client.subscribe(name="px") as sub:
        link, _ = await begin(server, live)
        for o in range(1_000):
            link.send(sig(o, o + 1, o + 1))
            await anyio.sleep(0.003)
            await take(sub, 1)
    times = [at for at, _ in store.writes]
    assert all(after - before > 0.499 for before, after in itertools.pairwise(times[:-1]))
    assert len(times) <= 8
    assert list(store.cursors.values()) == [Cursor("k3F9", 999)]


async def test_the_end_of_the_block_stores_what_was_taken_even_when_it_is_cancelled(server, sig, live, autojump_clock):
    store = MemoryCursorStore()
    with anyio.CancelScope() as scope:
        async with client_of(server, cursor_store=store) as client, client.subscribe(name="px") as sub:
            link, _ = await begin(server, live)
            link.send(sig(0, 3, 1, 2, 3))
            await take(sub, 3)
            scope.cancel()
            await anyio.sleep(1)
    assert list(store.cursors.values()) == [Cursor("k3F9", 2)]


async def test_a_change_of_the_filter_is_stored_under_the_new_one(server, sig, live, autojump_clock):
    store = MemoryCursorStore()
    async with client_of(server, cursor_store=store) as client, client.subscribe(name="px", types=["a"]) as sub:
        link, _ = await begin(server, live)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: sub.modify(filter={"types": ["b"]}))
            while (request := await link.receive())["t"] != "sub":
                pass
            link.send(link.subok(request, g=2), live("px", 0, g=2), sig(0, 7, 7, g=2))
        await take(sub, 1)
        await anyio.sleep(1)
    assert len(store.cursors) == 2


async def test_a_store_that_fails_ends_the_block_with_its_error(server, sig, live, autojump_clock):
    class Full(MemoryCursorStore):
        async def save(self, cursors):
            raise OSError("no space left on device")

    async def follow():
        async with client_of(server, cursor_store=Full()) as client, client.subscribe(name="px") as sub:
            link, _ = await begin(server, live)
            link.send(sig(0, 3, 1, 2, 3))
            await take(sub, 3)
            await anyio.sleep(9)

    with pytest.RaisesGroup(OSError):
        await follow()


def saved(path, *cursors):
    async def save():
        store = FileCursorStore(path)
        for key, cursor in cursors:
            await store.save({key: cursor})

    anyio.run(save)


def load(path, key):
    return anyio.run(FileCursorStore(path).load, key)


@pytest.mark.real
def test_a_file_keeps_the_cursors_of_several_subscriptions(tmp_path):
    path = tmp_path / "cursors.json"
    assert load(path, "a") is None
    saved(path, ("a", Cursor("k", 1)), ("b", Cursor("k", 2)))
    saved(path, ("a", Cursor("k", 3)))
    assert (load(path, "a"), load(path, "b"), load(path, "c")) == (Cursor("k", 3), Cursor("k", 2), None)
    assert [file.name for file in tmp_path.iterdir()] == ["cursors.json"]


@pytest.mark.real
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b'{"format":"heliograph-cursors","version":1,"cur', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b'{"format":"heliograph-cursors","version":1,"cursors":{"a":"x"}}', "is damaged: cursor 'x'"),
        (b'{"format":"heliograph-cursors","version":2,"cursors":{}}', "version 2; this release reads 1"),
        (b'{"name":"somebody else"}', "not a file of cursors"),
        (b"[1]", "not a file of cursors"),
    ],
)
def test_a_damaged_or_foreign_file_is_an_error_and_stays_as_it_is(content, message, tmp_path):
    path = tmp_path / "cursors.json"
    path.write_bytes(content)
    with pytest.raises(InvalidCursorFile, match=message):
        load(path, "a")
    with pytest.raises(InvalidCursorFile, match=message):
        saved(path, ("a", Cursor("k", 1)))
    assert path.read_bytes() == content


@pytest.mark.real
def test_a_save_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "cursors.json"
    saved(path, ("a", Cursor("k", 1)))
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="no space"):
        saved(path, ("a", Cursor("k", 2)))
    assert path.read_bytes() == before
