"""A full subscription holds up nobody who waits for an answer of the server."""

import anyio

from tests.actors.client.test_client import client_of, offsets, take


async def test_publishing_in_a_loop_over_a_full_subscription_does_not_wait_for_ever(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=2) as sub:
        link = await server.accept()
        await link.welcome(head=0)
        link.send(live("px", 0))
        for o in range(20):
            link.send(sig(o, o + 1, o + 1))

        async def answer():
            """The answer stands behind all that the server has sent before."""
            while (request := await link.receive())["t"] != "pub":
                pass
            link.send({"t": "ok", "id": request["id"], "o": 21, "epoch": "k3F9", "dup": False})
            while (request := await link.receive())["t"] != "sub":
                pass
            at = int(request["from"]["cursor"].partition(":")[2])
            link.send(link.subok(request, head=21), sig(at, 21, *range(at + 1, 22), s="px"), live("px", 21))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            got = await take(sub, 1)
            with anyio.fail_after(10):
                assert (await client.publish("a", "b", 1)).offset == 21
            got += await take(sub, 20)
        assert offsets(got) == list(range(1, 22)), "nothing is lost or repeated by the rest"


async def test_a_subscription_that_rests_is_not_asked_for_on_the_next_socket_until_it_may_go_on(
    server, sig, live, autojump_clock
):
    async with client_of(server) as client, client.subscribe(name="px", buffer=4) as sub:
        link = await server.accept()
        await link.welcome(head=0)
        link.send(live("px", 0), sig(0, 4, 1, 2, 3, 4))
        async with anyio.create_task_group() as tasks:
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(client.publish, "a", "b", 1)
            assert (await link.receive())["t"] == "pub"
            assert await link.receive() == {"t": "unsub", "id": 3, "s": "px"}
            link.close(1006)
            link = await server.accept()
            hello = await link.welcome(head=9)
            assert "subs" not in hello
            request = await link.receive()
            link.send({"t": "ok", "id": request["id"], "o": 9, "epoch": "k3F9", "dup": False})
        assert offsets(await take(sub, 2)) == [1, 2]
        again = await link.receive()
        assert (again["t"], again["from"]) == ("sub", {"cursor": "k3F9:4"})
        link.send(link.subok(again, head=9), sig(4, 9, 9, s="px"), live("px", 9))
        assert offsets(await take(sub, 3)) == [3, 4, 9]


async def test_without_anybody_waiting_a_full_buffer_leaves_the_subscription_where_it_is(
    server, sig, live, autojump_clock
):
    async with client_of(server) as client, client.subscribe(name="px", buffer=2) as sub:
        link = await server.accept()
        await link.welcome(head=0)
        link.send(live("px", 0), sig(0, 4, 1, 2, 3, 4))
        await anyio.sleep(1)
        assert not link.to_server.items
        assert sub.waiting == client.stats.waiting == 4


async def test_stats_and_round_trips(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px") as sub:
        assert client.rtt is None
        link = await server.accept()
        await anyio.sleep(0.25)
        await link.welcome(head=0)
        link.send(live("px", 0), sig(0, 4, 1, 2, 3), {"t": "gap", "s": "px", "a": 4, "b": 5, "reason": "slow"})
        await anyio.sleep(1)
        assert round(client.rtt, 3) == 0.25
        stats = client.stats
        assert (stats.sockets, stats.frames, stats.signals, stats.gaps, stats.waiting) == (1, 2, 3, 1, 4)
        assert sub.waiting == 4
