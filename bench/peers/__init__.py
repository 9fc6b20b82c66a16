"""The same broadcast by peers: what they deliver to 1,000 subscribers with 4 messages in flight (T6)."""

from __future__ import annotations

from bench.fanout import SUBSCRIBERS
from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.peers.servers import PEER_SERVERS
from bench.servers import SERVERS, running

WINDOW = 4

# peer -> floor and goal
TARGETS = {"websockets": (1.0, 4.0), "node_ws": (1.0, 4.0), "picows": (1.0, 2.5), "workerd": (1.0, 10.0)}
AIMS = {"nats": 1.2}  # it batches too; being ahead of it is a goal and no floor


def run(subject: str, setting: Setting) -> Cases:
    """One server in closed loop."""
    load = Load(
        subscribers=setting.subscribers or SUBSCRIBERS,
        phases=(f"window:{WINDOW}:{1 if setting.quick else 4}",),
        polls=True,
    )
    with running(subject, setting, {**SERVERS, **PEER_SERVERS}) as server:
        result = run_load(load, server, setting)
    return {f"window {WINDOW}": result.phases[0].figures()}


def claims(setting: Setting) -> tuple[Claim, ...]:
    """T6, for the number of subscribers it speaks of."""
    if (setting.subscribers or SUBSCRIBERS) != SUBSCRIBERS:
        return ()
    wanted = {**TARGETS, **{peer: (0.0, goal) for peer, goal in AIMS.items()}}
    return tuple(
        Claim(
            name=f"T6 x {peer}",
            top=Operand("product", f"window {WINDOW}", "deliveries_per_s"),
            bottom=Operand(peer, f"window {WINDOW}", "deliveries_per_s"),
            better="higher",
            floor=floor,
            goal=goal,
        )
        for peer, (floor, goal) in wanted.items()
    )


MEASURE = Measure(
    name="peers",
    summary="deliveries/s to 1,000 subscribers beside websockets, picows, Node's ws, workerd and nats-server",
    subjects=("product", "c_coalesce", "c_send", "trio_naive", *TARGETS, *AIMS),
    run=run,
    claims=claims,
    shown=("deliveries_per_s", "us_per_delivery", "p50_ms", "p99_ms", "server_share", "client_share", "missing"),
    default=False,
)
