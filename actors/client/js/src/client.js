/** The machine with sockets and a clock, and what an application calls. */
import { Connection } from "./connection.js";
import { Cursors } from "./cursors.js";
import { Emitter, SignalError } from "./emitter.js";
import { json } from "./encoding.js";
import { filterOf } from "./filter.js";
import { gapItem, signalItem } from "./item.js";
import { OVERFLOW, Subscription } from "./subscription.js";
import { newId, realWorld, steady, streamUrl, watchBrowser } from "./world.js";

const BUFFER_ITEMS = 1_000;
const OUTBOX_ITEMS = 1_000;
const OUTBOX_CHARACTERS = 1 << 20;
const LONE_SURROGATE = /[^\\](\\\\)*\\ud[89a-f]/; // as JSON writes it
const JUMP_MS = 25_000; // a timer this late means that the machine slept

/** Where an event leaves its subscription; `null` is nowhere yet. */
const cursorOf = ({ epoch, c }) => (epoch === null || c === null ? null : `${epoch}:${c}`);

/** They are older than the cursor, which stays where it is: an application that stops here gets them again. */
function snapshot(event) {
  const more = { cursor: cursorOf(event), snapshot: true };
  return event.signals.map((signal) => ({ ...signalItem(event.epoch, signal), ...more }));
}

/**
 * A connection to a Heliograph server that heals itself: it reconnects with full jitter, resumes every subscription at its
 * cursor and repeats unanswered publications under their ids. It ends with `close()`, or when the server says so for good.
 */
export class SignalClient extends Emitter {
  #url;
  #token;
  #WebSocket;
  #encoding;
  #world;
  #clock;
  #machine;
  #cursors = null;
  #sockets = new Map(); // number → the socket, or a placeholder while its token is fetched
  #timer = null;
  #timerAt = Infinity;
  #subs = new Map();
  #names = 0;
  #outbox = new Map(); // signal id → { answer, size, resolve, reject }
  #outboxSize = 0;
  #unwatch = () => {};

  constructor({ url, token, name = "js", cursorStore, watch = watchBrowser, ...given } = {}) {
    super();
    const { WebSocket = globalThis.WebSocket, encoding = json, ...world } = given;
    if (!WebSocket) {
      throw new TypeError('no WebSocket here: install the package "ws" and pass its WebSocket');
    }
    this.#url = streamUrl(url);
    this.#token = token;
    this.#WebSocket = WebSocket;
    this.#encoding = encoding;
    this.#world = realWorld(world);
    this.#clock = steady(this.#world.now);
    if (cursorStore) this.#cursors = new Cursors(cursorStore, this.#url, this.#world);
    const client = { name, sdk: "js/0.1" };
    this.#machine = new Connection({ random: this.#world.random, now: this.#clock(), client, encoding });
    /** The last state event. */
    this.state = { state: "connecting" };
    this.#unwatch = watch((event) => this.#happened(event)) ?? this.#unwatch;
    this._do("start");
  }

  subscribe({ name, since = "now", onGap = "skip", onSlow, latestMs, ...options } = {}) {
    const { buffer = BUFFER_ITEMS, overflow = "block", ack = "taken" } = options;
    this.#assertOpen();
    if (!OVERFLOW.includes(overflow)) {
      throw new TypeError(`overflow is ${JSON.stringify(overflow)}; it can be ${OVERFLOW.join(", ")}`);
    }
    const filter = filterOf(options);
    const s = name ?? `sub-${(this.#names += 1)}`;
    if (this.#subs.has(s)) throw new TypeError(`"${s}" is subscribed already: choose another name`);
    const sub = new Subscription(this, s, { buffer, overflow, ack });
    const declare = (cursor) => {
      if (this.#subs.get(s) !== sub) return; // taken back while its cursor was read
      this._do("subscribe", { s, filter, from: cursor ? { cursor } : since, on_gap: onGap, on_slow: onSlow, min_ms: latestMs });
    };
    this.#subs.set(s, sub);
    const stored = name && this.#cursors?.load(name, filter);
    if (stored?.then) stored.then(declare);
    else declare(stored);
    return sub;
  }

  /** Publish one signal; resolves to `{ id, epoch, offset, dup }` once it is durable, and stored once. */
  async publish({ type, entity, data = null, id = newId(this.#world.random), tags }) {
    this.#assertOpen();
    const known = this.#outbox.get(id);
    if (known) return known.answer; // the same id is the same signal
    const signal = { type, entity, data, id, tags };
    const text = JSON.stringify(signal);
    if (LONE_SURROGATE.test(text)) throw new SignalError("a lone surrogate is no text");
    const size = text.length;
    if (this.#outbox.size >= OUTBOX_ITEMS || this.#outboxSize + size > OUTBOX_CHARACTERS) {
      const seen = `${this.#outbox.size} publications of ${this.#outboxSize} characters wait for an answer`;
      throw new SignalError(`${seen}; at most ${OUTBOX_ITEMS} of ${OUTBOX_CHARACTERS}`, { slug: "overloaded" });
    }
    const publication = { size };
    publication.answer = new Promise((resolve, reject) => Object.assign(publication, { resolve, reject }));
    this.#outbox.set(id, publication);
    this.#outboxSize += size;
    this._do("publish", signal);
    return publication.answer;
  }

  /** End the connection and every subscription. */
  close() {
    this._do("stop");
  }

  // For its subscriptions.

  /** An input of the machine, and what follows from it. */
  _do(input, ...values) {
    this.#machine.clock = this.#clock();
    this.#apply(this.#machine[input](...values));
  }

  _close(name) {
    this.#subs.delete(name);
    this.#cursors?.forget(name);
    this._do("unsubscribe", name);
  }

  _modify(name, { backfill, latestMs, onSlow, ...options }) {
    const found = filterOf(options);
    const filter = Object.keys(found).length > 0 ? found : undefined;
    this._do("modify", { s: name, filter, min_ms: latestMs, on_slow: onSlow, backfill });
    if (filter) this.#cursors?.load(name, filter); // what is stored from now on belongs to it
  }

  _moved(name, cursor) {
    this.#cursors?.moved(name, cursor);
  }

  #assertOpen() {
    if (this.state.state === "closed") throw new SignalError("the client is closed: make another one");
  }

  /** Who comes back to the page or to the network does not wait for the next beat. */
  #happened(event) {
    if (event === "online" || event === "offline") this._do("network", event === "online");
    else if (event === "hidden") this.#cursors?.save();
    else this._do("probe");
  }

  // What the machine says.

  #apply(events) {
    for (const event of events) {
      const { e, s, epoch, c } = event;
      const sub = this.#subs.get(s);
      if (e === "signals") sub?._take(event.signals.map((signal) => signalItem(epoch, signal)), `${epoch}:${c}`);
      else if (e === "gap") sub?._take([gapItem(epoch, event.a, event.b, event.reason)], cursorOf(event));
      else if (e === "sub") this.#subscribed(sub, event);
      else if (e === "snap") sub?._take(snapshot(event), cursorOf(event));
      else if (e === "modified") sub?._changed();
      else if (e === "modify-refused") sub?._changed(new SignalError(event.msg, event));
      else if (e === "gap-detected") this._emit("loss", { name: s, cursor: c, after: event.a });
      else if (e === "open") this.#dial(event);
      else if (e === "close") this.#hangUp(event.socket, event.code);
      else if (e === "state") this.#enter(event);
      else if (e === "published") this.#settle(event.id)?.resolve({ id: event.id, epoch, offset: event.o, dup: event.dup });
      else if (e === "refused") this.#settle(event.id)?.reject(new SignalError(event.msg, event));
      else if (e === "notice") {
        if (event.slug === "token_expiring") this.#renew();
        this._emit("notice", new SignalError(event.msg, event));
      }
    }
    for (const [number, socket] of this.#sockets) {
      for (const text of this.#machine.takeOutgoing(number)) socket.send(this.#encoding.encode(text));
    }
    this.#schedule();
  }

  #subscribed(sub, { s, state, code, slug, msg }) {
    if (state !== "failed") return sub?._enter(state);
    this.#subs.delete(s);
    sub?._end("failed", new SignalError(msg, { code, slug }));
  }

  #settle(id) {
    const publication = this.#outbox.get(id);
    this.#outbox.delete(id);
    this.#outboxSize -= publication?.size ?? 0;
    return publication;
  }

  #enter({ e, delay_ms: delayMs, ...about }) {
    const { state, terminal, code, reason } = (this.state = { ...about, delayMs });
    if (state === "reconnecting") {
      this.#forgetSockets();
      for (const sub of this.#subs.values()) if (sub.state !== "paused") sub._enter("pending");
    } else if (state === "closed") {
      this.#forgetSockets();
      this.#unwatch();
      this.#cursors?.save();
      const end = terminal ? new SignalError(`the server ended the connection: ${code} ${reason}`, { code }) : null;
      const unanswered = end ?? new SignalError("closed before the server answered");
      for (const id of this.#outbox.keys()) this.#settle(id).reject(unanswered);
      for (const sub of this.#subs.values()) sub._end(terminal ? "failed" : "closed", end);
      this.#subs.clear();
    }
    this._emit("state", this.state);
  }

  // The sockets.

  async #dial({ socket: number, url }) {
    const dial = {};
    this.#sockets.set(number, dial); // a placeholder: whatever replaces it makes this attempt stale
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (this.#sockets.get(number) !== dial) return;
      const address = url ? streamUrl(url, this.#url.replace(/^ws/, "http")) : this.#url;
      const socket = new this.#WebSocket(address, [this.#encoding.subprotocol]);
      this.#sockets.set(number, socket);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => this._do("opened", { token }, number);
      socket.onmessage = ({ data }) => this._do("receive", data, number);
      socket.onclose = ({ code, reason }) => this.#ended(number, code, reason);
      socket.onerror = () => {}; // close follows, and says more
    } catch (error) {
      if (this.#sockets.get(number) === dial) this.#ended(number, null, String(error?.message ?? error));
    }
  }

  /** Without a newer token the server ends the connection, and the next one asks for it again. */
  async #renew() {
    try {
      if (typeof this.#token === "function") this._do("auth", await this.#token());
    } catch {}
  }

  #ended(number, code, reason) {
    this.#forgetSocket(number);
    this._do("closed", code, reason, number);
  }

  #hangUp(number, code) {
    this.#forgetSocket(number)?.close?.(code); // there is none while its token is fetched
  }

  #forgetSockets() {
    for (const number of [...this.#sockets.keys()]) this.#forgetSocket(number);
  }

  #forgetSocket(number) {
    const socket = this.#sockets.get(number);
    this.#sockets.delete(number);
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  #schedule() {
    const due = this.#machine.deadline;
    if (this.#timer !== null && this.#timerAt <= due && due < Infinity) return; // early does no harm
    this.#world.clearTimeout(this.#timer);
    this.#timer = null;
    if (due === Infinity) return;
    this.#timerAt = due;
    this.#timer = this.#world.setTimeout(() => {
      this.#timer = null;
      const now = this.#clock();
      if (now - due > JUMP_MS) this._do("probe");
      this._do("tick", now);
    }, Math.max(0, due - this.#clock()));
  }
}
