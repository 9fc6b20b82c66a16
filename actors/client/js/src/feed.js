/** One subscription: how far the application is, and where it stands on each socket [2.5]. */
import { Broken, parseCursor } from "./wire.js";

/**
 * One subscription on one socket: pending → catchup → live, with a cursor of its own.
 * `asked` is where the awaited subok was asked to begin, `request` the id of that sub (or hello) while it is awaited.
 */
export class Place {
  state = "pending";
  g = null;
  epoch = null;
  c = 0;
  retryAt = Infinity;
  lostAt = -Infinity;
  modifies = false; // it is a mod that is awaited
  snapping = false; // snap parts are to come first

  /** `change` is what the awaited request puts in force. */
  constructor(asked, request = null, change = null) {
    Object.assign(this, { asked, request, change });
  }

  /** Whether a `sig` frame is for it now: its own, or its group's once it is live [rules 2 and 3]. */
  counts({ g }) {
    if (g !== undefined) return this.state === "live" && g === this.g;
    return this.state !== "pending";
  }
}

/** What the application wants, and the cursor that it has reached, whichever socket brought it there. */
export class Feed {
  paused = false;
  epoch = null; // null until the first subok
  c = 0;
  change = null; // what is to be made of it, until the server has done so and its backfill is here
  snapped = 0; // how far an unfinished snapshot is, so that one that begins again repeats nothing

  /** Under the names that the protocol gives them. */
  constructor({ s, filter = {}, from = "now", on_gap = "fail", on_slow = "close", min_ms = 0 }) {
    Object.assign(this, { s, filter, from, on_gap, on_slow, min_ms });
  }

  get cursor() {
    return this.epoch === null ? null : `${this.epoch}:${this.c}`;
  }

  /** Where to begin: at the cursor once there is one. */
  get wanted() {
    return this.epoch === null ? this.from : { cursor: this.cursor };
  }

  /** The `sub` that asks for it with a change of it. */
  asking(change) {
    const { filter, min_ms, on_slow } = this.changed(change);
    return {
      s: this.s,
      filter,
      from: this.wanted,
      on_gap: this.on_gap === "fail" ? undefined : this.on_gap,
      on_slow: on_slow === "close" ? undefined : on_slow,
      ...mode(min_ms || undefined),
    };
  }

  /** What a change can make different, with the change. */
  changed(change) {
    const { filter = this.filter, min_ms = this.min_ms, on_slow = this.on_slow } = change ?? {};
    return { filter, min_ms, on_slow };
  }

  /** A change that a `sub` can make as well, because nothing older is asked for and no snapshot is half done. */
  get changeBySub() {
    return this.change?.backfill === undefined && this.snapped === 0 ? this.change : null;
  }

  /** The cursor's epoch is over [rule 7]. */
  forget() {
    if (this.from !== "snapshot" || this.epoch !== null) this.from = this.on_gap === "skip" ? "earliest" : "now";
    Object.assign(this, { epoch: null, c: 0, snapped: 0 });
  }

  /** Move the application on; false when it is there already. */
  reach(epoch, c) {
    if (this.epoch === epoch && this.c >= c) return false;
    this.epoch = epoch;
    this.c = c;
    return true;
  }

  /** `subok` [rule 1]; returns the gap when it does not begin where the application is. */
  accepted(place, { from, g, recovered, lost }) {
    const { epoch, c } = parseCursor(from);
    Object.assign(place, { request: null, state: "catchup", g, epoch, c, snapping: place.asked === "snapshot" });
    if (place.snapping) return null; // without the snapshot the application is nowhere
    if (place.asked.cursor === undefined || recovered !== false || from === place.asked.cursor) {
      this.reach(epoch, c);
      return null;
    }
    const at = this.epoch === null ? parseCursor(place.asked.cursor) : this;
    const before = at.c;
    const known = lost && epoch === at.epoch;
    if (known && c <= before) return null; // another socket brought it beyond what is gone
    this.epoch = epoch;
    this.c = c;
    const bounds = known ? { a: before, b: c, reason: "retention" } : { a: null, b: null, reason: "epoch" };
    return { e: "gap", s: this.s, epoch, c, ...bounds };
  }

  /** `subok` after `mod`; false when it does not go on exactly where this is. */
  modified(place, { from, g }) {
    if (from !== `${place.epoch}:${place.c}`) return false;
    const snapping = place.change?.backfill !== undefined;
    Object.assign(place, { request: null, modifies: false, state: "catchup", g, snapping });
    return true;
  }

  /** The event when the change that a socket has made is in force, with its backfill. */
  settle(place) {
    const { change } = place;
    if (!change || place.snapping) return null;
    place.change = null;
    if (change !== this.change) return null;
    Object.assign(this, { change: null, ...this.changed(change) });
    const { epoch, c } = this.epoch === null ? place : this;
    return { e: "modified", s: this.s, epoch, c };
  }

  /** A part of what was before [rule 6]; the last one says how far that goes. */
  snap(place, { b, d, more }) {
    const signals = d.filter(({ o }) => o > this.snapped);
    this.snapped = signals.at(-1)?.o ?? this.snapped;
    if (!more) {
      this.snapped = 0;
      Object.assign(place, { snapping: false, c: Math.max(place.c, b) });
      this.reach(place.epoch, place.c);
    }
    return { e: "snap", s: this.s, signals, epoch: place.epoch, c: this.epoch === null ? null : this.c };
  }

  /** A `sig` that counts [rule 4]: the event, `null` when the application has all of it, `"loss"`. */
  take(place, { a, b, d, k = 0 }) {
    if (b <= place.c) return null;
    if (a > place.c) return "loss";
    const seen = Math.max(this.c, place.c);
    place.c = b;
    if (this.epoch === null || !this.reach(place.epoch, b)) return null; // without its snapshot it is nowhere
    return { e: "signals", s: this.s, signals: d.filter(({ o }) => o > seen), c: b, epoch: this.epoch, k };
  }

  /** A `gap` [rule 6], for the application from its own cursor on; `null` when it is beyond that. */
  skip(place, { b, reason }) {
    if (b <= place.c) return null;
    place.c = b;
    const a = this.c;
    return this.epoch !== null && this.reach(place.epoch, b) ? { e: "gap", s: this.s, epoch: this.epoch, c: b, a, b, reason } : null;
  }
}

/** How a subscription is conflated, as fields of a message; undefined leaves it unsaid, 0 is not at all. */
export function mode(min_ms) {
  if (min_ms === undefined) return {};
  return min_ms === 0 ? { mode: "all", min_ms: undefined } : { mode: "latest", min_ms };
}

/** Raises when `welcome` does not answer every subscription of its hello. */
export function assertAnswered(places, subs) {
  for (const s of places.keys()) {
    if (!subs.some((answer) => answer.s === s)) throw new Broken(`welcome does not answer ${s}`);
  }
}
