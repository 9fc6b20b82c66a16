/** A chart over time, drawn by uPlot on a canvas. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { theme } from "./theme";

const HEIGHT = 160;

interface Line { label: string; color: string; values: (number | null)[] }

export function Chart({ title, unit, at, lines }: { title: string; unit: string; at: number[]; lines: Line[] }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data = [at.map((ms) => ms / 1_000), ...lines.map((line) => line.values)] as uPlot.AlignedData;

  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const made = (plot.current = new uPlot(
      {
        width: box.current!.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, __, most) => [0, Math.max(1, (most ?? 1) * 1.15)] } },
        axes: [{ ...axis, values: (_, ticks) => ticks.map((s) => new Date(s * 1_000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" })), space: 90, size: 32 }, { ...axis, size: 48 }],
        series: [{}, ...lines.map((line) => ({ label: line.label, stroke: color(line.color), width: 1.5, points: { show: false } }))],
      },
      data,
      box.current!,
    ));
    const watch = new ResizeObserver(() => made.setSize({ width: box.current!.clientWidth, height: HEIGHT }));
    watch.observe(box.current!);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [theme.value]);
  useEffect(() => plot.current?.setData(data), [at]);

  return (
    <figure class="card chart">
      <figcaption>
        {title} <span class="unit">{unit}</span>
        {lines.length > 1 && lines.map((line) => <span key={line.label} class={`key ${line.color.slice(2)}`}>{line.label}</span>)}
      </figcaption>
      <div ref={box} role="img" aria-label={`${title} over the last minutes`} />
    </figure>
  );
}
