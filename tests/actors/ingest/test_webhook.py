"""Source `webhook`: signed, fresh, once; answers that tell the sender what to do."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from typing import Any

import pytest
import trio

from actors.app import app
from actors.ingest.source import InvalidOptions
from actors.ingest.sources.webhook import webhook
from actors.settings import Settings, SourceSettings
from runtime.testing import RunningServer, start_server
from tests.actors.ingest.kit import example, only, published, status, world

SECRET = "shop_secret-0123456789abcdef"
OLDER = "shop_secret_before-0123456789abcdef"
ORDER = b'{"events":[{"kind":"order.paid","customer":"c-7","id":"o-1","total":25}]}'


def signature(server: RunningServer, body: bytes, *, secret: str = SECRET, away_s: float = 0) -> str:
    t = int(server.platform.now() + away_s)
    return f"t={t},v1={hmac.new(secret.encode(), f'{t}.'.encode() + body, hashlib.sha256).hexdigest()}"


async def post(
    server: RunningServer, body: bytes = ORDER, *, signed: str | None = None, delivery: str | None = None, **how: Any
) -> tuple[int, Any]:
    headers = {"x-signature": signature(server, body, **how) if signed is None else signed}
    if delivery is not None:
        headers["x-delivery"] = delivery
    answer = await server.request("POST", "/v1/webhooks/shop", body=body, headers=headers)
    return answer.status, json.loads(answer.body)


def shop(**options: Any) -> Settings:
    return only(example("source-webhook", **options))


def plain(**options: Any) -> Settings:
    given = {"secrets": [SECRET], **options}
    return only(SourceSettings(kind="webhook", name="shop", options=given))


async def test_the_example_of_the_page_takes_what_its_sender_signs(autojump_clock: Any) -> None:
    async with start_server(app, settings=shop()) as server:
        assert await post(server, delivery="7f3c") == (202, {"signals": 1})
        assert await post(server, delivery="8", secret=OLDER) == (202, {"signals": 1})  # the same order, with its id
        (found,) = await published(server)
        assert (found.type, found.entity, found.id, found.data["total"]) == ("order.paid", "c-7", "shop:o-1", 25)
        shown = await status(server, "shop")
        assert (shown["produced"], shown["duplicates"], shown["next"], shown["error"]) == (1, 1, None, "")


async def test_the_same_delivery_is_answered_like_the_first_for_a_day(autojump_clock: Any) -> None:
    body = b'{"type":"t","entity":"e","data":1}'
    async with start_server(app, settings=plain()) as server:
        for n in range(5):
            assert await post(server, body, delivery="d1") == (202, {"signals": 1})
            await trio.sleep(n * 3_600)  # each attempt is signed anew
            if n == 2:
                await server.crash()
                await server.start()
        assert len(await published(server)) == 1


async def test_a_replay_is_refused(autojump_clock: Any) -> None:
    body = b'{"type":"t","entity":"e","data":1}'
    async with start_server(app, settings=plain()) as server:
        first = signature(server, body)
        assert (await post(server, body, signed=first, delivery="d1"))[0] == 202
        code, said = await post(server, body, signed=first, delivery="d2")
        assert (code, said["slug"]) == (409, "replayed")
        await trio.sleep(5)
        second = signature(server, body)
        assert (await post(server, body, signed=second, delivery="d1"))[0] == 202
        assert (await post(server, body, signed=second, delivery="d3"))[0] == 409  # of a repeated attempt, too
        code, said = await post(server, b'{"type":"t","entity":"e","data":2}', delivery="d1")
        assert (code, "another body" in said["msg"]) == (409, True)
        assert (await post(server, body, signed=first))[0] == 409
        assert len(await published(server)) == 1


async def test_without_an_id_the_signature_is_one(autojump_clock: Any) -> None:
    body = b'[{"type":"t","entity":"e","data":1},{"type":"t","entity":"e","data":1}]'
    async with start_server(app, settings=plain()) as server:
        signed = signature(server, body)
        for _ in range(3):
            assert await post(server, body, signed=signed) == (202, {"signals": 2})
        assert len(await published(server)) == 2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"signed": ""}, "no signature that can be read"),
        ({"signed": "t=1"}, "no signature that can be read"),
        ({"signed": "t=1,t=2,v1=00"}, "no signature that can be read"),
        ({"signed": f"t=99999999999999999,v1={'0' * 64}"}, "no signature that can be read"),
        ({"secret": "some other secret of somebody"}, "not that of this body"),
        ({"away_s": -301}, "signed 301 s ago"),
        ({"away_s": 302}, "s ahead"),
    ],
)
async def test_what_is_not_signed_lately_is_401(autojump_clock: Any, how: dict[str, Any], said: str) -> None:
    async with start_server(app, settings=shop()) as server:
        code, answer = await post(server, **how)
        assert (code, answer["slug"], said in answer["msg"]) == (401, "unauthenticated", True), answer
        assert (await status(server, "shop"))["failures"] == 0  # anybody can do that
        assert await published(server) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"nonsense", 400),
        (b"[" * 50_000, 400),
        (b'{"other": 1}', 400),
        (b'{"events": []}', 400),
        (b'{"events": [{"kind": "k", "customer": "c"}]}', 422),
        (b'{"events": [' + b",".join([b"{}"] * 1_001) + b"]}", 413),
        (b'{"events": [' + b" " * 200_000 + b"]}", 413),
    ],
)
async def test_what_cannot_be_stored_is_refused_whole(autojump_clock: Any, body: bytes, code: int) -> None:
    async with start_server(app, settings=shop(body_bytes=100_000)) as server:
        assert (await post(server, body))[0] == code
        assert (await status(server, "shop"))["failures"] == 1
        assert (await post(server))[0] == 202
        assert (await status(server, "shop"))["failures"] == 0


async def test_only_configured_names_and_posts_are_taken(autojump_clock: Any) -> None:
    async with start_server(app, settings=plain()) as server:
        assert (await server.request("POST", "/v1/webhooks/other")).status == 404
        assert (await server.request("GET", "/v1/webhooks/shop")).status == 405
        assert not await server.run_alarm(server.env.ingests.get_by_name("shop"))


async def test_the_memory_is_bounded_and_never_forgets_what_could_be_replayed(autojump_clock: Any) -> None:
    body = b'{"type":"t","entity":"e","data":1}'
    async with start_server(app, settings=plain(deliveries=5)) as server:
        first = signature(server, body)
        assert (await post(server, body, signed=first, delivery="d0"))[0] == 202
        for n in range(1, 5):
            assert (await post(server, body, delivery=f"d{n}", away_s=n))[0] == 202
        headers = {"x-signature": signature(server, body, away_s=9), "x-delivery": "d5"}
        answer = await server.request("POST", "/v1/webhooks/shop", body=body, headers=headers)
        assert (answer.status, answer.headers["retry-after"]) == (429, "600")
        assert (await post(server, body, signed=first, delivery="d0"))[0] == 202
        await trio.sleep(601)
        for n in range(5, 10):
            assert (await post(server, body, delivery=f"d{n}", away_s=n))[0] == 202
        assert (await post(server, body, signed=first, delivery="d0"))[0] == 401


@pytest.mark.parametrize("seed", range(8))
async def test_crashes_between_publication_and_record_double_nothing(autojump_clock: Any, seed: int) -> None:
    rng = random.Random(seed)
    done = 0

    async def send(server: RunningServer, number: int) -> None:
        nonlocal done
        body = json.dumps({"type": "t", "entity": "e", "data": number}).encode()
        while True:
            try:
                with trio.move_on_after(5):
                    if (await post(server, body, delivery=f"d{number}"))[0] == 202:
                        done += 1
                        return
            except (OSError, trio.BrokenResourceError, RuntimeError):
                pass
            await trio.sleep(rng.uniform(0, 0.3))

    async with start_server(app, settings=plain(), seed=seed) as server:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(send, server, number)
            while done < 30:
                await trio.sleep(rng.uniform(0, 0.2))
                for _ in range(rng.randint(0, 12)):
                    await trio.lowlevel.checkpoint()
                if rng.random() < 0.4:
                    await server.crash()
                    await server.start()
                else:
                    server.abort(server.env.ingests.get_by_name("shop"))
        found = sorted(one.data for one in await published(server))
        assert found == list(range(30))


def test_a_mistake_in_the_options_is_named() -> None:
    for options, said in (
        ({}, "options.secrets has 0 entries"),
        ({"secrets": ["short"]}, "one of 5 characters; must have at least 16"),
        ({"secrets": [SECRET], "tolerance_s": 0}, "options.tolerance_s is 0"),
    ):
        with pytest.raises(InvalidOptions, match=said) as raised:
            webhook(world("s"), options)
        assert "short" not in str(raised.value)
