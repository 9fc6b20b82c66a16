// Claims about SignalClient: what an application sees, over a fake socket and a fake clock.
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { SignalClient, SignalError } from "../../actors/client/js/client.js";

/** A server at the end of a fake WebSocket, and the clock of both. */
class World {
  sockets = [];
  time = 0;
  timers = new Map();
  ids = 0;

  constructor(options = {}) {
    const world = this;
    class FakeSocket {
      readyState = 0;
      sent = [];
      constructor(url, protocols) {
        Object.assign(this, { url, protocols });
        world.sockets.push(this);
      }
      send(text) {
        assert.equal(this.readyState, 1, "sent on a socket that is not open");
        this.sent.push(JSON.parse(text));
      }
      close(code) {
        this.readyState = 3;
        this.closedWith = code;
      }
      open() {
        this.readyState = 1;
        this.onopen?.({});
      }
      say(...messages) {
        this.onmessage?.({ data: messages.map((message) => JSON.stringify(message)).join("\n") });
      }
      end(code, reason = "") {
        this.readyState = 3;
        this.onclose?.({ code, reason });
      }
    }
    this.client = new SignalClient({
      url: "http://example.test",
      WebSocket: FakeSocket,
      random: () => 0.5,
      now: () => this.time,
      setTimeout: (work, ms) => {
        this.timers.set((this.ids += 1), { at: this.time + ms, work });
        return this.ids;
      },
      clearTimeout: (id) => this.timers.delete(id),
      ...options,
    });
  }

  get socket() {
    return this.sockets[this.sockets.length - 1];
  }

  pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const [id, timer] = [...this.timers].sort((one, other) => one[1].at - other[1].at)[0] ?? [];
      if (timer === undefined || timer.at > end) break;
      this.timers.delete(id);
      this.time = Math.max(this.time, timer.at);
      timer.work();
    }
    this.time = end;
  }

  /** Open the newest socket and answer its hello. */
  greet({ from = "E:0", ...extra } = {}) {
    this.socket.open();
    const hello = this.socket.sent[0];
    const subs = (hello.subs ?? []).map(({ s, from: asked }) => {
      return { t: "subok", s, g: 7, from: asked?.cursor ?? from, recovered: asked?.cursor ? true : null, lost: null };
    });
    this.socket.say({ t: "welcome", id: 1, session: "s", resume: "r", resumed: false, epoch: "E", ping_ms: 25e3, dead_ms: 10e3, subs, ...extra });
    for (const { s, from: at } of subs) this.socket.say({ t: "live", s, g: 7, b: Number(at.split(":")[1]) });
    return hello;
  }

  signals(a, ...offsets) {
    const d = offsets.map((o) => ({ o, id: `x${o}`, type: "t", entity: "e", ts: 1, data: { n: o } }));
    this.socket.say({ t: "sig", g: 7, a, b: Math.max(a, ...offsets), d });
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe("addresses and the socket", () => {
  it("an http address becomes the stream's, and the subprotocol is offered", () => {
    const { socket } = new World();
    assert.equal(socket.url, "ws://example.test/v1/stream");
    assert.deepEqual(socket.protocols, ["signals.v1.json"]);
  });

  it("without a WebSocket the error says what to pass", () => {
    assert.throws(() => new SignalClient({ url: "http://example.test", WebSocket: null }), /install the package "ws"/);
  });

  it("an async token is fetched before each hello", async () => {
    let calls = 0;
    const world = new World({ token: async () => `token-${(calls += 1)}` });
    await settled();
    assert.equal(world.greet().token, "token-1");
    world.socket.end(4101);
    world.pass(1_000);
    await settled();
    assert.equal(world.greet().token, "token-2");
  });

  it("a token function that fails is tried again with backoff", async () => {
    const world = new World({ token: () => Promise.reject(new Error("no network")) });
    await settled();
    assert.equal(world.client.state.state, "reconnecting");
    assert.match(world.client.state.reason, /no network/);
  });
});

describe("subscriptions", () => {
  it("a reconnect resumes at the cursor and delivers nothing twice", () => {
    const world = new World();
    const seen = [];
    world.client.subscribe({ name: "px", types: ["t"], since: "now" }).on("signal", ({ offset }) => seen.push(offset));
    world.greet();
    world.signals(0, 1, 2);
    world.socket.end(1006);
    assert.equal(world.client.state.state, "reconnecting");
    world.pass(500);
    const hello = world.greet();
    assert.deepEqual(hello.subs[0].from, { cursor: "E:2" });
    assert.equal(hello.resume, "r");
    world.signals(0, 1, 2);
    world.signals(2, 3);
    assert.deepEqual(seen, [1, 2, 3]);
  });

  it("a handler that throws stops neither the reader nor the other handlers", () => {
    const reported = [];
    globalThis.reportError = (error) => reported.push(error.message);
    const world = new World();
    const seen = [];
    const sub = world.client.subscribe();
    sub.on("signal", () => {
      throw new Error("mine");
    });
    sub.on("signal", ({ offset }) => seen.push(offset));
    world.greet();
    world.signals(0, 1);
    world.signals(1, 2);
    delete globalThis.reportError;
    assert.deepEqual(seen, [1, 2]);
    assert.deepEqual(reported, ["mine", "mine"]);
  });

  it("a handler that closes its subscription gets nothing more", () => {
    const world = new World();
    const seen = [];
    const sub = world.client.subscribe();
    sub.on("signal", ({ offset }) => {
      seen.push(offset);
      if (offset === 2) sub.close();
    });
    world.greet();
    world.signals(0, 1, 2, 3);
    world.signals(3, 4);
    assert.deepEqual(seen, [1, 2]);
  });

  it("a loop sees signals and gaps in order, and ends with close", async () => {
    const world = new World();
    const sub = world.client.subscribe({ name: "px" });
    world.greet();
    world.signals(0, 1);
    world.socket.say({ t: "gap", s: "px", a: 1, b: 4, reason: "slow" });
    world.signals(4, 5);
    const seen = [];
    const loop = (async () => {
      for await (const item of sub) seen.push(item.kind === "gap" ? [item.after, item.upto, item.reason] : item.offset);
    })();
    await settled();
    sub.close();
    await loop;
    assert.deepEqual(seen, [1, [1, 4, "slow"], 5]);
    assert.equal(sub.state, "closed");
  });

  it("the cursor moves when the loop body is done, not when the signal arrives", async () => {
    const world = new World();
    const sub = world.client.subscribe();
    world.greet();
    world.signals(0, 1, 2);
    const loop = sub[Symbol.asyncIterator]();
    await loop.next();
    assert.equal(sub.cursor, null);
    await loop.next();
    assert.equal(sub.cursor, "E:1");
  });

  it("a full buffer pauses the subscription, which goes on from its cursor without loss", async () => {
    const world = new World();
    const sub = world.client.subscribe({ name: "px", buffer: 4 });
    world.greet();
    world.signals(0, 1, 2, 3, 4);
    assert.equal(sub.state, "paused");
    assert.equal(world.socket.sent.at(-1).t, "unsub");
    world.signals(4, 5); // in flight when the unsub left: the log has it
    const loop = sub[Symbol.asyncIterator]();
    assert.equal((await loop.next()).value.offset, 1);
    assert.equal((await loop.next()).value.offset, 2);
    const { t, id, from } = world.socket.sent.at(-1);
    assert.deepEqual([t, from], ["sub", { cursor: "E:4" }]);
    world.socket.say({ t: "subok", id, s: "px", g: 7, from: "E:4", recovered: true, lost: null });
    world.socket.say({ t: "sig", s: "px", a: 4, b: 5, d: [{ o: 5, id: "x5", type: "t", entity: "e", ts: 1, data: null }] });
    const rest = [await loop.next(), await loop.next(), await loop.next()].map(({ value }) => value.offset);
    assert.deepEqual(rest, [3, 4, 5]);
  });

  it("with overflow drop the oldest give way to one gap", async () => {
    const world = new World();
    const sub = world.client.subscribe({ buffer: 2, overflow: "drop" });
    world.greet();
    world.signals(0, 1, 2, 3);
    world.signals(3, 4);
    const loop = sub[Symbol.asyncIterator]();
    const gap = (await loop.next()).value;
    assert.deepEqual([gap.kind, gap.after, gap.upto, gap.reason], ["gap", 0, 2, "slow"]);
    assert.equal((await loop.next()).value.offset, 3);
  });

  it("a refused subscription fails alone, with the server's words", async () => {
    const world = new World();
    const bad = world.client.subscribe({ name: "bad", where: { f: "/x", op: "gtt" } });
    world.greet({ subs: [{ t: "err", s: "bad", code: 422, slug: "bad_filter", msg: "unknown operator 'gtt'", retry: false }] });
    await assert.rejects(bad[Symbol.asyncIterator]().next(), (error) => error instanceof SignalError && /'gtt'/.test(error.message));
    assert.equal(world.client.state.state, "connected");
    world.client.subscribe({ name: "bad" }); // the name is free again
  });

  it("two subscriptions of one name are refused", () => {
    const { client } = new World();
    client.subscribe({ name: "px" });
    assert.throws(() => client.subscribe({ name: "px" }), /subscribed already/);
  });
});

describe("the link", () => {
  it("a silent link is given up after ping_ms + dead_ms and dialled again", () => {
    const world = new World();
    world.greet();
    const [first] = world.sockets;
    world.pass(34_999);
    assert.equal(first.closedWith, undefined);
    assert.ok(first.sent.some(({ t }) => t === "ping"));
    world.pass(1);
    assert.equal(first.closedWith, 4198);
    world.pass(250);
    assert.equal(world.sockets.length, 2);
  });

  it("after a jump of the clock the link is asked at once and has dead_ms to answer", () => {
    const world = new World();
    world.greet();
    world.pass(12_500); // the first beat; the next deadline is at 35 s
    const before = world.socket.sent.length;
    world.time = 600_000;
    world.pass(0);
    assert.equal(world.socket.sent.length, before + 1);
    world.socket.say({ t: "pong" });
    world.pass(20_000);
    assert.equal(world.sockets.length, 1);
  });

  it("a wall clock that is set back stops nothing", () => {
    const world = new World();
    world.greet();
    world.pass(10_000);
    world.time -= 3_600_000;
    for (const timer of world.timers.values()) timer.at -= 3_600_000;
    world.pass(36_000);
    assert.equal(world.sockets[0].closedWith, 4198);
  });

  it("no answer within 5 s is tried again", () => {
    const world = new World();
    world.pass(5_250);
    assert.equal(world.sockets[0].closedWith, 4198);
    assert.equal(world.sockets.length, 2);
  });

  it("a close code 40xx stops, tells and fails what waits", async () => {
    const world = new World();
    const sub = world.client.subscribe();
    const answer = world.client.publish({ type: "t", entity: "e" });
    world.socket.open();
    world.socket.say({ t: "err", id: 1, code: 401, slug: "unauthenticated", msg: "token expired", retry: false });
    world.socket.end(4004);
    assert.deepEqual([world.client.state.state, world.client.state.terminal], ["closed", true]);
    assert.match(world.client.state.reason, /token expired/);
    await assert.rejects(answer, SignalError);
    await assert.rejects(sub[Symbol.asyncIterator]().next(), /4004/);
    world.pass(120_000);
    assert.equal(world.sockets.length, 1);
  });

  it("close ends loops, publications and timers", async () => {
    const world = new World();
    const sub = world.client.subscribe();
    const answer = world.client.publish({ type: "t", entity: "e" });
    world.greet();
    world.client.close();
    await assert.rejects(answer, /closed before/);
    assert.equal((await sub[Symbol.asyncIterator]().next()).done, true);
    assert.equal(world.timers.size, 0);
    assert.equal(world.socket.closedWith, 1000);
    assert.throws(() => world.client.subscribe(), /make another one/);
  });
});

describe("publishing", () => {
  it("waits for the connection and resolves with the offset", async () => {
    const world = new World();
    const answer = world.client.publish({ type: "t", entity: "e", data: { p: 1 }, id: "k" });
    world.greet();
    const { t, id, signal } = world.socket.sent.at(-1);
    assert.deepEqual([t, signal], ["pub", { type: "t", entity: "e", data: { p: 1 }, id: "k" }]);
    world.socket.say({ t: "ok", id, o: 9, epoch: "E", dup: false });
    assert.deepEqual(await answer, { id: "k", epoch: "E", offset: 9, dup: false });
  });

  it("is repeated under the same id after a lost connection", async () => {
    const world = new World();
    world.greet();
    const answer = world.client.publish({ type: "t", entity: "e" });
    const first = world.socket.sent.at(-1).signal.id;
    world.socket.end(1006);
    world.pass(500);
    world.greet();
    const again = world.socket.sent.at(-1);
    assert.equal(again.signal.id, first);
    world.socket.say({ t: "ok", id: again.id, o: 1, epoch: "E", dup: true });
    assert.equal((await answer).dup, true);
  });

  it("is bounded while nobody answers", async () => {
    const world = new World();
    const answers = Array.from({ length: 1_000 }, () => world.client.publish({ type: "t", entity: "e" }));
    await assert.rejects(world.client.publish({ type: "t", entity: "e" }), /1000 publications/);
    world.client.close();
    assert.equal((await Promise.allSettled(answers)).length, 1_000);
  });
});
