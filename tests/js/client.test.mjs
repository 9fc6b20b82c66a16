// Claims about SignalClient: what an application sees, over a fake socket and a fake clock.
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { SignalClient, SignalError, all, any, f, not } from "../../actors/client/js/src/index.js";
import { World, settled, signal, subok } from "./world.mjs";

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

  it("a token that ends soon is renewed in place", async () => {
    const answers = ["one", "two", null, "three"];
    const world = new World({ token: async () => answers.shift() ?? Promise.reject(new Error("no network")) });
    await settled();
    world.greet();
    const soon = { t: "err", code: 401, slug: "token_expiring", msg: "soon", retry: true };
    world.socket.say(soon);
    await settled();
    assert.deepEqual(world.socket.sent.at(-1), { t: "auth", id: 2, token: "two" });
    world.socket.say({ t: "ok", id: 2, exp_ms: 1 });
    world.socket.say(soon);
    await settled();
    assert.equal(world.socket.sent.at(-1).id, 2); // there was none: the server ends the connection
    world.socket.end(4101);
    world.pass(1_000);
    await settled();
    assert.equal(world.greet().token, "three");
  });

  it("a newer token that is refused is told, and the connection goes on with the one it has", async () => {
    const world = new World({ token: () => "less" });
    await settled();
    const told = [];
    world.client.on("notice", ({ code, slug, message }) => told.push([code, slug, message]));
    world.greet();
    world.socket.say({ t: "err", code: 401, slug: "token_expiring", msg: "soon", retry: true });
    await settled();
    const { id } = world.socket.sent.at(-1);
    world.socket.say({ t: "err", id, code: 403, slug: "forbidden", msg: "it allows less", retry: false });
    assert.deepEqual(told, [[401, "token_expiring", "soon"], [403, "forbidden", "it allows less"]]);
    assert.equal(world.client.state.state, "connected");
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
    world.socket.say(subok("px", "E:4", { id, recovered: true }));
    world.socket.say({ t: "sig", s: "px", a: 4, b: 5, d: [{ o: 5, id: "x5", type: "t", entity: "e", ts: 1, data: null }] });
    const rest = [await loop.next(), await loop.next(), await loop.next()].map(({ value }) => value.offset);
    assert.deepEqual(rest, [3, 4, 5]);
  });

  it("with overflow drop_oldest the oldest give way to one gap", async () => {
    const world = new World();
    const sub = world.client.subscribe({ buffer: 2, overflow: "drop_oldest" });
    world.greet();
    world.signals(0, 1, 2, 3);
    world.signals(3, 4);
    const loop = sub[Symbol.asyncIterator]();
    const gap = (await loop.next()).value;
    assert.deepEqual([gap.kind, gap.after, gap.upto, gap.reason], ["gap", 0, 2, "slow"]);
    assert.equal((await loop.next()).value.offset, 3);
  });

  it("with overflow latest the newest of each type and entity waits, in order", async () => {
    const world = new World();
    const sub = world.client.subscribe({ buffer: 2, overflow: "latest" });
    world.greet();
    for (let o = 1; o <= 9; o += 1) world.socket.say({ t: "sig", g: 7, a: o - 1, b: o, d: [signal(o, `e${o % 2}`)] });
    const loop = sub[Symbol.asyncIterator]();
    assert.deepEqual([(await loop.next()).value.offset, (await loop.next()).value.offset], [8, 9]);
    world.socket.say({ t: "sig", g: 7, a: 9, b: 12, d: [signal(10, "a"), signal(11, "b"), signal(12, "c")] });
    const gap = (await loop.next()).value; // more keys than fit
    assert.deepEqual([gap.after, gap.upto, (await loop.next()).value.offset], [9, 10, 11]);
  });

  it("with overflow error a loop that is too slow fails, and is told so after what it had", async () => {
    const world = new World();
    const sub = world.client.subscribe({ name: "px", buffer: 2, overflow: "error" });
    world.greet();
    world.signals(0, 1, 2, 3);
    const loop = sub[Symbol.asyncIterator]();
    for (const offset of [1, 2, 3]) assert.equal((await loop.next()).value.offset, offset);
    await assert.rejects(loop.next(), ({ slug }) => slug === "overflow");
    assert.equal(world.socket.sent.at(-1).t, "unsub");
    assert.equal(world.client.state.state, "connected");
  });

  it("an unknown overflow policy is refused with those that there are", () => {
    assert.throws(() => new World().client.subscribe({ overflow: "pause" }), /block, drop_oldest, latest, error/);
  });

  it("with ack receive the cursor moves as signals arrive", () => {
    const world = new World();
    const sub = world.client.subscribe({ ack: "receive" });
    world.greet();
    world.signals(0, 1, 2);
    assert.equal(sub.cursor, "E:2");
  });

  it("after a reset there is one gap of reason epoch, and what follows is of the new epoch", () => {
    const world = new World();
    const seen = [];
    const sub = world.client.subscribe({ name: "px" });
    sub.on("gap", ({ reason, after }) => seen.push([reason, after]));
    sub.on("signal", ({ cursor }) => seen.push(cursor));
    world.greet();
    world.signals(0, 1);
    world.socket.say({ t: "reset", epoch: "F", head: 0, reason: "restored" });
    const { id, from } = world.socket.sent.at(-1);
    assert.equal(from, "earliest");
    world.socket.say(subok("px", "F:0", { id }), { t: "live", s: "px", g: 7, b: 0 });
    world.signals(0, 1);
    assert.deepEqual(seen, ["E:1", ["epoch", null], "F:1"]);
  });

  it("an update changes the filter in place, and its backfill is marked and moves no cursor back", async () => {
    const world = new World();
    const seen = [];
    const sub = world.client.subscribe({ name: "px", types: "a" });
    sub.on("signal", ({ offset, snapshot = false }) => seen.push([offset, snapshot]));
    world.greet({ features: ["mod", "snap"] });
    world.signals(0, 5);
    const done = sub.update({ types: "b", backfill: { last: 2 } });
    const { t, id, ...change } = world.socket.sent.at(-1);
    assert.deepEqual([t, change], ["mod", { s: "px", filter: { types: ["b"] }, backfill: { last: 2 } }]);
    world.socket.say(subok("px", "E:5", { id, g: 8 }), { t: "snap", s: "px", b: 5, d: [signal(2), signal(4)], more: false });
    await done;
    assert.equal(sub.cursor, "E:5");
    world.socket.say({ t: "live", s: "px", g: 8, b: 5 }, { t: "sig", g: 8, a: 5, b: 6, d: [signal(6)] });
    assert.deepEqual(seen, [[5, false], [2, true], [4, true], [6, false]]);
  });

  it("what the server does for a slow network is the application's to say, and to change", () => {
    const world = new World();
    const sub = world.client.subscribe({ name: "px", onSlow: "latest" });
    assert.equal(world.greet({ features: ["mod"] }).subs[0].on_slow, "latest");
    sub.update({ onSlow: "skip" });
    const { t, on_slow: changed, mode } = world.socket.sent.at(-1);
    assert.deepEqual([t, changed, mode], ["mod", "skip", undefined]);
    world.socket.say(subok("px", "E:0", { id: 2 }), { t: "live", s: "px", g: 7, b: 0 });
    world.socket.end(1006);
    world.pass(500);
    assert.equal(world.greet().subs[0].on_slow, "skip");
  });

  it("an update that is refused rejects and leaves the subscription as it was", async () => {
    const world = new World();
    const sub = world.client.subscribe({ name: "px", types: "a", latestMs: 500 });
    assert.deepEqual(world.greet({ features: ["mod"] }).subs[0], {
      s: "px", filter: { types: ["a"] }, from: "now", on_gap: "skip", mode: "latest", min_ms: 500,
    });
    const done = sub.update({ types: "x..y" });
    const { id } = world.socket.sent.at(-1);
    world.socket.say({ t: "err", id, code: 422, slug: "bad_filter", msg: "empty token", retry: false });
    await assert.rejects(done, ({ slug }) => slug === "bad_filter");
    assert.equal(sub.state, "live");
  });

  it("conditions are built as the protocol writes them", () => {
    const made = all(f("/data/pct").gte(2.5), any(f("/tags/v").in(["X"]), not(f("/tags/v").exists())));
    assert.deepEqual(made, {
      all: [
        { f: "/data/pct", op: "gte", v: 2.5 },
        { any: [{ f: "/tags/v", op: "in", v: ["X"] }, { not: { f: "/tags/v", op: "exists" } }] },
      ],
    });
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
    world.pass(12_500); // the first beat; the next is at 37.5 s
    world.socket.say({ t: "pong" });
    const before = world.socket.sent.length;
    world.sleep(55_000);
    assert.equal(world.socket.sent.length, before + 1);
    world.socket.say({ t: "pong" });
    world.pass(20_000);
    assert.equal(world.sockets.length, 1);
  });

  it("a binary frame where texts are spoken ends the connection, and no handler of the page fails", () => {
    const world = new World();
    world.greet();
    world.socket.onmessage({ data: new ArrayBuffer(3) });
    assert.equal(world.sockets[0].closedWith, 4199);
    world.pass(500);
    assert.equal(world.sockets.length, 2);
  });

  it("the server is told how far subscriptions are, at most every 5 s", () => {
    const world = new World();
    world.client.subscribe({ name: "px" });
    world.greet({ features: ["ack"] });
    for (let o = 1; o <= 20; o += 1) {
      world.signals(o - 1, o);
      world.pass(1_000);
    }
    const acks = world.socket.sent.filter(({ t }) => t === "ack");
    assert.deepEqual(acks, [5, 10, 15, 20].map((o) => ({ t: "ack", c: { px: o } })));
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

  it("half of a surrogate pair is refused at once, and what only looks like it is sent", async () => {
    const world = new World();
    world.greet();
    for (const data of ["a\ud800b", { "\udc00": 1 }, ["\\\udbff"]]) {
      await assert.rejects(world.client.publish({ type: "t", entity: "e", data }), /lone surrogate/);
    }
    assert.equal(world.socket.sent.length, 1, "only hello");
    const texts = ["\u{1d11e}", "\\ud800", "\\\\ud800", 'a "\\ud83d"'];
    const answers = texts.map((data) => world.client.publish({ type: "t", entity: "e", data }));
    const sent = world.socket.sent.slice(1);
    assert.deepEqual(sent.map(({ signal: { data } }) => data), texts);
    world.socket.say(...sent.map(({ id }, index) => ({ t: "ok", id, o: index + 1, epoch: "E", dup: false })));
    assert.equal((await Promise.all(answers)).length, 4);
  });

  it("is bounded while nobody answers", async () => {
    const world = new World();
    const answers = Array.from({ length: 1_000 }, () => world.client.publish({ type: "t", entity: "e" }));
    await assert.rejects(world.client.publish({ type: "t", entity: "e" }), /1000 publications/);
    world.client.close();
    assert.equal((await Promise.allSettled(answers)).length, 1_000);
  });
});
