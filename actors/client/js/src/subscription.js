/** What an application holds of one subscription: a bounded buffer, handlers and loops, and its own cursor. */
import { Emitter, SignalError } from "./emitter.js";
import { gapItem } from "./item.js";

export const OVERFLOW = ["block", "drop_oldest", "latest", "error"];

/**
 * One subscription, made by `client.subscribe`. Read it with `on("signal" | "gap" | "state", handler)` or as an async
 * iterator of signals and gaps: every signal once and in the order of its offset, or a gap that says what is missing.
 *
 * An item is taken when the loop's body is done with it, or when the promise of every handler is settled; the next handler
 * call waits for that. What waits is in a buffer of `buffer` items. When that is full the subscription rests and goes on
 * from its cursor when half of them are read (`block`: nothing is lost), or the oldest give way to one gap of reason
 * `slow` (`drop_oldest`), or it fails (`error`). With `latest` an item replaces an older one of its type and entity.
 * Several loops share the items. Leaving a loop does not close the subscription.
 */
export class Subscription extends Emitter {
  #client;
  #limits;
  #queue = new Map(); // key → { item, cursor }, the oldest first
  #keys = 0;
  #dropped = null;
  #iterated = false;
  #handled = false;
  #busy = false; // with handlers that return promises
  #waiting = [];
  #ended = false;
  #left = false; // by the application
  #error = null;
  #change = null; // of an update: { resolve, reject }
  #wire = null; // the cursor of what has arrived
  #taken = null; // the cursor of what the application is done with

  constructor(client, name, limits) {
    super();
    this.#client = client;
    this.#limits = limits;
    this.name = name;
    this.state = "pending"; // pending · catchup · live · paused · failed · closed
  }

  /** Where the application stands, for `since: { cursor }` another day; `null` until something has arrived. */
  get cursor() {
    return this.#limits.ack === "receive" ? this.#wire : this.#taken;
  }

  on(event, handler) {
    const off = super.on(event, handler);
    if (event === "signal") {
      this.#handled = true;
      this.#pump();
    }
    return off;
  }

  async *[Symbol.asyncIterator]() {
    this.#iterated = true;
    for (;;) {
      const taking = this.#shift();
      if (taking) {
        yield taking.item;
        this.#took(taking.cursor); // only now: who stops inside the loop's body gets the item again another day
      } else if (this.#ended) {
        if (this.#error) throw this.#error;
        return;
      } else {
        this.#took(this.#wire);
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    }
  }

  /**
   * Change `types`, `entities` and `where` (as one), `latestMs` or `onSlow` in place; `backfill` `{ last }` or `{ ago_ms }` brings
   * older signals that only the new filter lets through, marked `snapshot`. Resolves once the change is in force.
   */
  update(change) {
    return new Promise((resolve, reject) => {
      this.#client._modify(this.name, change);
      this.#change = { resolve, reject };
    });
  }

  /** Take it back. Loops finish once they have read the buffer; handlers are not called again. */
  close() {
    if (this.#ended) return;
    this.#left = true;
    this.#client._close(this.name);
    this._end("closed", null);
  }

  // For the client.

  _enter(state) {
    if (this.state === state) return;
    this.state = state;
    this._emit("state", { state });
  }

  /** Items, and the cursor that is reached with the last of them. */
  _take(items, cursor) {
    this.#wire = cursor;
    const { buffer, overflow, ack } = this.#limits;
    items.forEach((item, index) => {
      if (this.#iterated) this._emit(item.kind, item);
      const { type, entity } = item;
      const key = overflow === "latest" && type ? `${type} ${entity}` : (this.#keys += 1);
      this.#queue.delete(key);
      this.#queue.set(key, { item, cursor: index === items.length - 1 ? cursor : item.cursor });
      if (this.#queue.size > buffer && (overflow === "drop_oldest" || overflow === "latest")) this.#dropOldest();
    });
    this.#pump();
    const { size } = this.#queue;
    if (size >= buffer && overflow === "block" && !this.#ended) {
      this._enter("paused");
      this.#client._do("pause", this.name);
    } else if (size > buffer && overflow === "error" && !this.#ended) {
      this.#client._close(this.name);
      const seen = `${size} items wait for the application; "${this.name}" may keep ${buffer}`;
      this._end("failed", new SignalError(`${seen}: read faster, or choose another overflow policy`, { slug: "overflow" }));
    }
    this.#wake();
    if (!this.#iterated && !this.#handled && size === 0) this.#took(cursor);
    if (ack === "receive") this.#client._moved(this.name, cursor);
  }

  _changed(error = null) {
    const change = this.#change;
    this.#change = null;
    if (error) change?.reject(error);
    else change?.resolve();
  }

  _end(state, error) {
    if (this.#ended) return;
    this._changed(error ?? new SignalError("closed before the server answered"));
    this.#ended = true;
    this.#error = error;
    this.state = state;
    this._emit("state", { state, error: error ?? undefined });
    this.#wake();
  }

  // Small steps.

  /** Hand items to handlers, one after the other. */
  #pump() {
    while (this.#handled && !this.#iterated && !this.#busy && !this.#left) {
      const taking = this.#shift();
      if (!taking) return this.#took(this.#wire);
      const pending = this._emit(taking.item.kind, taking.item);
      if (pending.length === 0) {
        this.#took(taking.cursor);
        continue;
      }
      this.#busy = true;
      Promise.all(pending).then(() => {
        this.#busy = false;
        this.#took(taking.cursor);
        this.#pump();
      });
    }
  }

  #shift() {
    let taking = this.#dropped;
    this.#dropped = null;
    if (!taking) {
      const [first] = this.#queue;
      if (!first) return undefined;
      taking = first[1];
      this.#queue.delete(first[0]);
    }
    if (this.state === "paused" && this.#queue.size <= this.#limits.buffer / 2) {
      this._enter("pending");
      this.#client._do("unpause", this.name);
    }
    return taking;
  }

  #took(cursor) {
    if (!cursor || cursor === this.#taken) return;
    this.#taken = cursor;
    if (this.#limits.ack !== "receive") this.#client._moved(this.name, cursor);
  }

  #dropOldest() {
    const [[key, { item, cursor }]] = this.#queue;
    this.#queue.delete(key);
    const from = this.#dropped?.item.after ?? item.after ?? item.offset - 1;
    this.#dropped = { item: gapItem(item.epoch, from, item.offset ?? item.upto, "slow"), cursor };
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
