"""`make soak`: 1,000 clients for ten minutes, 5 % of them stalled, a restart every minute; 1 on a violation."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import trio

from tests.browser.serving import Server
from tests.soak.soak import HEADING, Plan, Soak


def main(arguments: list[str]) -> int:
    """Returns: the exit code."""
    plan = _plan(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * plan.clients + 256
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.stderr.write(
            f"{plan.clients} clients need {wanted} descriptors; the limit is {hard}: raise it, or --clients\n"
        )
        return 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data")
        soak = Soak(server, plan, _say)
        _say(HEADING)
        try:
            trio.run(soak.run)
        finally:
            server.kill()
    _say(soak.summary())
    return 1 if soak.told.violation_count else 0


def _plan(arguments: list[str]) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--restart", type=float, default=60.0, help="seconds from one restart to the next; 0: none")
    parser.add_argument("--stalled", type=float, default=0.05, help="the share of clients that stall, 0 to 1")
    parser.add_argument("--rate", type=float, default=4.0, help="publications per second")
    asked = parser.parse_args(arguments)
    if asked.clients < 1 or asked.minutes <= 0 or asked.rate <= 0 or not 0 <= asked.stalled <= 1:
        parser.error("--clients, --minutes and --rate are more than 0, --stalled is 0 to 1")
    if asked.restart and asked.restart < 6:
        parser.error("--restart is 0 or at least 6: memory is looked at in the 5 s before")
    return Plan(
        clients=asked.clients,
        minutes=asked.minutes,
        restart_s=asked.restart,
        stalled_share=asked.stalled,
        rate=asked.rate,
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
