"""Connects per second, with and without a subscription, against a plain trio-websocket server (T11)."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 1_000
TARGETS = {1_000: (1.0, 1.0), 10_000: (1.2, 2.0)}
CASE = "connect"


def run(subject: str, setting: Setting) -> Cases:
    """One server, all connections from nothing.

    `product_echo` is the product with an actor that only accepts, as the others do: the two are compared. The
    connections of `product` also say hello, and count when their subscription is live; nobody else does that.
    """
    with running(subject, setting) as server:
        connect = run_load(Load(subscribers=setting.subscribers or SUBSCRIBERS), server, setting).connect
    return {
        CASE: {
            "connects_per_s": connect.per_s,
            "seconds": connect.seconds,
            "us_per_connect": connect.server_cpu_s * 1e6 / connect.count,
        }
    }


def claims(setting: Setting) -> tuple[Claim, ...]:
    """T11, for 1,000 and 10,000 connections."""
    subscribers = setting.subscribers or SUBSCRIBERS
    if subscribers not in TARGETS:
        return ()
    floor, goal = TARGETS[subscribers]
    return (
        Claim(
            name=f"T11 x trio_naive, N={subscribers}",
            top=Operand("product_echo", CASE, "connects_per_s"),
            bottom=Operand("trio_naive", CASE, "connects_per_s"),
            better="higher",
            floor=floor,
            goal=goal,
        ),
    )


MEASURE = Measure(
    name="connect",
    summary="connects/s against plain trio-websocket, and the product's with a live subscription",
    subjects=("product", "product_echo", "trio_naive", "c_send"),
    run=run,
    claims=claims,
    shown=("connects_per_s", "seconds", "us_per_connect"),
    default=False,
)
