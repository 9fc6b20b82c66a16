/** Subscriptions: every filter with who has it, and which node of a filter says no to a signal. */
import { useRef, useState } from "preact/hooks";

import { post } from "./api";
import { NONE, count, rate, size } from "./format";
import { Empty, List, useWindow } from "./list";
import { session, wished } from "./model";

interface Group { group: string; stream: string; filter: unknown; text: string; members: number; evaluated: number; matched: number; match_rate: number | null; bytes_per_s: number | null }
interface Node { node: string; matches: boolean; why: string; children?: Node[] }
interface Result { filter: unknown; text: string; members?: number; matches: boolean; tree: Node }

const SORTS = { members: "members", evaluated: "evaluated", matched: "matched", match_rate: "match rate", bytes_per_s: "bytes per second" };
const EXAMPLE = '{"type": "price.tick", "entity": "btc-usd", "data": {"pct": 2.5}}';

export function SubscriptionsPage() {
  const [wish, ask] = useState(() => ({ q: "", stream: "", sort: "members", desc: "1", ...wished() }));
  const { found, error, load } = useWindow<{ total: number; rows: Group[] }>("subscriptions", wish);
  const [chosen, choose] = useState({ stream: session.value!.streams[0]!, filter: "" });
  const signal = useRef<HTMLTextAreaElement>(null);
  const set = (name: string) => (event: Event) => ask({ ...wish, [name]: (event.target as HTMLInputElement).value });
  const take = (one: Group) => {
    choose({ stream: one.stream, filter: JSON.stringify(one.filter, null, 2) });
    signal.current!.focus();
  };
  return (
    <>
      <div class="filters">
        <input type="search" data-filter aria-label="Filter by the text of a filter" placeholder="Part of a filter ( / )" value={wish.q} onInput={set("q")} />
        <label>Stream <select value={wish.stream} onChange={set("stream")}><option value="">any</option>{session.value!.streams.map((one) => <option key={one}>{one}</option>)}</select></label>
        <label>Sort by <select value={wish.sort} onChange={set("sort")}>{Object.entries(SORTS).map(([name, text]) => <option key={name} value={name}>{text}</option>)}</select></label>
        <button type="button" aria-pressed={wish.desc === ""} onClick={() => ask({ ...wish, desc: wish.desc ? "" : "1" })}>Reversed</button>
        <span role="status">{found && `${count(found.total)} ${found.total === 1 ? "filter" : "filters"}`}</span>
      </div>
      {error && <p class="error" role="alert">{error}</p>}
      {found === null ? <p class="empty">Asking for the subscriptions…</p> : found.total === 0 ? (
        <Empty load={load}>{wish.q || wish.stream ? "No filter is like this." : "Nobody subscribes. Filters are here while a connection has them; those that are equal are one."}</Empty>
      ) : (
        <List name="Subscriptions" kind="of-groups" total={found.total} loaded={found} load={load} open={take} draw={(one) => (
          <>
            <b>{one.text}</b><span class="quiet">{one.group}</span>
            <span class="number">{count(one.members)} {one.members === 1 ? "member" : "members"}</span><span class="number">{count(one.evaluated)} evaluated</span>
            <span class="number">{count(one.matched)} matched</span><span class="number">{one.match_rate === null ? NONE : `${rate(one.match_rate * 100)} %`}</span>
            <span class="number">{one.bytes_per_s === null ? NONE : `${size(one.bytes_per_s)}/s`}</span>
          </>
        )} />
      )}
      <Explain chosen={chosen} choose={choose} signal={signal} />
    </>
  );
}

interface Chosen { stream: string; filter: string }

function Explain({ chosen, choose, signal }: { chosen: Chosen; choose: (chosen: Chosen) => void; signal: preact.RefObject<HTMLTextAreaElement> }) {
  const [text, write] = useState(EXAMPLE);
  const [results, show] = useState<Result[] | null>(null);
  const [error, fail] = useState("");
  const explain = async (event: SubmitEvent) => {
    event.preventDefault();
    try {
      const given = parsed("signal", text);
      const body = chosen.filter.trim() ? { filter: parsed("filter", chosen.filter), signal: given } : { stream: chosen.stream, signal: given };
      show((await post<{ results: Result[] }>("explain", body)).results);
      fail("");
    } catch (refused) {
      show(null);
      fail((refused as Error).message);
    }
  };
  return (
    <section class="card" aria-label="Explain">
      <h2>Which filter says no?</h2>
      <form class="explain" onSubmit={explain}>
        <label>Signal as JSON <textarea ref={signal} rows={5} value={text} onInput={(event) => write(event.currentTarget.value)} /></label>
        <label>Filter as JSON; empty for all of the stream <textarea rows={5} value={chosen.filter} onInput={(event) => choose({ ...chosen, filter: event.currentTarget.value })} /></label>
        <p class="filters">
          <label>Stream <select value={chosen.stream} onChange={(event) => choose({ ...chosen, stream: event.currentTarget.value })}>{session.value!.streams.map((one) => <option key={one}>{one}</option>)}</select></label>
          <button type="submit" class="primary">Explain</button>
          <span role="status">{results && `${count(results.filter((one) => one.matches).length)} of ${count(results.length)} let it through`}</span>
        </p>
      </form>
      {error && <p class="error" role="alert">{error}</p>}
      {results?.length === 0 && <p>Nobody subscribes to this stream. Give a filter to try one.</p>}
      {results?.map((one, n) => (
        <article key={n} class="explained" aria-label={one.text}>
          <h3><Verdict yes={one.matches} /> {one.text}{one.members !== undefined && <span class="quiet"> · {count(one.members)} {one.members === 1 ? "member" : "members"}</span>}</h3>
          <ul class="tree"><Branch of={one.tree} /></ul>
        </article>
      ))}
    </section>
  );
}

const Verdict = ({ yes }: { yes: boolean }) => <span class={`verdict ${yes ? "yes" : "no"}`}>{yes ? "✓ yes" : "✗ no"}</span>;

function Branch({ of }: { of: Node }) {
  return (
    <li>
      <Verdict yes={of.matches} /> <code>{of.node}</code> <span class="quiet">{of.why}</span>
      {of.children && of.children.length > 0 && <ul>{of.children.map((one, n) => <Branch key={n} of={one} />)}</ul>}
    </li>
  );
}

function parsed(what: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The ${what} is not JSON: ${(error as Error).message}`);
  }
}
