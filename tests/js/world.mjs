// A server at the end of fake WebSockets, and the clock of both: what an application sees, without waiting.
import assert from "node:assert/strict";

import { SignalClient } from "../../actors/client/js/src/index.js";
import { msgpack } from "../../actors/client/js/src/msgpack.js";

export const WELCOME = {
  t: "welcome", id: 1, session: "s", resume: "r", resumed: false, epoch: "E", head: 0, oldest: 1, now: 0,
  ping_ms: 25e3, dead_ms: 10e3, limits: {}, server: "x",
};

/** A line of JSON as MessagePack; what is no JSON becomes what is no MessagePack. */
export function packed(line) {
  try {
    return msgpack.encode(`[${line}]`).slice(1); // without the array: a ping alone would stay a text
  } catch {
    return [0xc1];
  }
}

export const subok = (s, from, more = {}) => ({ t: "subok", s, g: 7, from, head: 0, filter: {}, ...more });

export const signal = (o, entity = "e") => ({ o, id: `x${o}`, type: "t", entity, ts: 1, data: { n: o } });

export class World {
  sockets = [];
  time = 0;
  timers = new Map();
  ids = 0;
  tell = () => {}; // of what happens to the page and the network

  constructor(options = {}) {
    const world = this;
    class FakeSocket {
      readyState = 0;
      sent = [];
      constructor(url, protocols) {
        Object.assign(this, { url, protocols });
        world.sockets.push(this);
      }
      send(frame) {
        assert.equal(this.readyState, 1, "sent on a socket that is not open");
        this.sent.push(typeof frame === "string" ? JSON.parse(frame) : msgpack.parse(frame)[0]);
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
        const lines = messages.map((message) => JSON.stringify(message));
        const binary = this.protocols.includes("signals.v1.msgpack");
        this.onmessage?.({ data: binary ? Uint8Array.from(lines.flatMap((line) => [...packed(line)])).buffer : lines.join("\n") });
      }
      end(code, reason = "") {
        this.readyState = 3;
        this.onclose?.({ code, reason });
      }
    }
    this.WebSocket = FakeSocket;
    this.options = {
      url: "http://example.test",
      WebSocket: FakeSocket,
      random: () => 0.5,
      now: () => this.time,
      setTimeout: (work, ms) => {
        this.timers.set((this.ids += 1), { at: this.time + ms, work });
        return this.ids;
      },
      clearTimeout: (id) => this.timers.delete(id),
      watch: (tell) => {
        this.tell = tell;
        return () => (this.tell = null);
      },
      ...options,
    };
    this.client = new SignalClient(this.options);
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

  /** Time goes on and no timer runs: the machine sleeps, or the page is frozen. */
  sleep(ms) {
    this.time += ms;
    this.pass(0);
  }

  /** Open the newest socket and answer its hello. */
  greet({ from = "E:0", ...extra } = {}) {
    this.socket.open();
    const hello = this.socket.sent[0];
    const subs = (hello.subs ?? []).map(({ s, from: asked }) => {
      return subok(s, asked?.cursor ?? from, asked?.cursor ? { recovered: true } : {});
    });
    this.socket.say({ ...WELCOME, subs, ...extra });
    for (const { s, from: at } of subs) this.socket.say({ t: "live", s, g: 7, b: Number(at.split(":")[1]) });
    return hello;
  }

  signals(a, ...offsets) {
    this.socket.say({ t: "sig", g: 7, a, b: Math.max(a, ...offsets), d: offsets.map((o) => signal(o)) });
  }
}

export const settled = () => new Promise((resolve) => setImmediate(resolve));
