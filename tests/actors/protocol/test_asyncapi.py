"""docs/reference/asyncapi.yaml says what the code says: kinds, keys, values, codes; the vectors are valid by it."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import actors.protocol
from actors.filters import Filter
from actors.filters.where import OPERATORS
from actors.protocol import messages as wire
from actors.protocol import requests
from actors.protocol.codes import ERROR_CODES, CloseCode, after_close, close_name
from actors.protocol.cursor import Cursor, Last
from actors.protocol.decoding import decode_client, decode_server
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.protocol.requests import ClientMessage
from actors.protocol.server import FEATURES
from actors.routes import ROUTES
from actors.routes import stream as stream_route
from actors.signals import Draft
from tests.actors.test_connections import World, run

ROOT = Path(__file__).parents[3]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docs/reference/asyncapi.yaml").read_text())
SCHEMAS: dict[str, Any] = FILE["components"]["schemas"]
REGISTRY: Registry[Any] = Registry().with_resource("urn:asyncapi", Resource(contents=FILE, specification=DRAFT202012))
VECTORS = Path(actors.protocol.__file__).parent / "vectors"

FILTER = Filter.parse({"types": ["price.>"], "where": {"f": "/data/p", "op": "gt", "v": 1}})
SIGNAL = Draft("t.a", "e", b"1", id="x", tags_json=b'{"v":"X"}').signal(o=5, ts=7, id="x")
ERR = wire.Err(code=429, slug="rate_limited", msg="m", retry=True, id=1, s="a", at="/s", retry_after_ms=5)
LOST = wire.Lost(1, 2)
SUBOK = wire.SubOk(id=1, s="a", g=1, since=Cursor("E", 1), head=2, recovered=False, lost=LOST, filter=FILTER.source)
CLIENT: tuple[ClientMessage, ...] = (
    requests.Hello(
        id=1,
        token="t",
        resume="r",
        client=requests.ClientInfo(name="n", version="1", sdk="s"),
        features=("ack",),
        subs=(requests.Sub(s="a", filter=FILTER, on_gap="skip", min_ms=20, on_slow="skip"),),
    ),
    requests.Sub(id=1, s="a", filter=FILTER, since=Last(1), on_gap="skip", min_ms=20, on_slow="latest"),
    requests.Mod(id=1, s="a", change=requests.Change(filter=FILTER, min_ms=20, on_slow="skip", backfill=Last(1))),
    requests.Unsub(id=1, s="a"),
    requests.Pub(id=1, draft=Draft("t.a", "e", b"1", id="x", tags_json=b'{"v":"X"}')),
    requests.Hist(id=1, filter=FILTER, since="now", limit=5, reverse=True),
    requests.Auth(id=1, token="t"),
    requests.Ack({"a": 1}),
    requests.Ping(),
)
SERVER: tuple[wire.ServerMessage, ...] = (
    wire.Welcome(
        id=1,
        session="s",
        resume="r",
        resumed=True,
        epoch="E",
        head=1,
        oldest=1,
        now=1,
        ping_ms=1,
        dead_ms=1,
        limits=Limits().to_json(),
        features=FEATURES,
        server="1",
        subs=(SUBOK, ERR),
    ),
    SUBOK,
    wire.Sig(g=1, a=1, b=5, signals=(SIGNAL,), k=2),
    wire.Sig(s="a", a=1, b=5),
    wire.Snap(s="a", b=5, signals=(SIGNAL,), more=True),
    wire.Page(id=1, a=1, b=5, signals=(SIGNAL,), more=False, epoch="E"),
    wire.Live(s="a", g=1, b=5),
    wire.Gap(s="a", a=1, b=2, reason="slow"),
    wire.Reset(epoch="E", head=1, reason="r"),
    wire.Unsubbed(s="a", code=503, reason="r"),
    wire.Goaway(reason="r", after_ms=(0, 1), deadline_ms=2, url="wss://x"),
    wire.Pong(),
    wire.Ok(id=1, o=1, epoch="E", dup=True, exp_ms=1),
    ERR,
)


def faults(kind: str, message: object, *, whole: bool = True) -> list[str]:
    """What the schema of a kind has against a message, or against the part of one."""
    validator = Draft202012Validator({"$ref": f"urn:asyncapi#/components/schemas/{kind}"}, registry=REGISTRY)
    return [
        f"{'/'.join(map(str, error.path))}: {error.message}"
        for error in validator.iter_errors(message)
        if whole or error.validator != "required"
    ]


def kinds(operation: str) -> set[str]:
    return {ref["$ref"].rpartition("/")[2] for ref in FILE["operations"][operation]["messages"]}


def kinds_of(union: Any) -> set[str]:
    return {kind.__name__.lower() for kind in typing.get_args(union)}


def test_every_kind_of_message_is_there_and_no_other() -> None:
    assert kinds("fromClient") == kinds_of(ClientMessage) == {json.loads(one.encode())["t"] for one in CLIENT}
    assert kinds("toClient") == kinds_of(wire.ServerMessage) == {json.loads(one.encode())["t"] for one in SERVER}
    everything = kinds("fromClient") | kinds("toClient")
    for channel in FILE["channels"].values():
        assert set(channel["messages"]) == everything
    assert set(FILE["components"]["messages"]) == everything


def test_the_channels_are_the_routes_of_the_socket() -> None:
    assert {channel["address"] for channel in FILE["channels"].values()} == {
        path for path, route in ROUTES.items() if route is stream_route
    }


@pytest.mark.parametrize("message", [*CLIENT, *SERVER], ids=lambda one: type(one).__name__)
def test_what_the_code_writes_is_valid_and_has_only_keys_of_the_file(message: Any) -> None:
    said = json.loads(message.encode())
    assert faults(said["t"], said) == []
    assert set(said) <= set(SCHEMAS[said["t"]]["properties"])


@pytest.mark.parametrize("kind", sorted(kinds("fromClient") | kinds("toClient")))
def test_every_key_of_the_file_is_one_that_the_code_writes(kind: str) -> None:
    written = {
        key for one in (*CLIENT, *SERVER) for said in [json.loads(one.encode())] if said["t"] == kind for key in said
    }
    # Only the server's own broadcaster adds these two to a page (actors/history.py).
    later = {"oldest", "head"} if kind == "page" else set()
    assert set(SCHEMAS[kind]["properties"]) == written | later


@pytest.mark.parametrize("message", CLIENT, ids=lambda one: type(one).__name__)
def test_a_key_is_required_of_clients_exactly_where_the_server_refuses_to_do_without(message: ClientMessage) -> None:
    said = json.loads(message.encode())
    for key in said:
        left = {name: value for name, value in said.items() if name != key}
        if key == "mode":  # goes with min_ms
            left.pop("min_ms", None)
        (read,) = decode_client(json.dumps(left), Limits())
        assert isinstance(read, wire.Err) == bool(faults(said["t"], left)), key


def test_the_error_codes_are_those_of_the_code() -> None:
    rows = SCHEMAS["err"]["x-errors"]
    assert [(row["code"], row["slug"], row["retry"]) for row in rows] == [
        (error.code, error.slug, error.retry) for error in ERROR_CODES
    ]


def test_the_close_codes_are_those_of_the_code_with_what_a_client_does_then() -> None:
    for channel in FILE["channels"].values():
        assert [(row["code"], row["name"], row["then"]) for row in channel["x-close-codes"]] == [
            (int(code), close_name(code), after_close(code).value) for code in CloseCode
        ]


def test_the_words_of_choices_are_those_of_the_code() -> None:
    for kind in ("sub", "mod"):
        properties = SCHEMAS[kind]["properties"]
        assert properties["mode"]["enum"] == list(typing.get_args(requests.Mode))
        assert properties["on_slow"]["enum"] == list(typing.get_args(requests.OnSlow))
    assert SCHEMAS["sub"]["properties"]["on_gap"]["enum"] == list(typing.get_args(requests.OnGap))
    assert SCHEMAS["where"]["oneOf"][-1]["properties"]["op"]["enum"] == list(OPERATORS)
    in_hello = SCHEMAS["hello"]["properties"]["subs"]["items"]["properties"]
    assert set(in_hello) == set(SCHEMAS["sub"]["properties"]) - {"t", "id"}
    assert SCHEMAS["welcome"]["properties"]["features"]["items"]["enum"] == list(FEATURES)


def _steps() -> Iterator[dict[str, Any]]:
    for path in sorted(VECTORS.glob("*.json")):
        if path.stem not in ("backoff", "filters"):
            for vector in json.loads(path.read_text()):
                yield from vector["steps"]


def test_what_a_server_says_in_the_vectors_is_valid_where_a_client_takes_it() -> None:
    seen: set[str] = set()
    for step in _steps():
        for line in str(step.get("receive", "")).split("\n"):
            try:
                taken = list(decode_server(line)) if line else []
            except Refused:
                continue  # vectors have messages that break the protocol, too
            if taken:
                said = json.loads(line)
                assert faults(said["t"], said) == [], line
                seen.add(said["t"])
    assert seen >= kinds("toClient") - {"page"}


def test_what_a_client_says_in_the_vectors_is_valid() -> None:
    seen: set[str] = set()
    for step in _steps():
        for said in step.get("expect", {}).get("send", ()):
            part = {key: value for key, value in said.items() if value is not None}  # null: not there
            assert faults(said["t"], part, whole=False) == [], said
            seen.add(said["t"])
    assert seen >= {"hello", "sub", "mod", "unsub", "pub", "ack", "ping"}


def test_the_filters_of_the_vectors_are_valid() -> None:
    vectors = json.loads((VECTORS / "filters.json").read_text())
    for case in vectors["match"]:
        assert faults("filter", case["filter"]) == [], case


def test_what_a_server_really_says_is_valid_and_has_only_keys_of_the_file(peer: Any) -> None:
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("hello", {"features": ["mod", "snap"], "subs": [{"s": "a", "filter": {}, "from": "earliest"}]}),
        ("sub", {"s": "b", "filter": {"types": ["price.>"]}, "from": "snapshot"}),
        ("sub", {"s": "b", "filter": {}}),
        ("sub", {"s": "c", "filter": {"types": []}}),
        ("pub", {"signal": {"type": "price.tick", "entity": "e", "data": {"p": 1}, "tags": {"v": "X"}}}),
        ("mod", {"s": "b", "filter": {}, "backfill": {"last": 2}}),
        ("hist", {"filter": {}, "from": "earliest"}),
        ("hist", {"filter": {}, "from": {"cursor": "other:1"}}),
        ("unsub", {"s": "b"}),
        ("nothing", {}),
    )
    heard: set[str] = set()

    async def scenario(world: World) -> None:
        await world.publish("price.tick", "alert.high")
        async with peer(world.server) as one:
            for t, fields in asked:
                said = await one.ask(t, **fields)
                while True:  # the answer, and what follows in the next moment
                    assert faults(said["t"], said) == [], said
                    assert set(said) <= set(SCHEMAS[said["t"]]["properties"])
                    heard.add(said["t"])
                    with trio.move_on_after(1) as quiet:
                        said = await one.receive()
                    if quiet.cancelled_caught:
                        break

    run(scenario)
    assert heard == {"welcome", "subok", "sig", "snap", "live", "ok", "page", "err"}
