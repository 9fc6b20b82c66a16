/** One socket of the machine: its timers, its limits, its places, and the texts that are to leave on it. */
import { Place, assertAnswered, mode } from "./feed.js";
import { Broken, PING, WINDOW_MS, drawn } from "./wire.js";

const MESSAGE_BYTES = 16_384;
const ACK_MS = 5_000; // between two messages about cursors

/**
 * From the moment it is asked for. `openBy` is null once it was welcomed; `successor` means that another is still in use.
 * `failure` is `[code, reason]` once it is of no more use.
 */
export class Socket {
  opened = false;
  greeting = null; // the server's welcome
  welcomedAt = 0;
  places = new Map();
  outgoing = [];
  heardAt = 0;
  proofBy = Infinity; // an answer is due earlier than usual: somebody doubts the link
  pingAt = null;
  ackAt = Infinity;
  moveAt = Infinity;
  moveTo = null;
  window = WINDOW_MS;
  trouble = ""; // the last err about it, for the words of its end
  failure = null;
  #acked = {}; // what the server knows of the cursors
  #requests = 0;

  constructor(number, openBy, successor) {
    Object.assign(this, { number, openBy, successor });
  }

  get messageBytes() {
    const limit = this.greeting.limits.msg_bytes;
    return Number.isInteger(limit) ? limit : MESSAGE_BYTES;
  }

  get silenceMs() {
    return this.greeting.ping_ms + this.greeting.dead_ms;
  }

  get deadAt() {
    return Math.min(this.heardAt + this.silenceMs, this.proofBy);
  }

  heard(now) {
    this.heardAt = now;
    this.proofBy = Infinity;
  }

  nextRequest() {
    return (this.#requests += 1);
  }

  send({ t, ...rest }) {
    const id = this.nextRequest();
    this.outgoing.push(JSON.stringify({ t, id, ...rest }));
    return id;
  }

  greet(welcome, now, draw) {
    if (!this.opened || this.greeting) throw new Broken("welcome does not answer hello");
    assertAnswered(this.places, welcome.subs);
    Object.assign(this, { greeting: welcome, welcomedAt: now, openBy: null });
    this.pingAt = now + welcome.ping_ms * draw; // a crowd that came together does not beat together
  }

  ping(now) {
    this.pingAt = now + this.greeting.ping_ms;
    this.outgoing.push(PING);
  }

  /** Cursors may have moved: the server is told in a while, where it wants to know [2.3]. */
  moved(now) {
    if (this.ackAt === Infinity && this.has("ack") && this.#news.length > 0) this.ackAt = now + ACK_MS;
  }

  acknowledge() {
    this.ackAt = Infinity;
    const c = {};
    for (const [s, place] of this.#news) c[s] = this.#acked[s] = place.c;
    if (Object.keys(c).length > 0) this.outgoing.push(JSON.stringify({ t: "ack", c }));
  }

  get #news() {
    return [...this.places].filter(([s, { state, c }]) => state === "live" && c !== this.#acked[s]);
  }

  /** `goaway`: when to open its successor, where the server can do that, and when to come back after a planned end. */
  toldToGo({ after_ms: window, url = null }, now, random) {
    this.window = window;
    if (!this.has("goaway")) return;
    this.moveAt = now + drawn(window, random());
    this.moveTo = url;
  }

  /** It is of no more use; the reason is for the words of a reconnect. */
  fail(code, reason = "") {
    this.failure = [code, reason];
  }

  has(feature) {
    return this.greeting?.features?.includes(feature);
  }

  /** Ask for a subscription (again), from where it is, and with a change of it. */
  request(feed, change = feed.changeBySub) {
    const place = this.places.get(feed.s) ?? new Place(feed.wanted);
    this.places.set(feed.s, place);
    const anew = { state: "pending", g: null, retryAt: Infinity, modifies: false, snapping: false };
    Object.assign(place, anew, { asked: feed.wanted, change });
    place.request = this.send({ t: "sub", ...feed.asking(change) });
  }

  /** The same on this socket from its cursor: frames of it were lost, or the server cannot change it in place. */
  requestAgain(feed, change) {
    this.send({ t: "unsub", s: feed.s });
    this.request(feed, change);
  }

  /** Ask for the change that a subscription is to undergo, unless something else is to happen before. */
  modify(feed) {
    const { s, change } = feed;
    const place = this.places.get(s);
    if (!change || this.stateOf(s) === "pending" || place.request !== null || place.snapping) return;
    if (!this.has("mod")) return this.requestAgain(feed, change); // what is older is not to be had from this server
    const request = this.send({ t: "mod", s, ...change, ...mode(change.min_ms) });
    Object.assign(place, { change, request, retryAt: Infinity, modifies: true });
  }

  /** What was refused for a while: a sub or a mod. */
  retry(feed) {
    if (this.stateOf(feed.s) === "pending") this.request(feed);
    else this.modify(feed);
  }

  /** Take a subscription back, if the server knows it or will. */
  leave(s) {
    const place = this.places.get(s);
    this.places.delete(s);
    if (!place || !this.greeting) return;
    if (place.retryAt === Infinity || place.state !== "pending") this.send({ t: "unsub", s });
  }

  /** The subscription whose answer has this id: a sub's, or the one called `s` of hello's. */
  awaits(s, id) {
    const place = this.places.get(s);
    return id !== undefined && place?.request === id;
  }

  stateOf(s) {
    return this.places.get(s)?.state ?? "pending";
  }
}
