/** Connections: all of them, and one of them with its subscriptions, its flight recorder and what may be done to it. */
import { useEffect, useRef, useState } from "preact/hooks";

import { Refusal, get, post } from "./api";
import { NONE, count, duration, moment, plural, size } from "./format";
import { useEscape } from "./keys";
import { Amount, Empty, Heads, List, useWindow } from "./list";
import { wished } from "./model";

interface Connection {
  session: string; stream: string; shard: number; user: string | null; sdk: string; peer: string; encoding: string; age_ms: number;
  rtt_ms: number | null; lag: number | null; backlog_bytes: number; sent: number; sent_bytes: number;
  dropped: number; conflated: number; subs: number; state: string;
}
interface Subscription { sid: string; filter: unknown; mode: string; state: string; position: number | null; on_slow: string; matched: number }
interface Recorded { at: number; dir: "in" | "out" | "note"; kind: string; bytes: number; text: string }
interface Opened extends Connection { subscriptions: Subscription[]; events: Recorded[] }

const SORTS = {
  age_ms: "age", rtt_ms: "round trip", lag: "lag", backlog_bytes: "backlog", sent: "sent", sent_bytes: "bytes sent",
  dropped: "dropped", conflated: "conflated", subs: "subscriptions", user: "user", sdk: "SDK",
};
const STATES = ["hello", "open", "slow", "leaving"];
const DIRECTIONS = { in: "received", out: "sent", note: "note" };
const REASON_BYTES = 123; // of a close frame, RFC 6455 section 5.5
const path = (one: Connection) => `connections/${encodeURIComponent(one.stream)}/${encodeURIComponent(one.session)}`;
const title = (one: Connection) => one.user ?? one.session;

export function ConnectionsPage() {
  const [wish, ask] = useState(() => ({ q: "", state: "", sort: "age_ms", desc: "", ...wished() }));
  const { found, error, load } = useWindow<{ total: number; rows: Connection[] }>("connections", wish);
  const [opened, open] = useState<Connection | null>(null);
  const set = (name: string) => (event: Event) => ask({ ...wish, [name]: (event.target as HTMLInputElement).value });
  if (opened !== null) return <ConnectionView of={opened} close={() => open(null)} />;
  return (
    <>
      <div class="filters">
        <input type="search" data-filter aria-label="Filter by session, user, SDK or address" placeholder="Session, user, SDK or address ( / )" value={wish.q} onInput={set("q")} />
        <label>State <select value={wish.state} onChange={set("state")}><option value="">any</option>{STATES.map((one) => <option key={one}>{one}</option>)}</select></label>
        <label>Sort by <select value={wish.sort} onChange={set("sort")}>{Object.entries(SORTS).map(([name, text]) => <option key={name} value={name}>{text}</option>)}</select></label>
        <button type="button" aria-pressed={wish.desc === "1"} onClick={() => ask({ ...wish, desc: wish.desc ? "" : "1" })}>Reversed</button>
        <span role="status">{found && plural(found.total, "connection")}</span>
      </div>
      {error && <p class="error" role="alert">{error}</p>}
      {found === null ? <p class="empty">Asking for the connections…</p> : found.total === 0 ? (
        <Empty load={load}>{wish.q || wish.state ? "No connection is like this." : <>Nobody is connected. <code>heliograph tail</code> in a terminal is a first one; it appears here.</>}</Empty>
      ) : (
        <List name="Connections" kind="of-connections" total={found.total} loaded={found} load={load} open={open} draw={(one) => (
          <>
            <b>{title(one)}</b><span class="quiet">{one.sdk}</span><span class={`state ${one.state}`}>{one.state}</span>
            <span class="number">{duration(one.age_ms)}</span><span class="number">{one.rtt_ms === null ? "" : `rtt ${duration(one.rtt_ms)}`}</span>
            <Amount of={one.lag ?? 0}>{one.lag === null ? "" : `${count(one.lag)} behind`}</Amount><Amount of={one.backlog_bytes}>{size(one.backlog_bytes)} waiting</Amount>
            <Amount of={one.sent}>{count(one.sent)} sent</Amount><Amount of={one.dropped} bad>{count(one.dropped)} dropped</Amount>
            <Amount of={one.subs}>{plural(one.subs, "sub")}</Amount>
          </>
        )} />
      )}
    </>
  );
}

function ConnectionView({ of, close }: { of: Connection; close: () => void }) {
  const [one, show] = useState<Opened | null>(null);
  const [ended, end] = useState(false);
  const [said, say] = useState("");
  const [refused, refuse] = useState("");
  const heading = useRef<HTMLHeadingElement>(null);
  const asking = useRef<HTMLDialogElement>(null);
  useEffect(() => heading.current?.focus(), []);
  useEscape(close);
  useEffect(() => {
    if (ended) return;
    let stale = false;
    const look = () => get<Opened>(path(of)).then(
      (now) => stale || show(now),
      (error: Refusal) => stale || (error.status === 404 ? end(true) : say(error.message)),
    );
    const timer = setInterval(look, 1_000);
    void look();
    return () => ((stale = true), clearInterval(timer));
  }, [ended]);
  const act = (deed: string, body: unknown) => post(`${path(of)}/${deed}`, body).then(() => say(`${deed}: done`), (error: Error) => say(error.message));
  const submit = (event: SubmitEvent) => {
    const form = event.currentTarget as HTMLFormElement;
    const reason = String(new FormData(form).get("reason"));
    if (new TextEncoder().encode(reason).length > REASON_BYTES) {
      event.preventDefault();
      refuse(`A reason has at most ${REASON_BYTES} bytes of UTF-8.`);
      return;
    }
    void act("close", { reason });
    form.reset();
    refuse("");
  };
  const now = one ?? of;
  const facts: [string, preact.ComponentChildren][] = [
    ["Session", <code>{now.session}</code>], ["User", now.user ?? "nobody"], ["State", ended ? "ended" : <span class={`state ${now.state}`}>{now.state}</span>],
    ["Stream", `${now.stream}, shard ${now.shard}`], ["SDK", now.sdk], ["From", now.peer], ["Encoding", now.encoding], ["Age", duration(now.age_ms)],
    ["Round trip", duration(now.rtt_ms)], ["Behind", now.lag === null ? NONE : plural(now.lag, "signal")],
    ["Waiting to be sent", size(now.backlog_bytes)], ["Sent", `${count(now.sent)}, ${size(now.sent_bytes)}`], ["Dropped", count(now.dropped)], ["Conflated", count(now.conflated)],
  ];
  return (
    <>
      <p><button type="button" onClick={close}>← All connections</button></p>
      <h2 ref={heading} tabIndex={-1}>{title(of)}</h2>
      {ended && <p role="alert"><b>This connection has ended.</b> What is shown is the last that was seen of it.</p>}
      <dl class="card facts">{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
      <p class="deeds">
        <button type="button" disabled={ended} onClick={() => act("goaway", {})}>Send away</button>
        <button type="button" class="danger" disabled={ended} onClick={() => asking.current!.showModal()}>Close…</button><span role="status">{said}</span>
      </p>
      <dialog ref={asking} aria-labelledby="closing">
        <h2 id="closing">Close this connection?</h2>
        <p>Its client is told the reason. It may connect again.</p>
        <form method="dialog" onSubmit={submit}>
          <label>Reason <input name="reason" maxLength={REASON_BYTES} /></label>
          {refused && <p class="error" role="alert">{refused}</p>}
          <button type="submit" class="danger">Close the connection</button>
          <button type="button" onClick={() => asking.current!.close()}>Cancel</button>
        </form>
      </dialog>
      {one !== null && <Subscriptions all={one.subscriptions} />}
      {one !== null && <FlightRecorder events={one.events} />}
    </>
  );
}

function Subscriptions({ all }: { all: Subscription[] }) {
  return (
    <section class="card" aria-label="Subscriptions">
      <h2>Subscriptions</h2>
      {all.length === 0 ? <p>It has none.</p> : (
        <div class="wide" tabIndex={0} role="region" aria-label="Its subscriptions"><table>
          <Heads names={["Id", "Filter", "Mode", "State", "#Position", "When slow", "#Matched"]} />
          <tbody>{all.map((one) => <tr key={one.sid}><td>{one.sid}</td><td><code>{JSON.stringify(one.filter)}</code></td><td>{one.mode}</td><td>{one.state}</td><td class="number">{count(one.position)}</td><td>{one.on_slow}</td><td class="number">{count(one.matched)}</td></tr>)}</tbody>
        </table></div>
      )}
    </section>
  );
}

function FlightRecorder({ events }: { events: Recorded[] }) {
  return (
    <section class="card" aria-label="Flight recorder">
      <h2>Flight recorder</h2>
      {events.length === 0 ? <p>Nothing is recorded of it yet.</p> : (
        <div class="wide tail" tabIndex={0} role="region" aria-label="Its last protocol events, the newest first"><table>
          <Heads names={["When", "Direction", "Kind", "#Size", "What"]} />
          <tbody>{events.toReversed().map((one, n) => <tr key={events.length - n}><td class="time">{moment(one.at)}</td><td class={`way ${one.dir}`}>{DIRECTIONS[one.dir]}</td><td>{one.kind}</td><td class="number">{one.dir === "note" ? "" : size(one.bytes)}</td><td><code>{one.text}</code></td></tr>)}</tbody>
        </table></div>
      )}
    </section>
  );
}
