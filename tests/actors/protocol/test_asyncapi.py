"""`docs/reference/asyncapi.yaml` says of the socket what the code says, no more and no less."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import attrs
import jsonschema
import pytest
import yaml

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol import requests
from actors.protocol.codes import ERROR_CODES, CloseCode, after_close
from actors.protocol.cursor import Cursor, Last
from actors.protocol.decoding import decode_client, decode_server
from actors.protocol.encoding import ENCODINGS
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.signals import Draft

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "actors" / "protocol" / "vectors"
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/reference/asyncapi.yaml").read_text())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
FILTER = Filter.parse({"types": ["a.>"], "where": {"f": "/data/p", "op": "gte", "v": 1}})
SIGNAL = Draft.of("a", "b", {"x": 1}, tags={"v": "X"}).signal(o=3, ts=5, id="i")
OK = wire.SubOk(id=2, s="x", g=1, since=Cursor("E", 3), head=4, recovered=False, lost=wire.Lost(1, 2), filter="{}")
ERR = wire.Err(code=429, slug="rate_limited", msg="m", retry=True, id=1, s="x", at="/t", retry_after_ms=5)
SUB = requests.Sub(
    id=1, s="x", filter=FILTER, since=Last(3), on_gap="skip", min_ms=20, on_slow="latest"
)  # every key, each as it is not by default

WITH_EVERY_KEY: list[Any] = [
    requests.Hello(
        id=1,
        token="t",
        resume="r",
        client=requests.ClientInfo(name="n", version="1", sdk="s"),
        features=("mod",),
        subs=(attrs.evolve(SUB, id=None),),
    ),
    SUB,
    requests.Mod(id=1, s="x", change=requests.Change(filter=FILTER, min_ms=20, on_slow="skip", backfill=Last(1))),
    requests.Unsub(id=1, s="x"),
    requests.Ack({"x": 1}),
    requests.Auth(id=1, token="t"),
    requests.Hist(id=1, filter=FILTER, since="now", limit=5, reverse=True),
    requests.Pub(id=1, draft=Draft.of("a", "b", 1, id="i", tags={"v": 1})),
    requests.Ping(),
    wire.Welcome(
        id=1,
        session="s",
        resume="r",
        resumed=True,
        epoch="E",
        head=4,
        oldest=1,
        now=5,
        ping_ms=25_000,
        dead_ms=10_000,
        limits=Limits().to_json(),
        features=("mod",),
        server="0",
        subs=(OK, ERR),
    ),
    OK,
    wire.Sig(g=1, a=1, b=3, signals=(SIGNAL,), k=2),
    wire.Sig(s="x", a=1, b=3, signals=(SIGNAL,), k=2),
    wire.Snap(s="x", b=3, signals=(SIGNAL,), more=True),
    wire.Page(id=1, a=1, b=3, signals=(SIGNAL,), more=True, epoch="E"),
    wire.Live(s="x", g=1, b=3),
    wire.Gap(s="x", a=1, b=2, reason="slow"),
    wire.Reset(epoch="E", head=3, reason="restored"),
    wire.Unsubbed(s="x", code=403, reason="r"),
    wire.Goaway(reason="shutdown", after_ms=(0, 5), deadline_ms=9, url="ws://x"),
    wire.Pong(),
    wire.Ok(id=1, o=3, epoch="E", dup=False, exp_ms=4),
    ERR,
]
FROM_CLIENT = get_args(requests.ClientMessage)


def validator(name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(schema)


VALIDATORS = {name: validator(name) for name in SCHEMAS}


def check(value: Any) -> None:
    VALIDATORS[value["t"]].validate(value)


def keys_of(name: str) -> tuple[set[str], set[str]]:
    """The keys of a message and those that it needs."""
    parts = [
        SCHEMAS[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
        for part in SCHEMAS[name].get("allOf", [SCHEMAS[name]])
    ]
    return {key for part in parts for key in part["properties"]}, {key for part in parts for key in part["required"]}


def understood(value: dict[str, Any], *, by_server: bool) -> bool:
    text = json.dumps(value)
    if by_server:
        return not any(isinstance(one, wire.Err) for one in decode_client(text, Limits()))
    try:
        return bool(list(decode_server(text)))
    except Refused:
        return False


def kind(message: Any) -> str:
    return f"{type(message).__name__}-{'s' if getattr(message, 's', None) else ''}"


def test_the_file_is_valid_asyncapi() -> None:
    path = ROOT / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
    if not path.exists():
        assert "CI" not in os.environ, f"{path} is missing; run `make js`"
        pytest.skip("the schema of AsyncAPI is not installed; run `make js`")
    problems = [
        f"{problem.json_path}: {problem.message[:200]}"
        for problem in jsonschema.Draft7Validator(json.loads(path.read_text())).iter_errors(DOCUMENT)
    ]
    assert not problems


def test_every_message_is_in_the_file_and_every_message_of_the_file_is_there() -> None:
    by_server = {json.loads(one.encode())["t"] for one in WITH_EVERY_KEY if isinstance(one, FROM_CLIENT)}
    by_client = {json.loads(one.encode())["t"] for one in WITH_EVERY_KEY if not isinstance(one, FROM_CLIENT)}
    assert {type(one) for one in WITH_EVERY_KEY} == {*FROM_CLIENT, *get_args(wire.ServerMessage)}
    assert set(DOCUMENT["components"]["messages"]) == by_server | by_client
    for operation, kinds in (("fromClient", by_server), ("fromServer", by_client)):
        listed = {one["$ref"].rsplit("/", 1)[1] for one in DOCUMENT["operations"][operation]["messages"]}
        assert listed == kinds
    for channel in DOCUMENT["channels"].values():
        assert set(channel["messages"]) == by_server | by_client


def test_every_part_that_the_file_refers_to_is_in_it() -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if "$ref" in node else set()
            return found.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    for reference in references(DOCUMENT):
        at = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in at, reference
            at = at[step]
    used = {one.rsplit("/", 1)[1] for one in references(DOCUMENT) if one.startswith("#/components/schemas/")}
    assert used == set(SCHEMAS)


@pytest.mark.parametrize("message", WITH_EVERY_KEY, ids=kind)
def test_a_message_has_the_keys_of_the_file_and_needs_those_that_it_says(message: Any) -> None:
    value = json.loads(message.encode())
    check(value)
    keys, needed = keys_of(value["t"])
    elsewhere = {"sig": {"g", "s"}, "page": {"oldest", "head"}}.get(value["t"], set())
    assert set(value) | elsewhere == keys
    by_server = isinstance(message, FROM_CLIENT)
    for key in value:
        without = {name: one for name, one in value.items() if name != key}
        if (value["t"], key) in {("sub", "mode"), ("mod", "mode")}:
            continue  # `min_ms` goes with `mode`, which no schema of one key says
        assert understood(without, by_server=by_server) == (key not in needed), key
        with pytest.raises(jsonschema.ValidationError) if key in needed else nullcontext():
            VALIDATORS[value["t"]].validate(without)


@pytest.mark.parametrize("message", WITH_EVERY_KEY, ids=kind)
def test_a_key_of_the_wrong_type_is_refused_by_the_file_and_by_the_code(message: Any) -> None:
    value = json.loads(message.encode())
    for key in value:
        wrong = value | {key: [[]]}
        assert not understood(wrong, by_server=isinstance(message, FROM_CLIENT)), key
        assert not VALIDATORS[value["t"]].is_valid(wrong), key


def test_errors_and_close_codes_are_those_of_the_code() -> None:
    assert DOCUMENT["x-errors"] == [attrs.asdict(one) for one in ERROR_CODES]
    listed = {(one["code"], one["name"], one["then"]) for one in DOCUMENT["x-close-codes"]}
    assert listed == {(one.value, one.name.lower(), after_close(one).value) for one in CloseCode}


def test_limits_subprotocols_and_version_are_those_of_the_code() -> None:
    assert set(SCHEMAS["limits"]["properties"]) == set(Limits().to_json())
    headers = DOCUMENT["channels"]["main"]["bindings"]["ws"]["headers"]["properties"]
    assert headers["Sec-WebSocket-Protocol"]["enum"] == [one.subprotocol for one in ENCODINGS.values()]
    assert DOCUMENT["info"]["version"] == version("heliograph")


def test_frames_of_the_vectors_are_valid_exactly_when_the_client_reads_them() -> None:
    seen = set()
    for path in VECTORS.glob("*.json"):
        steps = [step for one in _vectors(path) for step in one["steps"] if "receive" in step]
        for line in [line for step in steps for line in step["receive"].split("\n")]:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and value.get("t") in VALIDATORS:
                seen.add(value["t"])
                good = understood(value, by_server=False)
                assert VALIDATORS[value["t"]].is_valid(value) == good, line
    assert {"welcome", "subok", "sig", "snap", "live", "gap", "reset", "goaway", "ok", "err", "unsubbed"} <= seen


def test_filters_of_the_vectors_are_valid() -> None:
    vectors = json.loads((VECTORS / "filters.json").read_text())
    for vector in [*vectors["match"], *vectors["canonical"]]:
        VALIDATORS["filter"].validate(vector["filter"])
    refused = [vector["name"] for vector in vectors["errors"] if not VALIDATORS["filter"].is_valid(vector["filter"])]
    assert len(refused) > 5, refused


def _vectors(path: Path) -> list[Any]:
    vectors = json.loads(path.read_text())
    return vectors if isinstance(vectors, list) else []
