"""The lights: what is wrong now, each with the rule that it follows."""

from __future__ import annotations

from typing import Literal

import attrs

Color = Literal["green", "amber", "red"]

OVERDUE_S = 2.0  # a run that is so late counts as missing
FANOUT_AMBER_MS, FANOUT_RED_MS = 250.0, 1_000.0
LOOP_AMBER_MS, LOOP_RED_MS = 100.0, 1_000.0
SLOW_RED_SHARE = 0.1


@attrs.frozen(kw_only=True)
class Light:
    """One of them.

    Attributes:
        rule: when it is which. seen: what was seen. link: the page that shows more.
    """

    id: str
    state: Color
    rule: str
    seen: str
    link: str | None = None


@attrs.frozen(kw_only=True)
class SourceFacts:
    """What the light of the sources looks at."""

    name: str
    failing: bool
    overdue: bool
    paused: bool


def sources_light(sources: list[SourceFacts]) -> Light:
    """Whether sources are asked and answer."""
    asked = [one for one in sources if not one.paused]
    bad = [one for one in asked if one.failing or one.overdue]
    state: Color = "green" if not bad else "red" if len(bad) == len(asked) else "amber"
    if state == "red" and len(asked) == 1:
        state = "amber"  # of a single source nobody can tell whether all fail
    stopped = [one.name for one in sources if one.paused]
    if stopped and state == "green":
        state = "amber"
    words = [f"{one.name} {'fails' if one.failing else 'is overdue'}" for one in bad]
    words += [f"{name} is paused" for name in stopped]
    return Light(
        id="sources",
        state=state,
        rule=f"amber: a source fails, is {OVERDUE_S:g} s overdue or paused; red: all of several do",
        seen=_some(words) or _count(len(sources), "source", "as planned"),
        link="#/ingest",
    )


def clients_light(slow: int, connections: int, slowest: str | None) -> Light:
    """Whether clients read what they are sent."""
    state: Color = "green" if not slow else "red" if slow > max(1, SLOW_RED_SHARE * connections) else "amber"
    seen = f"{slow} of {connections:,} read too slowly" + (f", the slowest is {slowest}" if slowest else "")
    return Light(
        id="clients",
        state=state,
        rule="amber: a client has a quarter of its backlog's limit on its way, or its subscriptions wait; "
        f"red: over {SLOW_RED_SHARE:.0%} of them",
        seen=seen if slow else _count(connections, "client", "kept up with"),
        link="#/connections?sort=backlog_bytes&desc=1",
    )


def actors_light(failing: dict[str, str], live: int) -> Light:
    """Whether actors work."""
    state: Color = "green" if not failing else "red" if len(failing) >= max(5, live // 2) else "amber"
    return Light(
        id="actors",
        state=state,
        rule="amber: an actor was destroyed within the last minute, or its alarm is being tried again; "
        "red: five do, and half of those in memory",
        seen=_some([f"{who}: {why}" for who, why in failing.items()]) or f"none of those in memory ({live:,}) fails",
        link="#/actors?state=failing",
    )


def fanout_light(p99_ms: float | None) -> Light:
    """Whether signals leave soon after they came."""
    return Light(
        id="fanout",
        state=_above(p99_ms, FANOUT_AMBER_MS, FANOUT_RED_MS),
        rule=f"amber: 1 % take over {FANOUT_AMBER_MS:g} ms from their number to the sockets; "
        f"red: over {FANOUT_RED_MS:g} ms",
        seen="nothing was sent" if p99_ms is None else f"p99 of the last 10 s is {p99_ms:.1f} ms",
        link="#/signals",
    )


def storage_light(failed: int) -> Light:
    """Whether what is written becomes durable."""
    return Light(
        id="storage",
        state="red" if failed else "green",
        rule="red: a commit failed within the last minute",
        seen=f"{failed} instances ended with a failed commit" if failed else "every commit succeeded",
        link="#/actors?state=failing",
    )


def loop_light(lag_ms: float) -> Light:
    """Whether the server has time for everybody."""
    return Light(
        id="loop",
        state=_above(lag_ms, LOOP_AMBER_MS, LOOP_RED_MS),
        rule=f"amber: the event loop is {LOOP_AMBER_MS:g} ms late; red: {LOOP_RED_MS:g} ms",
        seen=f"{lag_ms:.1f} ms late",
    )


def _above(value: float | None, amber: float, red: float) -> Color:
    if value is None or value <= amber:
        return "green"
    return "red" if value > red else "amber"


def _count(number: int, what: str, how: str) -> str:
    return f"no {what}s" if number == 0 else f"1 {what} {how}" if number == 1 else f"{number:,} {what}s {how}"


def _some(words: list[str], most: int = 3) -> str:
    more = len(words) - most
    return "; ".join([*words[:most], f"and {more} more"] if more > 0 else words)
