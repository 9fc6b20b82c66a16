"""The SDK against a scripted server, in virtual time."""

import random

import anyio
import pytest

from actors.client import (
    ClientClosed,
    Cursor,
    Gap,
    InvalidFilter,
    InvalidSignal,
    InvalidUrl,
    Last,
    OutboxFull,
    PublishRefused,
    SignalClient,
    SubscriptionFailed,
)
from actors.client.transport import TransportClosed
from actors.protocol.events import Notice


def client_of(server, **options):
    return SignalClient("localhost:1", connect=server.connect, random=random.Random(1), **options)


async def take(sub, count):
    return [await anext(sub) for _ in range(count)]


def offsets(items):
    return [item if isinstance(item, Gap) else item.o for item in items]


async def test_an_async_for_gets_signals_in_order(server, sig, live, autojump_clock):
    async with client_of(server) as client:
        async with client.subscribe(types=["price.>"], name="px") as sub:
            link = await server.accept()
            hello = await link.welcome(head=10)
            assert hello["subs"] == [{"s": "px", "filter": {"types": ["price.>"]}, "from": "now"}]
            link.send(live("px", 10), sig(10, 12, 11, 12))
            link.send(sig(12, 13, 13))
            got = []
            async for item in sub:
                got.append(item)
                if len(got) == 3:
                    break
            assert offsets(got) == [11, 12, 13]
            assert (got[0].type, got[0].entity, got[0].data, got[0].tags) == ("price.tick", "btc-usd", {"n": 11}, {})
            assert client.state.state == "connected"
            assert sub.state == "live"


async def test_the_cursor_moves_when_the_application_asks_for_the_next_item(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px") as sub:
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        link.send(sig(10, 20, 11, 15))
        assert (await anext(sub)).o == 11
        assert sub.cursor == Cursor("k3F9", 10)
        assert (await anext(sub)).o == 15
        assert sub.cursor == Cursor("k3F9", 11)
        link.send(sig(20, 400))
        link.send(sig(400, 500, 450))
        assert (await anext(sub)).o == 450
        assert sub.cursor == Cursor("k3F9", 400), "quiet frames move it too"


async def test_quiet_frames_move_the_cursor_behind_what_is_buffered_or_in_hand(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px") as sub:
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        link.send(sig(10, 20, 11))
        link.send(sig(20, 30, 25))
        await anyio.wait_all_tasks_blocked()
        assert sub.cursor == Cursor("k3F9", 10), "nothing was taken yet"
        assert offsets(await take(sub, 2)) == [11, 25]
        assert sub.cursor == Cursor("k3F9", 20), "nothing between 11 and 20 matched"
        link.send(sig(30, 70))
        await anyio.wait_all_tasks_blocked()
        assert sub.cursor == Cursor("k3F9", 20), "25 is still in hand"
        with anyio.move_on_after(1):
            await anext(sub)
        assert sub.cursor == Cursor("k3F9", 70)


async def test_a_quiet_subscription_knows_its_cursor(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px") as sub:
        assert sub.cursor is None
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        await anyio.wait_all_tasks_blocked()
        assert sub.cursor == Cursor("k3F9", 10)
        link.send(sig(10, 99))
        await anyio.wait_all_tasks_blocked()
        assert sub.cursor == Cursor("k3F9", 99)


async def test_after_a_drop_the_client_resumes_and_delivers_nothing_twice(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px") as sub:
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        link.send(sig(10, 12, 11, 12))
        link.close(1006)
        link = await server.accept()
        hello = await link.welcome(head=15)
        assert hello["resume"] == "r"
        assert hello["subs"][0]["from"] == {"cursor": "k3F9:12"}
        link.send(sig(11, 15, 12, 14, s="px"), live("px", 15))
        assert offsets(await take(sub, 3)) == [11, 12, 14]


async def test_a_lost_frame_is_fetched_again(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px") as sub:
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        link.send(sig(12, 14, 13))
        assert (await link.receive())["t"] == "unsub"
        again = await link.receive()
        assert again["from"] == {"cursor": "k3F9:10"}
        link.send(link.subok(again, head=14), sig(10, 14, 11, 13, s="px"), live("px", 14))
        assert offsets(await take(sub, 2)) == [11, 13]


async def test_a_gap_is_an_item_in_its_place(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", since=Cursor("k3F9", 3)) as sub:
        link = await server.accept()
        await link.welcome(head=10)
        link.send(sig(3, 5, 4, s="px"), {"t": "gap", "s": "px", "a": 5, "b": 9, "reason": "slow"})
        link.send(sig(9, 10, 10, s="px"), live("px", 10))
        link.send({"t": "reset", "epoch": "new", "head": 2, "reason": "restored"})
        assert offsets(await take(sub, 4)) == [4, Gap(5, 9, "slow"), 10, Gap(None, None, "epoch")]
        again = await link.receive()
        assert again["from"] == "now"


async def test_a_full_buffer_stops_reading_and_the_link_is_not_taken_for_dead(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=3) as sub:
        link = await server.accept()
        await link.welcome(head=0)
        link.send(live("px", 0))
        for o in range(20):
            link.send(sig(o, o + 1, o + 1))
        await anyio.sleep(300)
        unread = len(link.to_client.items)
        assert unread >= 15
        assert client.state.state == "connected"
        assert offsets(await take(sub, 20)) == list(range(1, 21))


async def test_what_was_buffered_survives_the_end_of_its_socket(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=2) as sub:
        link = await server.accept()
        await link.welcome(head=0)
        link.send(live("px", 0))
        link.send(sig(0, 8, *range(1, 9)))
        link.close(4103)
        await anyio.sleep(1)
        got = await take(sub, 8)
        link = await server.accept()
        assert (await link.welcome(head=9))["subs"][0]["from"] == {"cursor": "k3F9:8"}
        link.send(sig(8, 9, 9, s="px"), live("px", 9))
        assert offsets(got + await take(sub, 1)) == list(range(1, 10))


async def test_a_silent_link_is_closed_with_4198_and_resumed(server, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px"):
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        begun = anyio.current_time()
        await link.client_closed.wait()
        assert link.closed_by_client == 4198
        assert anyio.current_time() - begun == pytest.approx(35, abs=0.1)
        link = await server.accept()
        assert (await link.welcome(head=10))["subs"][0]["from"] == {"cursor": "k3F9:10"}


async def test_answered_pings_keep_a_quiet_link_alive(server, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px"), anyio.create_task_group() as nursery:
        link = await server.accept()
        await link.welcome(head=10)
        nursery.start_soon(link.receive)
        await anyio.sleep(3_600)
        assert client.state.state == "connected"
        nursery.cancel_scope.cancel()


async def test_an_attempt_that_hangs_is_given_up_after_5_s(server, autojump_clock):
    server.refuse("hang")
    async with client_of(server):
        await server.accept()
        first, second = server.attempts
        assert 5 <= second - first <= 5.5


async def test_reconnects_are_jittered_and_grow(server, autojump_clock):
    server.refuse(*[TransportClosed(reason="refused")] * 12)
    async with client_of(server):
        await server.accept()
    waits = [after - before for before, after in zip(server.attempts, server.attempts[1:], strict=False)]
    bounds = [min(30, 0.5 * 2**n) for n in range(len(waits))]
    assert all(0 <= wait <= bound + 0.01 for wait, bound in zip(waits, bounds, strict=True))
    assert len({round(wait / bound, 3) for wait, bound in zip(waits, bounds, strict=True)}) == len(waits)


async def test_a_terminal_close_ends_every_iteration_after_what_had_arrived(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="px", buffer=2) as sub:
        link = await server.accept()
        await link.welcome(head=10)
        link.send(live("px", 10))
        link.send(sig(10, 60, *range(11, 61)))
        link.close(4020, "revoked")
        await anyio.sleep(1)
        assert offsets(await take(sub, 50)) == list(range(11, 61))
        with pytest.raises(ClientClosed, match="4020: revoked"):
            await anext(sub)
        with pytest.raises(ClientClosed):
            await client.publish("a", "b", 1)
        with pytest.raises(ClientClosed):
            async with client.subscribe():
                pass
        assert client.state.terminal


async def test_a_refused_handshake_says_what_the_server_said(server, autojump_clock):
    server.refuse(TransportClosed(reason="answered 401: bad token", status=401))
    async with client_of(server) as client, client.subscribe() as sub:
        with pytest.raises(ClientClosed, match="401: bad token") as caught:
            await anext(sub)
        assert caught.value.code == 401


async def test_a_busy_server_names_the_wait(server, autojump_clock):
    server.refuse(TransportClosed(status=503, retry_after_ms=20_000))
    async with client_of(server):
        await server.accept()
        first, second = server.attempts
        assert 20 <= second - first <= 21.1


async def test_a_refused_subscription_fails_and_the_others_go_on(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="ok") as good, client.subscribe(name="no") as bad:
        link = await server.accept()
        refusal = {"t": "err", "s": "no", "code": 403, "slug": "forbidden", "msg": "not for you", "retry": False}
        await link.welcome(link.subok({"s": "ok", "from": "now"}), refusal)
        link.send(live("ok", 0), sig(0, 1, 1))
        with pytest.raises(SubscriptionFailed, match="forbidden: not for you"):
            await anext(bad)
        assert (await anext(good)).o == 1
        async with client.subscribe(name="no"):
            assert (await link.receive())["s"] == "no"


async def test_leaving_the_block_unsubscribes(server, live, autojump_clock):
    async with client_of(server) as client:
        async with client.subscribe(name="px") as sub:
            link = await server.accept()
            await link.welcome()
            link.send(live("px", 0))
            await anyio.wait_all_tasks_blocked()
        assert await link.receive() == {"t": "unsub", "id": 2, "s": "px"}
        with pytest.raises(anyio.ClosedResourceError):
            await anext(sub)


async def test_leaving_a_block_with_a_full_buffer_frees_the_others(server, sig, live, autojump_clock):
    async with client_of(server) as client, client.subscribe(name="b") as other:
        async with client.subscribe(name="a", buffer=1):
            link = await server.accept()
            await link.welcome()
            link.send(live("a", 0), live("b", 0))
            link.send(sig(0, 5, 1, 2, 3))
            await anyio.wait_all_tasks_blocked()
        assert offsets(await take(other, 3)) == [1, 2, 3]


async def test_what_arrived_for_a_name_is_not_given_to_its_next_owner(server, sig, live, autojump_clock):
    async with client_of(server) as client:
        async with client.subscribe(name="px", buffer=1):
            link = await server.accept()
            await link.welcome()
            link.send(live("px", 0), sig(0, 5, 1, 2, 3))
            await anyio.wait_all_tasks_blocked()
        async with client.subscribe(name="px") as second:
            assert (await link.receive())["t"] == "unsub"
            link.send(link.subok(await link.receive(), head=5), live("px", 5), sig(5, 6, 6))
            assert (await anext(second)).o == 6


async def test_two_tasks_cannot_share_an_iteration(server, autojump_clock):
    async with client_of(server) as client, client.subscribe() as sub, anyio.create_task_group() as nursery:
        nursery.start_soon(anext, sub)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(sub)
        nursery.cancel_scope.cancel()


async def test_publish_waits_for_the_acknowledgement(server, autojump_clock):
    async with client_of(server) as client, anyio.create_task_group() as nursery:
        acks = []

        async def publish():
            acks.append(await client.publish("alert.high", "btc-usd", {"p": 1}, id="k1", tags={"v": "X"}))

        nursery.start_soon(publish)
        link = await server.accept()
        await link.welcome()
        request = await link.receive()
        assert request["signal"] == {
            "type": "alert.high",
            "entity": "btc-usd",
            "data": {"p": 1},
            "id": "k1",
            "tags": {"v": "X"},
        }
        await anyio.wait_all_tasks_blocked()
        assert acks == []
        link.send({"t": "ok", "id": request["id"], "o": 17, "epoch": "k3F9", "dup": False})
        await anyio.wait_all_tasks_blocked()
        assert (acks[0].id, acks[0].offset, acks[0].epoch, acks[0].dup) == ("k1", 17, "k3F9", False)


async def test_publish_survives_a_reconnect_under_the_same_id(server, autojump_clock):
    async with client_of(server) as client, anyio.create_task_group() as nursery:
        acks = []

        async def publish():
            acks.append(await client.publish("a", "b", 1))

        nursery.start_soon(publish)
        link = await server.accept()
        await link.welcome()
        first = await link.receive()
        link.close(None)
        link = await server.accept()
        await link.welcome()
        second = await link.receive()
        assert second["signal"] == first["signal"]
        assert first["signal"]["id"]
        link.send({"t": "ok", "id": second["id"], "o": 5, "epoch": "k3F9", "dup": True})
        await anyio.wait_all_tasks_blocked()
        assert acks[0].dup


async def test_a_publication_nobody_waits_for_is_not_sent_again(server, autojump_clock):
    async with client_of(server) as client:
        link = await server.accept()
        await link.welcome()
        with anyio.move_on_after(1):
            await client.publish("a", "b", 1)
        assert (await link.receive())["t"] == "pub"
        link.close(None)
        link = await server.accept()
        await link.welcome()
        await anyio.wait_all_tasks_blocked()
        assert not link.to_server.items


async def test_what_cannot_be_published_says_why(server, autojump_clock):
    async with client_of(server) as client:
        link = await server.accept()
        await link.welcome(limits={"msg_bytes": 200})
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(InvalidSignal, match="type is 'no spaces'"):
            await client.publish("no spaces", "b", 1)
        with pytest.raises(PublishRefused, match="too_large"):
            await client.publish("a", "b", "x" * 500)
        async with anyio.create_task_group() as nursery:
            for n in range(1_000):
                nursery.start_soon(client.publish, "a", "b", n)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(OutboxFull, match="at most 1,000"):
                await client.publish("a", "b", 1)
            nursery.cancel_scope.cancel()


async def test_state_changes_can_be_followed(server, live, autojump_clock):
    async with client_of(server) as client:
        with client.events() as events:
            link = await server.accept()
            await link.welcome()
            link.close(4103, "slow")
            link = await server.accept()
            await link.welcome()
            states = [await anext(events) for _ in range(4)]
        assert [event.state for event in states] == ["connected", "reconnecting", "resuming", "connected"]
        assert (states[1].code, states[1].reason, states[1].attempt) == (4103, "slow", 1)


async def test_a_token_function_is_asked_before_each_connection(server, autojump_clock):
    tokens = iter(["one", "two"])

    async def token():
        return next(tokens)

    async with client_of(server, token=token):
        link = await server.accept()
        assert link.token == (await link.welcome())["token"] == "one"
        link.close(4101)
        link = await server.accept()
        assert (await link.welcome())["token"] == "two"


async def test_a_token_that_ends_soon_is_renewed_in_place(server, autojump_clock):
    answers = iter(["one", "two", OSError("no network"), "three"])

    async def token():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with client_of(server, token=token) as client:
        with client.events() as events:
            link = await server.accept()
            await link.welcome()
            link.send({"t": "err", "code": 401, "slug": "token_expiring", "msg": "soon", "retry": True})
            assert await link.receive() == {"t": "auth", "id": 2, "token": "two"}
            link.send({"t": "ok", "id": 2, "exp_ms": 1})
            link.send({"t": "err", "code": 401, "slug": "token_expiring", "msg": "soon", "retry": True})
            async for event in events:
                if isinstance(event, Notice) and event.slug == "no_token":
                    assert "no network" in event.msg
                    break
            link.close(4101)
            link = await server.accept()
            assert (await link.welcome())["token"] == "three"


async def test_a_refused_renewal_is_told(server, autojump_clock):
    async def token():
        return "less"

    async with client_of(server, token=token) as client:
        with client.events() as events:
            link = await server.accept()
            await link.welcome()
            link.send({"t": "err", "code": 401, "slug": "token_expiring", "msg": "soon", "retry": True})
            assert (await link.receive())["t"] == "auth"
            link.send({"t": "err", "id": 2, "code": 403, "slug": "forbidden", "msg": "it allows less", "retry": False})
            seen = []
            async for event in events:
                seen += [event] if isinstance(event, Notice) else []
                if len(seen) == 2:
                    break
        assert [(one.code, one.slug) for one in seen] == [(401, "token_expiring"), (403, "forbidden")]
        assert seen[1].msg == "it allows less"


async def test_a_failing_token_function_is_asked_again(server, autojump_clock):
    answers = iter([OSError("no network"), "two"])

    async def token():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with client_of(server, token=token):
        assert (await server.accept()).token == "two"


async def test_leaving_the_client_closes_with_1000_and_ends_iterations(server, autojump_clock):
    async with anyio.create_task_group() as nursery:
        async with client_of(server) as client:
            sub = client.subscribe()
            await sub.__aenter__()
            link = await server.accept()
            await link.welcome()

            async def iterate():
                with pytest.raises(ClientClosed):
                    await anext(sub)

            nursery.start_soon(iterate)
            await anyio.wait_all_tasks_blocked()
        assert link.closed_by_client == 1000


async def test_an_error_in_the_block_comes_out_as_it_is(server, autojump_clock):
    with pytest.raises(KeyError):
        async with client_of(server) as client, client.subscribe():
            raise KeyError


async def test_mistakes_are_named_at_once(server, autojump_clock):
    with pytest.raises(InvalidUrl):
        SignalClient("ftp://x")
    with pytest.raises(RuntimeError, match="async with"):
        await client_of(server).publish("a", "b", 1)
    async with client_of(server) as client:
        with pytest.raises(InvalidFilter):
            client.subscribe(types=["a b"])
        with pytest.raises(ValueError, match="cursor"):
            client.subscribe(since="yesterday")
        with pytest.raises(ValueError, match="on_gap"):
            client.subscribe(on_gap="maybe")
        with pytest.raises(ValueError, match="buffer"):
            client.subscribe(buffer=0)
        with pytest.raises(ValueError, match="name"):
            client.subscribe(name="a b")
        async with client.subscribe(name="a", since=Last(3)):
            with pytest.raises(ValueError, match="'a' is active"):
                await client.subscribe(name="a").__aenter__()
