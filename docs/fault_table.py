"""Writes the table of faults in `reference/simulated-faults.md` from `runtime.sim.faults`.

Run `python docs/fault_table.py` after changing a kind of fault; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from runtime.sim.faults import KINDS

PAGE = Path(__file__).parent / "reference" / "simulated-faults.md"
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->"


def written(page: str) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = ["| fault | `--faults` | what happens, and why an app survives it |", "|---|---|---|"]
    rows += [f"| `{name}` | `{kind.group}` | {kind.survivable} |" for name, kind in KINDS.items()]
    return f"{before}{BEGIN}\n{chr(10).join(rows)}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
