/**
 * Heliograph's client for browsers, workers and Node: one module, no dependency.
 *
 *     const client = new SignalClient({ url: "http://127.0.0.1:8787" });
 *     const sub = client.subscribe({ types: ["price.>"], since: { last: 100 } });
 *     for await (const item of sub) {            // or sub.on("signal", (signal) => …)
 *       if (item.kind === "gap") refetch(item);
 *       else console.log(item.offset, item.type, item.entity, item.data);
 *     }
 *
 * `Connection` is the protocol (signals.v1) without I/O: inputs in, events and frames out, checked by the vectors that
 * every client passes. `SignalClient` gives it a WebSocket and a clock. Numbers in brackets are sections of signals.v1.
 */

const PING = '{"t":"ping"}'; // these exact bytes: a server answers them without waking anything [2.7]
const CONNECT_MS = 5_000;
const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 30_000;
const HEALTHY_MS = 10_000; // a connection that lived this long resets the back-off
const WINDOW_MS = [0, 1_000]; // of close codes 42xx, unless a goaway named one
const LOSS_WINDOW_MS = 10_000; // a second loss within it ends the connection [2.5, rule 4]
const RETRY_MS = 1_000; // for a retryable error that names no time
const IN_FLIGHT = 16; // publications, so that a reconnect does not begin with a burst

/** What a close code asks for [2.13]: `"stop"`, `"backoff"` or `"window"`; `null` is no code. */
export function afterClose(code) {
  if (code === 4202) return "stop"; // a newer socket of this session took over
  if (code >= 4000 && code < 4100) return "stop";
  if ((code >= 4200 && code < 4300) || code === 1000 || code === 1001) return "window";
  return [1002, 1003, 1007, 1009, 1010].includes(code) ? "stop" : "backoff";
}

/** The wait before a reconnect, `attempt` counted from 0: full jitter, so that a crowd does not come back at once. */
export function backoffMs(attempt, draw) {
  return draw * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempt, 16));
}

/** A message that breaks the protocol: nothing after it can be trusted. */
class Broken extends Error {}

function offset(value) {
  if (!Number.isSafeInteger(value) || value < 0) throw new Broken(`an offset is ${JSON.stringify(value)}`);
  return value;
}

function cursor(text) {
  const [, epoch, at] = /^([\w-]{1,32}):(\d{1,16})$/.exec(text) ?? [];
  if (epoch === undefined) throw new Broken(`a cursor is ${JSON.stringify(text)}`);
  return { epoch, c: offset(Number(at)) };
}

function items(list) {
  if (Array.isArray(list) && list.every((signal) => offset(signal?.o) > 0)) return list;
  throw new Broken("d is not a list of signals");
}

/** What the wire knows of one subscription. It outlives sockets: its cursor is what makes a reconnect lossless. */
class Feed {
  constructor({ s, filter = {}, from = "now", on_gap: onGap = "fail" }) {
    Object.assign(this, { s, filter, from, onGap, epoch: null, c: 0, paused: false });
    this.leave();
  }

  /** Forget what belongs to one socket. */
  leave() {
    Object.assign(this, { state: "pending", request: null, retryAt: Infinity, g: null, lostAt: -Infinity });
  }

  get cursor() {
    return this.epoch === null ? null : `${this.epoch}:${this.c}`;
  }

  message() {
    const from = this.epoch === null ? this.from : { cursor: this.cursor };
    return { s: this.s, filter: this.filter, from, on_gap: this.onGap };
  }
}

/**
 * The client's machine. Every input returns the events it caused, `{ e, … }`, and adds the frames to send to `outgoing`;
 * `tick` is due at `deadline`. All times are milliseconds of the caller's clock, which must not run backwards.
 */
export class Connection {
  outgoing = [];
  clock;
  welcome = null; // of the present socket
  #events = [];
  #random;
  #client;
  #feeds = new Map();
  #publications = []; // unanswered, in order: { signal, request }
  #pausedUntil = null; // publications wait, because the server asked for it
  #phase = "idle"; // idle · waiting · opening · greeting · up · closed
  #welcomed = false; // ever
  #resume = null;
  #window = WINDOW_MS;
  #trouble = ""; // the last err about the connection, for the words of its end
  #retries = 0;
  #lastId = 0;
  #until = Infinity; // when to open (waiting), or to give up (opening, greeting)
  #upSince = 0;
  #nextPing = Infinity;
  #deadAt = Infinity;

  constructor({ random = Math.random, now = 0, client = { name: "js", sdk: "js/0.1" } } = {}) {
    this.#random = random;
    this.#client = client;
    this.clock = now;
  }

  get deadline() {
    if (this.#phase !== "up") return this.#until;
    const retries = [...this.#feeds.values()].map(({ retryAt }) => retryAt);
    return Math.min(this.#nextPing, this.#deadAt, this.#pausedUntil ?? Infinity, ...retries);
  }

  start() {
    return this.#answer(() => this.#open());
  }

  stop() {
    return this.#answer(() => {
      if (this.#phase === "closed") return;
      if (this.#phase !== "idle" && this.#phase !== "waiting") this.#tell("close", { code: 1000 });
      this.#end(1000, false);
    });
  }

  subscribe(options) {
    return this.#answer(() => {
      if (this.#feeds.has(options.s)) throw new TypeError(`"${options.s}" is subscribed already: choose another name`);
      const feed = new Feed(options);
      this.#feeds.set(feed.s, feed);
      if (this.#phase === "up") this.#sub(feed);
    });
  }

  unsubscribe(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      this.#feeds.delete(s);
      if (feed !== undefined && !feed.paused) this.#unsub(feed);
    });
  }

  /** Let a subscription rest: its cursor stands still and the server's log keeps what comes. */
  pause(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (feed === undefined || feed.paused) return;
      this.#unsub(feed);
      feed.leave();
      feed.paused = true;
    });
  }

  unpause(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (feed === undefined || !feed.paused) return;
      feed.paused = false;
      if (this.#phase === "up") this.#sub(feed);
    });
  }

  publish(signal) {
    return this.#answer(() => {
      this.#publications.push({ signal, request: null });
      this.#publishDue();
    });
  }

  /** Where a subscription stands on the wire, `<epoch>:<offset>`; `null` before its first `subok`. */
  cursor(s) {
    return this.#feeds.get(s)?.cursor ?? null;
  }

  /** The socket is open: greet. */
  opened({ token } = {}) {
    return this.#answer(() => {
      if (this.#phase !== "opening") return;
      this.#phase = "greeting";
      this.#lastId = 0;
      const feeds = [...this.#feeds.values()].filter(({ paused }) => !paused);
      const hello = { t: "hello", token: token ?? undefined, resume: this.#resume ?? undefined, client: this.#client };
      const subs = feeds.map((feed) => feed.message());
      const request = this.#request(subs.length > 0 ? { ...hello, subs } : hello);
      for (const feed of feeds) feed.request = request;
    });
  }

  /** The socket ended with `code`, or could not be opened (`null`). */
  closed(code, reason = "") {
    return this.#answer(() => {
      if (!["idle", "waiting", "closed"].includes(this.#phase)) this.#lost(code, reason);
    });
  }

  /** One text frame: a message, or several joined by newlines. */
  receive(text, now = this.clock) {
    return this.#answer(() => {
      this.clock = now;
      for (const line of text.split("\n")) {
        if (this.#phase !== "greeting" && this.#phase !== "up") return;
        if (this.#phase === "up") this.#deadAt = now + this.#silenceMs;
        if (line === "") continue;
        try {
          this.#take(JSON.parse(line));
        } catch (error) {
          if (!(error instanceof Broken) && !(error instanceof SyntaxError)) throw error;
          this.#drop(4199, `bad message: ${error.message}`);
        }
      }
    });
  }

  /** Do what became due until `now`, in order of its time. */
  tick(now) {
    return this.#answer(() => {
      this.clock = now;
      while (this.deadline <= now) this.#due();
    });
  }

  /** Connect at once if a reconnect waits; else ask for a sign of life, due within `dead_ms` even after a sleep. */
  probe(now = this.clock) {
    return this.#answer(() => {
      this.clock = now;
      if (this.#phase === "waiting") this.#open();
      if (this.#phase !== "up") return;
      const proof = now + this.welcome.dead_ms;
      this.#deadAt = this.#deadAt <= now ? proof : Math.min(this.#deadAt, proof);
      this.#ping();
    });
  }

  #answer(work) {
    work();
    return this.#events.splice(0);
  }

  #tell(e, event) {
    this.#events.push({ e, ...event });
  }

  #due() {
    const now = this.clock;
    if (this.#phase === "waiting") this.#open();
    else if (this.#phase !== "up") this.#drop(4198, `no welcome within ${CONNECT_MS} ms`);
    else if (this.#nextPing <= now && this.#nextPing <= this.#deadAt) this.#ping();
    else if (this.#deadAt <= now) this.#drop(4198, `nothing received for ${this.#silenceMs} ms`);
    else {
      for (const feed of this.#feeds.values()) if (feed.retryAt <= now) this.#sub(feed);
      if (this.#pausedUntil <= now) this.#pausedUntil = null;
      this.#publishDue();
    }
  }

  get #silenceMs() {
    return this.welcome.ping_ms + this.welcome.dead_ms;
  }

  // One socket after the other.

  #open() {
    this.#phase = "opening";
    this.#until = this.clock + CONNECT_MS;
    this.#tell("state", { state: this.#welcomed ? "resuming" : "connecting" });
    this.#tell("open");
  }

  #drop(code, reason) {
    this.#tell("close", { code, reason });
    this.#lost(code, reason);
  }

  #lost(code, said) {
    const reason = said || this.#trouble;
    const does = afterClose(code);
    if (does === "stop") return this.#end(code, true, reason);
    if (this.#phase === "up" && this.clock - this.#upSince >= HEALTHY_MS) this.#retries = 0;
    const [min, max] = this.#window;
    const draw = this.#random();
    const delay = does === "window" ? min + draw * (max - min) : backoffMs(this.#retries, draw);
    this.#retries += 1;
    this.#leave("waiting", this.clock + delay);
    const wait = { attempt: this.#retries, delay_ms: Math.floor(delay) };
    this.#tell("state", { state: "reconnecting", ...wait, code, reason });
  }

  #end(code, terminal, reason = "") {
    this.#leave("closed", Infinity);
    this.#tell("state", { state: "closed", code, terminal, reason });
  }

  #leave(phase, until) {
    this.#phase = phase;
    this.#until = until;
    this.#window = WINDOW_MS;
    this.#trouble = "";
    this.#pausedUntil = null;
    this.welcome = null;
    this.outgoing.length = 0;
    for (const feed of this.#feeds.values()) feed.leave();
    for (const publication of this.#publications) publication.request = null;
  }

  #request({ t, ...rest }) {
    this.#lastId += 1;
    this.outgoing.push(JSON.stringify({ t, id: this.#lastId, ...rest }));
    return this.#lastId;
  }

  #ping() {
    this.outgoing.push(PING);
    this.#nextPing = this.clock + this.welcome.ping_ms;
  }

  #sub(feed) {
    feed.state = "pending";
    feed.retryAt = Infinity;
    feed.request = this.#request({ t: "sub", ...feed.message() });
  }

  #unsub(feed) {
    if (this.#phase === "up" && feed.retryAt === Infinity) this.#request({ t: "unsub", s: feed.s });
  }

  #publishDue() {
    if (this.#phase !== "up" || this.#pausedUntil !== null) return;
    let flying = this.#publications.filter(({ request }) => request !== null).length;
    for (const publication of this.#publications.filter(({ request }) => request === null)) {
      if (flying >= IN_FLIGHT) return;
      const message = { t: "pub", id: this.#lastId + 1, signal: publication.signal };
      const bytes = new TextEncoder().encode(JSON.stringify(message)).length;
      const most = this.welcome.limits?.msg_bytes ?? Infinity;
      if (bytes > most) {
        const msg = `message of ${bytes} bytes; the server takes ${most} on a socket, larger ones by POST /v1/signals`;
        this.#refused(publication, { code: 413, slug: "too_large", msg });
        this.#lastId += 1; // the number is spent
        continue;
      }
      publication.request = this.#request(message);
      flying += 1;
    }
  }

  #refused(publication, { code, slug, msg }) {
    this.#publications.splice(this.#publications.indexOf(publication), 1);
    this.#tell("refused", { id: publication.signal.id, code, slug, msg });
  }

  // What the server says.

  #take(message) {
    const { t, id, s } = message ?? {};
    if (typeof t !== "string") throw new Broken("a message without a type");
    const feed = this.#feeds.get(s);
    if (t === "welcome") this.#greeted(message);
    else if (t === "err") this.#err(message);
    else if (this.#phase !== "up") return;
    else if (t === "sig") for (const each of s === undefined ? this.#feeds.values() : [feed]) this.#sig(each, message);
    else if (t === "subok") this.#subok(feed, message);
    else if (t === "live" || t === "gap") this.#direct(feed, message);
    else if (t === "reset") this.#reset();
    else if (t === "unsubbed" && feed !== undefined) this.#failed(feed, message);
    else if (t === "goaway") {
      this.#window = message.after_ms ?? WINDOW_MS;
      this.#tell("state", { state: "draining", reason: message.reason });
    } else if (t === "ok") {
      const index = this.#publications.findIndex(({ request }) => request === id);
      if (index < 0) return;
      if (typeof message.epoch !== "string") throw new Broken("ok of a publication without an epoch");
      const [{ signal }] = this.#publications.splice(index, 1);
      const { o, epoch, dup = false } = message;
      this.#tell("published", { id: signal.id, o: offset(o), epoch, dup });
      this.#publishDue();
    } // anything else: new types may appear at any time [2.2]
  }

  #greeted(message) {
    if (this.#phase !== "greeting") throw new Broken("welcome does not answer hello");
    const { session, resumed = false, resume = null, subs = [] } = message;
    const { ping_ms: pingMs = 25_000, dead_ms: deadMs = 10_000 } = message;
    const answered = new Set(subs.map(({ s }) => s));
    for (const { s, request } of this.#feeds.values()) {
      if (request !== null && !answered.has(s)) throw new Broken(`welcome does not answer the subscription ${s}`);
    }
    this.welcome = { ...message, ping_ms: pingMs, dead_ms: deadMs };
    this.#phase = "up";
    this.#welcomed = true;
    this.#resume = resume;
    this.#upSince = this.clock;
    this.#nextPing = this.clock + pingMs * this.#random(); // a crowd that came together does not beat together
    this.#deadAt = this.clock + this.#silenceMs;
    this.#tell("state", { state: "connected", resumed, session });
    for (const sub of subs) {
      const feed = this.#feeds.get(sub.s);
      if (feed?.request !== message.id) {
        if (sub.t === "subok") this.#request({ t: "unsub", s: sub.s }); // taken back while the hello was on its way
      } else if (sub.t === "err") this.#err({ ...sub, id: message.id });
      else this.#subok(feed, { ...sub, id: message.id });
    }
    for (const feed of this.#feeds.values()) {
      const asks = feed.request === null && feed.retryAt === Infinity && !feed.paused;
      if (feed.state === "pending" && asks) this.#sub(feed);
    }
    this.#publishDue();
  }

  #subok(feed, { id, from, g, recovered = null, lost = null }) {
    if (feed === undefined || feed.request !== id) return; // the answer to a request that was overtaken
    const { epoch, c } = cursor(from);
    const asked = feed.message().from.cursor; // if the answer is that cursor, a gap frame follows
    const missing = asked !== undefined && recovered === false && from !== asked;
    const before = missing ? cursor(asked) : null;
    const known = lost !== null && epoch === before?.epoch;
    Object.assign(feed, { epoch, c, g, request: null, state: "catchup" });
    this.#tell("sub", { s: feed.s, state: "catchup" });
    if (!missing) return;
    const bounds = known ? { a: before.c, b: c, reason: "retention" } : { a: null, b: null, reason: "epoch" };
    this.#tell("gap", { s: feed.s, epoch, ...bounds });
  }

  /** While it catches up, only frames addressed to it by name count for a feed [2.5, rule 2]. */
  #counts(feed, { s, g }) {
    if (feed === undefined || feed.state === "pending") return false;
    return s === undefined ? feed.state === "live" && feed.g === g : true;
  }

  #sig(feed, message) {
    const { a, b, d = [] } = message;
    if (!this.#counts(feed, message) || offset(b) <= feed.c) return;
    if (offset(a) > feed.c) return this.#loss(feed, a);
    const signals = items(d).filter(({ o }) => o > feed.c);
    feed.c = b;
    this.#tell("signals", { s: feed.s, signals, c: b, epoch: feed.epoch });
  }

  #direct(feed, message) {
    if (!this.#counts(feed, message)) return;
    const b = offset(message.b);
    if (message.t === "gap") {
      const a = feed.c;
      if (b <= a) return;
      feed.c = b;
      this.#tell("gap", { s: feed.s, epoch: feed.epoch, a, b, reason: message.reason });
    } else if (feed.state === "catchup") {
      if (b !== feed.c) return this.#loss(feed, b);
      Object.assign(feed, { state: "live", g: message.g ?? feed.g });
      this.#tell("sub", { s: feed.s, state: "live" });
    }
  }

  /** A frame went missing: ask again from the cursor. The application misses nothing unless the log has lost it too. */
  #loss(feed, a) {
    this.#tell("gap-detected", { s: feed.s, c: feed.c, a });
    if (this.clock - feed.lostAt < LOSS_WINDOW_MS) {
      return this.#drop(4199, `frames of ${feed.s} were lost twice within ${LOSS_WINDOW_MS} ms`);
    }
    feed.lostAt = this.clock;
    this.#unsub(feed);
    this.#sub(feed);
  }

  #reset() {
    for (const feed of this.#feeds.values()) {
      this.#tell("gap", { s: feed.s, epoch: null, a: null, b: null, reason: "epoch" });
      Object.assign(feed, { epoch: null, c: 0, from: feed.onGap === "skip" ? "earliest" : "now" });
      if (!feed.paused) this.#sub(feed);
    }
  }

  #err(message) {
    const { id, code, slug, msg, retry, retry_after_ms: afterMs = RETRY_MS } = message;
    const asks = ({ request }) => request === id;
    const feed = id === 1 ? this.#feeds.get(message.s) : [...this.#feeds.values()].find(asks);
    const publication = this.#publications.find(asks);
    if (feed !== undefined && feed.request === id) {
      if (!retry) return this.#failed(feed, message);
      Object.assign(feed, { request: null, retryAt: this.clock + afterMs });
    } else if (publication !== undefined) {
      if (!retry) {
        this.#refused(publication, message);
        return this.#publishDue();
      }
      publication.request = null;
      this.#pausedUntil = this.clock + afterMs; // those behind it wait too: publications keep their order
    } else if (id === undefined || id === 1) {
      this.#trouble = `${slug}: ${msg}`;
      this.#tell("notice", { code, slug, msg });
    }
  }

  #failed(feed, { code, slug = "unsubbed", msg, reason }) {
    this.#feeds.delete(feed.s);
    this.#tell("sub", { s: feed.s, state: "failed", code, slug, msg: msg ?? reason });
  }
}

// Around the machine: a socket, a clock, and what an application holds.

const BUFFER_ITEMS = 1_000;
const OUTBOX_ITEMS = 1_000;
const OUTBOX_BYTES = 1 << 20;
const JUMP_MS = 25_000; // a timer this late means that the machine slept

/** What the server refused or the client gave up on; `code` is of the protocol [2.12] or a close code [2.13]. */
export class SignalError extends Error {
  constructor(message, { code = null, slug = null } = {}) {
    super(message);
    Object.assign(this, { name: "SignalError", code, slug });
  }
}

const report = (error) => (globalThis.reportError ?? console.error)(error);

class Emitter {
  #handlers = new Map();

  /** Call `handler` with each value of `event`; returns a function that ends this. One that throws is reported, and kept. */
  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  _emit(event, value) {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) {
      try {
        handler(value)?.catch?.(report);
      } catch (error) {
        report(error);
      }
    }
  }
}

/**
 * One subscription, made by `client.subscribe`. Read it with `on("signal" | "gap" | "state", handler)` or as an async
 * iterator of signals and gaps: every signal once and in the order of its offset, or a gap that says what is missing.
 *
 * What no handler takes is buffered for the iterator. At `buffer` items the subscription rests (`overflow: "pause"`) and
 * goes on from its cursor when half of them are read, so that nothing is lost; with `overflow: "drop"` the oldest give way
 * to one gap of reason `slow`. Several loops share the items. Leaving a loop does not close the subscription.
 */
export class Subscription extends Emitter {
  #client;
  #limits;
  #queue = [];
  #dropped = null;
  #iterated = false;
  #handled = false;
  #waiting = [];
  #ended = false;
  #error = null;
  #wire = null; // the cursor of what has arrived
  #taken = null; // the cursor of what a loop has finished with

  constructor(client, name, limits) {
    super();
    this.#client = client;
    this.#limits = limits;
    this.name = name;
    this.state = "pending"; // pending · catchup · live · paused · failed · closed
  }

  /** Where the application stands, for `since: { cursor }` another day; `null` until something has arrived. */
  get cursor() {
    return this.#iterated || this.#queue.length > 0 ? this.#taken : this.#wire;
  }

  on(event, handler) {
    const off = super.on(event, handler);
    if (event === "signal" && !this.#handled) {
      this.#handled = true;
      if (!this.#iterated) for (const item of this.#queue.splice(0)) this._emit(item.kind, item);
      this.#refill();
    }
    return off;
  }

  async *[Symbol.asyncIterator]() {
    this.#iterated = true;
    for (;;) {
      const item = this.#dropped ?? this.#queue.shift();
      if (item !== undefined) {
        this.#dropped = null;
        this.#refill();
        yield item;
        this.#taken = item.cursor ?? this.#taken; // only now: who stops inside the loop body gets the item again
      } else if (this.#ended) {
        if (this.#error !== null) throw this.#error;
        return;
      } else {
        this.#taken = this.#wire;
        await new Promise((resolve) => this.#waiting.push(resolve));
      }
    }
  }

  /** Take it back. Loops finish once they have read the buffer. */
  close() {
    if (this.#ended) return;
    this.#client._close(this.name);
    this._end("closed", null);
  }

  _enter(state) {
    if (this.state === state) return;
    this.state = state;
    this._emit("state", { state });
  }

  _take(items, cursor) {
    this.#wire = cursor;
    for (const item of items) {
      if (this.#ended) return; // by a handler of the item before
      this._emit(item.kind, item);
      if (this.#handled && !this.#iterated) continue;
      this.#queue.push(item);
      if (this.#queue.length > this.#limits.buffer && this.#limits.overflow === "drop") this.#dropOldest();
    }
    const full = this.#queue.length >= this.#limits.buffer && this.#limits.overflow === "pause";
    if (full) {
      this._enter("paused");
      this.#client._do("pause", this.name);
    }
    this.#wake();
  }

  _end(state, error) {
    this.#ended = true;
    this.#error = error;
    this.state = state;
    this._emit("state", error === null ? { state } : { state, error });
    this.#wake();
  }

  #dropOldest() {
    const { epoch, offset, after, upto, cursor } = this.#queue.shift();
    const from = this.#dropped?.after ?? after ?? offset - 1;
    this.#dropped = { ...gapItem(epoch, from, offset ?? upto, "slow"), cursor };
  }

  #refill() {
    if (this.state !== "paused" || this.#queue.length > this.#limits.buffer / 2) return;
    this._enter("pending");
    this.#client._do("unpause", this.name);
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function gapItem(epoch, after, upto, reason) {
  return { kind: "gap", epoch, after, upto, reason };
}

function signalItem(epoch, { o, ...signal }) {
  return { kind: "signal", epoch, offset: o, cursor: `${epoch}:${o}`, ...signal };
}

function newId() {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
}

/** The stream's address: http(s) or ws(s), by default the page's own host; `/v1/stream` unless it has a path. */
function streamUrl(url = "/") {
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace(/^http/, "ws");
  if (address.pathname === "/") address.pathname = "/v1/stream";
  return address.href;
}

/**
 * A connection to a Heliograph server that heals itself: it reconnects with full jitter, resumes every subscription at its
 * cursor and repeats unanswered publications under their ids. It ends with `close()`, or when the server says so for good.
 */
export class SignalClient extends Emitter {
  #url;
  #token;
  #WebSocket;
  #world;
  #machine;
  #clock = 0;
  #skew = 0;
  #socket = null;
  #timer = null;
  #timerAt = Infinity;
  #subs = new Map();
  #names = 0;
  #outbox = new Map(); // signal id → { answer, bytes, resolve, reject }
  #outboxBytes = 0;
  #unwatch = () => {};

  constructor({ url, token, WebSocket = globalThis.WebSocket, name = "js", ...world } = {}) {
    super();
    if (typeof WebSocket !== "function") {
      throw new TypeError('no WebSocket here: install the package "ws" and pass it: new SignalClient({ url, WebSocket })');
    }
    this.#url = streamUrl(url);
    this.#token = token;
    this.#WebSocket = WebSocket;
    this.#world = {
      random: Math.random,
      now: Date.now,
      setTimeout: (work, ms) => setTimeout(work, ms),
      clearTimeout: (timer) => clearTimeout(timer),
      ...world,
    };
    const client = { name, sdk: "js/0.1" };
    this.#machine = new Connection({ random: this.#world.random, now: this.#time(), client });
    /** The last state event. */
    this.state = { state: "connecting" };
    this.#watch();
    this._do("start");
  }

  subscribe({ name, types, entities, where, since = "now", onGap = "skip", ...limits } = {}) {
    const { buffer = BUFFER_ITEMS, overflow = "pause" } = limits;
    this.#assertOpen();
    if (overflow !== "pause" && overflow !== "drop") {
      throw new TypeError(`overflow is ${JSON.stringify(overflow)}; it can be "pause" or "drop"`);
    }
    const filter = {};
    if (types !== undefined) filter.types = [types].flat();
    if (entities !== undefined) filter.entities = [entities].flat();
    if (where !== undefined) filter.where = where;
    const s = name ?? `sub-${(this.#names += 1)}`;
    this._do("subscribe", { s, filter, from: since, on_gap: onGap });
    const sub = new Subscription(this, s, { buffer, overflow });
    this.#subs.set(s, sub);
    return sub;
  }

  /** Publish one signal; resolves to `{ id, epoch, offset, dup }` once it is durable, and stored once. */
  async publish({ type, entity, data = null, id = newId(), tags }) {
    this.#assertOpen();
    const known = this.#outbox.get(id);
    if (known !== undefined) return known.answer; // the same id is the same signal
    const signal = { type, entity, data, id, tags };
    const bytes = JSON.stringify(signal).length;
    if (this.#outbox.size >= OUTBOX_ITEMS || this.#outboxBytes + bytes > OUTBOX_BYTES) {
      const seen = `${this.#outbox.size} publications of ${this.#outboxBytes} characters wait for an answer`;
      throw new SignalError(`${seen}; at most ${OUTBOX_ITEMS} of ${OUTBOX_BYTES}`, { slug: "overloaded" });
    }
    const publication = { bytes };
    publication.answer = new Promise((resolve, reject) => Object.assign(publication, { resolve, reject }));
    this.#outbox.set(id, publication);
    this.#outboxBytes += bytes;
    this._do("publish", signal);
    return publication.answer;
  }

  /** End the connection and every subscription. */
  close() {
    this._do("stop");
  }

  /** An input of the machine, and what follows from it. */
  _do(input, ...values) {
    this.#machine.clock = this.#time();
    this.#apply(this.#machine[input](...values));
  }

  _close(name) {
    this.#subs.delete(name);
    this._do("unsubscribe", name);
  }

  #assertOpen() {
    if (this.state.state === "closed") throw new SignalError("the client is closed: make another one");
  }

  // What the machine says.

  #apply(events) {
    for (const event of events) {
      const { e, s, epoch, signals } = event;
      const sub = this.#subs.get(s);
      if (e === "signals") sub?._take(signals.map((signal) => signalItem(epoch, signal)), `${epoch}:${event.c}`);
      else if (e === "gap") sub?._take([gapItem(epoch, event.a, event.b, event.reason)], this.#machine.cursor(s));
      else if (e === "sub") this.#subscribed(sub, event);
      else if (e === "gap-detected") this._emit("loss", { name: s, cursor: event.c, after: event.a });
      else if (e === "open") this.#dial();
      else if (e === "close") this.#hangUp(event.code);
      else if (e === "state") this.#enter(event);
      else if (e === "published") this.#published(event);
      else if (e === "refused") this.#settle(event.id)?.reject(new SignalError(event.msg, event));
      else if (e === "notice") this._emit("notice", new SignalError(event.msg, event));
    }
    for (const frame of this.#machine.outgoing.splice(0)) this.#socket.send(frame);
    this.#schedule();
  }

  #subscribed(sub, { s, state, code, slug, msg }) {
    if (state !== "failed") return sub?._enter(state);
    this.#subs.delete(s);
    sub?._end("failed", new SignalError(msg, { code, slug }));
  }

  #published({ id, epoch, o, dup }) {
    this.#settle(id)?.resolve({ id, epoch, offset: o, dup });
  }

  #settle(id) {
    const publication = this.#outbox.get(id);
    this.#outbox.delete(id);
    this.#outboxBytes -= publication?.bytes ?? 0;
    return publication;
  }

  #enter({ state, attempt, delay_ms: delayMs, code, reason, terminal, resumed, session }) {
    this.state = { state, attempt, delayMs, code, reason, terminal, resumed, session };
    if (state === "reconnecting") {
      this.#forget();
      for (const sub of this.#subs.values()) if (sub.state !== "paused") sub._enter("pending");
    } else if (state === "closed") {
      this.#forget();
      this.#unwatch();
      const end = terminal ? new SignalError(`the server ended the connection: ${code} ${reason}`, { code }) : null;
      const unanswered = end ?? new SignalError("the client was closed before the server answered");
      for (const id of this.#outbox.keys()) this.#settle(id).reject(unanswered);
      for (const sub of this.#subs.values()) sub._end(terminal ? "failed" : "closed", end);
      this.#subs.clear();
    }
    this._emit("state", this.state);
  }

  // The socket.

  async #dial() {
    const dial = {};
    this.#socket = dial; // a placeholder: whatever replaces it makes this attempt stale
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (this.#socket === dial) this.#connect(new this.#WebSocket(this.#url, ["signals.v1.json"]), token);
    } catch (error) {
      if (this.#socket === dial) this._do("closed", null, String(error?.message ?? error));
    }
  }

  #connect(socket, token) {
    this.#socket = socket;
    socket.onopen = () => this._do("opened", { token });
    socket.onmessage = ({ data }) => this._do("receive", data);
    socket.onclose = ({ code, reason }) => this._do("closed", code, reason);
    socket.onerror = () => {}; // close follows, and says more
  }

  #hangUp(code) {
    const socket = this.#forget();
    if (socket?.readyState < 2) socket.close(code);
  }

  #forget() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  /** Milliseconds that never run backwards, although the wall clock does when somebody sets it. */
  #time() {
    const now = this.#world.now();
    this.#skew = Math.max(this.#skew, this.#clock - now);
    this.#clock = now + this.#skew;
    return this.#clock;
  }

  #schedule() {
    const due = this.#machine.deadline;
    if (this.#timer !== null) {
      if (this.#timerAt <= due && due < Infinity) return; // early does no harm
      this.#world.clearTimeout(this.#timer);
      this.#timer = null;
    }
    if (due === Infinity) return;
    this.#timerAt = due;
    this.#timer = this.#world.setTimeout(() => {
      this.#timer = null;
      if (this.#time() - due > JUMP_MS) this._do("probe");
      this._do("tick", this.#clock);
    }, Math.max(0, due - this.#time()));
  }

  /** Who comes back to the page or to the network does not wait for the next beat. */
  #watch() {
    const { document } = globalThis;
    const wake = () => this._do("probe");
    const shown = () => document.visibilityState === "visible" && wake();
    globalThis.addEventListener?.("online", wake);
    document?.addEventListener("visibilitychange", shown);
    this.#unwatch = () => {
      globalThis.removeEventListener?.("online", wake);
      document?.removeEventListener("visibilitychange", shown);
    };
  }
}
