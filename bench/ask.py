"""Runs the C client that asks objects and waits for their answers."""

from __future__ import annotations

import json
import subprocess

import attrs
import cattrs

from bench.build import compile_program
from bench.load import Latency
from bench.measure import BenchError, Setting
from bench.servers import Running

LIMIT_S = 60.0


@attrs.frozen
class Answers:
    """What the client saw: how long the first answer of every object took in all, then the measured interval."""

    objects: int
    first_answers_s: float
    seconds: float
    answers: int
    answers_per_s: float
    server_cpu_s: float
    client_cpu_s: float
    latency_ms: Latency

    def figures(self) -> dict[str, float]:
        """What the tables and the JSON show of it."""
        return {
            "answers_per_s": self.answers_per_s,
            "p50_ms": self.latency_ms.p50,
            "p99_ms": self.latency_ms.p99,
            "max_ms": self.latency_ms.max,
            "us_per_answer": self.server_cpu_s * 1e6 / max(1, self.answers),
            "server_share": self.server_cpu_s / self.seconds,
            "client_share": self.client_cpu_s / self.seconds,
            "first_ms_per_object": self.first_answers_s * 1e3 / self.objects,
        }


def ask(
    server: Running, setting: Setting, *, objects: int, window: int, seconds: float, warmup_s: float = 0.5
) -> Answers:
    """Asks so many objects with so many messages in flight to each, from the load core.

    Args:
        warmup_s: how long answers do not count.

    Raises:
        BenchError: a connection ended, an answer was not the next one, or it took too long.
    """
    arguments = {
        "--port": server.port,
        "--path": server.dialect.path,
        "--objects": objects,
        "--window": window,
        "--warmup-s": warmup_s,
        "--seconds": seconds,
        "--limit-s": LIMIT_S,
        "--watch-pid": server.pid,
        "--core": setting.load_core,
    }
    command = [str(compile_program("wsask", setting.build))]
    command += [part for name, value in arguments.items() for part in (name, str(value))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=warmup_s + seconds + 4 * LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError("the client that asks did not end in time") from None
    if done.returncode != 0:
        raise BenchError(f"the client that asks stopped: {done.stderr.strip() or f'status {done.returncode}'}")
    return cattrs.structure(json.loads(done.stdout), Answers)
