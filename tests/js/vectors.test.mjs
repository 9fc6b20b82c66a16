// The vectors that every client of signals.v1 passes; their format is in actors/protocol/vectors/README.md.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";

import { Connection, afterClose, backoffMs } from "../../actors/client/js/src/index.js";
import { msgpack } from "../../actors/client/js/src/msgpack.js";
import { packed } from "./world.mjs";

const folder = new URL("../../actors/protocol/vectors/", import.meta.url);
const load = (name) => JSON.parse(readFileSync(new URL(name, folder), "utf8"));

/** Whether `seen` has everything that `wanted` names; where it does not, the assertion shows both. */
function assertMatches(seen, wanted, at) {
  if (wanted === null) return assert.equal(seen ?? null, null, at);
  if (typeof wanted !== "object") return assert.deepEqual(seen, wanted, at);
  if (Array.isArray(wanted)) {
    assert.ok(Array.isArray(seen) && seen.length === wanted.length, `${at}: saw ${JSON.stringify(seen)}, not ${JSON.stringify(wanted)}`);
    return wanted.forEach((each, index) => assertMatches(seen[index], each, `${at}[${index}]`));
  }
  assert.equal(typeof seen, "object", `${at}: saw ${JSON.stringify(seen)}`);
  for (const [key, value] of Object.entries(wanted)) assertMatches(seen[key], value, `${at}.${key}`);
}

function draws(list = [0.5]) {
  let next = 0;
  return () => list[Math.min(next++, list.length - 1)];
}

/** What a step receives, in the encoding of the machine; a line that is no JSON becomes what is no MessagePack. */
function encoded(text, encoding) {
  if (encoding === undefined || text === '{"t":"pong"}') return text;
  return Uint8Array.from(text.split("\n").flatMap((line) => [...packed(line)])).buffer;
}

function feed(machine, step, encoding) {
  const { socket } = step;
  if (step.app === "start") return machine.start();
  if (step.app === "stop") return machine.stop();
  if (step.app?.subscribe) return machine.subscribe(step.app.subscribe);
  if (step.app?.modify) return machine.modify(step.app.modify);
  if (step.app?.unsubscribe) return machine.unsubscribe(step.app.unsubscribe);
  if (step.app?.publish) return machine.publish(step.app.publish);
  if (step.app?.auth) return machine.auth(step.app.auth, socket);
  if (step.opened) return machine.opened({}, socket);
  if (step.receive !== undefined) return machine.receive(encoded(step.receive, encoding), socket);
  if (step.closed !== undefined) return machine.closed(step.closed, "", socket);
  if (step.now !== undefined) return machine.tick(step.now);
  throw new Error(`an input this runner does not know: ${JSON.stringify(step)}`);
}

function shown(event) {
  return event.signals !== undefined ? { ...event, o: event.signals.map(({ o }) => o) } : event;
}

for (const file of readdirSync(folder).filter((name) => /^(client-.*|ack|auth|hand-over|modify)\.json$/.test(name))) {
  const encodings = [["JSON", undefined], ["MessagePack", msgpack]];
  for (const [title, encoding] of encodings) describe(`${file} in ${title}`, () => {
    for (const { name, random, features, steps } of load(file)) {
      it(name, () => {
        const machine = new Connection({ random: draws(random), features: features ?? ["goaway"], encoding });
        let sockets = 1;
        steps.forEach((step, index) => {
          const at = `step ${index} ${JSON.stringify(step).slice(0, 160)}`;
          const events = feed(machine, step, encoding).map(shown);
          for (const { e, socket } of events) if (e === "open") sockets = socket;
          const sent = [];
          for (let socket = 1; socket <= sockets; socket += 1) {
            for (const text of machine.takeOutgoing(socket)) {
              const frame = encoding === undefined ? text : encoding.encode(text);
              const [message] = encoding === undefined ? [JSON.parse(text)] : encoding.parse(frame);
              if (message.t === "ping") assert.equal(frame, '{"t":"ping"}');
              sent.push({ ...message, socket });
            }
          }
          assertMatches(events, step.expect?.events ?? [], `${at} events`);
          assertMatches(sent, step.expect?.send ?? [], `${at} send`);
        });
      });
    }
  });
}

describe("backoff.json", () => {
  const { delays, after_close: closes } = load("backoff.json");
  for (const { attempt, random, delay_ms: delay } of delays) {
    it(`attempt ${attempt} with draw ${random} waits ${delay} ms`, () => {
      assert.equal(Math.floor(backoffMs(attempt, random)), Math.floor(delay));
    });
  }
  for (const { code, does } of closes) it(`close ${code}: ${does}`, () => assert.equal(afterClose(code), does));
});
