// What the types allow and what they refuse; checked by tsc, never run.
import { SignalClient, SignalError, all, any, f, not, type CursorStore, type Gap, type Signal } from "heliograph-client";
import { FileCursorStore } from "heliograph-client/file-store";
import { history } from "heliograph-client/history";
import { MemoryCursorStore } from "heliograph-client/memory-store";
import { msgpack } from "heliograph-client/msgpack";
import { SignalProvider, useSignals } from "heliograph-client/react";

interface Price {
  p: number;
}

declare const asyncStorage: CursorStore;
declare class Ws {
  constructor(url: string | URL, protocols?: string | string[]);
}

const client = new SignalClient({
  url: "https://example.test",
  token: async () => "token",
  WebSocket: Ws,
  cursorStore: asyncStorage,
  watch: (tell) => {
    tell("online");
    return () => {};
  },
});
new SignalClient({ cursorStore: "session" });
new SignalClient({ cursorStore: new MemoryCursorStore(), encoding: msgpack });
new SignalClient({ cursorStore: new FileCursorStore("cursors.json") });
// @ts-expect-error an encoding is more than its name
new SignalClient({ encoding: "msgpack" });
// @ts-expect-error there is no such store
new SignalClient({ cursorStore: "cookie" });

const sub = client.subscribe<Price>({
  types: ["price.>"],
  where: all(f("/data/p").gte(2.5), any(f("/tags/v").in(["X"]), not(f("/tags/v").exists()))),
  since: { last: 100 },
  overflow: "latest",
  onSlow: "skip",
});
sub.on("signal", (signal) => signal.data.p.toFixed(2));
sub.on("gap", ({ after }) => after?.toFixed());
// @ts-expect-error a subscription tells no such thing
sub.on("signals", () => {});
// @ts-expect-error a price has no q
sub.on("signal", (signal) => signal.data.q);
// @ts-expect-error numbers are compared with numbers
f("/data/p").gt("2");

export async function read(): Promise<Signal<Price> | Gap | undefined> {
  for await (const item of sub) {
    if (item.kind === "gap") return item;
    // @ts-expect-error a signal has no reason
    item.reason;
    if (item.data.p > 1) return item;
  }
  try {
    const { offset, dup } = await client.publish({ type: "a", entity: "e", data: { p: 1 } });
    if (dup) throw new SignalError(`${offset.toFixed()}`, { slug: "dup" });
  } catch (error) {
    if (error instanceof SignalError) error.slug?.trim();
  }
  return undefined;
}

export async function readBack(): Promise<string | null> {
  const stored = history<Price>({ types: "price.>", where: f("/data/p").gt(1), since: { cursor: "E:1" }, reverse: true, limit: 10 });
  for await (const { data } of stored) if (data.p > 1) break;
  // @ts-expect-error one reads from a cursor, or from the end
  history({ since: { last: 100 } });
  return stored.cursor;
}

export async function change(): Promise<void> {
  await sub.update({ types: "alert.>", latestMs: 500, backfill: { ago_ms: 60_000 } });
  // @ts-expect-error one cannot go back to a cursor
  await sub.update({ backfill: { cursor: "E:1" } });
}

function Prices() {
  const { signals, latest, state, gap, error } = useSignals<Price>({ types: "price.>" }, { keep: 10, latestBy: "entity" });
  return (
    <p>
      {state} {signals[0]?.data.p} {latest.get("btc-usd")?.ts} {gap?.reason} {error?.message}
    </p>
  );
}

export const app = (
  <SignalProvider client={client}>
    <Prices />
  </SignalProvider>
);
