// The machine as a program: one case per line of the input, `{ random, encoding, steps }`; for each step what it answered.
import { createInterface } from "node:readline";

import { Connection } from "../../actors/client/js/src/index.js";
import { msgpack } from "../../actors/client/js/src/msgpack.js";

function draws(list) {
  let next = 0;
  return () => list[Math.min(next++, list.length - 1)];
}

function given(machine, { app, opened, receive, binary, closed, now, socket }) {
  if (app === "start") return machine.start();
  if (app === "stop") return machine.stop();
  if (app?.subscribe) return machine.subscribe(app.subscribe);
  if (app?.modify) return machine.modify(app.modify);
  if (app?.unsubscribe) return machine.unsubscribe(app.unsubscribe);
  if (app?.pause) return machine.pause(app.pause);
  if (app?.unpause) return machine.unpause(app.unpause);
  if (app?.publish) return machine.publish(app.publish);
  if (app?.auth) return machine.auth(app.auth, socket);
  if (opened) return machine.opened({}, socket);
  if (receive !== undefined) return machine.receive(receive, socket);
  if (binary !== undefined) return machine.receive(new Uint8Array(Buffer.from(binary, "base64")).buffer, socket);
  if (closed !== undefined) return machine.closed(closed, "", socket);
  return machine.tick(now);
}

/** A frame as it is sent: a text, or the base64 of what is binary. */
function framed(text, encoding) {
  const frame = encoding === undefined ? text : encoding.encode(text);
  return typeof frame === "string" ? { text: frame } : { binary: Buffer.from(frame).toString("base64") };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { random, encoding, steps } = JSON.parse(line);
  const frames = encoding === "msgpack" ? msgpack : undefined;
  const machine = new Connection({ random: draws(random), encoding: frames });
  let sockets = 1;
  const answers = steps.map((step) => {
    let events;
    try {
      events = given(machine, step);
    } catch (error) {
      return { failed: error.stack };
    }
    for (const { e, socket } of events) if (e === "open") sockets = Math.max(sockets, socket);
    const sent = Array.from({ length: sockets }, (_, index) => machine.takeOutgoing(index + 1).map((text) => framed(text, frames)));
    return { events: events.map((event) => (event.signals !== undefined ? { ...event, signals: undefined, o: event.signals.map(({ o }) => o) } : event)), sent, deadline: machine.deadline };
  });
  console.log(JSON.stringify(answers));
}
