/** Keeps cursors in a file, for Node, Deno and Bun. */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";

const FORMAT = "heliograph-cursors";
const VERSION = 1;

/**
 * `new SignalClient({ cursorStore: new FileCursorStore("cursors.json") })`. A crash leaves the file as it was before a
 * save, or as it is after it. One process at a time; several subscriptions and clients with the same store are fine.
 *
 * `getItem` throws when the file is another one, or damaged: the client then reports that, and begins by `since`.
 */
export class FileCursorStore {
  #path;

  constructor(path) {
    this.#path = path;
  }

  getItem(key) {
    return read(this.#path)[key] ?? null;
  }

  setItem(key, cursor) {
    const cursors = { ...read(this.#path), [key]: cursor }; // read again: another store may have written
    const beside = `${this.#path}.new`;
    const file = openSync(beside, "w");
    try {
      writeSync(file, JSON.stringify({ format: FORMAT, version: VERSION, cursors }, null, 1));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(beside, this.#path);
  }
}

function read(path) {
  let text;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return {};
    throw error;
  }
  const { format, version, cursors } = parsed(text) ?? {};
  if (format !== FORMAT) throw new Error(`${path} is not a file of cursors, or damaged; choose another path, or move it away`);
  if (version !== VERSION) throw new Error(`${path} has version ${version}; this release reads ${VERSION}`);
  return cursors;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
