"""Scrolling: frames of a real Chromium while it scrolls through the console's list of 10,000 connections."""

from __future__ import annotations

import statistics

from bench.load import Load, loading
from bench.measure import BenchError, Cases, Claim, Measure, Operand, Setting
from bench.servers import Running, running

SUBSCRIBERS = 10_000
FRAME_MS = 20.0
CASE = "connections"

# A step of three rows and a bit in each frame, down and up again; what is measured is from frame to frame.
_SCROLL = """
async (frames) => {
  const list = document.querySelector(".list");
  const times = [];
  let step = 120;
  const next = () => new Promise((resolve) => requestAnimationFrame(resolve));
  for (let n = 0; n <= frames; n += 1) {
    times.push(await next());
    if (list.scrollTop + list.clientHeight >= list.scrollHeight - 1) step = -120;
    list.scrollTop += step * (n % 100 === 99 ? 100 : 1);
  }
  return { frames: times.slice(1).map((time, n) => time - times[n]), rows: list.querySelectorAll(".row").length };
}
"""


def run(subject: str, setting: Setting) -> Cases:
    """One server whose connections say nothing, and a page that shows them."""
    subscribers = setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)
    with running(subject, setting) as server:
        with loading(Load(subscribers=subscribers, settle_s=120.0), server, setting) as client:
            client.wait_connected(subscribers)
            return {CASE: _frames(server, subscribers, 100 if setting.quick else 600)}


def _frames(server: Running, subscribers: int, frames: int) -> dict[str, float]:
    try:
        from tests.browser.chromium import chromium, find_chromium
    except ImportError as error:
        raise BenchError(f"a browser cannot be driven: {error}; the test tools are not installed") from error
    path = find_chromium()
    if path is None:
        raise BenchError("no Chromium found: set CHROMIUM to its path")
    with chromium(path) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"http://127.0.0.1:{server.port}/console/#/connections")
        page.get_by_role("status").filter(has_text=f"{subscribers:,} connections").wait_for(timeout=60_000)
        page.evaluate(_SCROLL, 60)  # what is compiled once
        seen = page.evaluate(_SCROLL, frames)
    times = sorted(seen["frames"])
    return {
        "rows": subscribers,
        "drawn_rows": seen["rows"],
        "frame_p50_ms": statistics.median(times),
        "frame_p95_ms": times[int(0.95 * len(times))],
        "frame_max_ms": times[-1],
    }


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """It follows the finger."""
    top = Operand("product", CASE, "frame_p95_ms")
    return (Claim(name="scroll: ms from frame to frame, p95", top=top, better="lower", floor=FRAME_MS),)


MEASURE = Measure(
    name="scroll",
    summary="frames of Chromium that scrolls through 10,000 connections in the console",
    subjects=("product",),
    run=run,
    claims=claims,
    shown=("rows", "drawn_rows", "frame_p50_ms", "frame_p95_ms", "frame_max_ms"),
    repeat=1,
    default=False,
)
