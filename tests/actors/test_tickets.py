"""Who reads server-sent events: by a token in a header, or by a ticket in the URL, which lets in once and for 30 s."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

from actors.principal import EVERYTHING, Principal
from actors.tickets import OUTSTANDING, OUTSTANDING_OF_ONE, TICKET_S, TICKETS
from runtime.testing import RunningServer
from tests.actors.events import EVENT_STREAM, listening, publish, serving
from tests.actors.test_tokens import LOCKED, NEXT_SECRET, PRICES, STATIC, bearer, now_of, token

AUTH = LOCKED.auth


async def ticket(server: RunningServer, shown: str) -> str:
    answer = await server.request("POST", "/v1/tickets", headers=bearer(shown))
    assert answer.status == 201, answer.body
    assert answer.headers["cache-control"] == "no-store"
    text: str = json.loads(answer.body)["ticket"]
    return text


async def status(server: RunningServer, query: str, headers: dict[str, str] | None = None) -> int:
    async with server.stream("GET", f"/v1/sse{query}", headers=headers or EVENT_STREAM) as response:
        return response.status


# --- by a token -------------------------------------------------------------------------------------------


async def test_what_a_token_allows_is_anded_into_the_filter(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        prices = bearer(token(now_of(server), cap=PRICES))
        async with listening(server, "?from=earliest", headers=prices) as events:
            await publish(server, 1, type_="alert.high", headers=bearer(STATIC))
            await publish(server, 2, headers=bearer(STATIC))
            assert await events.signals(1) == [2]
        refused = await server.request("GET", "/v1/sse?filter=%7B%22types%22:[%22alert.>%22]%7D", headers=prices)
        assert (refused.status, json.loads(refused.body)["at"]) == (403, "/filter")
        nothing = bearer(token(now_of(server), cap={"pub": [">"]}))
        assert await status(server, "", nothing) == 403


async def test_a_token_that_lets_nobody_in_is_told(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        for headers in (EVENT_STREAM, bearer("a.b.c"), bearer(token(now_of(server), key=NEXT_SECRET))):
            refused = await server.request("GET", "/v1/sse", headers=headers)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert json.loads(refused.body)["slug"] == "unauthenticated"


@pytest.mark.parametrize("by_ticket", [False, True])
async def test_the_stream_ends_with_the_token_and_not_before(autojump_clock: Any, by_ticket: bool) -> None:
    async with serving(auth=AUTH) as server:
        shown = token(now_of(server), ttl=100)
        query, headers = (f"?ticket={await ticket(server, shown)}", EVENT_STREAM) if by_ticket else ("", bearer(shown))
        began = trio.current_time()
        async with listening(server, query, headers=headers) as events:
            await trio.sleep(95)
            await publish(server, 1, headers=bearer(STATIC))
            assert await events.signals(1) == [1]
            assert await events.ends() == []
            assert 100 <= trio.current_time() - began <= 102
            assert any("4101" in comment for comment in events.comments)
        await publish(server, 2, headers=bearer(STATIC))
        # With a new one it misses nothing.
        new = await ticket(server, token(now_of(server)))
        async with listening(server, f"?ticket={new}&last_event_id={events.last_id}") as again:
            assert await again.signals(1) == [2]


# --- by a ticket ------------------------------------------------------------------------------------------


async def test_a_ticket_lets_in_once_as_who_asked_for_it(autojump_clock: Any) -> None:
    async with serving(auth=AUTH, streams=("orders",)) as server:
        text = await ticket(server, token(now_of(server), cap=PRICES))
        async with listening(server, f"?ticket={text}") as events:
            await publish(server, 1, type_="alert.high", headers=bearer(STATIC))
            await publish(server, 2, headers=bearer(STATIC))
            assert await events.signals(1) == [2]
            assert await status(server, f"?ticket={text}") == 401
        assert await status(server, f"?ticket={text}") == 401
        other = await ticket(server, STATIC)
        async with listening(server, f"?ticket={other}", path="/v1/streams/orders/sse"):
            pass


async def test_of_many_who_show_a_ticket_at_once_one_gets_in(autojump_clock: Any) -> None:
    async with serving(auth=AUTH, shards=4) as server:
        text = await ticket(server, STATIC)
        seen: list[int] = []

        async def show() -> None:
            seen.append(await status(server, f"?ticket={text}"))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(show)
        assert sorted(seen) == [200] + 7 * [401]


async def test_a_ticket_is_of_128_random_bits_and_lets_in_for_thirty_seconds(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        texts = {await ticket(server, STATIC) for _ in range(3)}
        assert [len(text) for text in texts] == [22, 22, 22]
        early, late, _ = texts
        await trio.sleep(TICKET_S - 1)
        async with listening(server, f"?ticket={early}"):
            pass
        await trio.sleep(1.1)
        assert await status(server, f"?ticket={late}") == 401


async def test_a_ticket_does_not_outlive_the_token_it_was_asked_for_with(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        answer = await server.request("POST", "/v1/tickets", headers=bearer(token(now_of(server), ttl=10)))
        given = json.loads(answer.body)
        assert 9_000 < given["expires_ms"] <= 10_000
        await trio.sleep(11)
        assert await status(server, f"?ticket={given['ticket']}") == 401


async def test_a_ticket_is_for_nothing_but_event_sources_and_a_token_is_no_ticket(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        text = await ticket(server, STATIC)
        for method, path in (("GET", "/v1/history"), ("GET", "/v1/sources"), ("POST", "/v1/tickets")):
            assert (await server.request(method, f"{path}?ticket={text}")).status == 401
        assert await status(server, "", bearer(text)) == 401
        for wrong in ("", "x", STATIC, token(now_of(server)), text + "A", text[:-1], "%F0%9F%98%80" * 9):
            assert await status(server, f"?ticket={wrong}") == 401
        assert await status(server, f"?token={token(now_of(server))}") == 400
        assert await status(server, f"?ticket={text}") == 200


async def test_a_mistake_in_the_query_does_not_use_the_ticket_up(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        text = await ticket(server, STATIC)
        assert await status(server, f"?ticket={text}&from=yesterday") == 422
        assert await status(server, f"?ticket={text}") == 200


async def test_who_may_ask_for_a_ticket(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        elsewhere = {**bearer(STATIC), "origin": "https://elsewhere.example"}
        for headers, expected in (({}, 401), (bearer("a.b.c"), 401), (elsewhere, 403), (bearer(STATIC), 201)):
            assert (await server.request("POST", "/v1/tickets", headers=headers)).status == expected
        assert (await server.request("GET", "/v1/tickets", headers=bearer(STATIC))).status == 405
        url = f"/v1/tickets?token={STATIC}"
        assert (await server.request("POST", url, headers=bearer(STATIC))).status == 400
    async with serving() as server:
        answer = await server.request("POST", "/v1/tickets")
        assert await status(server, f"?ticket={json.loads(answer.body)['ticket']}") == 200


async def test_unused_tickets_are_bounded_for_each_user_and_for_all_together(autojump_clock: Any) -> None:
    async with serving(auth=AUTH) as server:
        ann = bearer(token(now_of(server)))
        texts = [await ticket(server, token(now_of(server))) for _ in range(OUTSTANDING_OF_ONE)]
        refused = await server.request("POST", "/v1/tickets", headers=ann)
        assert (refused.status, refused.headers["retry-after"]) == (429, "30")
        await ticket(server, STATIC)  # somebody else
        assert await status(server, f"?ticket={texts[0]}") == 200
        texts.append(await ticket(server, token(now_of(server))))  # one was used
        await trio.sleep(TICKET_S)
        await ticket(server, token(now_of(server)))  # all are too old
        actor = server.env.tickets.get_by_name(TICKETS)
        given = [await actor.issue(Principal(user="", capability=EVERYTHING), f"u{n}") for n in range(OUTSTANDING)]
        assert sum(one is None for one in given) == 1


async def test_tickets_are_forgotten_and_the_actor_with_them(autojump_clock: Any) -> None:
    async with serving(auth=attrs.evolve(AUTH, jwt=attrs.evolve(AUTH.jwt, keys={}))) as server:
        await ticket(server, STATIC)
        await trio.sleep(120)
        assert server.live_actors == 0
