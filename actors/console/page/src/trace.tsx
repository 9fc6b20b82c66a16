/** The way of one signal, from the moment it came to the last socket that got it. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Signal } from "heliograph-client";

import { get } from "./api";
import { count, duration, moment } from "./format";
import { useEscape } from "./keys";
import { Heads } from "./list";

interface Step { name: string; at: number; after_ms: number; detail: string }
interface Trace { found: boolean; offset: number; type: string | null; entity: string | null; ts: number | null; steps: Step[] }

/** Asked for again once a second: shards that are busy have it later. */
export function TraceView({ of, stream, close }: { of: Signal; stream: string; close: () => void }) {
  const [trace, show] = useState<Trace | null>(null);
  const [error, fail] = useState("");
  const heading = useRef<HTMLHeadingElement>(null);
  useEscape(close);
  useEffect(() => {
    let stale = false;
    show(null);
    heading.current?.focus();
    const look = () => get<Trace>(`trace/${encodeURIComponent(stream)}/${of.offset}`).then(
      (now) => stale || (show(now), fail("")),
      (refused: Error) => stale || fail(refused.message),
    );
    const timer = setInterval(look, 1_000);
    void look();
    return () => ((stale = true), clearInterval(timer));
  }, [stream, of.offset]);
  const longest = Math.max(...(trace?.steps ?? []).map((one) => one.after_ms), 0.001);
  return (
    <section class="card trace" aria-label={`Trace of signal ${of.offset}`}>
      <h2 ref={heading} tabIndex={-1}>Signal {count(of.offset)} <span class="quiet">{of.type} · {of.entity}</span></h2>
      {error && <p class="error" role="alert">{error}</p>}
      {trace === null ? <p role="status">Asking for its trace…</p> : !trace.found ? (
        <p>Its way is not known: signals are traced while somebody looks at this page, the newest 4,096 of a stream.</p>
      ) : (
        <table>
          <Heads names={["Step", "#After", "Share", "At", "What"]} />
          <tbody>{trace.steps.map((one) => (
            <tr key={one.name}>
              <th scope="row">{one.name}</th><td class="number time">{duration(one.after_ms)}</td>
              <td class="bar span"><span style={{ width: `${(100 * one.after_ms) / longest}%` }} /></td>
              <td class="time">{moment(one.at)}</td><td>{one.detail}</td>
            </tr>
          ))}</tbody>
        </table>
      )}
      <p><button type="button" onClick={close}>Close the trace</button></p>
    </section>
  );
}
