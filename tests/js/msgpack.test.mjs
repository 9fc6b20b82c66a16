// MessagePack: what an application sees is the same, and what JSON has not is refused.
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { msgpack } from "../../actors/client/js/src/msgpack.js";
import { World, settled } from "./world.mjs";

const bytes = (...values) => Uint8Array.from(values).buffer;
const text = (value) => [0xa0 + value.length, ...new TextEncoder().encode(value)];

/** The value after a way there and back. */
function again(value) {
  const [read, ...more] = msgpack.parse(msgpack.encode(JSON.stringify(value)).slice().buffer);
  assert.deepEqual(more, []);
  return read;
}

describe("values", () => {
  it("come back as they were, at every border of a length", () => {
    const edges = [0, 1, 31, 32, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1];
    for (const edge of edges) for (const value of [edge, -edge - 1, edge + 0.5]) {
      if (Number.isSafeInteger(Math.floor(value))) assert.equal(again(value), value);
    }
    for (const length of [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536]) {
      assert.equal(again("x".repeat(length)), "x".repeat(length));
      const array = Array(length).fill(null);
      const object = Object.fromEntries(array.map((_, n) => [`k${n}`, n % 2 === 0]));
      for (const value of [array, object]) assert.equal(JSON.stringify(again(value)), JSON.stringify(value));
    }
    for (const value of ["ä€𝄞", "\0\u007f\u0080\u07ff\u0800\uffff", "%41", { "": [{}, [[]]] }, 1.1, 5e-324, 1.7e308]) assert.deepEqual(again(value), value);
  });

  it("a key __proto__ is a key like every other", () => {
    const value = again(JSON.parse('{"__proto__":{"p":1},"q":2}'));
    assert.deepEqual(Object.keys(value), ["__proto__", "q"]);
    assert.equal(value.p, undefined);
  });

  it("half of a surrogate pair becomes what a WebSocket makes of it", () => {
    assert.equal(again("a\ud800b"), "a\ufffdb");
  });

  it("a view inside a larger buffer is read alone, as Node's are", () => {
    assert.deepEqual(msgpack.parse(new Uint8Array([1, 2, 3, 4]).subarray(1, 3)), [2, 3]);
  });
});

describe("what is refused", () => {
  const refused = {
    "bytes": [0xc4, 1, 0],
    "an extension": [0xd4, 1, 0],
    "the unused mark": [0xc1],
    "NaN": [0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
    "Infinity": [0xca, 0x7f, 0x80, 0, 0],
    "an integer beyond 2^53": [0xcf, 0, 0x20, 0, 0, 0, 0, 0, 1],
    "one below −2^53": [0xd3, 0xff, 0xdf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    "a number as key": [0x81, 1, 2],
    "an array as key": [0x81, 0x90, 2],
    "a key twice": [0x82, ...text("a"), 1, ...text("a"), 2],
    "text that is not UTF-8": [0xa2, 0xc3, 0x28],
    "an overlong form": [0xa2, 0xc0, 0x80],
    "a surrogate in UTF-8": [0xa3, 0xed, 0xa0, 0x80],
    "what is cut short": [0x92, 1],
    "a length that nothing follows": [0xdd, 0xff, 0xff, 0xff, 0xff],
    "a text that is cut short": [0xdb, 0xff, 0xff, 0xff, 0xff, 1],
    "what is nested deeper than 128": Array(200).fill(0x91),
  };
  for (const [name, data] of Object.entries(refused)) {
    it(name, () => {
      const [good, error, ...more] = msgpack.parse(bytes(7, ...data));
      assert.equal(good, 7, "what comes before stands");
      assert.ok(error instanceof Error, String(error));
      assert.deepEqual(more, []);
    });
  }

  it("a text frame that is no ping and no pong", () => {
    assert.deepEqual(msgpack.parse('{"t":"pong"}'), [{ t: "pong" }]);
    assert.ok(msgpack.parse('{"t":"live"}')[0] instanceof Error);
  });
});

describe("a client with it", () => {
  it("offers the subprotocol, reads and publishes, and pings with the text that wakes nobody", async () => {
    const world = new World({ encoding: msgpack });
    const frames = [];
    const send = world.socket.send;
    world.socket.send = function (frame) {
      frames.push(frame);
      return send.call(this, frame);
    };
    assert.deepEqual(world.socket.protocols, ["signals.v1.msgpack"]);
    assert.equal(world.socket.binaryType, "arraybuffer");
    const seen = [];
    world.client.subscribe({ name: "px" }).on("signal", ({ offset }) => seen.push(offset));
    world.greet();
    world.signals(0, 1, 2);
    const answer = world.client.publish({ type: "t", entity: "e", data: "ä", id: "k" });
    const { id, signal } = world.socket.sent.at(-1);
    assert.deepEqual(signal, { type: "t", entity: "e", data: "ä", id: "k" });
    world.socket.say({ t: "ok", id, o: 3, epoch: "E", dup: false });
    assert.equal((await answer).offset, 3);
    world.pass(30_000);
    assert.ok(frames.includes('{"t":"ping"}'));
    assert.ok(frames.filter((frame) => typeof frame !== "string").length >= 2);
    assert.deepEqual(seen, [1, 2]);
  });

  it("a publication is measured as it is sent", async () => {
    const world = new World({ encoding: msgpack });
    world.greet({ limits: { msg_bytes: 1_000 } });
    const floats = world.client.publish({ type: "t", entity: "e", data: Array(200).fill(0.5) }); // 800 bytes of JSON, 1,800 so
    await assert.rejects(floats, ({ slug }) => slug === "too_large");
    const numbers = world.client.publish({ type: "t", entity: "e", data: Array(300).fill(100) }); // the other way round
    await settled();
    assert.equal(world.socket.sent.at(-1).t, "pub");
    world.client.close();
    await assert.rejects(numbers, /closed/);
  });

  it("a frame that cannot be read ends the connection, which begins again at the cursor", () => {
    const world = new World({ encoding: msgpack });
    world.client.subscribe({ name: "px" });
    world.greet();
    world.signals(0, 1);
    world.socket.onmessage({ data: bytes(0xc1) });
    assert.equal(world.sockets[0].closedWith, 4199);
    world.pass(500);
    assert.deepEqual(world.greet().subs[0].from, { cursor: "E:1" });
  });
});
