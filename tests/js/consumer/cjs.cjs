// What the published package offers to `require`.
const assert = require("node:assert/strict");

const { SignalClient, SignalError, f } = require("heliograph-client");
const { FileCursorStore } = require("heliograph-client/file-store");
const { history } = require("heliograph-client/history");
const { MemoryCursorStore } = require("heliograph-client/memory-store");
const { msgpack } = require("heliograph-client/msgpack");

for (const made of [FileCursorStore, MemoryCursorStore, history, msgpack.encode, f]) assert.equal(typeof made, "function");
assert.match(require("heliograph-client/package.json").version, /^\d/);
const client = new SignalClient({ url: "http://127.0.0.1", WebSocket: class {} });
client.publish({ type: "t", entity: "e" }).catch((error) => assert.ok(error instanceof SignalError));
client.close();
const refused = async () => new Response("", { status: 500 });
history({ url: "http://127.0.0.1", fetch: refused })[Symbol.asyncIterator]().next().then(assert.fail, (error) => assert.ok(error instanceof SignalError));
