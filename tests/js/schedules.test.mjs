// Random schedules of faults: every matching signal comes once and in order, or a gap covers it. All in fake time.
import assert from "node:assert/strict";
import { it } from "node:test";

import { msgpack } from "../../actors/client/js/src/msgpack.js";
import { WELCOME, World, signal, subok } from "./world.mjs";

const SCHEDULES = 1_000;
const STEPS = 60;

/** A small generator (mulberry32): a schedule is known by its number. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A server with a log in which every offset that is no multiple of three matches. */
class Server {
  epoch = 0;
  replaced = 0;
  head = 0;
  oldest = 1;
  links = []; // { socket, c, heard, joined, dead }
  reached = new Map(); // epoch → the offset up to which the application has all, or was told of a gap

  constructor(world, draw) {
    Object.assign(this, { world, draw });
  }

  matching(a, b) {
    return Array.from({ length: b - a }, (_, index) => signal(a + 1 + index)).filter(({ o }) => o % 3 !== 0);
  }

  /** Take new sockets in, answer what was asked, and send what is new. */
  serve() {
    for (const socket of this.world.sockets) {
      if (socket.readyState === 0) {
        this.links.push({ socket, c: 0, heard: 0, dead: false });
        socket.open();
      }
    }
    for (const link of this.links) if (!link.dead) this.hear(link);
    this.links = this.links.filter(({ socket, dead }) => socket.readyState === 1 || dead);
  }

  hear(link) {
    const { socket } = link;
    while (link.heard < socket.sent.length && socket.readyState === 1) {
      const message = socket.sent[link.heard++];
      if (message.t === "ping") socket.say({ t: "pong" });
      else if (message.t === "hello") {
        const accepted = (message.subs ?? []).map((sub) => this.accept(link, sub));
        const epoch = `E${this.epoch}`;
        socket.say({ ...WELCOME, epoch, features: ["goaway"], subs: accepted.map(([answer]) => answer) });
        const older = this.links.slice(0, this.links.indexOf(link)).filter(({ socket: { readyState } }) => readyState === 1);
        if (socket.readyState === 1 && this.draw() < 0.3) for (const one of older) this.replace(one);
        for (const [, more] of accepted) socket.say(...more);
      } else if (message.t === "sub") {
        const [answer, more] = this.accept(link, message);
        socket.say({ ...answer, id: message.id }, ...more);
      }
    }
    if (link.joined && link.c < this.head && socket.readyState === 1) {
      socket.say({ t: "sig", g: 7, a: link.c, b: this.head, d: this.matching(link.c, this.head) });
      link.c = this.head;
    }
  }

  accept(link, { from }) {
    link.joined = true;
    const epoch = `E${this.epoch}`;
    const [, asked, at] = /^(.*):(\d+)$/.exec(from.cursor ?? "") ?? [];
    let c = asked === epoch ? Number(at) : this.oldest - 1;
    const more = [];
    let recovered = asked === undefined ? null : asked === epoch;
    let lost = null;
    const begins = c;
    if (asked !== epoch && !this.reached.has(epoch)) this.reached.set(epoch, begins);
    if (asked === epoch && c < this.oldest - 1) {
      [recovered, lost] = [false, { a: c, b: this.oldest - 1 }];
      more.push({ t: "gap", s: "px", a: c, b: this.oldest - 1, reason: "retention" });
      c = this.oldest - 1;
    }
    if (this.head > c) more.push({ t: "sig", s: "px", a: c, b: this.head, d: this.matching(c, this.head) });
    link.c = this.head;
    more.push({ t: "live", s: "px", g: 7, b: this.head });
    return [subok("px", `${epoch}:${begins}`, { recovered, lost }), more];
  }

  end(link, code) {
    link.dead = true;
    if (link.socket.readyState === 1) link.socket.end(code);
  }

  /** A newer socket of its session has its place, although that one is not live yet. */
  replace(link) {
    this.replaced += 1;
    this.end(link, 4202);
  }

  /** The log begins anew under another epoch; who is connected is told, or cut off. */
  restore(told) {
    Object.assign(this, { epoch: this.epoch + 1, head: 0, oldest: 1 });
    for (const link of this.links) {
      if (!told) this.end(link, 1006);
      else if (link.joined && !link.dead) link.socket.say({ t: "reset", epoch: `E${this.epoch}`, head: 0, reason: "restored" });
      link.joined = false;
    }
  }

  fault() {
    const link = this.links[Math.floor(this.draw() * this.links.length)];
    const chance = this.draw();
    if (chance < 0.08) this.oldest = Math.max(this.oldest, Math.min(this.head + 1, this.oldest + 20));
    else if (chance < 0.12) this.restore(this.draw() < 0.5);
    else if (chance < 0.15) this.world.sleep(this.draw() * 200_000); // and all timers are late
    else if (chance < 0.2) this.world.tell(["offline", "online", "visible", "hidden"][Math.floor(this.draw() * 4)]);
    else if (chance < 0.25) for (const one of this.links) this.end(one, null);
    else if (link === undefined) return;
    else if (chance < 0.45) this.end(link, 1006);
    else if (chance < 0.6) link.dead = true; // half open: nobody hears anything any more
    else if (chance < 0.7) this.end(link, 4200);
    else if (chance < 0.85) link.socket.say({ t: "goaway", reason: "", after_ms: [0, 2_000], deadline_ms: 4_000 });
    else if (link.joined && chance < 0.93) link.c = Math.min(link.c + 2, this.head); // a frame is lost on the way
    else if (link.joined) link.c = Math.max(link.c - 2, 0); // the next frame repeats some
  }
}

it(`${SCHEDULES} schedules lose nothing without a gap, repeat nothing, and keep the order`, (test) => {
  const failed = [];
  globalThis.reportError = (error) => failed.push(error);
  test.after(() => delete globalThis.reportError);
  let [gaps, signals, replaced] = [0, 0, 0];
  for (let seed = 0; seed < SCHEDULES; seed += 1) {
    const draw = random(seed);
    const world = new World({ random: draw, encoding: seed % 2 ? msgpack : undefined });
    const server = new Server(world, draw);
    const { reached } = server;
    const sub = world.client.subscribe({ name: "px", since: "earliest" });
    sub.on("signal", ({ epoch, offset }) => {
      const from = reached.get(epoch) ?? 0;
      assert.ok(offset > from, `schedule ${seed}: ${epoch}:${offset} after ${from}`);
      for (let o = from + 1; o < offset; o += 1) assert.equal(o % 3, 0, `schedule ${seed}: ${epoch}:${o} is missing`);
      reached.set(epoch, offset);
      signals += 1;
    });
    sub.on("gap", ({ epoch, upto }) => {
      gaps += 1;
      if (upto !== null) reached.set(epoch, Math.max(upto, reached.get(epoch) ?? 0));
    });
    for (let step = 0; step < STEPS; step += 1) {
      if (draw() < 0.6) server.head += Math.floor(draw() * 5);
      if (draw() < 0.2) server.fault();
      server.serve();
      world.pass([10, 500, 3_000, 20_000][Math.floor(draw() * 4)]);
    }
    world.tell("online");
    for (let calm = 0; calm < 16; calm += 1) {
      if (calm === 8) server.head += 2; // one of them matches, and shows a frame that was lost
      server.serve();
      world.pass(20_000);
    }
    const end = reached.get(`E${server.epoch}`) ?? server.oldest - 1;
    assert.deepEqual(server.matching(end, server.head), [], `schedule ${seed}: the end is missing`);
    world.client.close();
    replaced += server.replaced;
    if (failed.length > 0) throw failed[0];
  }
  const seen = `${gaps} gaps, ${signals} signals, ${replaced} sockets that were replaced`;
  assert.ok(gaps > SCHEDULES / 10 && signals > SCHEDULES * 10 && replaced > SCHEDULES / 20, `${seen}: too dull`);
});

it("the waits of a thousand clients that reconnect two hundred times are uniform over the whole bound", () => {
  const waits = [];
  for (let client = 0; client < 1_000; client += 1) {
    const world = new World({ random: random(client) });
    for (let turn = 0; turn < 200; turn += 1) {
      world.socket.end(1006);
      const { delayMs } = world.client.state;
      waits.push((delayMs + 0.5) / Math.min(30_000, 500 * 2 ** turn)); // it is told in whole milliseconds
      world.pass(delayMs + 1);
    }
    world.client.close();
  }
  waits.sort((one, other) => one - other);
  const furthest = waits.reduce((most, wait, index) => Math.max(most, Math.abs(wait - index / waits.length)), 0);
  assert.ok(furthest < 1.63 / Math.sqrt(waits.length), `Kolmogorov-Smirnov: ${furthest}`); // at the level of 1 %
});
