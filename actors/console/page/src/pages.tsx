/** The pages by their names; and those of the overview, the sources and the audit log. */
import { useEffect, useState } from "preact/hooks";

import { Refusal, get, post } from "./api";
import { ActorsPage } from "./actors";
import { AnalyticsPage } from "./analytics";
import { Chart } from "./chart";
import { ConnectionsPage } from "./connections";
import { FaultsPage } from "./faults";
import { clock, count, distance, duration, rate, size, stamp } from "./format";
import { Heads } from "./list";
import { SignalsPage } from "./signals";
import { SubscriptionsPage } from "./subscriptions";
import { link, overview, put, series, session, sources, type Light, type Source } from "./model";

const AUDIT_ROWS = 100;

function Figure({ name, value, unit = "" }: { name: string; value: string; unit?: string }) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>{value}{unit && <span class="unit"> {unit}</span>}</dd>
    </div>
  );
}

function Lamp({ light }: { light: Light }) {
  const known = light.link !== null && shown().includes(pageOf(light.link));
  return (
    <li class={`light ${light.state}`}>
      <span class="lamp" aria-hidden="true" />
      <div>
        <strong>{known ? <a href={light.link!}>{light.id}</a> : light.id} <span class="word">{light.state}</span></strong>
        <p>{light.seen}</p>
        {light.rule && <p class="rule">{light.rule}</p>}
      </div>
    </li>
  );
}

function OverviewPage() {
  const now = overview.value;
  if (now === null) return <p class="empty">Waiting for the first second…</p>;
  const { at, ...lines } = series.value;
  return (
    <>
      <ul class="lights">{now.lights.map((light) => <Lamp key={light.id} light={light} />)}</ul>
      <dl class="figures">
        <Figure name="Signals" value={rate(now.signals_per_s)} unit="/s" />
        <Figure name="Deliveries" value={rate(now.deliveries_per_s)} unit="/s" />
        <Figure name="Connections" value={count(now.connections)} />
        <Figure name="Fan-out p50" value={duration(now.fanout_ms.p50)} />
        <Figure name="Fan-out p99" value={duration(now.fanout_ms.p99)} />
        <Figure name="Errors" value={rate(now.errors_per_min)} unit="/min" />
        <Figure name="Recovered" value={count(now.recoveries.ok)} />
        <Figure name="With a gap" value={count(now.recoveries.gap)} />
        <Figure name="Not recovered" value={count(now.recoveries.failed)} />
        <Figure name="Slow clients" value={count(now.slow_consumers)} />
        <Figure name="Actors" value={count(now.actors.live)} unit={`+ ${count(now.actors.hibernated)} asleep`} />
        <Figure name="Retained" value={count(now.retained.signals)} unit={size(now.retained.bytes)} />
        <Figure name="Memory" value={size(now.memory_bytes)} />
        <Figure name="CPU" value={now.cpu === null ? "–" : rate(now.cpu * 100)} unit="% of a core" />
      </dl>
      <div class="charts">
        <Chart title="Signals" show={rate} unit="per second" at={at} lines={[{ label: "signals", color: "--accent", values: lines.signals_per_s }]} />
        <Chart title="Deliveries" show={rate} unit="per second" at={at} lines={[{ label: "deliveries", color: "--accent", values: lines.deliveries_per_s }]} />
        <Chart title="Connections" show={count} unit="" at={at} lines={[{ label: "connections", color: "--accent", values: lines.connections }]} />
        <Chart title="Fan-out" show={duration} unit="ms" at={at} lines={[{ label: "p50", color: "--accent", values: lines.p50_ms }, { label: "p99", color: "--second", values: lines.p99_ms }]} />
      </div>
    </>
  );
}

function SourceRow({ source, now }: { source: Source; now: number }) {
  const [said, say] = useState("");
  const act = async (deed: string) => {
    try {
      await post(`ingest/${encodeURIComponent(source.name)}/${deed}`);
      if (deed !== "run") put({ ...source, paused: deed === "pause" });
      say(deed === "run" ? "asked" : `${deed}d`);
    } catch (error) {
      say(error instanceof Refusal ? error.message : String(error));
    }
  };
  const state = source.paused ? "paused" : source.failures > 0 ? "fails" : source.running ? "runs" : "waits";
  return (
    <tr>
      <th scope="row">{source.name}<small>{source.kind} into {source.stream}</small></th>
      <td><span class={`state ${state}`}>{state}</span>{source.last_error && <small class="error">{source.last_error}</small>}</td>
      <td>{source.schedule ?? "no schedule"}{source.timezone && <small>{source.timezone}</small>}</td>
      <td>{distance(source.last_run, now)}<small>{source.duration_ms !== null && `took ${duration(source.duration_ms)}`}</small></td>
      <td>{source.paused ? "–" : distance(source.next, now)}</td>
      <td class="number">{count(source.produced)}</td>
      <td class="number">{count(source.duplicates)}</td>
      <td class="number">{count(source.rejected)}</td>
      <td class="number">{count(source.failures)}</td>
      <td class="deeds">
        <button type="button" disabled={source.paused || source.schedule === null} onClick={() => act("run")}>Run now</button>
        <button type="button" onClick={() => act(source.paused ? "resume" : "pause")}>{source.paused ? "Resume" : "Pause"}</button>
        <span role="status">{said}</span>
      </td>
    </tr>
  );
}

function IngestPage() {
  const now = overview.value?.at ?? Date.now();
  if (sources.value === null) return <p class="empty">Asking for the sources…</p>;
  if (sources.value.size === 0) return <p class="empty">No sources run. Sources are configured in heliograph.toml, and started unless <code>--no-sources</code> is given.</p>;
  return (
    <div class="wide" tabIndex={0} role="region" aria-label="Sources">
      <table>
        <Heads names={["Source", "State", "Schedule", "Last run", "Next", "#Produced", "#Duplicates", "#Rejected", "#Failures in a row", "Actions"]} />
        <tbody>{[...sources.value.values()].map((source) => <SourceRow key={source.name} source={source} now={now} />)}</tbody>
      </table>
    </div>
  );
}

interface Audit { total: number; entries: { at: number; who: string; peer: string; what: string; target: string; result: string }[] }

function AuditPage() {
  const [offset, move] = useState(0);
  const [audit, show] = useState<Audit | null>(null);
  const [error, fail] = useState("");
  useEffect(() => {
    let stale = false;
    get<Audit>(`audit?offset=${offset}&limit=${AUDIT_ROWS}`).then(
      (found) => stale || (show(found), fail("")),
      (refused: Error) => stale || fail(refused.message),
    );
    return () => void (stale = true);
  }, [offset, link.value === "connected"]);
  if (audit === null) return <p class="empty">{error || "Asking for the log…"}</p>;
  if (audit.total === 0) return <p class="empty">Nobody has changed anything yet. What operators do is written down here.</p>;
  return (
    <>
      {error && <p class="error" role="alert">{error}</p>}
      <div class="wide" tabIndex={0} role="region" aria-label="Audit log">
        <table>
          <Heads names={["When", "Who", "From", "What", "To what", "Result"]} />
          <tbody>
            {audit.entries.map((one, n) => (
              <tr key={offset + n}><td class="time">{stamp(one.at)}</td><td>{one.who}</td><td>{one.peer}</td><td>{one.what}</td><td>{one.target}</td><td class={one.result === "done" || one.result === "signed in" ? "" : "error"}>{one.result}</td></tr>
            ))}
          </tbody>
        </table>
      </div>
      <nav class="pager" aria-label="Pages of the log">
        <button type="button" disabled={offset === 0} onClick={() => move(Math.max(0, offset - AUDIT_ROWS))}>Newer</button>
        <span>{count(offset + 1)} to {count(Math.min(offset + AUDIT_ROWS, audit.total))} of {count(audit.total)}</span>
        <button type="button" disabled={offset + AUDIT_ROWS >= audit.total} onClick={() => move(offset + AUDIT_ROWS)}>Older</button>
      </nav>
    </>
  );
}

export const pages: Record<string, { title: string; View: () => preact.JSX.Element }> = {
  overview: { title: "Overview", View: OverviewPage },
  actors: { title: "Actors", View: ActorsPage },
  connections: { title: "Connections", View: ConnectionsPage },
  subscriptions: { title: "Subscriptions", View: SubscriptionsPage },
  signals: { title: "Signals", View: SignalsPage },
  ingest: { title: "Ingest", View: IngestPage },
  analytics: { title: "Analytics", View: AnalyticsPage },
  faults: { title: "Faults", View: FaultsPage },
  audit: { title: "Audit", View: AuditPage },
};

/** The name in `#/NAME?WISHES`. */
export const pageOf = (hash: string) => hash.slice(2).split("?")[0]!;

/** The names of what this server has and this page can show. */
export const shown = () => Object.keys(pages).filter((name) => session.value?.pages.includes(name));
export const lastSeen = () => (overview.value === null ? "" : clock(overview.value.at));
