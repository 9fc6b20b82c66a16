// Phones and laptops: hours without a network, networks that change, sleep, clocks that are set. All in fake time.
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { World, settled, signal, subok } from "./world.mjs";

const HOUR_MS = 3_600_000;

function watched(options) {
  const world = new World(options);
  const seen = [];
  const states = [];
  world.client.on("state", ({ state }) => states.push(state));
  world.client.subscribe({ name: "px" }).on("signal", ({ offset }) => seen.push(offset));
  return { world, seen, states };
}

describe("without a network", () => {
  it("hours offline cost a dial in five minutes, and the way back begins at once and loses nothing", () => {
    const { world, seen, states } = watched();
    world.greet();
    world.signals(0, 1);
    world.tell("offline");
    world.socket.end(1006);
    assert.equal(world.client.state.state, "offline");
    const dialled = world.sockets.length;
    for (let minutes = 0; minutes < 6 * 60; minutes += 1) {
      world.pass(60_000);
      if (world.socket.readyState === 0) world.socket.end(1006); // there is no network
    }
    assert.ok(world.sockets.length - dialled <= 6 * 12 + 1, `${world.sockets.length - dialled} dials in six hours`);
    const before = world.sockets.length;
    world.tell("online");
    assert.equal(world.sockets.length, before + 1);
    assert.deepEqual(world.greet().subs[0].from, { cursor: "E:1" });
    world.signals(1, 2, 3);
    assert.deepEqual(seen, [1, 2, 3]);
    assert.ok(states.includes("offline"));
  });

  it("the word offline alone closes nothing: a link that works goes on", () => {
    const { world, seen } = watched();
    world.greet();
    world.tell("offline");
    world.signals(0, 1);
    assert.equal(world.sockets.length, 1);
    assert.deepEqual(seen, [1]);
  });

  it("subscriptions and publications made offline wait, and go in the order they were made", async () => {
    const world = new World();
    world.tell("offline");
    world.socket.end(null);
    world.client.subscribe({ name: "later" });
    const answers = ["a", "b"].map((id) => world.client.publish({ type: "t", entity: "e", id }));
    world.pass(HOUR_MS);
    world.tell("online");
    assert.equal(world.greet().subs[0].s, "later");
    const sent = world.socket.sent.filter(({ t }) => t === "pub");
    assert.deepEqual(sent.map(({ signal: { id } }) => id), ["a", "b"]);
    world.socket.say(...sent.map(({ id }, index) => ({ t: "ok", id, o: index + 1, epoch: "E", dup: false })));
    assert.deepEqual((await Promise.all(answers)).map(({ offset }) => offset), [1, 2]);
  });
});

describe("another network", () => {
  it("the link is doubted at once: a dead one is left within dead_ms, not ping_ms + dead_ms", () => {
    const { world } = watched();
    world.greet();
    world.pass(1_000);
    world.tell("online");
    assert.equal(world.socket.sent.at(-1).t, "ping");
    world.pass(9_999);
    assert.equal(world.sockets.length, 1);
    world.pass(1);
    assert.equal(world.sockets[0].closedWith, 4198);
    world.pass(250);
    assert.equal(world.sockets.length, 2);
  });

  it("one that works is kept, however often the network changes", () => {
    const { world } = watched();
    world.greet();
    for (let turn = 0; turn < 50; turn += 1) {
      world.tell(turn % 2 ? "online" : "offline");
      world.pass(3_000);
      world.socket.say({ t: "pong" });
    }
    assert.equal(world.sockets.length, 1);
    assert.equal(world.client.state.state, "connected");
  });

  it("doubt upon doubt gives a dead link no second chance", () => {
    const { world } = watched();
    world.greet();
    for (let turn = 0; turn < 11; turn += 1) {
      world.tell("visible");
      world.pass(1_000);
    }
    assert.equal(world.sockets[0].closedWith, 4198);
  });
});

describe("sleep", () => {
  it("after a long sleep the dead socket is replaced at once", () => {
    const { world, seen } = watched();
    world.greet();
    world.signals(0, 1);
    world.sleep(8 * HOUR_MS);
    assert.equal(world.sockets[0].closedWith, 4198);
    assert.equal(world.sockets.length, 2);
    assert.deepEqual(world.greet().subs[0].from, { cursor: "E:1" });
    world.signals(1, 2);
    assert.deepEqual(seen, [1, 2]);
  });

  it("a page hidden for ten minutes with frozen timers catches up when it is shown", () => {
    const { world, seen } = watched();
    world.greet();
    world.time += 600_000; // no timer ran
    world.tell("visible");
    assert.equal(world.sockets.length, 2);
    world.greet();
    world.signals(0, 1, 2);
    assert.deepEqual(seen, [1, 2]);
  });

  it("a short nap costs one question", () => {
    const { world } = watched();
    world.greet();
    world.pass(5_000);
    world.socket.say({ t: "pong" });
    world.time += 30_000;
    world.tell("visible");
    assert.equal(world.socket.sent.at(-1).t, "ping");
    world.socket.say({ t: "pong" });
    world.pass(1_000);
    assert.equal(world.sockets.length, 1);
  });
});

describe("clocks that are set", () => {
  it("back by a day: heartbeats and back-off go on", () => {
    const { world } = watched();
    world.greet();
    world.time -= 24 * HOUR_MS;
    for (const timer of world.timers.values()) timer.at -= 24 * HOUR_MS;
    for (let turn = 0; turn < 4; turn += 1) {
      world.pass(25_000);
      world.socket.say({ t: "pong" });
    }
    assert.ok(world.socket.sent.filter(({ t }) => t === "ping").length >= 3);
    world.socket.end(1006);
    world.pass(250);
    assert.equal(world.sockets.length, 2);
  });

  it("ahead by a day: the link is replaced, and nothing is lost", () => {
    const { world, seen } = watched();
    world.greet();
    world.signals(0, 1);
    world.sleep(24 * HOUR_MS);
    world.greet();
    world.signals(1, 2);
    assert.deepEqual(seen, [1, 2]);
  });
});

describe("what is injected", () => {
  it("with a watch of its own the client asks nothing of a DOM, and stops watching when it is closed", () => {
    let stopped = 0;
    const world = new World({ watch: () => () => (stopped += 1) });
    world.client.close();
    assert.equal(stopped, 1);
  });

  it("a store of promises is read before the subscription is made, and written as the application goes on", async () => {
    const kept = new Map();
    const store = {
      getItem: async (key) => kept.get(key),
      setItem: async (key, value) => void kept.set(key, value),
    };
    const first = new World({ cursorStore: store });
    first.client.subscribe({ name: "px", types: ["t", "u"] }).on("signal", () => {});
    await settled();
    first.greet();
    first.signals(0, 1, 2);
    first.pass(250);
    await settled();
    assert.deepEqual([...kept.values()], ["E:2"]);

    const second = new World({ cursorStore: store });
    second.client.subscribe({ name: "px", types: ["u", "t"], since: "earliest" });
    second.client.subscribe({ name: "px2", types: ["t", "u"], since: "earliest" });
    await settled();
    const [px, px2] = second.greet().subs;
    assert.deepEqual([px.from, px2.from], [{ cursor: "E:2" }, "earliest"]);
  });

  it("another filter under the same name begins where it was asked to", () => {
    const kept = new Map();
    const store = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) };
    const first = new World({ cursorStore: store });
    first.client.subscribe({ name: "px", types: "t" }).on("signal", () => {});
    first.greet();
    first.signals(0, 1);
    first.tell("hidden"); // no timer may run any more: what is not saved now is late
    assert.equal(kept.size, 1);
    const second = new World({ cursorStore: store });
    second.client.subscribe({ name: "px", types: "u" });
    assert.equal(second.greet().subs[0].from, "now");
  });

  it("a signal that a handler is still busy with comes again after a crash", async () => {
    const kept = new Map();
    const store = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) };
    const world = new World({ cursorStore: store });
    const done = [];
    world.client.subscribe({ name: "px" }).on("signal", ({ offset }) => new Promise((resolve) => done.push([offset, resolve])));
    world.greet();
    world.signals(0, 1, 2);
    assert.deepEqual(done.map(([offset]) => offset), [1]); // the second waits for the first
    done[0][1]();
    await settled();
    world.pass(250);
    assert.deepEqual([...kept.values()], ["E:1"]);
    assert.deepEqual(done.map(([offset]) => offset), [1, 2]);
  });

  it("a store that fails stops nothing", () => {
    const told = [];
    globalThis.reportError = (error) => told.push(error.message);
    try {
      const broken = () => {
        throw new Error("quota");
      };
      const world = new World({ cursorStore: { getItem: broken, setItem: broken } });
      const seen = [];
      world.client.subscribe({ name: "px" }).on("signal", ({ offset }) => seen.push(offset));
      world.greet();
      world.signals(0, 1);
      world.pass(250);
      assert.deepEqual([seen, told], [[1], ["quota", "quota"]]);
    } finally {
      delete globalThis.reportError;
    }
  });

  it("a store without getItem is refused with what is allowed", () => {
    assert.throws(() => new World({ cursorStore: {} }), /getItem and setItem/);
    assert.throws(() => new World({ cursorStore: "session" }), /getItem and setItem/);
  });
});

describe("a server that goes away", () => {
  it("the next socket is opened first, and the old one is left when the new one has everything", () => {
    const { world, seen } = watched();
    world.greet({ features: ["goaway"] });
    world.signals(0, 1);
    const [old] = world.sockets;
    old.say({ t: "goaway", reason: "shutdown", after_ms: [0, 4_000], deadline_ms: 10_000, url: "http://other.test/v1/stream" });
    world.pass(2_000);
    assert.equal(world.sockets.length, 2);
    assert.equal(world.socket.url, "ws://other.test/v1/stream");
    old.say({ t: "sig", g: 7, a: 1, b: 2, d: [signal(2)] });
    world.socket.open();
    assert.deepEqual(world.socket.sent[0].subs[0].from, { cursor: "E:2" });
    old.say({ t: "sig", g: 7, a: 2, b: 3, d: [signal(3)] });
    world.socket.say({ t: "welcome", id: 1, session: "s", resume: "r2", resumed: true, epoch: "E", head: 3, oldest: 1, now: 0, ping_ms: 25e3, dead_ms: 10e3, limits: {}, server: "x", subs: [subok("px", "E:2", { recovered: true })] });
    world.socket.say({ t: "live", s: "px", g: 7, b: 2 });
    assert.equal(old.closedWith, undefined);
    world.signals(2, 3, 4);
    assert.equal(old.closedWith, 1000);
    assert.deepEqual(seen, [1, 2, 3, 4]);
    assert.equal(world.client.state.state, "connected");
  });
});
