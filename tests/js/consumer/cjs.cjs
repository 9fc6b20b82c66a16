// What the published package offers to `require`.
const assert = require("node:assert/strict");

const { SignalClient, SignalError, f } = require("heliograph");
const { FileCursorStore } = require("heliograph/file-store");
const { history } = require("heliograph/history");
const { MemoryCursorStore } = require("heliograph/memory-store");
const { msgpack } = require("heliograph/msgpack");

for (const made of [FileCursorStore, MemoryCursorStore, history, msgpack.encode, f]) assert.equal(typeof made, "function");
assert.match(require("heliograph/package.json").version, /^\d/);
const client = new SignalClient({ url: "http://127.0.0.1", WebSocket: class {} });
client.publish({ type: "t", entity: "e" }).catch((error) => assert.ok(error instanceof SignalError));
client.close();
const refused = async () => new Response("", { status: 500 });
history({ url: "http://127.0.0.1", fetch: refused })[Symbol.asyncIterator]().next().then(assert.fail, (error) => assert.ok(error instanceof SignalError));
