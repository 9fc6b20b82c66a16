"""Server-sent events: what a browser or curl follows without a client library (section 2.17)."""

from __future__ import annotations

import base64
import json

import pytest
import trio

from actors.app import app
from actors.protocol.limits import Limits
from actors.settings import AuthSettings, StreamSettings
from runtime import Secret
from runtime.testing import start_server
from tests.actors.events import EVENT_STREAM, SETTINGS, listening, publish, serving


async def test_signals_arrive_with_the_cursor_after_them_as_their_id(autojump_clock):
    async with serving() as server, listening(server) as events:
        answer = await publish(server, 1)
        name, data = await events.next()
        assert name == "sig"
        assert [(signal["o"], signal["data"]) for signal in data["d"]] == [(1, 1)]
        assert (data["a"], data["b"]) == (0, 1)
        assert events.last_id == f"{answer['epoch']}:1"
        assert 1_000 <= int(events.retry) <= 3_000


async def test_the_headers_keep_caches_and_proxies_from_holding_it_back(autojump_clock):
    async with serving() as server, listening(server) as events:
        headers = events.response.headers
        assert headers["content-type"] == "text/event-stream"
        assert "no-cache" in headers["cache-control"]
        assert headers["x-accel-buffering"] == "no"
        assert "access-control-allow-origin" not in headers


async def test_an_allowed_origin_may_read_it_and_no_other(autojump_clock):
    async with serving() as server:
        own = {"origin": "http://127.0.0.1:8787"}
        async with listening(server, headers=own) as events:
            assert events.response.headers["access-control-allow-origin"] == own["origin"]
        async with server.stream("GET", "/v1/sse", headers={"origin": "https://elsewhere.example"}) as refused:
            assert refused.status == 403


@pytest.mark.parametrize("encode", [str, lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")])
async def test_the_filter_is_json_or_the_base64url_of_it(autojump_clock, encode):
    text = encode('{"types":["alert.>"]}').replace('"', "%22").replace(">", "%3E")
    async with serving() as server, listening(server, f"?filter={text}") as events:
        await publish(server, 1, 2)
        await publish(server, 3, type_="alert.high")
        assert await events.signals(1) == [3]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?from=earliest", [1, 2, 3, 4]),
        ("?from=%7B%22last%22:2%7D", [2, 3, 4]),
        ("?from=now", [4]),
        ("", [4]),
    ],
)
async def test_it_begins_where_it_is_told(autojump_clock, query, expected):
    async with serving() as server:
        await publish(server, 1, 2, 3)
        async with listening(server, query) as events:
            await publish(server, 4)
            assert await events.signals(len(expected)) == expected


async def test_a_snapshot_comes_first_and_its_cursor_with_its_last_part(autojump_clock):
    async with serving() as server:
        await publish(server, 1, 2, 3)
        async with listening(server, "?from=snapshot") as events:
            name, data = await events.next()
            assert (name, [signal["data"] for signal in data["d"]], data["more"]) == ("snap", [3], False)
            assert events.last_id.endswith(":3")
            await publish(server, 4)
            assert await events.signals(1) == [4]


async def test_who_comes_back_with_its_last_id_misses_and_repeats_nothing(autojump_clock):
    async with serving() as server:
        async with listening(server) as events:
            await publish(server, 1)
            assert await events.signals(1) == [1]
        await publish(server, 2, 3)
        # A browser sends the address that it was made with, and its id.
        headers = {**EVENT_STREAM, "last-event-id": events.last_id}
        async with listening(server, "?from=earliest", headers) as again:
            assert await again.signals(2) == [2, 3]
        async with listening(server, f"?last_event_id={events.last_id}") as again:
            assert await again.signals(2) == [2, 3]


async def test_a_browsers_cursor_moves_along_while_its_filter_is_quiet(autojump_clock):
    async with serving() as server, listening(server, "?filter=%7B%22types%22:[%22alert.high%22]%7D") as events:
        await publish(server, *range(50))
        await trio.sleep(40)
        await publish(server, 51, type_="alert.high")
        ids = []
        while True:
            chunk = (await anext(events.response.stream)).decode()
            ids += [line for line in chunk.split("\n") if line.startswith("id:")]
            if "event: sig" in chunk:
                break
        assert [one.rpartition(":")[2] for one in ids] == ["0", "0", "50", "51"]


async def test_a_comment_every_fifteen_seconds(autojump_clock):
    async with serving() as server, listening(server) as events:
        await trio.sleep(46)
        await publish(server, 1)
        await events.next()
        assert events.comments == [""] * 3


async def test_a_cursor_that_is_too_old_gets_a_gap_with_its_bounds_and_then_the_rest(autojump_clock):
    few = StreamSettings(retention_signals=2, retention_s=0.0)
    async with serving(stream=few) as server:
        epoch = (await publish(server, 1))["epoch"]
        await trio.sleep(1)
        await publish(server, *range(2, 6))
        await trio.sleep(1)
        await publish(server, *range(6, 11))
        bounds = json.loads((await server.request("GET", "/readyz")).body)
        async with listening(server, f"?last_event_id={epoch}:1") as events:
            name, gap = await events.next()
            assert (name, gap["a"], gap["b"], gap["reason"]) == ("gap", 1, bounds["oldest"] - 1, "retention")
            assert gap["b"] > 1
            assert await events.signals(10 - gap["b"]) == list(range(gap["b"] + 1, 11))
        async with listening(server, f"?last_event_id={epoch}:1&on_gap=fail") as events:
            name, gap = await events.next()
            assert (name, gap["a"], gap["b"]) == ("gap", 1, 10)
            await publish(server, 11)
            assert await events.signals(1) == [11]


async def test_a_cursor_of_another_epoch_is_told_and_the_stream_goes_on(autojump_clock):
    async with serving() as server:
        epoch = (await publish(server, 1, 2))["epoch"]
        async with listening(server, "?last_event_id=other:1") as events:
            name, reset = await events.next()
            assert (name, reset["epoch"], reset["head"]) == ("reset", epoch, 2)
            assert await events.signals(2) == [1, 2]
        async with listening(server, "?last_event_id=other:1&on_gap=fail") as events:
            assert (await events.next())[0] == "reset"
            await publish(server, 3)
            assert await events.signals(1) == [3]


async def test_conflation_is_as_on_a_socket(autojump_clock):
    async with serving() as server, listening(server, "?mode=latest&min_ms=1000") as events:
        await publish(server, 1)
        assert await events.signals(1) == [1]
        await publish(server, 2, 3, 4)
        _, data = await events.next()
        assert ([signal["data"] for signal in data["d"]], data["k"]) == ([4], 2)


@pytest.mark.parametrize("more", [False, True])
async def test_what_is_held_back_for_others_does_not_come_twice_to_who_has_it(autojump_clock, more):
    latest = "mode=latest&min_ms=1000"
    async with serving() as server, listening(server, f"?{latest}") as first:
        await publish(server, 1, entity="a")
        assert await first.signals(1) == [1]
        await publish(server, 2, entity="b")
        async with listening(server, f"?{latest}&from=earliest") as second:
            assert await second.signals(2) == [1, 2]
            if more:
                await publish(server, 3, entity="c")
                assert await second.signals(1) == [3]
                assert second.last_id.endswith(":3")
            await trio.sleep(5)
            await publish(server, 4, entity="d")
            assert await second.signals(1) == [4]
        assert await first.signals(3 if more else 2) == ([2, 3, 4] if more else [2, 4])


async def test_who_reads_too_slowly_is_cut_off_and_loses_nothing(autojump_clock):
    async with serving(limits=Limits(backlog_bytes=100_000)) as server:
        async with listening(server, "?from=earliest") as slow:
            for number in range(12):
                await publish(server, f"{number:02}" * 20_000)
            await trio.sleep(1)
            seen = await slow.all_before_the_cut()
            assert len(seen) < 12
        headers = {**EVENT_STREAM, "last-event-id": slow.last_id}
        async with listening(server, "", headers) as again:
            seen += await again.signals(12 - len(seen))
        assert [int(text[:2]) for text in seen] == list(range(12))


async def test_a_server_that_goes_down_ends_the_stream_in_order(autojump_clock):
    async with start_server(app, settings=SETTINGS) as server:
        async with listening(server) as events:
            epoch = (await publish(server, 1))["epoch"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.stop)
                (only,) = await events.ends()
            assert only[0] == "sig"
            assert events.last_id == f"{epoch}:1"


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("?filter=nonsense", 400, "filter"),
        ("?filter=%7B%22types%22:[]%7D", 422, "types"),
        ("?from=yesterday", 422, "cursor"),
        ("?last_event_id=x", 422, "cursor"),
        ("?on_gap=perhaps", 400, "on_gap"),
        ("?min_ms=10", 400, "min_ms"),
        ("?mode=latest&min_ms=x", 400, "min_ms"),
        ("?token=long-lived", 400, "Authorization"),
        ("?access_token=long-lived", 400, "Authorization"),
    ],
)
async def test_a_mistake_is_told(autojump_clock, query, status, word):
    async with serving() as server:
        response = await server.request("GET", f"/v1/sse{query}", headers=EVENT_STREAM)
        assert response.status == status, response.body
        assert word in response.body.decode()


async def test_tokens_and_counts_are_those_of_sockets(autojump_clock):
    auth = AuthSettings(tokens=(Secret("s" * 32),))
    async with serving(auth=auth, limits=Limits(connections_per_user=2)) as server:
        assert (await server.request("GET", "/v1/sse", headers=EVENT_STREAM)).status == 401
        bearer = {"authorization": f"Bearer {'s' * 32}"}
        async with listening(server, headers=bearer), listening(server, headers=bearer):
            async with server.stream("GET", "/v1/sse", headers=bearer) as third:
                assert third.status == 429
            # A browser would give up for good at an error.
            async with listening(server, headers={**bearer, **EVENT_STREAM}) as third:
                assert await third.ends() == []
                assert third.retry == "5000"
        await trio.sleep(1)
        async with listening(server, headers=bearer):
            pass


async def test_a_client_that_goes_is_forgotten(autojump_clock):
    async with serving() as server:
        async with listening(server):
            pass
        await trio.sleep(60)
        assert server.live_actors == 0


async def test_named_streams_have_event_sources_of_their_own(autojump_clock):
    orders = "/v1/streams/orders"
    async with serving(streams=("orders", "sse")) as server:
        async with listening(server) as here, listening(server, path=f"{orders}/sse") as there:
            await publish(server, 1)
            epoch = (await publish(server, 2, path=f"{orders}/signals"))["epoch"]
            assert (await here.signals(1), await there.signals(1)) == ([1], [2])
            assert there.last_id == f"{epoch}:1"
        assert (await server.request("GET", "/v1/streams/none/sse")).status == 404
        # A stream may have this name, and its address is that of its WebSocket.
        assert (await server.request("GET", "/v1/streams/sse")).status == 426


async def test_a_client_that_goes_before_it_is_answered_is_forgotten(autojump_clock):
    async with serving() as server:
        for moments in range(60):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def leave(after=moments, scope=scope):
                        for _ in range(after):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(leave)
                    async with listening(server):
                        await trio.sleep_forever()
        await trio.sleep(60)
        assert server.live_actors == 0


async def test_who_is_refused_late_leaves_nothing_behind(autojump_clock):
    auth = AuthSettings(tokens=(Secret("s" * 32),))
    headers = {"authorization": f"Bearer {'s' * 32}"}
    async with serving(auth=auth, limits=Limits(connections_per_user=2)) as server:
        seen = []

        async def come():
            async with server.stream("GET", "/v1/sse", headers=headers) as response:
                seen.append(response.status)
                await trio.sleep(5)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(come)
        assert sorted(seen) == [200, 200, 429, 429, 429, 429]
        await trio.sleep(330)  # for five minutes it is remembered how often an address came
        assert server.live_actors == 0
