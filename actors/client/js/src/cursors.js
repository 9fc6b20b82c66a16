/** Where the cursors of named subscriptions are kept from one run to the next. */
import { report } from "./emitter.js";

const SAVE_MS = 250; // a burst of signals is one write; after a crash as many may come twice

/** A text that is equal for equal filters, whatever the order of their patterns is. */
function canonical({ types, entities, where }) {
  const sorted = (patterns) => patterns && [...new Set(patterns)].sort();
  return JSON.stringify([sorted(types), sorted(entities), where]);
}

/** `"session"`, `"local"`, or anything with `getItem` and `setItem`, which may return promises (React Native). */
function storage(store) {
  const found = store === "session" ? globalThis.sessionStorage : store === "local" ? globalThis.localStorage : store;
  if (!found?.getItem || !found.setItem) {
    throw new TypeError('cursorStore is "session", "local" or an object with getItem and setItem');
  }
  return found;
}

export class Cursors {
  #store;
  #url;
  #world;
  #keys = new Map(); // subscription → its key, and the cursor that is not saved yet
  #timer = null;

  constructor(store, url, world) {
    this.#store = storage(store);
    this.#url = url;
    this.#world = world;
  }

  /** The stored cursor, if there is one; a promise of it where the store promises. A store that fails has none. */
  load(name, filter) {
    const key = `heliograph ${this.#url} ${name} ${canonical(filter)}`;
    this.#keys.set(name, { key, unsaved: null });
    try {
      const found = this.#store.getItem(key);
      return found?.then?.(null, report) ?? found;
    } catch (error) {
      report(error);
    }
  }

  moved(name, cursor) {
    const kept = this.#keys.get(name);
    if (!kept) return;
    kept.unsaved = cursor;
    this.#timer ??= this.#world.setTimeout(() => this.save(), SAVE_MS);
  }

  forget(name) {
    this.save();
    this.#keys.delete(name);
  }

  /** Write what is not written yet: a store that fails costs repetitions after a restart, not signals. */
  save() {
    this.#world.clearTimeout(this.#timer);
    this.#timer = null;
    for (const kept of this.#keys.values()) {
      if (!kept.unsaved) continue;
      try {
        this.#store.setItem(kept.key, kept.unsaved)?.catch?.(report);
      } catch (error) {
        report(error);
      }
      kept.unsaved = null;
    }
  }
}
