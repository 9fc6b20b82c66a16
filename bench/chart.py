"""One figure of one case as a bar chart: the servers of a result beside each other, the longest bar first."""

from __future__ import annotations

from html import escape

from bench.measure import BenchError, Operand, Spread, spreads
from bench.report import Report

WIDTH, ROW, LEFT, RIGHT, TOP = 760, 30, 150, 120, 46
OURS = "product"

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #3d3a35 }
.title { font-weight: 600; font-size: 14px }
.bar { fill: #b9b2a6 } .ours { fill: #b45309 } .range { stroke: #3d3a35; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e8e4dc } .bar { fill: #6b665d } .ours { fill: #f59e0b } .range { stroke: #e8e4dc }
}
"""


def chart(report: Report, measure: str, case: str, figure: str, title: str) -> str:
    """The SVG; each bar is a median, the line on it the range over the repetitions.

    Raises:
        BenchError: the result has no such measure, case or figure.
    """
    samples = [sample for outcome in report.outcomes if outcome.measure == measure for sample in outcome.samples]
    found: dict[str, Spread] = {
        operand.server: spread
        for operand, spread in spreads(samples).items()
        if operand == Operand(operand.server, case, figure)
    }
    if not found:
        raise BenchError(f"the result has no {figure} of case {case!r} in {measure!r}")
    scale = (WIDTH - LEFT - RIGHT) / max(spread.most for spread in found.values())
    rows = sorted(found.items(), key=lambda item: -item[1].median)
    height = TOP + ROW * len(rows) + 10
    bars = [_bar(name, spread, TOP + ROW * number, scale) for number, (name, spread) in enumerate(rows)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<text class="title" x="8" y="24">{escape(title)}</text>{"".join(bars)}</svg>\n'
    )


def _bar(name: str, spread: Spread, y: int, scale: float) -> str:
    middle = y + 11
    least, most = LEFT + spread.least * scale, LEFT + spread.most * scale
    kind = "ours" if name == OURS else "bar"
    return (
        f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{spread.median * scale:.1f}" height="22" rx="3"/>'
        f'<line class="range" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{most + 8:.1f}" y="{y + 15}">{spread.median / 1000:,.0f} k</text>'
    )
