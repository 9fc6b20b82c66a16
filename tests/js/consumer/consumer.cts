// A CommonJS program in TypeScript; checked by tsc, never run.
import heliograph = require("heliograph-client");
import { FileCursorStore } from "heliograph-client/file-store";
import { history } from "heliograph-client/history";
import { msgpack } from "heliograph-client/msgpack";

const client = new heliograph.SignalClient({ url: "wss://example.test", cursorStore: new FileCursorStore("cursors.json"), encoding: msgpack });
export async function main(): Promise<string | null> {
  const stored = history<{ p: number }>({ url: "https://example.test", types: "price.>", limit: 10 });
  for await (const { data, cursor } of stored) if (data.p > 1) return cursor;
  client.close();
  // @ts-expect-error a history has no such thing
  stored.offset;
  return stored.cursor;
}
