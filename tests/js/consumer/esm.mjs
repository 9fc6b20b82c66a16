// What the published package offers to `import`.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

import * as heliograph from "heliograph-client";
import { FileCursorStore } from "heliograph-client/file-store";
import { history } from "heliograph-client/history";
import { MemoryCursorStore } from "heliograph-client/memory-store";
import { msgpack } from "heliograph-client/msgpack";

assert.deepEqual(Object.keys(heliograph).sort(), [
  "Connection", "SignalClient", "SignalError", "Subscription", "afterClose", "all", "any", "backoffMs", "f", "not",
]);
for (const made of [FileCursorStore, MemoryCursorStore, history, msgpack.encode]) assert.equal(typeof made, "function");
class WebSocket {}
const client = new heliograph.SignalClient({ url: "http://127.0.0.1", WebSocket, cursorStore: new MemoryCursorStore(), encoding: msgpack });
client.close();
await assert.rejects(history({ url: "http://127.0.0.1", fetch: async () => new Response("", { status: 500 }) })[Symbol.asyncIterator]().next(), heliograph.SignalError);
// The build for a plain <script>, in a program without modules.
const script = new URL(import.meta.resolve("heliograph-client/script"));
const global = `require("vm").runInThisContext(require("fs").readFileSync(${JSON.stringify(script.pathname)}, "utf8")); console.log(typeof Heliograph.SignalClient)`;
assert.equal(execFileSync(process.execPath, ["-e", global], { encoding: "utf8" }), "function\n");
