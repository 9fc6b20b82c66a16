// Writes each signal of a Heliograph server as one line of JSON: `node consumer.mjs URL STATE-FILE [TYPES…]`.
// Stopped or killed, and started again, it goes on where it was: its cursor is in the state file.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

import { SignalClient } from "heliograph";
import { WebSocket } from "ws"; // Node 22 has one of its own

/** A cursor store in one file, replaced in one step so that a crash leaves the old one or the new one. */
class FileStore {
  #file;
  #cursors;

  constructor(file) {
    this.#file = file;
    this.#cursors = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
  }

  getItem(key) {
    return this.#cursors[key];
  }

  setItem(key, cursor) {
    this.#cursors[key] = cursor;
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#cursors));
    renameSync(`${this.#file}.new`, this.#file);
  }
}

const [url, file, ...types] = process.argv.slice(2);
const client = new SignalClient({ url, WebSocket, cursorStore: new FileStore(file), name: "node-consumer" });
client.on("state", ({ state, reason = "" }) => console.error(state, reason));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => client.close());

const filter = types.length > 0 ? { types } : {};
for await (const item of client.subscribe({ name: "consumer", since: "earliest", ...filter })) {
  console.log(JSON.stringify(item)); // what is done here is done again after a crash, and never skipped
}
