/** A chart over time, drawn by uPlot on a canvas; its caption has the values under the pointer, or else the newest ones. */
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { theme } from "./theme";

const HEIGHT = 150;
const TALL = 190;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

interface Line { label: string; color: string; values: (number | null)[] }
type Show = (value: number | null) => string;

/** As much of a time as points that are so far apart need; of a day alone its hours, of several the day. */
function time(ms: number, step: number): string {
  const at = new Date(ms);
  const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  if (step >= DAY_MS) return day;
  const clock = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: step < 60_000 ? "2-digit" : undefined });
  return step >= HOUR_MS ? `${day}, ${clock}` : clock;
}

const tick = (ms: number, step: number) => (step >= HOUR_MS ? time(ms, DAY_MS) : time(ms, step));

/** `marks`: places of the axis, on a logarithmic one. `floor`: it goes up to this at least. `wide`: it has a row of its own.
 * `joins`: its lines go on over steps without a value. */
export function Chart({ title, unit, at, lines, show, step = 1_000, over = "the last minutes", marks, floor = 1, wide = false, joins = false }: {
  title: string;
  unit: string;
  at: number[];
  lines: Line[];
  show: Show;
  step?: number;
  over?: string;
  marks?: number[];
  floor?: number;
  wide?: boolean;
  joins?: boolean;
}) {
  const height = wide ? TALL : HEIGHT;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [pointed, point] = useState<number | null>(null);
  const data = [at.map((ms) => ms / 1_000), ...lines.map((line) => line.values)] as uPlot.AlignedData;

  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const made = (plot.current = new uPlot(
      {
        width: box.current!.clientWidth,
        height,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          y: marks === undefined
            ? { range: (_, __, most) => [0, Math.max(floor, (most ?? 0) * 1.15)] }
            : { distr: 3, range: (_, __, most) => [marks[0]!, Math.max(marks[1]!, (most ?? 0) * 2)] },
        },
        axes: [{ ...axis, values: (_, ticks) => ticks.map((s) => tick(s * 1_000, step)), space: 90, size: 26 }, { ...axis, size: 52, space: 34, ...(marks && { splits: () => marks, filter: (_, all) => all, values: (_, all) => all.map(show) }) }],
        series: [{}, ...lines.map((line) => ({
          label: line.label, stroke: color(line.color), width: 1.5, points: { size: 4, space: 24 }, spanGaps: joins,
          ...(lines.length === 1 ? { fill: `${color(line.color)}1f` } : {}),
        }))],
        hooks: { setCursor: [(chart: uPlot) => point(chart.cursor.idx ?? null)] },
      },
      data,
      box.current!,
    ));
    const watch = new ResizeObserver(() => made.setSize({ width: box.current!.clientWidth, height }));
    watch.observe(box.current!);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [theme.value, step]);
  useEffect(() => plot.current?.setData(data), [at]);

  const index = pointed !== null && pointed < at.length ? pointed : at.length - 1;
  const value = (line: Line) => show(line.values[index] ?? null);
  return (
    <figure class={`card chart ${wide ? "hero" : ""}`}>
      <figcaption>
        <span>{title} <span class="unit">{unit}</span></span>
        <span class="readout">
          {pointed !== null && index >= 0 && <span class="unit">{time(at[index]!, step)}</span>}
          {lines.map((line) => <span key={line.label} class={lines.length > 1 ? `key ${line.color.slice(2)}` : ""}>{lines.length > 1 && <span class="unit">{line.label}</span>} {value(line)}</span>)}
        </span>
      </figcaption>
      <div ref={box} role="img" aria-label={`${title} over ${over}; now ${lines.map((line) => `${line.label} ${show(line.values.at(-1) ?? null)}`).join(", ")}`} />
    </figure>
  );
}
