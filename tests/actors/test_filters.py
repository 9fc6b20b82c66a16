"""The filter language: vectors, and a compiled filter against a naive reading of the specification."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import actors.protocol
from actors.filters import Filter, InvalidFilter
from actors.filters.conjunction import conjunction
from actors.filters.index import FilterIndex

VECTORS = json.loads((Path(actors.protocol.__file__).parent / "vectors" / "filters.json").read_text())


def by_name(section):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS[section]])


@by_name("match")
def test_match(case):
    found = Filter.parse(case["filter"])
    assert found.matches(case.get("signal", VECTORS["signal"])) is case["result"]


@by_name("match")
def test_the_canonical_form_matches_the_same(case):
    found = Filter.from_canonical(Filter.parse(case["filter"]).canonical)
    assert found.matches(case.get("signal", VECTORS["signal"])) is case["result"]


@by_name("canonical")
def test_canonical(case):
    found = Filter.parse(case["filter"])
    assert found.canonical == case["text"]
    assert Filter.parse(json.loads(case["text"])).canonical == case["text"]


@by_name("errors")
def test_errors_point_at_the_part(case):
    with pytest.raises(InvalidFilter) as caught:
        Filter.parse(case["filter"])
    assert caught.value.at == case["at"]
    assert str(caught.value)


def test_filters_with_equal_canonical_forms_are_equal():
    one = Filter.parse({"types": ["a", "b"], "entities": [">"]})
    other = Filter.parse({"types": ["b", "a", "b"]})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Filter.parse({"types": ["a"]})


def test_names_decide_alone_without_a_where():
    names_only = Filter.parse({"types": ["price.*"], "entities": ["!eth-*"]})
    assert not names_only.has_where
    assert names_only.matches_names("price.tick", "btc-usd")
    assert not names_only.matches_names("price.tick", "eth-usd")
    assert Filter.parse({"where": {"f": "/ts", "op": "exists"}}).has_where


def test_the_source_is_kept_for_sending():
    assert json.loads(Filter.parse({"types": ["b", "a"]}).source) == {"types": ["b", "a"]}


def test_flattening_may_exceed_what_a_client_may_send_and_is_still_read_back():
    leaves = [[{"f": f"/data/{i}{j}", "op": "exists"} for j in range(10)] for i in range(3)]
    found = Filter.parse({"where": {"all": [{"all": part} for part in leaves]}})
    assert len(json.loads(found.canonical)["where"]["all"]) == 30
    assert Filter.from_canonical(found.canonical) == found


def test_numbers_no_json_text_has_are_refused():
    for number in (float("nan"), float("inf"), 2**53):
        with pytest.raises(InvalidFilter) as caught:
            Filter.parse({"where": {"f": "/ts", "op": "eq", "v": number}})
        assert caught.value.at == "/where/v"


# --- against a naive reading ------------------------------------------------------------------------------

TOKENS = ["a", "b", "ab", "abc"]
names = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=4).map(".".join)
pattern_tokens = st.sampled_from([*TOKENS, "*", "a*", "ab*"])


@st.composite
def patterns(draw):
    tokens = draw(st.lists(pattern_tokens, min_size=1, max_size=3))
    if draw(st.booleans()):
        tokens.append(">")
    return ("!" if draw(st.integers(0, 3)) == 0 else "") + ".".join(tokens)


def naive_pattern(pattern, name):
    def match(pattern_tokens, tokens):
        if not pattern_tokens:
            return not tokens
        first, *rest = pattern_tokens
        if first == ">":
            return len(tokens) >= 1
        if not tokens:
            return False
        fits = first == "*" or (first.endswith("*") and tokens[0].startswith(first[:-1])) or first == tokens[0]
        return fits and match(rest, tokens[1:])

    return match(pattern.split("."), name.split("."))


def naive_patterns(patterns, name):
    positive = [pattern for pattern in patterns if not pattern.startswith("!")]
    negative = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return (not positive or any(naive_pattern(pattern, name) for pattern in positive)) and not any(
        naive_pattern(pattern, name) for pattern in negative
    )


@given(st.lists(patterns(), min_size=1, max_size=5), names)
def test_patterns_agree_with_the_naive_reading(patterns, name):
    found = Filter.parse({"types": patterns})
    assert found.matches_names(name, "any") == naive_patterns(patterns, name)
    assert Filter.from_canonical(found.canonical).matches_names(name, "any") == naive_patterns(patterns, name)


scalars = st.sampled_from([None, True, False, 0, 1, 1.0, -1, 2.5, "", "a", "ab", "b", "1"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3),
    max_leaves=6,
)
pointers = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "00", "-"]), max_size=3).map(
    lambda tokens: "".join(f"/{token}" for token in ["data", *tokens])
)


@st.composite
def leaves(draw):
    operator = draw(
        st.sampled_from(["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists", "prefix", "suffix", "contains"])
    )
    leaf = {"f": draw(pointers), "op": operator}
    if operator in ("in", "nin"):
        leaf["v"] = draw(st.lists(scalars, min_size=1, max_size=3))
    elif operator != "exists":
        leaf["v"] = draw(values)
    return leaf


trees = st.recursive(
    leaves(),
    lambda inner: (
        st.builds(
            lambda joint, children: {joint: children},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        )
        | st.builds(lambda child: {"not": child}, inner)
    ),
    max_leaves=8,
).filter(lambda tree: naive_depth(tree) <= 6)


def naive_depth(tree):
    children = tree.get("all") or tree.get("any") or [tree["not"]] if "f" not in tree else []
    return 1 + max(map(naive_depth, children), default=0)


class Missing:
    pass


def naive_value(signal, pointer):
    value = signal
    for token in pointer.split("/")[1:]:
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and token in [str(index) for index in range(len(value))]:
            value = value[int(token)]
        else:
            return Missing
    return value


def naive_kind(value):
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def naive_equal(x, v):
    if naive_kind(x) != naive_kind(v):
        return False
    if isinstance(x, list):
        return len(x) == len(v) and all(naive_equal(*pair) for pair in zip(x, v, strict=True))
    if isinstance(x, dict):
        return sorted(x) == sorted(v) and all(naive_equal(x[key], v[key]) for key in x)
    return x == v


def naive_where(tree, signal):
    match tree:
        case {"all": children}:
            return all(naive_where(child, signal) for child in children)
        case {"any": children}:
            return any(naive_where(child, signal) for child in children)
        case {"not": child}:
            return not naive_where(child, signal)
    x, v, operator = naive_value(signal, tree["f"]), tree.get("v"), tree["op"]
    if operator == "exists":
        return x is not Missing
    if x is Missing:
        return operator in ("ne", "nin")
    numbers = naive_kind(x) == naive_kind(v) == "number"
    strings = naive_kind(x) == naive_kind(v) == "str"
    match operator:
        case "eq":
            return naive_equal(x, v)
        case "ne":
            return not naive_equal(x, v)
        case "in":
            return any(naive_equal(x, member) for member in v)
        case "nin":
            return not any(naive_equal(x, member) for member in v)
        case "gt":
            return numbers and float(x) > float(v)
        case "gte":
            return numbers and float(x) >= float(v)
        case "lt":
            return numbers and float(x) < float(v)
        case "lte":
            return numbers and float(x) <= float(v)
        case "prefix":
            return strings and x[: len(v)] == v
        case "suffix":
            return strings and (v == "" or x[-len(v) :] == v)
        case "contains":
            if isinstance(x, list):
                return any(naive_equal(item, v) for item in x)
            return strings and v in x
    raise AssertionError(operator)


@given(trees, values)
def test_conditions_agree_with_the_naive_reading_and_so_do_their_canonical_forms(tree, data):
    signal = {"o": 1, "id": "x", "type": "a", "entity": "b", "ts": 0, "data": data}
    found = Filter.parse({"where": tree})
    assert found.matches(signal) is naive_where(tree, signal)
    assert Filter.parse(json.loads(found.canonical)).canonical == found.canonical
    again = Filter.from_canonical(found.canonical)
    assert again == found
    assert again.matches(signal) is naive_where(tree, signal)


@given(st.lists(leaves(), min_size=2, max_size=5), st.randoms())
def test_the_order_and_repetition_of_children_do_not_matter(children, random):
    shuffled = [*children, random.choice(children)]
    random.shuffle(shuffled)
    assert Filter.parse({"where": {"all": children}}) == Filter.parse({"where": {"all": shuffled}})


# --- the index --------------------------------------------------------------------------------------------

pattern_lists = st.lists(patterns(), min_size=1, max_size=3)
filters = st.fixed_dictionaries({}, optional={"types": pattern_lists, "entities": pattern_lists, "where": trees})
signals = st.builds(
    lambda type_, entity, data: {"o": 1, "id": "x", "type": type_, "entity": entity, "ts": 0, "data": data},
    names,
    names,
    values,
)


def candidates(index, signal):
    by_values = index.by_values(signal) if index.has_values else {}
    return [*index.by_names(signal["type"], signal["entity"]), *by_values]


@given(st.lists(filters, max_size=12), st.sets(st.integers(0, 11)), st.lists(signals, min_size=1, max_size=4))
def test_the_index_never_misses_a_filter_and_forgets_what_was_removed(wanted, removed, seen):
    index = FilterIndex()
    parsed = dict(enumerate(map(Filter.parse, wanted)))
    for number, one in parsed.items():
        index.add(number, one.canonical)
    for number in removed & parsed.keys():
        index.remove(number)
        del parsed[number]
    for signal in seen:
        found = candidates(index, signal)
        assert len(found) == len(set(found))
        assert set(found) <= parsed.keys()
        assert {number for number, one in parsed.items() if one.matches(signal)} <= set(found)
    for number in parsed:
        index.remove(number)
    assert len(index) == 0
    assert all(not candidates(index, signal) for signal in seen)


@pytest.mark.parametrize(
    "one",
    [
        lambda n: {"types": [f"price.t{n}"]},
        lambda n: {"types": [f"price.t{n}", f"price.u{n}.*"]},
        lambda n: {"types": [f"price.t{n}.>"], "entities": [">"]},
        lambda n: {"types": ["price.>"], "entities": [f"btc-{n:03}*", "!btc-0"]},
        lambda n: {"types": ["price.>"], "where": {"f": "/data/user", "op": "eq", "v": n}},
        lambda n: {
            "entities": ["btc-1"],
            "where": {
                "all": [{"f": "/data/p", "op": "gt", "v": 5}, {"f": "/tags/u", "op": "in", "v": [f"u{n}", f"u{n + 1}"]}]
            },
        },
        lambda n: {"where": {"any": [{"f": "/data/user", "op": "eq", "v": n}, {"f": "/type", "op": "eq", "v": "x"}]}},
        lambda n: {"types": [f"price.t{n % 30}"], "entities": [f"btc-{n // 30}"]},
    ],
)
def test_of_many_distinct_filters_few_are_candidates(one):
    index = FilterIndex()
    for n in range(900):
        index.add(n, Filter.parse(one(n)).canonical)
    signal = {
        "type": "price.t7",
        "entity": "btc-1",
        "data": {"user": 7, "p": 6},
        "tags": {"u": "u7"},
    }
    assert len(candidates(index, signal)) <= 32


@pytest.mark.parametrize(
    ("wanted", "allowed", "both"),
    [
        (["price.>"], ["*.spike"], ["price.spike"]),
        (["price.*"], ["price.b*"], ["price.b*"]),
        (["a", "b.*", "c.>"], ["b.>", "c.x"], ["b.*", "c.x"]),
        (["price.btc", "price.>"], ["price.*"], ["price.*"]),
        (["price.>"], ["!alert.>"], ["price.>"]),
        (["!price.test"], ["price.>"], ["!price.test", "price.>"]),
        (["!a"], ["!b"], ["!a", "!b"]),
        (["a", ">"], ["b", ">"], []),
        (["price.>", "!price.test.>"], ["price.test.>", "x"], None),
        (["price.*"], ["price.*.*"], None),
        (["price.>"], ["price"], None),
        (["y" * 60 + ".*.*"], ["*." + "z" * 60 + ".xxxxxxxx"], None),
    ],
)
def test_patterns_at_once_are_patterns_again(wanted, allowed, both):
    for one, other in ((wanted, allowed), (allowed, wanted)):
        found = conjunction(Filter.parse({"types": one}).canonical, Filter.parse({"types": other}).canonical)
        assert (found and json.loads(found.canonical).get("types", [])) == both


@given(st.data())
def test_two_filters_at_once_let_pass_what_both_do(data):
    token = st.sampled_from(["a", "b", "ab", "ab*", "a*", "*"])
    pattern = st.builds(
        lambda no, tokens, rest: no + ".".join(tokens + rest),
        st.sampled_from(["", "", "!"]),
        st.lists(token, min_size=1, max_size=3),
        st.sampled_from([[], [], [">"]]),
    ) | st.just(">")
    leaf = st.fixed_dictionaries({"f": st.just("/data"), "op": st.sampled_from(["gt", "lt"]), "v": st.integers(0, 3)})
    where = leaf | st.fixed_dictionaries({"all": st.lists(leaf, min_size=1, max_size=3)})
    filters = st.fixed_dictionaries(
        {},
        optional={
            "types": st.lists(pattern, min_size=1, max_size=4),
            "entities": st.lists(pattern, min_size=1, max_size=4),
            "where": where,
        },
    ).map(Filter.parse)
    one, other = data.draw(filters), data.draw(filters)
    both = conjunction(one.canonical, other.canonical)
    name = st.lists(st.sampled_from(["a", "b", "ab", "abc"]), min_size=1, max_size=4).map(".".join)
    for _ in range(8):
        signal = {"type": data.draw(name), "entity": data.draw(name), "data": data.draw(st.integers(0, 4))}
        expected = one.matches(signal) and other.matches(signal)
        assert (both is not None and both.matches(signal)) == expected, signal
    if both is not None:
        assert Filter.parse(json.loads(both.canonical)).canonical == both.canonical
        # The capability of a filter that was narrowed once changes nothing more, so groups are shared.
        again = conjunction(both.canonical, other.canonical)
        assert again == both
