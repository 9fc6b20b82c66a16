/** Actors: all of them, and one of them with what it stores and what may be done to it. */
import { useEffect, useRef, useState } from "preact/hooks";

import { get, post } from "./api";
import { count, distance, plural, size } from "./format";
import { useEscape } from "./keys";
import { Amount, Empty, Heads, List, useWindow } from "./list";
import { wished } from "./model";

interface Actor {
  id: string; class: string; namespace: string; name: string | null; state: string; mailbox: number; in_flight: number;
  last_event: string | null; last_event_at: number | null; alarm_at: number | null; storage: string; restarts: number;
  last_error: string | null; sockets: number; why_awake: string[]; bookmark?: string | null; bookmark_error?: string;
}
interface Found { total: number; matched: number; classes: string[]; actors: Actor[] }
interface Entry { key: string; bytes: number; text: string; cut: boolean }
interface Table { columns: string[]; rows: unknown[][]; cut: boolean; ms: number }

const SORTS = { class: "class and name", mailbox: "mailbox", in_flight: "in flight", last_event: "last event", alarm: "alarm", restarts: "restarts", sockets: "sockets" };
const STATES = ["active", "idle", "hibernated", "failing"];
const title = (one: Actor) => one.name ?? one.id.slice(0, 16);
const path = (one: Actor) => `actors/${encodeURIComponent(one.namespace)}/${encodeURIComponent(one.id)}`;

export function ActorsPage() {
  const [wish, ask] = useState(() => ({ q: "", class: "", state: "", sort: "class", desc: "", ...wished() }));
  const { found, error, load } = useWindow<Found>("actors", wish);
  const [opened, open] = useState<Actor | null>(null);
  const set = (name: string) => (event: Event) => ask({ ...wish, [name]: (event.target as HTMLInputElement).value });
  if (opened !== null) return <ActorView of={opened} close={() => open(null)} />;
  return (
    <>
      <div class="filters">
        <input type="search" data-filter aria-label="Filter by name, id or namespace" placeholder="Name, id or namespace ( / )" value={wish.q} onInput={set("q")} />
        <label>Class <select value={wish.class} onChange={set("class")}><option value="">any</option>{found?.classes.map((one) => <option key={one}>{one}</option>)}</select></label>
        <label>State <select value={wish.state} onChange={set("state")}><option value="">any</option>{STATES.map((one) => <option key={one}>{one}</option>)}</select></label>
        <label>Sort by <select value={wish.sort} onChange={set("sort")}>{Object.entries(SORTS).map(([name, text]) => <option key={name} value={name}>{text}</option>)}</select></label>
        <button type="button" aria-pressed={wish.desc === "1"} onClick={() => ask({ ...wish, desc: wish.desc ? "" : "1" })}>Reversed</button>
        <span role="status">{found && `${count(found.matched)} of ${count(found.total)}`}</span>
      </div>
      {error && <p class="error" role="alert">{error}</p>}
      {found === null ? <p class="empty">Asking for the actors…</p> : found.matched === 0 ? <Empty load={load}>No actor is like this. Actors are here while they are in memory, have sockets or have an alarm.</Empty> : (
        <List name="Actors" kind="of-actors" total={found.matched} loaded={{ offset: found.offset, rows: found.actors }} load={load} open={open} draw={(one) => (
          <>
            <b>{title(one)}</b><span class="quiet">{one.class}</span><span class={`state ${one.state}`}>{one.state}</span>
            <Amount of={one.mailbox}>{count(one.mailbox)} waiting</Amount><Amount of={one.in_flight}>{count(one.in_flight)} in flight</Amount>
            <Amount of={one.sockets}>{plural(one.sockets, "socket")}</Amount><Amount of={one.restarts}>{plural(one.restarts, "restart")}</Amount>
            <span class="quiet">{one.storage}</span><span class="quiet" title={one.why_awake.join(", ")}>{one.why_awake.join(", ")}</span>
            <span class="quiet">{one.alarm_at ? `alarm ${distance(one.alarm_at, Date.now())}` : ""}</span>
          </>
        )} />
      )}
    </>
  );
}

function ActorView({ of, close }: { of: Actor; close: () => void }) {
  const [one, show] = useState(of);
  const [said, say] = useState("");
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  useEffect(() => {
    const timer = setInterval(() => get<Actor>(path(of)).then((now) => show((before) => ({ ...before, ...now, bookmark: before.bookmark })), () => {}), 1_000);
    return () => clearInterval(timer);
  }, []);
  useEscape(close);
  const act = (deed: string) => () => post(`${path(of)}/${deed}`).then(() => say(`${deed}: done`), (error: Error) => say(error.message));
  const abort = () => confirm(`Abort ${title(of)}? What waits for it fails, and what it has only in memory is lost.`) && act("abort")();
  const mark = () => get<Actor>(`${path(of)}?bookmark=1`).then((now) => (show(now), now.bookmark_error && say(now.bookmark_error)), (error: Error) => say(error.message));
  const facts: [string, preact.ComponentChildren][] = [
    ["Class", one.class], ["Namespace", one.namespace], ["Id", <code>{one.id}</code>], ["State", <span class={`state ${one.state}`}>{one.state}</span>],
    ["Why awake", one.why_awake.join(", ") || (one.state === "hibernated" ? "it is not" : "nothing keeps it; it leaves memory when it has idled long enough")], ["Last event", one.last_event === null ? "–" : `${one.last_event}, ${one.last_event_at === null ? "now" : distance(one.last_event_at, Date.now())}`],
    ["Alarm", one.alarm_at === null ? "none" : distance(one.alarm_at, Date.now())], ["Waiting", count(one.mailbox)], ["In flight", count(one.in_flight)],
    ["Sockets", count(one.sockets)], ["Storage", one.storage === "sql" ? "a database of its own" : "keys in the shared database"], ["Restarts", count(one.restarts)], ["Last error", one.last_error ?? "none"],
    ["Bookmark", one.bookmark ? <code>{one.bookmark}</code> : <button type="button" onClick={mark}>Wake it and show</button>],
  ];
  return (
    <>
      <p><button type="button" onClick={close}>← All actors</button></p>
      <h2 ref={heading} tabIndex={-1}>{title(one)}</h2>
      <dl class="card facts">{facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
      <p class="deeds">
        <button type="button" onClick={act("evict")}>Evict</button><button type="button" onClick={act("alarm")}>Run alarm</button>
        <button type="button" class="danger" onClick={abort}>Abort…</button><span role="status">{said}</span>
      </p>
      <Storage of={of} />
      {of.storage === "sql" && <Sql of={of} />}
    </>
  );
}

function Storage({ of }: { of: Actor }) {
  const [prefix, look] = useState("");
  const [page, show] = useState<{ entries: Entry[]; next: string | null } | null>(null);
  const [error, fail] = useState("");
  const load = (after: string) =>
    get<{ entries: Entry[]; next: string | null }>(`${path(of)}/storage?${new URLSearchParams({ prefix, after })}`).then((found) => (show(found), fail("")), (refused: Error) => fail(refused.message));
  return (
    <section class="card" aria-label="Storage">
      <h2>Storage</h2>
      <form class="filters" onSubmit={(event) => (event.preventDefault(), load(""))}>
        <input aria-label="Prefix of the keys" placeholder="Prefix of the keys" value={prefix} onInput={(event) => look(event.currentTarget.value)} />
        <button type="submit">Look</button><span class="quiet">To look wakes it.</span>
      </form>
      {error && <p class="error" role="alert">{error}</p>}
      {page !== null && (page.entries.length === 0 ? <p>It stores nothing here.</p> : (
        <div class="wide" tabIndex={0} role="region" aria-label="Stored values"><table><Heads names={["Key", "#Size", "Value"]} /><tbody>
          {page.entries.map((one) => <tr key={one.key}><td><code>{one.key}</code></td><td class="number">{size(one.bytes)}</td><td><code>{one.text}{one.cut && "…"}</code></td></tr>)}
        </tbody></table></div>
      ))}
      {page?.next && <button type="button" onClick={() => load(page.next!)}>More</button>}
    </section>
  );
}

function Sql({ of }: { of: Actor }) {
  const [query, write] = useState("SELECT name, sql FROM sqlite_schema");
  const [table, show] = useState<Table | null>(null);
  const [error, fail] = useState("");
  const run = (event: Event) => {
    event.preventDefault();
    post<Table>(`${path(of)}/sql`, { query }).then((found) => (show(found), fail("")), (refused: Error) => fail(refused.message));
  };
  return (
    <section class="card" aria-label="SQL">
      <h2>SQL</h2>
      <form class="filters" onSubmit={run}><textarea aria-label="A statement that only reads" rows={3} value={query} onInput={(event) => write(event.currentTarget.value)} /><button type="submit">Run</button></form>
      {error && <p class="error" role="alert">{error}</p>}
      {table !== null && <>
        <div class="wide" tabIndex={0} role="region" aria-label="Rows"><table><thead><tr>{table.columns.map((one, n) => <th key={n} scope="col">{one}</th>)}</tr></thead><tbody>{table.rows.map((row, n) => <tr key={n}>{row.map((value, m) => <td key={m}>{value === null ? <i>NULL</i> : String(value)}</td>)}</tr>)}</tbody></table></div>
        <p class="quiet">{plural(table.rows.length, "row")}{table.cut && ", and more"} in {table.ms} ms</p>
      </>}
    </section>
  );
}
