"""The digests of runs, for a process of its own: `python -m runtime.sim.digests JSON` prints them as JSON."""

from __future__ import annotations

import json
import sys

from runtime.sim.faults import Faults
from runtime.sim.runner import pick, repeat


def main(arguments: str) -> None:
    """Run each scenario twice for each seed and print scenario and seed to digest."""
    file, names, kinds, begin, end = json.loads(arguments)
    faults = Faults(tuple(kinds))
    found = {
        f"{name}, seed {seed}": repeat(chosen, seed, faults)
        for name, chosen in pick(file, names).items()
        for seed in range(begin, end)
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
