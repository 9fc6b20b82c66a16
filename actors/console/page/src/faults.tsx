/** Faults: what can be made to fail in a server that was started for that, and what the last ones did to clients. */
import { useEffect, useState } from "preact/hooks";

import { get, post } from "./api";
import { count, distance, duration, stamp } from "./format";
import { Heads } from "./list";
import { link } from "./model";

const AGAIN_MS = 1_000;
const FINAL = ["crash actor", "kill process"]; // asked about first

interface Parameter { name: string; unit: string; least: number; most: number; default: number }
interface Kind { kind: string; text: string; parameters: Parameter[]; actors?: string[]; streams?: string[] }
interface Effect { connections_lost: number; recoveries_ok: number; recoveries_gap: number; signals_lost: number; recovery_p99_ms: number | null }
interface Run { id: number; kind: string; parameters: Record<string, number | string>; since: number; until: number; by: string; effect: Effect }
interface Answer { kinds: Kind[]; running: Run[]; past: Run[] }

const LABELS: Record<string, string> = { percent: "Share", seconds: "For", delay_ms: "Each by", skew_s: "By" };
const UNITS: Record<string, string> = { percent: "%", seconds: "s", delay_ms: "ms", skew_s: "s" };
const TEXTS = ["actor", "session", "stream"];
const title = (kind: string) => kind[0]!.toUpperCase() + kind.slice(1);
const told = (run: Run) => Object.entries(run.parameters).map(([name, value]) => (name in UNITS ? `${LABELS[name]!.toLowerCase()} ${value} ${UNITS[name]}` : name === "actor" ? value : `${name} ${value}`)).join(", ");

/** What a form says: one session, where one is named, and a share otherwise. */
function wanted(form: HTMLFormElement): Record<string, unknown> {
  const said = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, TEXTS.includes(name) ? value : Number(value)]));
  if (said.session === undefined) return said;
  const { percent, session, stream, ...rest } = said;
  return session ? { ...rest, session, stream } : { ...rest, percent };
}

function Injection({ of, busy, said }: { of: Kind; busy: boolean; said: (text: string) => void }) {
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    if (FINAL.includes(of.kind) && !confirm(`${title(of.kind)}? What is in memory only is lost.`)) return;
    const parameters = wanted(event.currentTarget as HTMLFormElement);
    await post("faults", { kind: of.kind, parameters }).then(() => said(`${of.kind}: begins`), (error: Error) => said(error.message));
  };
  return (
    <form class="card fault" aria-label={title(of.kind)} onSubmit={send}>
      <h2>{title(of.kind)}</h2>
      <p>{of.text}</p>
      <div class="filters">
        {of.parameters.map((one) => (
          <label key={one.name}>{LABELS[one.name] ?? one.name} <input type="number" name={one.name} min={one.least} max={one.most} defaultValue={`${one.default}`} required /> {one.unit}</label>
        ))}
        {of.streams && (
          <>
            <label>Or one session <input type="text" name="session" autocomplete="off" spellcheck={false} /></label>
            <label>Of stream <select name="stream">{of.streams.map((one) => <option key={one}>{one}</option>)}</select></label>
          </>
        )}
        {of.actors && <label>Which <select name="actor">{of.actors.map((one) => <option key={one}>{one}</option>)}</select></label>}
        <button type="submit" class="danger" disabled={busy}>{title(of.kind)}{FINAL.includes(of.kind) && "…"}</button>
      </div>
    </form>
  );
}

function Running({ run, end }: { run: Run; end: () => void }) {
  const now = Date.now();
  const { effect } = run;
  return (
    <section class="card running" aria-label="The fault that runs">
      <h2>{title(run.kind)} <small>{told(run)}</small></h2>
      <p>{run.since > now ? "It begins…" : run.until > now ? `It ends ${distance(run.until, now)}.` : "It is over; how clients come back is watched on for half a minute."}</p>
      <dl class="facts">
        <div><dt>Connections lost</dt><dd>{count(effect.connections_lost)}</dd></div>
        <div><dt>Subscriptions recovered</dt><dd>{count(effect.recoveries_ok)}</dd></div>
        <div><dt>With a gap</dt><dd>{count(effect.recoveries_gap)}</dd></div>
        <div><dt>Signals lost</dt><dd>{count(effect.signals_lost)}</dd></div>
        <div><dt>Recovery, p99</dt><dd>{duration(effect.recovery_p99_ms)}</dd></div>
      </dl>
      <p class="deeds"><button type="button" onClick={end}>End it</button></p>
    </section>
  );
}

export function FaultsPage() {
  const [found, show] = useState<Answer | null>(null);
  const [said, say] = useState("");
  const [error, fail] = useState("");
  const ask = () => get<Answer>("faults").then((answer) => (show(answer), fail("")), (refused: Error) => fail(refused.message));
  useEffect(() => {
    const timer = setInterval(ask, AGAIN_MS);
    void ask();
    return () => clearInterval(timer);
  }, [link.value === "connected"]);
  if (found === null) return <p class="empty">{error || "Asking what can be made to fail…"}</p>;
  const run = found.running[0];
  const note = (text: string) => (say(text), void ask());
  const end = (one: Run) => post(`faults/${one.id}/end`).then(() => note(`${one.kind}: ended`), (refused: Error) => note(refused.message));
  return (
    <>
      <p class="quiet">This server was started with <code>--faults</code>. Everything here really happens, to real clients; connections of operators are spared. <span role="status">{said}</span></p>
      {error && <p class="error" role="alert">{error}</p>}
      {run !== undefined && <Running run={run} end={() => end(run)} />}
      <div class="charts">{found.kinds.map((one) => <Injection key={one.kind} of={one} busy={run !== undefined} said={note} />)}</div>
      {found.past.length > 0 && (
        <section class="card" aria-label="What the last faults did">
          <h2>What the last ones did</h2>
          <div class="wide" tabIndex={0} role="region" aria-label="The last faults"><table>
            <Heads names={["When", "Fault", "By", "#Connections lost", "#Recovered", "#With a gap", "#Signals lost", "#Recovery, p99"]} />
            <tbody>
              {found.past.map((one) => (
                <tr key={one.id}>
                  <td class="time">{stamp(one.since)}</td><td>{one.kind}<small>{told(one)}</small></td><td>{one.by}</td>
                  <td class="number">{count(one.effect.connections_lost)}</td><td class="number">{count(one.effect.recoveries_ok)}</td><td class="number">{count(one.effect.recoveries_gap)}</td>
                  <td class={`number ${one.effect.signals_lost > 0 ? "error" : ""}`}>{count(one.effect.signals_lost)}</td><td class="number">{duration(one.effect.recovery_p99_ms)}</td>
                </tr>
              ))}
            </tbody>
          </table></div>
        </section>
      )}
    </>
  );
}
