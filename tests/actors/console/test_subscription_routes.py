"""Subscriptions in the console: which filters there are, and which of their conditions say no to a signal."""

from __future__ import annotations

import attrs
import pytest
import trio
from hypothesis import given

from actors.app import app
from actors.filters import Filter
from actors.filters.explain import explain, in_words
from runtime.testing import start_server
from tests.actors.console.test_connection_routes import client, publish
from tests.actors.console.test_console import MEANT, QUIET, get, post
from tests.actors.test_filters import filters, signals

TICK = {"type": "price.tick", "entity": "btc-usd", "data": {"pct": 1}}
PRICES = {"types": ["price.>"], "where": {"f": "/data/pct", "op": "gte", "v": 2.5}}


# --- subscriptions ----------------------------------------------------------------------------------------


async def test_equal_filters_of_all_shards_are_one_with_its_members_and_how_much_it_matched(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        one = {"s": "a", "filter": {"types": ["a.>"]}}
        async with client(server, subs=[one]), client(server, subs=[one]):
            async with client(server, subs=[{"s": "b", "filter": {"types": ["x.>"]}}]):
                await publish(server, 3)
                await trio.sleep(5)
                await post(server, "/publish", {"type": "x.y", "entity": "e", "data": 0}, 201)
                await trio.sleep(5)
                found = await get(server, "/subscriptions?desc=1")
                assert found["total"] == 2
                first, second = found["rows"]
                assert (first["filter"], first["text"], first["members"]) == ({"types": ["a.>"]}, "types a.>", 2)
                assert (first["evaluated"], first["matched"], first["match_rate"]) == (4, 3, 0.75)
                assert (second["members"], second["matched"]) == (1, 1)
                assert first["bytes_per_s"] > second["bytes_per_s"] > 0
                assert first["group"].endswith("@main")
        await trio.sleep(1)
        assert (await get(server, "/subscriptions"))["total"] == 0


async def test_subscriptions_are_sorted_filtered_and_cut_into_windows(autojump_clock):
    settings = attrs.evolve(QUIET, streams=("other",))
    subs = [{"s": f"s{n}", "filter": {"types": [f"t{n}.>"]}} for n in range(5)]
    async with start_server(app, settings=settings) as server:
        async with (
            client(server, subs=subs),
            client(server, "/v1/streams/other", subs[:2]),
            client(server, subs=subs[3:]),
        ):
            assert (await get(server, "/subscriptions"))["total"] == 7
            found = await get(server, "/subscriptions?stream=other&limit=1&offset=1")
            assert (found["total"], [row["stream"] for row in found["rows"]]) == (2, ["other"])
            down = await get(server, "/subscriptions?sort=members&desc=1&limit=2")
            assert {row["text"] for row in down["rows"]} == {"types t3.>", "types t4.>"}
            found = await get(server, "/subscriptions?q=TYPES%20T1")
            assert (found["total"], [row["stream"] for row in found["rows"]]) == (2, ["main", "other"])


@pytest.mark.parametrize(("query", "at"), [("sort=x", "sort"), ("stream=x", "stream"), (f"q={'x' * 129}", "q")])
async def test_a_query_that_cannot_be_answered_says_why(autojump_clock, query, at):
    async with start_server(app, settings=QUIET) as server:
        assert (await get(server, f"/subscriptions?{query}", 400))["at"] == at


# --- explain ----------------------------------------------------------------------------------------------


@given(filters, signals)
def test_what_is_explained_is_what_is_evaluated(filter_, signal):
    compiled = Filter.parse(filter_)
    verdict = explain(compiled, signal)
    assert verdict.matches == compiled.matches(signal)
    follows(verdict)


def follows(verdict):
    """What joins others says what follows from what they say."""
    said = [child.matches for child in verdict.children]
    if said:
        assert verdict.matches == {"and": all, "or": any, "not": lambda one: not one[0]}[verdict.node](said)
    for child in verdict.children:
        follows(child)


@given(filters)
def test_every_filter_has_words(filter_):
    canonical = Filter.parse(filter_).canonical
    assert in_words(canonical)
    assert (in_words(canonical) == "everything") == (canonical == "{}")


@pytest.mark.parametrize(
    ("filter_", "text"),
    [
        ({}, "everything"),
        (PRICES, "types price.> and /data/pct >= 2.5"),
        (
            {
                "where": {
                    "any": [{"f": "/data/a", "op": "exists"}, {"not": {"f": "/data/b", "op": "in", "v": [1, "x"]}}]
                }
            },
            '(/data/a exists or not /data/b in [1, "x"])',
        ),
    ],
)
def test_a_filter_in_words(filter_, text):
    assert in_words(Filter.parse(filter_).canonical) == text


@pytest.mark.parametrize(
    ("types", "why"),
    [
        (["price.*"], "price.tick is one of price.*"),
        (["x.>", "y"], "price.tick is none of them"),
        (["price.>", "!price.tick"], "price.tick is excluded by !price.tick"),
        (["!x"], "price.tick is not excluded"),
    ],
)
def test_names_say_which_pattern_it_was(types, why):
    assert explain(Filter.parse({"types": types}), TICK).why == why


async def test_a_pasted_signal_is_explained_by_every_filter_of_a_stream(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        subs = [{"s": "a", "filter": PRICES}, {"s": "b", "filter": {}}]
        async with client(server, subs=subs), client(server, subs=subs[:1]):
            results = (await post(server, "/explain", {"stream": "main", "signal": TICK}))["results"]
            assert [(one["members"], one["matches"]) for one in results] == [(2, False), (1, True)]
            assert results[0]["tree"] == {
                "node": "and",
                "matches": False,
                "why": "1 of 2 say no",
                "children": [
                    {"node": "types price.>", "matches": True, "why": "price.tick is one of price.>", "children": []},
                    {"node": "/data/pct >= 2.5", "matches": False, "why": "it is 1", "children": []},
                ],
            }
        assert (await get(server, "/audit"))["total"] == 0


async def test_a_filter_is_tried_without_anybody_who_has_it(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        (result,) = (await post(server, "/explain", {"filter": PRICES, "signal": TICK | {"data": {}}}))["results"]
        assert (result["matches"], result["text"]) == (False, "types price.> and /data/pct >= 2.5")
        assert result["tree"]["children"][1]["why"] == "it is not there"


@pytest.mark.parametrize(
    ("body", "status", "at"),
    [
        ([], 400, None),
        ({}, 400, "/signal"),
        ({"signal": {"type": "a", "entity": "e"}}, 400, "/signal/data"),
        ({"signal": TICK, "filter": {"types": "a"}}, 422, "/filter/types"),
        ({"signal": TICK, "stream": "none"}, 404, "/stream"),
        ({"signal": TICK, "stream": ["main"]}, 404, "/stream"),
    ],
)
async def test_what_cannot_be_explained_says_why(autojump_clock, body, status, at):
    async with start_server(app, settings=QUIET) as server:
        assert (await post(server, "/explain", body, status)).get("at") == at


async def test_no_page_of_another_site_has_anything_explained(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        body = {"filter": {}, "signal": TICK}
        for headers in ({}, {**MEANT, "sec-fetch-site": "cross-site"}):
            assert (await post(server, "/explain", body, 403, headers))["slug"] == "not_meant"
