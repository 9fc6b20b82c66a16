// What is published, in an environment like React Native's: no DOM, no page, and a URL that can only be read.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { createContext, runInContext } from "node:vm";

import { signal, subok, WELCOME } from "./world.mjs";

/** React Native's: it has getters alone, and ends with a slash. */
class NativeUrl {
  #url;
  constructor(url) {
    this.#url = new URL(url);
  }
  get protocol() {
    return this.#url.protocol;
  }
  get pathname() {
    return this.#url.pathname;
  }
  get searchParams() {
    throw new Error("not implemented");
  }
  get href() {
    return `${this.#url.href.replace(/\/$/, "")}/`;
  }
}

/** An app that has required `heliograph-client` and its doors; its sockets and its clock are in the test's hand. */
function app() {
  const sockets = [];
  class WebSocket {
    readyState = 0;
    sent = [];
    constructor(url, protocols) {
      Object.assign(this, { url, protocols });
      sockets.push(this);
    }
    send(frame) {
      this.sent.push(frame);
    }
    close(code) {
      this.readyState = 3;
      this.closedWith = code;
    }
  }
  const time = { now: 0 };
  const world = { WebSocket, URL: NativeUrl, setTimeout() {}, clearTimeout() {}, console };
  const place = createContext(world);
  runInContext("Date.now = () => time.now", Object.assign(place, { time }));
  const loaded = {};
  const require = (name) => {
    const file = name.replace(/^heliograph-client\/?/, "") || "heliograph";
    const text = readFileSync(new URL(`../../actors/client/js/dist/${file}.cjs`, import.meta.url), "utf8");
    if (loaded[file] === undefined) {
      const module = (loaded[file] = { exports: {} });
      runInContext(`(function (module, exports, require) {${text}\n})`, place)(module, module.exports, require);
    }
    return loaded[file].exports;
  };
  return { require, sockets, time };
}

describe("an environment like React Native's", () => {
  it("a client connects, reads, publishes and comes back, by the events of the app alone", async () => {
    const { require, sockets, time } = app();
    const { SignalClient } = require("heliograph-client");
    let tell;
    const kept = new Map();
    const asyncStorage = { getItem: async (key) => kept.get(key) ?? null, setItem: async (key, value) => void kept.set(key, value) };
    const watch = (told) => {
      tell = told;
      return () => {};
    };
    const client = new SignalClient({ url: "https://signals.example/", cursorStore: asyncStorage, watch });
    const seen = [];
    client.subscribe({ name: "px" }).on("signal", ({ offset }) => seen.push(offset));
    await new Promise(setImmediate);
    assert.equal(sockets[0].url, "wss://signals.example/v1/stream");
    const greet = (socket, from) => {
      socket.readyState = 1;
      socket.onopen({});
      const [hello] = socket.sent.map((text) => JSON.parse(text));
      const live = { t: "live", s: "px", g: 7, b: Number(from.split(":")[1]) };
      socket.onmessage({ data: [{ ...WELCOME, subs: [subok("px", from, { recovered: true })] }, live].map((one) => JSON.stringify(one)).join("\n") });
      return hello.subs[0].from;
    };
    greet(sockets[0], "E:0");
    sockets[0].onmessage({ data: JSON.stringify({ t: "sig", g: 7, a: 0, b: 1, d: [signal(1)] }) });
    const answer = client.publish({ type: "t", entity: "e" });
    const sent = JSON.parse(sockets[0].sent.at(-1));
    assert.match(sent.signal.id, /^[\da-z-]{8,}$/, "an id, without Web Crypto");
    sockets[0].onmessage({ data: JSON.stringify({ t: "ok", id: sent.id, o: 2, epoch: "E", dup: false }) });
    assert.equal((await answer).offset, 2);
    tell("hidden");
    assert.deepEqual([...kept.values()], ["E:1"], "kept when the app goes into the background");
    time.now += 8 * 3_600_000;
    tell("online");
    tell("visible");
    assert.equal(sockets.length, 2, "one new socket for both words");
    assert.equal(greet(sockets[1], "E:1").cursor, "E:1");
    sockets[1].onmessage({ data: JSON.stringify({ t: "sig", g: 7, a: 1, b: 3, d: [signal(2), signal(3)] }) });
    assert.deepEqual(seen, [1, 2, 3]);
    client.close();
  });

  it("frames are MessagePack without TextEncoder and TextDecoder", () => {
    const { msgpack } = app().require("heliograph-client/msgpack");
    const text = JSON.stringify({ a: "ä€𝄞", b: [1, -1, 1.5, null, true, 2 ** 40] });
    assert.equal(JSON.stringify(msgpack.parse(msgpack.encode(text))[0]), text);
  });

  it("history is read with what there is of fetch", async () => {
    const { require } = app();
    const asked = [];
    const fetch = async (url) => {
      asked.push(url);
      return Response.json({ a: 0, b: 1, d: [signal(1)], more: false, epoch: "E", oldest: 1, head: 1 });
    };
    const stored = require("heliograph-client/history").history({ url: "https://signals.example", types: "price.>", fetch });
    const read = [];
    for await (const { offset } of stored) read.push(offset);
    assert.deepEqual(read, [1]);
    assert.deepEqual(asked, [`https://signals.example/v1/history?limit=100&filter=${encodeURIComponent('{"types":["price.>"]}')}`]);
  });
});
