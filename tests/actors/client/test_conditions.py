"""Conditions written in Python are the trees that the filter knows."""

import pytest

from actors.client import Condition, F, InvalidFilter
from actors.client.wishes import filter_of

PCT = F("/data/pct")


@pytest.mark.parametrize(
    ("condition", "tree"),
    [
        (PCT >= 2.5, {"f": "/data/pct", "op": "gte", "v": 2.5}),
        (PCT > 2, {"f": "/data/pct", "op": "gt", "v": 2}),
        (PCT < 2, {"f": "/data/pct", "op": "lt", "v": 2}),
        (PCT <= 2, {"f": "/data/pct", "op": "lte", "v": 2}),
        (2 < PCT, {"f": "/data/pct", "op": "gt", "v": 2}),  # noqa: SIM300
        (PCT == None, {"f": "/data/pct", "op": "eq", "v": None}),  # noqa: E711
        (PCT != "x", {"f": "/data/pct", "op": "ne", "v": "x"}),
        (PCT.is_in((1, 2)), {"f": "/data/pct", "op": "in", "v": [1, 2]}),
        (PCT.not_in([1]), {"f": "/data/pct", "op": "nin", "v": [1]}),
        (PCT.exists(), {"f": "/data/pct", "op": "exists"}),
        (PCT.prefix("a"), {"f": "/data/pct", "op": "prefix", "v": "a"}),
        (PCT.suffix("a"), {"f": "/data/pct", "op": "suffix", "v": "a"}),
        (PCT.contains("a"), {"f": "/data/pct", "op": "contains", "v": "a"}),
        (~PCT.exists(), {"not": {"f": "/data/pct", "op": "exists"}}),
    ],
)
def test_each_comparison_is_an_operator_of_the_filter(condition, tree):
    assert condition.tree == tree


def test_conditions_side_by_side_do_not_nest():
    a, b, c = F("/data/a") > 1, F("/data/b") > 1, F("/data/c") > 1
    assert (a & b & c).tree == {"all": [a.tree, b.tree, c.tree]}
    assert (a | (b | c)).tree == {"any": [a.tree, b.tree, c.tree]}
    assert (a & b | c).tree == {"any": [{"all": [a.tree, b.tree]}, c.tree]}


def test_the_filter_takes_a_condition_as_its_where():
    condition = (PCT > 2) & ~F("/tags/venue").exists()
    made = filter_of({"types": ("a.>",), "where": condition})
    assert made == filter_of({"types": ["a.>"], "where": condition.tree})
    assert made.matches({"type": "a.b", "entity": "e", "data": {"pct": 3}})
    assert not made.matches({"type": "a.b", "entity": "e", "data": {"pct": 3}, "tags": {"venue": "X"}})


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: (PCT > 1) and (PCT < 3),
        lambda: (PCT > 1) or (PCT < 3),
        lambda: 1 < PCT < 3,
        lambda: not PCT.exists(),
        lambda: bool(PCT),
        lambda: F("/data/a") == F("/data/b"),
        lambda: (PCT > 1) & True,
        lambda: {PCT},
    ],
)
def test_what_python_would_decide_by_itself_is_an_error(mistake):
    with pytest.raises(TypeError):
        mistake()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: F("data/pct"),
        lambda: PCT.is_in([]),
        lambda: float("nan") == PCT,
        lambda: object() == PCT,
        lambda: ~~~~~~(PCT > 1),
    ],
)
def test_what_no_server_takes_is_refused_where_it_is_written(mistake):
    with pytest.raises(InvalidFilter):
        mistake()


def test_a_condition_shows_what_it_is():
    assert repr(F("/data/p") > 1) == "Condition({'f': '/data/p', 'op': 'gt', 'v': 1})"
    assert Condition({"f": "/data/p", "op": "gt", "v": 1}) == (F("/data/p") > 1)
