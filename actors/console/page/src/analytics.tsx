/** Analytics: what became of connections in an hour, a day, a week, or for as long as it is kept. */
import { useEffect, useState } from "preact/hooks";

import { get } from "./api";
import { Chart } from "./chart";
import { count, duration, rate } from "./format";
import { link, wished } from "./model";

const SPANS: Record<string, string> = { hour: "Hour", day: "Day", week: "Week", all: "All" };
const OVER: Record<string, string> = { hour: "the last hour", day: "the last day", week: "the last week", all: "all that is kept" };
const STEPS: Record<number, string> = { 60_000: "a minute", 600_000: "10 minutes", 3_600_000: "an hour", 86_400_000: "a day" };
const LENGTHS_S = [1, 60, 3_600, 86_400, 604_800];
const AGAIN_MS = 10_000;

type Numbers = (number | null)[];
interface Lines {
  at: number[]; connections: Numbers; opened: Numbers; closed: Numbers; session_p50_s: Numbers; session_p99_s: Numbers;
  reconnects: Numbers; reconnects_per_client: Numbers; lag_p50_ms: Numbers; lag_p95_ms: Numbers; lag_p99_ms: Numbers;
}
interface Answer {
  step_ms: number; series: Lines;
  close_codes: { code: number; name: string; count: number }[];
  sdks: { sdk: string; count: number }[];
}

const sum = (values: Numbers) => values.reduce<number>((total, value) => total + (value ?? 0), 0);
const most = (values: Numbers) => values.reduce<number>((peak, value) => Math.max(peak, value ?? 0), 0);
const COLORS = ["--accent", "--second", "--third"];
const drawn = (...lines: [string, Numbers][]) => lines.map(([label, values], n) => ({ label, values, color: COLORS[n]! }));
const seconds = (s: number | null) => duration(s === null ? null : s * 1_000);

function Shares({ title, rows }: { title: string; rows: { name: string; about?: string; count: number }[] }) {
  const all = rows.reduce((total, row) => total + row.count, 0);
  return (
    <section class="card shares" aria-label={title}>
      <h2>{title}</h2>
      {rows.length === 0 ? <p class="quiet">None in this time.</p> : (
        <table>
          <tbody>
            {rows.map((row) => (
              <tr key={row.name}>
                <th scope="row">{row.name}{row.about && <small>{row.about}</small>}</th>
                <td class="bar"><span style={{ width: `${(100 * row.count) / rows[0]!.count}%` }} /></td>
                <td class="number">{count(row.count)}</td>
                <td class="number quiet">{rate((100 * row.count) / all)} %</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

export function AnalyticsPage() {
  const span = wished().span ?? "hour";
  const [found, show] = useState<Answer | null>(null);
  const [error, fail] = useState("");
  useEffect(() => {
    let stale = false;
    const ask = () => get<Answer>(`analytics?${new URLSearchParams({ span })}`).then(
      (answer) => stale || (show(answer), fail("")),
      (refused: Error) => stale || fail(refused.message),
    );
    const timer = setInterval(ask, AGAIN_MS);
    void ask();
    return () => ((stale = true), clearInterval(timer));
  }, [span, link.value === "connected"]);
  const lines = found?.series;
  const common = { at: lines?.at ?? [], step: found?.step_ms, over: OVER[span] ?? span };
  const known = lines?.opened.some((value) => value !== null);
  return (
    <>
      <div class="filters" role="group" aria-label="How far back">
        {Object.entries(SPANS).map(([name, text]) => <a key={name} class="choice" href={`#/analytics?span=${name}`} aria-current={name === span ? "true" : undefined}>{text}</a>)}
        <span class="quiet grow">{found && `each point is ${STEPS[found.step_ms] ?? duration(found.step_ms)}; the last one goes on`}</span>
        <a class="choice" href={`/console/api/analytics.csv?${new URLSearchParams({ span })}`} download>Download CSV</a>
      </div>
      {error && <p class="error" role="alert">{error}</p>}
      {lines === undefined ? <p class="empty">Asking for the figures…</p> : !known ? (
        <p class="empty">Nothing has been counted yet. The first figures come five seconds after a client has connected.</p>
      ) : (
        <>
          <dl class="figures">
            {([["Most at once", most(lines.connections)], ["Opened", sum(lines.opened)], ["Closed", sum(lines.closed)], ["Reconnects", sum(lines.reconnects)]] as const).map(
              ([name, value]) => <div key={name} class="figure"><dt>{name}</dt><dd>{count(value)}</dd></div>,
            )}
          </dl>
          <div class="charts">
            <Chart {...common} title="Connections" unit="at most" show={count} lines={drawn(["connections", lines.connections])} wide />
            <Chart {...common} title="Delivery lag" unit="ms" show={duration} lines={drawn(["p50", lines.lag_p50_ms], ["p95", lines.lag_p95_ms], ["p99", lines.lag_p99_ms])} joins />
            <Chart {...common} title="Session length" unit="logarithmic" show={seconds} lines={drawn(["p50", lines.session_p50_s], ["p99", lines.session_p99_s])} marks={LENGTHS_S} joins />
            <Chart {...common} title="Opened and closed" unit="connections" show={count} lines={drawn(["opened", lines.opened], ["closed", lines.closed])} />
            <Chart {...common} title="Reconnects" unit="per client" show={rate} lines={drawn(["reconnects", lines.reconnects_per_client])} floor={0.1} />
          </div>
          <div class="charts below">
            <Shares title="Close codes" rows={found!.close_codes.map(({ code, name, count: n }) => ({ name: code === 0 ? "other" : `${code}`, about: name, count: n }))} />
            <Shares title="SDKs" rows={found!.sdks.map(({ sdk, count: n }) => ({ name: sdk, count: n }))} />
          </div>
        </>
      )}
    </>
  );
}
