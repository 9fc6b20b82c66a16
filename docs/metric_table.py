"""Writes the table in `reference/metrics.md` from `actors.metrics`.

Run `python docs/metric_table.py` after changing a metric; a test compares.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from actors.metrics import Families, Figures

PAGE = Path(__file__).parent / "reference" / "metrics.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- /metrics -->"
_NOTHING = Figures(
    streams=(),
    shards=(),
    asleep=Counter(),
    sources=(),
    instances=Counter(),
    failing=Counter(),
    waiting=Counter(),
    destroyed=Counter(),
    evicted={},
    measured=None,
    stored={},
    unanswered=0,
    now=0.0,
    started=0.0,
)


def written(page: str) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for metric in Families(_NOTHING).collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {metric.type} | {labels} | {metric.documentation} |")
    return f"{before}{BEGIN}\n{chr(10).join(rows)}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
