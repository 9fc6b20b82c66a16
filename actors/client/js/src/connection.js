/** The client's machine: signals.v1 without I/O. What it does where the protocol leaves a choice: vectors/README.md. */
import { json } from "./encoding.js";
import { Feed, Place } from "./feed.js";
import { Feeds } from "./feeds.js";
import { Publications } from "./publications.js";
import { Sockets } from "./sockets.js";
import { Broken, DEAD_LINK, FEATURES, GAP, NORMAL, OF_A_SUCCESSOR, OF_SUBSCRIPTIONS, WINDOW_MS } from "./wire.js";
import { afterClose, backoffMs, checked, drawn } from "./wire.js";

const CONNECT_MS = 5_000;
const HEALTHY_MS = 10_000; // a connection that lived this long ends a row of failures
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
  #encoding;
  #publications;
  #sockets = new Sockets();
  #feeds = new Feeds(this.#sockets, (event) => this.#tell(event));
  #resume = null;
  #failures = 0; // in a row
  #reconnectAt = Infinity;
  #offline = false;

  constructor({ random = Math.random, now = 0, client, features = FEATURES, encoding = json } = {}) {
    this.#random = random;
    this.#encoding = encoding;
    this.#publications = new Publications(encoding, (event) => this.#tell(event));
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
      this.#reconnectAt = Infinity;
      for (const number of this.#sockets.close()) this.#hangUp(number);
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
      if (!feed) throw new TypeError(`"${s}" is not subscribed`);
      if (feed.change) throw new TypeError(`"${s}" is being changed: wait for the end of that`);
      feed.change = change;
      if (this.#sockets.open) this.#sockets.used.modify(feed);
    });
  }

  /** Let a subscription rest: its cursor stands still and the server's log keeps what comes. */
  pause(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (!feed || feed.paused) return;
      feed.paused = true;
      this.#sockets.leave(s);
    });
  }

  unpause(s) {
    return this.#answer(() => {
      const feed = this.#feeds.get(s);
      if (!feed?.paused) return;
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
      if (!socket) return;
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
    return this.#answer(() => {
      const socket = this.#sockets.find(number);
      if (socket?.greeting) socket.renews = socket.send({ t: "auth", token });
    });
  }

  /** The socket ended with `code`, or could not be opened (`null`). */
  closed(code, reason = "", number = undefined) {
    return this.#answer(() => this.#ended(this.#sockets.find(number), code, reason));
  }

  /** One frame: a message, or several. */
  receive(frame, number) {
    return this.#answer(() => {
      const socket = this.#sockets.find(number);
      socket?.heard(this.clock);
      for (const value of this.#encoding.parse(frame)) {
        if (!socket || !this.#sockets.find(socket.number)) return;
        try {
          this.#take(socket, checked(value));
        } catch (error) {
          if (!(error instanceof Broken)) throw error;
          socket.fail(GAP, `bad message: ${error.message}`);
        }
        if (socket.failure) return this.#abandon(socket, ...socket.failure);
        if (this.#sockets.hasMoved(this.#feeds)) {
          this.#hangUp(this.#sockets.used.number);
          this.#moveOn();
        }
      }
      socket?.moved(this.clock);
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
      if (this.#reconnectAt < Infinity) return this.#connect();
      const socket = this.#sockets.used;
      if (!socket?.greeting) return;
      const { ping_ms: pingMs, dead_ms: deadMs } = socket.greeting;
      if (now - socket.heardAt > 2 * pingMs + deadMs) {
        // The server has given up on us [2.7], whatever the network says: after a sleep this saves waiting for an answer.
        this.#abandon(socket, DEAD_LINK, "slept");
        if (this.#reconnectAt < Infinity) this.#connect();
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
      if (this.#reconnectAt < Infinity) this.#waitForNetwork();
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

  #tell(event) {
    if (event) this.#events.push(event);
  }

  #enter(state, about) {
    this.state = state;
    this.#tell({ e: "state", state, ...about });
  }

  #hangUp(socket) {
    this.#tell({ e: "close", code: NORMAL, socket });
  }

  #timers() {
    const timers = [[this.#reconnectAt, () => this.#connect()]];
    for (const socket of this.#sockets.list) {
      if (!socket.greeting) {
        timers.push([socket.openBy, () => this.#abandon(socket, DEAD_LINK, `no welcome within ${CONNECT_MS} ms`)]);
        continue;
      }
      timers.push([socket.deadAt, () => this.#abandon(socket, DEAD_LINK, `silent for ${socket.silenceMs} ms`)]);
      timers.push([socket.pingAt, () => socket.ping(this.clock)]);
      timers.push([socket.ackAt, () => socket.acknowledge()]);
      timers.push([socket.moveAt, () => this.#move(socket)]);
      for (const [s, { retryAt }] of socket.places) timers.push([retryAt, () => socket.retry(this.#feeds.get(s))]);
    }
    if (this.#sockets.ready) {
      timers.push([this.#publications.pausedUntil, () => this.#flush((this.#publications.pausedUntil = Infinity))]);
    }
    return timers;
  }

  #connect() {
    this.#reconnectAt = Infinity;
    const socket = this.#sockets.ask(this.clock + CONNECT_MS); // its number
    this.#enter(this.#resume ? "resuming" : "connecting");
    this.#tell({ e: "open", socket, url: null });
  }

  #abandon(socket, code, reason) {
    this.#tell({ e: "close", code, reason, socket: socket.number });
    this.#ended(socket, code, reason);
  }

  #ended(socket, code, said) {
    if (!socket) return;
    if (socket.successor) return this.#stay();
    const does = afterClose(code, socket.window !== WINDOW_MS); // a goaway has named another one
    const planned = does === "window"; // and no failure: a server that restarts often is not to be kept away from
    const uptime = this.clock - socket.welcomedAt;
    if (socket.greeting && (planned || uptime >= HEALTHY_MS)) this.#failures = 0;
    if (this.#sockets.next && does !== "stop") return this.#moveOn();
    for (const number of this.#sockets.close()) {
      if (number !== socket.number) this.#hangUp(number);
    }
    this.#publications.disconnected();
    const reason = said || socket.trouble;
    if (does === "stop") return this.#enter("closed", { code, terminal: true, reason });
    const draw = this.#random();
    const delay = planned ? drawn(socket.window, draw) : backoffMs(this.#failures, draw);
    this.#reconnectAt = this.clock + delay;
    this.#enter("reconnecting", { attempt: this.#failures + 1, delay_ms: Math.floor(delay), code, reason });
    if (!planned) this.#failures += 1;
    if (this.#offline) this.#waitForNetwork();
  }

  #waitForNetwork() {
    this.#reconnectAt = this.clock + OFFLINE_MS;
    if (this.state !== "offline") this.#enter("offline");
  }

  #ask(feed) {
    if (this.#sockets.open) this.#sockets.used.request(feed);
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
    if (this.#sockets.ready) this.#publications.flush(this.#sockets.used);
  }

  // What the server says.

  #take(socket, message) {
    if (!message) return; // of a type that this client does not know; pong is one
    const { t, id } = message;
    if (t === "welcome") return this.#greeted(socket, message);
    if (t === "err" && (!socket.greeting || [undefined, socket.renews].includes(id))) return this.#notice(socket, message);
    if (!socket.greeting) return;
    if (socket.successor && !OF_A_SUCCESSOR.includes(t)) return socket.fail(GAP);
    if (OF_SUBSCRIPTIONS.includes(t)) this.#feeds[t](socket, message);
    else if (t === "reset") this.#reset(socket);
    else if (t === "goaway") {
      socket.toldToGo(message, this.clock, this.#random);
      this.#enter("draining", { reason: message.reason ?? "" });
    } else if (!socket.successor) this.#answered(socket, message); // ids are of the socket in use
  }

  #notice(socket, { code, slug = "", msg = "" }) {
    socket.trouble = `${slug}: ${msg}`;
    this.#tell({ e: "notice", code, slug, msg });
  }

  #greeted(socket, welcome) {
    socket.greet(welcome, this.clock, this.#random()); // a draw at every welcome, also a wrong one
    this.#resume = welcome.resume;
    if (!socket.successor) this.#connected(welcome);
    this.#feeds.greeted(socket, welcome);
    if (!socket.successor) this.#requestMissing();
  }

  #connected({ session, resumed }) {
    this.#enter("connected", { session, resumed });
  }

  #reset(socket) {
    if (this.#sockets.next) {
      this.#hangUp(this.#sockets.next.number);
      this.#stay();
    }
    this.#feeds.reset(socket);
  }

  /** `ok`, or `err` with an id. */
  #answered(socket, message) {
    const s = [...socket.places.keys()].find((name) => socket.awaits(name, message.id));
    if (message.t === "err" && s !== undefined) return this.#feeds.refuse(socket, s, message);
    this.#publications.answered(message, this.clock);
    this.#flush();
  }

  // Make before break [2.14].

  #move(socket) {
    if (this.#feeds.areBusy) {
      socket.moveAt = this.clock + MOVE_AGAIN_MS;
      return;
    }
    socket.moveAt = Infinity;
    if (this.#sockets.next) return; // told twice
    this.#tell({ e: "open", socket: this.#sockets.ask(this.clock + CONNECT_MS), url: socket.moveTo });
  }

  /** The successor takes over: it is live and has everything that the one before had, or that one has ended. */
  #moveOn() {
    const old = this.#sockets.succeed();
    this.#publications.disconnected();
    if (!this.#sockets.ready) return this.#enter("resuming");
    this.#connected(this.#sockets.used.greeting);
    for (const [s, { state }] of this.#sockets.used.places) {
      if (state !== "pending" && state !== old.stateOf(s)) this.#tell({ e: "sub", s, state });
    }
    this.#requestMissing();
  }

  /** The successor is nothing: go on with the socket in use until that ends. */
  #stay() {
    this.#sockets.next = null;
    this.#requestMissing();
  }
}
