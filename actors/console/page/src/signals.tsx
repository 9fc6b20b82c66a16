/** Signals: the live tail of a stream, filtered and paused at will, the way of one of them, and a test signal. */
import { useEffect, useRef, useState } from "preact/hooks";
import { SignalClient, type Signal } from "heliograph-client";

import { get, post } from "./api";
import { clock, count } from "./format";
import { Heads } from "./list";
import { session } from "./model";
import { TraceView } from "./trace";

const KEPT = 200; // signals that are shown
const words = (text: string) => text.split(/[\s,]+/).filter(Boolean);

export function SignalsPage() {
  const [stream, choose] = useState(session.value!.streams[0]!);
  const [wish, ask] = useState({ types: "", entities: "" });
  const [rows, show] = useState<Signal[]>([]);
  const [paused, pause] = useState(false);
  const [error, fail] = useState("");
  const [opened, open] = useState<Signal | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const close = () => (open(null), box.current?.focus());
  const resting = useRef(paused);
  resting.current = paused;
  const kept = useRef<Signal[]>([]);
  useEffect(() => {
    if (!paused) show(kept.current);
  }, [paused]);

  useEffect(() => {
    const client = new SignalClient({ url: new URL(`/console/streams/${encodeURIComponent(stream)}`, location.href) });
    const draw = () => resting.current || show(kept.current);
    const options = { types: words(wish.types), entities: words(wish.entities) };
    const sub = client.subscribe({
      ...(options.types.length > 0 && { types: options.types }),
      ...(options.entities.length > 0 && { entities: options.entities }),
      since: { last: KEPT }, overflow: "drop_oldest",
    });
    let frame = 0;
    sub.on("signal", (one) => {
      kept.current = [one, ...kept.current].slice(0, KEPT); // while paused, too: nothing is missing afterwards
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(draw);
    });
    sub.on("state", (change) => fail(change.error?.message ?? ""));
    show((kept.current = []));
    open(null);
    return () => (cancelAnimationFrame(frame), client.close());
  }, [stream, wish]);

  useEffect(() => {
    const watch = () => get(`trace/${encodeURIComponent(stream)}`).catch(() => {}); // the tail says what is wrong
    const timer = setInterval(watch, 2_000); // each time is good for 5 s
    void watch();
    return () => clearInterval(timer);
  }, [stream]);

  const filter = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    ask({ types: String(form.get("types")), entities: String(form.get("entities")) });
  };
  return (
    <>
      <form class="filters" onSubmit={filter}>
        <label>Stream <select value={stream} onChange={(event) => choose(event.currentTarget.value)}>{session.value!.streams.map((one) => <option key={one}>{one}</option>)}</select></label>
        <input name="types" data-filter aria-label="Types" placeholder="Types, such as price.> ( / )" />
        <input name="entities" aria-label="Entities" placeholder="Entities, such as btc-*" />
        <button type="submit">Filter</button>
        <button type="button" aria-pressed={paused} onClick={() => pause(!paused)}>{paused ? "Go on" : "Pause"}</button>
      </form>
      {error && <p class="error" role="alert">{error}</p>}
      {opened && <TraceView of={opened} stream={stream} close={close} />}
      {rows.length === 0 ? <p class="empty">No signal of this kind so far. The next one appears here.</p> : (
        <div ref={box} class="wide tail" tabIndex={0} role="region" aria-label="Signals">
          <table>
            <Heads names={["#Offset", "Time", "Type", "Entity", "Data"]} />
            <tbody>{rows.map((one) => <Row key={`${one.epoch}:${one.offset}`} of={one} open={open} />)}</tbody>
          </table>
        </div>
      )}
      <Publish stream={stream} />
    </>
  );
}

/** A click anywhere in it traces the signal; the keyboard has the button, or Enter on the row. */
function Row({ of, open }: { of: Signal; open: (one: Signal) => void }) {
  const key = (event: KeyboardEvent) => event.key === "Enter" && event.target === event.currentTarget && open(of);
  return (
    <tr class="opens" onClick={() => open(of)} onKeyDown={key}>
      <td class="number"><button type="button" class="plain" aria-label={`Trace signal ${of.offset}`}>{count(of.offset)}</button></td>
      <td class="time">{clock(of.ts)}</td><td>{of.type}</td><td>{of.entity}</td><td><code>{JSON.stringify(of.data).slice(0, 500)}</code></td>
    </tr>
  );
}

function Publish({ stream }: { stream: string }) {
  const [said, say] = useState("");
  const send = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    try {
      const data: unknown = JSON.parse(String(form.get("data")));
      const body = { type: form.get("type"), entity: form.get("entity"), data };
      const { offsets } = await post<{ offsets: number[] }>(`publish?stream=${encodeURIComponent(stream)}`, body);
      say(`stored as ${count(offsets[0]!)}`);
    } catch (error) {
      say((error as Error).message);
    }
  };
  return (
    <section class="card" aria-label="Publish a test signal">
      <h2>Publish a test signal</h2>
      <form class="filters" onSubmit={send}>
        <input name="type" aria-label="Type" placeholder="Type" required />
        <input name="entity" aria-label="Entity" placeholder="Entity" required />
        <input name="data" aria-label="Data as JSON" placeholder="Data as JSON" value="null" required />
        <button type="submit">Publish</button><span role="status">{said}</span>
      </form>
    </section>
  );
}
