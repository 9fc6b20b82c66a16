// Writes each signal of a Heliograph server as one line of JSON: `node consumer.mjs URL STATE-FILE [TYPES…]`.
// Stopped or killed, and started again, it goes on where it was: its cursor is in the state file.
import { SignalClient } from "heliograph-client";
import { FileCursorStore } from "heliograph-client/file-store";
import { WebSocket } from "ws"; // Node 22 has one of its own

const [url, file, ...types] = process.argv.slice(2);
const client = new SignalClient({ url, WebSocket, cursorStore: new FileCursorStore(file), name: "node-consumer" });
client.on("state", ({ state, reason = "" }) => console.error(state, reason));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => client.close());
process.stdout.once("error", () => client.close()); // nobody reads it any more

const filter = types.length > 0 ? { types } : {};
for await (const item of client.subscribe({ name: "consumer", since: "earliest", ...filter })) {
  console.log(JSON.stringify(item)); // what is done here is done again after a crash, and never skipped
}
