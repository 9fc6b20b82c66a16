/** The client's machine: signals.v1 without I/O. What it does where the protocol leaves a choice: vectors/README.md. */
import { Feed, Place } from "./feed.js";
import { Publications, RETRY_MS } from "./publications.js";
import { Sockets } from "./sockets.js";
import { DEAD_LINK, FEATURES, GAP, NORMAL, OF_A_SUCCESSOR, REPLACED } from "./wire.js";
import { Broken, afterClose, backoffMs, decode, drawn, parseCursor } from "./wire.js";

const CONNECT_MS = 5_000;
const HEALTHY_MS = 10_000; // a connection that lived this long ends a row of failures
const LOSS_WINDOW_MS = 10_000; // a second loss within it ends the connection [2.5, rule 4]
const MOVE_AGAIN_MS = 250; // a subscription without a cursor cannot move yet
const OFFLINE_MS = 300_000; // who says that there is no network may be wrong

/**
 * Every input returns the events it caused, `{ e, … }`; the frames to send are handed out once by `takeOutgoing`, and
 * `tick` is due at `deadline`. All times are milliseconds of the caller's clock, which must not run backwards.
 *
 * Normally there is one socket. After `goaway` a second one takes the place of the first once it has everything that the
 * first had (make before break) [2.14]. Inputs without a number are about the one in use.
 */
export class Connection {
  clock;
  state = "idle"; // idle · connecting · resuming · connected · draining · reconnecting · offline · closed
  #events = [];
  #random;
  #client;
  #features;
  #feeds = new Map();
  #publications = new Publications();
  #sockets = new Sockets();
  #resume = null;
  #failures = 0; // in a row
  #reconnectAt = null;
  #offline = false;

  constructor({ random = Math.random, now = 0, client, features = FEATURES } = {}) {
    this.#random = random;
    this.#features = features;
    this.#client = client;
    this.clock = now;
  }

  // What the application does.

  start() {
    return this.#answer(() => this.#connect());
  }

  stop() {
    return this.#answer(() => {
      if (this.state === "closed") return;
      this.#reconnectAt = null;
      for (const number of this.#sockets.close()) this.#tell("close", { code: NORMAL, socket: number });
      this.#enter("closed", { code: NORMAL, terminal: false });
    });
  }

  /** Declare a subscription: it is asked for on this connection and on every one after it. */
  subscribe(options) {
    return this.#answer(() => {
      if (this.#feeds.has(options.s)) throw new TypeError(`"${options.s}" is subscribed already: choose another name`);
      const feed = new Feed(options);
      this.#feeds.set(feed.s, feed);
      this.#ask(feed);
    });
  }

  unsubscribe(s) {
    return this.#answer(() => {
      if (this.#feeds.delete(s)) this.#sockets.leave(s);
    });
  }

  /**
   * Change `{ filter, min_ms, backfill }` of a subscription in place; `modified` or `modify-refused` says when that has
   * an end. One change at a time.
   */
  modify({ s, ...change }) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (feed === undefined) throw new TypeError(`"${s}" is not subscribed`);
      if (feed.change !== null) throw new TypeError(`"${s}" is being changed: wait for the end of that`);
      feed.change = change;
      if (this.#sockets.ready && this.#sockets.next === null) this.#sockets.used.modify(feed);
    });
  }

  /** Let a subscription rest: its cursor stands still and the server's log keeps what comes. */
  pause(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (feed === undefined || feed.paused) return;
      feed.paused = true;
      this.#sockets.leave(s);
    });
  }

  unpause(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (feed === undefined || !feed.paused) return;
      feed.paused = false;
      this.#ask(feed);
    });
  }

  publish(signal) {
    return this.#answer(() => {
      this.#publications.add(signal);
      this.#flush();
    });
  }

  // What the world reports.

  /** The socket that `open` asked for is there: greet. */
  opened({ token } = {}, number) {
    return this.#answer(() => {
      const socket = this.#sockets.find(number);
      if (socket === null) return;
      Object.assign(socket, { opened: true, heardAt: this.clock });
      const names = socket.successor ? [...this.#sockets.used.places.keys()] : [...this.#feeds.keys()];
      const feeds = names.map((s) => this.#feeds.get(s)).filter(({ paused }) => !paused);
      // On a successor it goes on as on the socket before; a change of it comes when that one is alone.
      const change = (feed) => (socket.successor ? null : feed.changeBySub);
      const request = socket.send({
        t: "hello",
        token: token ?? undefined,
        resume: this.#resume ?? undefined,
        client: this.#client,
        features: this.#features.length > 0 ? this.#features : undefined,
        subs: feeds.length > 0 ? feeds.map((feed) => feed.asking(change(feed))) : undefined,
      });
      socket.places = new Map(feeds.map((feed) => [feed.s, new Place(feed.wanted, request, change(feed))]));
    });
  }

  /** Go on with a newer token. */
  auth(token, number) {
    const socket = this.#sockets.find(number);
    return this.#answer(() => socket?.welcome && socket.send({ t: "auth", token }));
  }

  /** The socket ended with `code`, or could not be opened (`null`). */
  closed(code, reason = "", number = undefined) {
    return this.#answer(() => this.#ended(this.#sockets.find(number), code, reason));
  }

  /** One text frame: a message, or several joined by newlines. */
  receive(text, number) {
    return this.#answer(() => {
      const socket = this.#sockets.find(number);
      socket?.heard(this.clock);
      for (const line of text.split("\n")) {
        if (socket === null || this.#sockets.find(socket.number) === null) return;
        if (line.trim() === "") continue;
        try {
          this.#take(socket, decode(line));
        } catch (error) {
          if (!(error instanceof Broken)) throw error;
          socket.fail(GAP, `bad message: ${error.message}`);
        }
        if (socket.failure !== null) return this.#abandon(socket, ...socket.failure);
        this.#moveWhenReady();
      }
    });
  }

  /** Do what became due until `now`, in order of its time. */
  tick(now) {
    return this.#answer(() => {
      this.clock = now;
      for (;;) {
        const due = this.#timers().filter(([at]) => at <= now);
        if (due.length === 0) return;
        due.sort(([one], [other]) => one - other)[0][1]();
      }
    });
  }

  get deadline() {
    return Math.min(Infinity, ...this.#timers().map(([at]) => at));
  }

  /** Connect at once if a reconnect waits; else ask for a sign of life, due within `dead_ms`. */
  probe() {
    return this.#answer(() => {
      const now = this.clock;
      if (this.#reconnectAt !== null) return this.#connect();
      const socket = this.#sockets.used;
      if (!socket?.welcome) return;
      const { ping_ms: pingMs, dead_ms: deadMs } = socket.welcome;
      if (now - socket.heardAt > 2 * pingMs + deadMs) {
        // The server has given up on us [2.7], whatever the network says: after a sleep this saves waiting for an answer.
        this.#abandon(socket, DEAD_LINK, "slept");
        if (this.#reconnectAt !== null) this.#connect();
        return;
      }
      socket.proofBy = Math.min(socket.proofBy, now + deadMs);
      socket.heardAt = Math.max(socket.heardAt, now - pingMs); // silence during a sleep says nothing
      socket.ping(now);
    });
  }

  /** Whether there is a network, as far as anybody knows: without one no reconnect is tried, except rarely. */
  network(online) {
    this.#offline = !online;
    if (online) return this.probe();
    return this.#answer(() => {
      if (this.#reconnectAt !== null) this.#waitForNetwork();
    });
  }

  takeOutgoing(number) {
    return this.#sockets.find(number)?.outgoing.splice(0) ?? [];
  }

  // Small steps.

  #answer(work) {
    work();
    return this.#events.splice(0);
  }

  #tell = (e, event) => {
    this.#events.push({ e, ...event });
  };

  #enter(state, about) {
    this.state = state;
    this.#tell("state", { state, ...about });
  }

  #timers() {
    const timers = this.#reconnectAt === null ? [] : [[this.#reconnectAt, () => this.#connect()]];
    for (const socket of this.#sockets.list) {
      if (socket.welcome === null) {
        timers.push([socket.openBy, () => this.#abandon(socket, DEAD_LINK, `no welcome within ${CONNECT_MS} ms`)]);
        continue;
      }
      timers.push([socket.deadAt, () => this.#abandon(socket, DEAD_LINK, `silent for ${socket.silenceMs} ms`)]);
      timers.push([socket.pingAt, () => socket.ping(this.clock)]);
      if (socket.moveAt !== null) timers.push([socket.moveAt, () => this.#move(socket)]);
      for (const [s, { retryAt }] of socket.places) {
        if (retryAt !== null) timers.push([retryAt, () => socket.retry(this.#feeds.get(s))]);
      }
    }
    if (this.#sockets.ready && this.#publications.pausedUntil !== null) {
      timers.push([this.#publications.pausedUntil, () => this.#flush((this.#publications.pausedUntil = null))]);
    }
    return timers;
  }

  #connect() {
    this.#reconnectAt = null;
    const socket = this.#sockets.ask(this.clock + CONNECT_MS); // its number
    this.#enter(this.#resume === null ? "connecting" : "resuming");
    this.#tell("open", { socket, url: null });
  }

  #abandon(socket, code, reason) {
    this.#tell("close", { code, reason, socket: socket.number });
    this.#ended(socket, code, reason);
  }

  #ended(socket, code, said) {
    if (socket === null) return;
    if (socket.successor) return this.#stay();
    const does = afterClose(code);
    const planned = does === "window"; // and no failure: a server that restarts often is not to be kept away from
    const uptime = this.clock - socket.welcomedAt;
    if (socket.welcome !== null && (planned || uptime >= HEALTHY_MS)) this.#failures = 0;
    if (this.#sockets.next !== null && (does !== "stop" || code === REPLACED)) return this.#moveOn();
    for (const number of this.#sockets.close()) {
      if (number !== socket.number) this.#tell("close", { code: NORMAL, socket: number });
    }
    this.#publications.disconnected();
    const reason = said || socket.trouble;
    if (does === "stop") return this.#enter("closed", { code, terminal: true, reason });
    const draw = this.#random();
    const delay = planned ? drawn(socket.window, draw) : backoffMs(this.#failures, draw);
    const attempt = this.#failures + 1;
    if (!planned) this.#failures += 1;
    this.#reconnectAt = this.clock + delay;
    this.#enter("reconnecting", { attempt, delay_ms: Math.floor(delay), code, reason });
    if (this.#offline) this.#waitForNetwork();
  }

  #waitForNetwork() {
    this.#reconnectAt = this.clock + OFFLINE_MS;
    if (this.state !== "offline") this.#enter("offline");
  }

  #ask(feed) {
    if (this.#sockets.ready && this.#sockets.next === null) this.#sockets.used.request(feed);
  }

  /** Send what waited for the socket in use. */
  #requestMissing() {
    if (!this.#sockets.ready) return;
    for (const feed of this.#feeds.values()) {
      if (this.#sockets.used.places.has(feed.s)) this.#sockets.used.modify(feed);
      else if (!feed.paused) this.#sockets.used.request(feed);
    }
    this.#flush();
  }

  #flush() {
    if (this.#sockets.ready) this.#publications.flush(this.#sockets.used, this.#tell);
  }

  // What the server says.

  #take(socket, message) {
    if (message === null) return; // of a type that this client does not know; pong is one
    const { t, id, s } = message;
    if (t === "welcome") return this.#greeted(socket, message);
    if (socket.welcome === null) return t === "err" ? this.#notice(socket, message) : undefined;
    if (socket.successor && !OF_A_SUCCESSOR.includes(t)) return socket.fail(GAP);
    if (t === "sig") this.#sig(socket, message);
    else if (t === "subok") {
      if (socket.awaits(s, id)) this.#accepted(socket, message);
    } else if (t === "snap") this.#snap(socket, message);
    else if (t === "live") this.#live(socket, message);
    else if (t === "gap") this.#gap(socket, message);
    else if (t === "unsubbed") this.#failed(socket, message);
    else if (t === "reset") this.#reset(socket);
    else if (t === "goaway") {
      socket.toldToGo(message, this.clock, this.#random);
      this.#enter("draining", { reason: message.reason ?? "" });
    } else if (t === "err" && id === undefined) this.#notice(socket, message);
    else this.#answered(socket, message);
  }

  #notice(socket, { code, slug = "", msg = "" }) {
    socket.trouble = `${slug}: ${msg}`;
    this.#tell("notice", { code, slug, msg });
  }

  #greeted(socket, welcome) {
    socket.greet(welcome, this.clock, this.#random()); // a draw at every welcome, also a wrong one
    this.#resume = welcome.resume;
    if (!socket.successor) this.#connected(welcome);
    const answers = new Map(welcome.subs.filter(({ s }) => s !== undefined).map((answer) => [answer.s, answer]));
    for (const [s, answer] of answers) {
      if (!socket.awaits(s, welcome.id)) {
        if (answer.t === "subok") socket.send({ t: "unsub", s }); // taken back while hello was on its way
      } else if (socket.successor && (answer.t === "err" || answer.from !== socket.places.get(s).asked.cursor)) {
        return socket.fail(NORMAL); // it does not go on there
      } else if (answer.t === "err") this.#refused(socket, s, answer);
      else this.#accepted(socket, answer);
    }
    if (!socket.successor) this.#requestMissing();
  }

  #connected({ session, resumed }) {
    this.#enter("connected", { session, resumed });
  }

  #accepted(socket, answer) {
    const { s } = answer;
    const place = socket.places.get(s);
    let gap = null;
    if (!place.modifies) gap = this.#feeds.get(s).accepted(place, answer);
    else if (!this.#feeds.get(s).modified(place, answer)) return this.#loss(socket, s, parseCursor(answer.from).c);
    if (socket.successor) return;
    this.#tell("sub", { s, state: "catchup" });
    if (gap !== null) this.#events.push(gap);
    this.#settled(socket, s);
  }

  #snap(socket, message) {
    const { s } = message;
    const place = socket.places.get(s);
    if (socket.stateOf(s) !== "catchup" || !place.snapping) return;
    this.#events.push(this.#feeds.get(s).snap(place, message));
    this.#settled(socket, s);
  }

  /** A change may be in force now, or another one be asked for. */
  #settled(socket, s) {
    const feed = this.#feeds.get(s);
    const event = feed.settle(socket.places.get(s));
    if (event !== null) this.#events.push(event);
    if (!socket.successor) socket.modify(feed);
  }

  #sig(socket, message) {
    const names = message.s === undefined ? [...socket.places.keys()] : [message.s];
    for (const s of names.filter((name) => socket.places.get(name)?.counts(message))) {
      const place = socket.places.get(s);
      const event = this.#feeds.get(s).take(place, message);
      if (event === "loss") this.#loss(socket, s, message.a);
      else if (event !== null) this.#events.push(event);
      if (socket.failure !== null) return;
    }
  }

  #live(socket, { s, g, b }) {
    if (socket.stateOf(s) !== "catchup") return;
    const place = socket.places.get(s);
    if (b !== place.c) return this.#loss(socket, s, b);
    Object.assign(place, { state: "live", g });
    if (!socket.successor) this.#tell("sub", { s, state: "live" });
  }

  #gap(socket, message) {
    if (socket.stateOf(message.s) === "pending") return;
    const event = this.#feeds.get(message.s).skip(socket.places.get(message.s), message);
    if (event !== null) this.#events.push(event);
  }

  /** A frame went missing: ask again from the cursor. The application misses nothing unless the log has lost it too. */
  #loss(socket, s, a) {
    const place = socket.places.get(s);
    this.#tell("gap-detected", { s, c: place.c, a });
    if (socket.successor) return socket.fail(GAP);
    if (this.clock - place.lostAt < LOSS_WINDOW_MS) {
      return socket.fail(GAP, `frames of ${s} were lost twice within ${LOSS_WINDOW_MS} ms`);
    }
    place.lostAt = this.clock;
    socket.requestAgain(this.#feeds.get(s));
  }

  #reset(socket) {
    if (this.#sockets.next !== null) {
      this.#tell("close", { code: NORMAL, socket: this.#sockets.next.number });
      this.#stay();
    }
    for (const feed of this.#feeds.values()) {
      feed.forget();
      this.#tell("gap", { s: feed.s, epoch: null, c: null, a: null, b: null, reason: "epoch" });
      if (!feed.paused) socket.request(feed);
    }
  }

  /** `ok`, or `err` with an id. */
  #answered(socket, message) {
    const s = [...socket.places.keys()].find((name) => socket.awaits(name, message.id));
    if (message.t === "err" && s !== undefined) return this.#refused(socket, s, message);
    this.#publications.answered(message, this.clock, this.#tell);
    this.#flush();
  }

  #refused(socket, s, error) {
    const place = socket.places.get(s);
    const { modifies } = place;
    if (error.retry !== true && !modifies) return this.#failed(socket, { ...error, s });
    place.request = null;
    if (modifies) Object.assign(place, { modifies: false, change: null });
    if (error.retry === true) place.retryAt = this.clock + (error.retry_after_ms ?? RETRY_MS);
    else {
      const { code, slug = "", msg = "" } = error;
      this.#feeds.get(s).change = null;
      this.#tell("modify-refused", { s, code, slug, msg });
    }
  }

  #failed(socket, { s, code, slug = "unsubbed", msg, reason }) {
    if (!this.#feeds.delete(s)) return;
    socket.places.delete(s);
    this.#sockets.leave(s);
    this.#tell("sub", { s, state: "failed", code, slug, msg: msg ?? reason ?? "" });
  }

  // Make before break [2.14].

  #move(socket) {
    if ([...this.#feeds.values()].some(({ epoch, change, paused }) => (epoch === null || change !== null) && !paused)) {
      socket.moveAt = this.clock + MOVE_AGAIN_MS;
      return;
    }
    socket.moveAt = null;
    if (this.#sockets.next === null) this.#tell("open", { socket: this.#sockets.ask(this.clock + CONNECT_MS), url: socket.moveTo }); // else: told twice
  }

  /** The successor takes over once it is live and has everything that the one before had. */
  #moveWhenReady() {
    if (!this.#sockets.hasMoved(this.#feeds)) return;
    this.#tell("close", { code: NORMAL, socket: this.#sockets.used.number });
    this.#moveOn();
  }

  #moveOn() {
    const old = this.#sockets.succeed();
    this.#publications.disconnected();
    if (!this.#sockets.ready) return this.#enter("resuming");
    this.#connected(this.#sockets.used.welcome);
    for (const [s, { state }] of this.#sockets.used.places) {
      if (state !== "pending" && state !== old.stateOf(s)) this.#tell("sub", { s, state });
    }
    this.#requestMissing();
  }

  /** The successor is nothing: go on with the socket in use until that ends. */
  #stay() {
    this.#sockets.next = null;
    this.#requestMissing();
  }
}
