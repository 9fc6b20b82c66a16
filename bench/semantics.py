"""Durable answers of objects beside `workerd`: one object, one at a time and pipelined, and a thousand objects.

Every answer is a put and a reply: the object stores the message under one key and sends it back, and the reply leaves
when the message is on the disk. It is the same on both sides: the same program in C asks over loopback WebSockets that
the objects accepted with the hibernation API, each server has one core, its data on the same disk, and syncs as it
does in use. The client waits for each answer and checks that it is the right one, so what is counted was durable.

WebSockets, because that is the shortest way into an object that both have: a request would measure HTTP parsers, and
an actor that drives others inside the server would measure JavaScript against Python.
"""

from __future__ import annotations

from bench.ask import ask
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.peers.servers import PEER_SERVERS
from bench.servers import SERVERS, running

PIPELINED = 64
MANY = 1_000
ALONE = "1 object, 1 in flight"
DEEP = f"1 object, {PIPELINED} in flight"
WIDE = f"{MANY} objects, 1 in flight each"
CASES = {ALONE: (1, 1), DEEP: (1, PIPELINED), WIDE: (MANY, 1)}

WARM_UP_S = 1.5
"""Until the logs of all of them have been moved into their databases once: a log that still grows is slower to sync."""

# case -> floor and goal of answers/s beside workerd's
TARGETS = {ALONE: (1.0, 1.0), DEEP: (2.0, 4.0), WIDE: (2.0, 4.0)}


def run(subject: str, setting: Setting) -> Cases:
    """One server, started anew for each case."""
    seconds, warmup_s = (0.5, 0.2) if setting.quick else (3, WARM_UP_S)
    cases: dict[str, dict[str, float]] = {}
    for case, (objects, window) in CASES.items():
        with running(subject, setting, {**SERVERS, **PEER_SERVERS}) as server:
            cases[case] = ask(
                server, setting, objects=objects, window=window, seconds=seconds, warmup_s=warmup_s
            ).figures()
    return cases


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """Not behind workerd one at a time, far ahead where commits can be grouped; for both backends."""
    return tuple(
        Claim(
            name=f"{backend}, {case} x workerd",
            top=Operand(backend, case, "answers_per_s"),
            bottom=Operand("workerd_keepers", case, "answers_per_s"),
            better="higher",
            floor=floor,
            goal=goal,
        )
        for case, (floor, goal) in TARGETS.items()
        for backend in ("shared", "sql")
    )


MEASURE = Measure(
    name="semantics",
    summary="put + reply/s of objects of both backends beside workerd: one object, pipelined, 1,000 objects",
    subjects=("shared", "sql", "workerd_keepers"),
    run=run,
    claims=claims,
    shown=(
        "answers_per_s",
        "p50_ms",
        "p99_ms",
        "us_per_answer",
        "server_share",
        "client_share",
        "first_ms_per_object",
    ),
    default=False,
)
