"""Name patterns: `price.*`, `price.>`, `btc-*` and their exclusions (NATS subjects; exclusion is ours)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from actors.filters.invalid import PATTERNS, InvalidFilter, check_size

_NAME_TOKENS = 8
_NAME_BYTES = 128
_TOKEN = re.compile(r"[A-Za-z0-9_\-:@]{1,64}\*?|\*")

_WILDCARD = re.compile(r"[*>]")

_ANY_ONE = "*"
_ANY_REST = ">"

NameTest = Callable[[str], object]


def canonical_patterns(value: object, at: str) -> list[str]:
    """The patterns without duplicates, in byte order; empty when they mean "any".

    Raises: InvalidFilter.
    """
    if not isinstance(value, list | tuple):
        raise InvalidFilter("patterns are an array of strings", at=at)
    patterns = list(cast("list[object] | tuple[object, ...]", value))
    if not 1 <= len(patterns) <= PATTERNS:
        raise InvalidFilter(f"{len(patterns)} patterns; 1–{PATTERNS} are allowed, or leave the key out", at=at)
    unique = sorted({_checked(pattern, f"{at}/{index}") for index, pattern in enumerate(patterns)})
    return [] if unique == [">"] else unique


def compile_patterns(patterns: list[str]) -> NameTest | None:
    """A test of one name; None when every name passes."""
    if not patterns:
        return None
    wanted = _compiled([pattern for pattern in patterns if not pattern.startswith("!")])
    excluded = _compiled([pattern[1:] for pattern in patterns if pattern.startswith("!")])
    if excluded is None:
        return wanted
    if wanted is None:
        return lambda name: not excluded(name)
    return lambda name: wanted(name) and not excluded(name)


def literal_prefix(pattern: str) -> tuple[str, str]:
    """What every name begins with that the (positive) pattern lets pass, and the rest, from its first wildcard on."""
    wildcard = _WILDCARD.search(pattern)
    at = len(pattern) if wildcard is None else wildcard.start()
    return pattern[:at], pattern[at:]


def _compiled(patterns: list[str]) -> NameTest | None:
    exact: list[str] = []
    beginnings: list[str] = []
    tests: list[NameTest] = []
    expressions: list[str] = []
    for pattern in patterns:
        literal, rest = literal_prefix(pattern)
        if not rest:
            exact.append(literal)
        elif rest == _ANY_REST:
            beginnings.append(literal)
        elif rest == _ANY_ONE:
            tests.append(_last_token_test(literal))
        else:
            expressions.append(_expression(pattern))
    # A regular expression takes 100 µs to compile and is the slowest to run: it is left to wildcards further inside.
    if exact:
        tests.append(frozenset(exact).__contains__)
    if beginnings:
        tests.append(_beginning_test(tuple(beginnings)))
    if expressions:
        tests.append(re.compile("|".join(expressions)).fullmatch)
    return tests[0] if len(tests) == 1 else _any_test(tests) if tests else None


def _any_test(tests: list[NameTest]) -> NameTest:
    def test(name: str) -> bool:
        for one in tests:  # noqa: SIM110 - a generator would cost more than the tests
            if one(name):
                return True
        return False

    return test


def _beginning_test(beginnings: tuple[str, ...]) -> NameTest:
    return lambda name: name.startswith(beginnings)


def _last_token_test(beginning: str) -> NameTest:
    return lambda name: name.startswith(beginning) and name.find(".", len(beginning)) < 0


def _expression(pattern: str) -> str:
    *front, last = pattern.split(".")
    end = ".+" if last == _ANY_REST else _token_expression(last)
    return r"\.".join([*map(_token_expression, front), end])


def _token_expression(token: str) -> str:
    if token == _ANY_ONE:
        return r"[^.]+"
    return re.escape(token[:-1]) + r"[^.]*" if token.endswith("*") else re.escape(token)


def _checked(pattern: object, at: str) -> str:
    if not isinstance(pattern, str):
        raise InvalidFilter("a pattern is a string", at=at)
    check_size(pattern, at)
    name = pattern.removeprefix("!")
    tokens = name.split(".")
    if len(tokens) > _NAME_TOKENS or len(name) > _NAME_BYTES:
        raise InvalidFilter(
            f"pattern {pattern!r} has {len(tokens)} tokens in {len(name)} characters; names have at most "
            f"{_NAME_TOKENS} in {_NAME_BYTES}",
            at=at,
        )
    for position, token in enumerate(tokens):
        last = position == len(tokens) - 1
        if _TOKEN.fullmatch(token) is None and not (token == _ANY_REST and last):
            raise InvalidFilter(
                f"pattern {pattern!r}: token {token!r} is neither 1–64 of A-Z a-z 0-9 _ - : @ "
                "(then perhaps '*'), nor '*', nor a last '>'",
                at=at,
            )
    return pattern
