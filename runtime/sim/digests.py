"""The digests of runs, for a process of its own: `python -m runtime.sim.digests JSON` prints each when it has it."""

from __future__ import annotations

import json
import sys

from runtime.sim.faults import Faults
from runtime.sim.runner import pick, repeat


def main(arguments: str) -> None:
    """Run each scenario twice for each seed, and print a line of scenario, seed and digest as JSON."""
    file, names, kinds, begin, end = json.loads(arguments)
    faults = Faults(tuple(kinds))
    for name, chosen in pick(file, names).items():
        for seed in range(begin, end):
            sys.stdout.write(json.dumps([f"{name}, seed {seed}", repeat(chosen, seed, faults)]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
