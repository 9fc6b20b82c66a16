/** The subscriptions that the application has declared, and what the messages about them do [2.5]. */
import { RETRY_MS } from "./publications.js";
import { GAP, NORMAL, parseCursor } from "./wire.js";

const LOSS_WINDOW_MS = 10_000; // a second loss within it ends the connection [rule 4]

/** By name, in the order of their declaration. The methods that are called as a message take it, with its socket. */
export class Feeds extends Map {
  #sockets;
  #tell;

  constructor(sockets, tell) {
    super();
    this.#sockets = sockets;
    this.#tell = tell;
  }

  /** Whether one of them stands nowhere yet, or is to change: it cannot move to another socket. */
  get areBusy() {
    return [...this.values()].some(({ epoch, change, paused }) => (epoch === null || change) && !paused);
  }

  /** What `welcome` says about those of its hello. */
  greeted(socket, { id, subs }) {
    const answers = new Map(subs.filter(({ s }) => s !== undefined).map((answer) => [answer.s, answer]));
    for (const [s, answer] of answers) {
      if (!socket.awaits(s, id)) {
        if (answer.t === "subok") socket.send({ t: "unsub", s }); // taken back while hello was on its way
      } else if (socket.successor && (answer.t === "err" || answer.from !== socket.places.get(s).asked.cursor)) {
        return socket.fail(NORMAL); // it does not go on there
      } else if (answer.t === "err") this.refuse(socket, s, answer);
      else this.#accepted(socket, answer);
    }
  }

  subok(socket, message) {
    if (socket.awaits(message.s, message.id)) this.#accepted(socket, message);
  }

  snap(socket, message) {
    const { s } = message;
    const place = socket.places.get(s);
    if (socket.stateOf(s) !== "catchup" || !place.snapping) return;
    this.#tell(this.get(s).snap(place, message));
    this.#settled(socket, s);
  }

  sig(socket, message) {
    const names = message.s === undefined ? [...socket.places.keys()] : [message.s];
    for (const s of names.filter((name) => socket.places.get(name)?.counts(message))) {
      const event = this.get(s).take(socket.places.get(s), message);
      if (event === "loss") this.#loss(socket, s, message.a);
      else this.#tell(event);
      if (socket.failure) return;
    }
  }

  live(socket, { s, g, b }) {
    if (socket.stateOf(s) !== "catchup") return;
    const place = socket.places.get(s);
    if (b !== place.c) return this.#loss(socket, s, b);
    Object.assign(place, { state: "live", g });
    if (!socket.successor) this.#tell({ e: "sub", s, state: "live" });
  }

  gap(socket, message) {
    const { s } = message;
    if (socket.stateOf(s) !== "pending") this.#tell(this.get(s).skip(socket.places.get(s), message));
  }

  reset(socket) {
    for (const feed of this.values()) {
      feed.forget();
      this.#tell({ e: "gap", s: feed.s, epoch: null, c: null, a: null, b: null, reason: "epoch" });
      if (!feed.paused) socket.request(feed);
    }
  }

  unsubbed(socket, { s, code, slug = "unsubbed", msg, reason }) {
    if (!this.delete(s)) return;
    socket.places.delete(s);
    this.#sockets.leave(s);
    this.#tell({ e: "sub", s, state: "failed", code, slug, msg: msg ?? reason ?? "" });
  }

  /** The `err` that answers a sub, a mod or a part of hello. */
  refuse(socket, s, error) {
    const place = socket.places.get(s);
    const { modifies } = place;
    if (error.retry !== true && !modifies) return this.unsubbed(socket, { ...error, s });
    place.request = null;
    if (modifies) Object.assign(place, { modifies: false, change: null });
    if (error.retry === true) place.retryAt = socket.heardAt + (error.retry_after_ms ?? RETRY_MS);
    else {
      const { code, slug = "", msg = "" } = error;
      this.get(s).change = null;
      this.#tell({ e: "modify-refused", s, code, slug, msg });
    }
  }

  // Small steps.

  #accepted(socket, answer) {
    const { s } = answer;
    const place = socket.places.get(s);
    let gap = null;
    if (!place.modifies) gap = this.get(s).accepted(place, answer);
    else if (!this.get(s).modified(place, answer)) return this.#loss(socket, s, parseCursor(answer.from).c);
    if (socket.successor) return;
    this.#tell({ e: "sub", s, state: "catchup" });
    this.#tell(gap);
    this.#settled(socket, s);
  }

  /** A change may be in force now, or another one be asked for. */
  #settled(socket, s) {
    const feed = this.get(s);
    this.#tell(feed.settle(socket.places.get(s)));
    if (!socket.successor) socket.modify(feed);
  }

  /** A frame went missing: ask again from the cursor. The application misses nothing unless the log has lost it too. */
  #loss(socket, s, a) {
    const place = socket.places.get(s);
    this.#tell({ e: "gap-detected", s, c: place.c, a });
    if (socket.successor) return socket.fail(GAP);
    if (socket.heardAt - place.lostAt < LOSS_WINDOW_MS) {
      return socket.fail(GAP, `frames of ${s} were lost twice`);
    }
    place.lostAt = socket.heardAt;
    socket.requestAgain(this.get(s));
  }
}
