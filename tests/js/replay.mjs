// The machine as a program: one case per line of the input, `{ random, steps }`; for each step what the machine answered.
import { createInterface } from "node:readline";

import { Connection } from "../../actors/client/js/src/index.js";

function draws(list) {
  let next = 0;
  return () => list[Math.min(next++, list.length - 1)];
}

function given(machine, { app, opened, receive, closed, now, socket }) {
  if (app === "start") return machine.start();
  if (app === "stop") return machine.stop();
  if (app?.subscribe) return machine.subscribe(app.subscribe);
  if (app?.modify) return machine.modify(app.modify);
  if (app?.unsubscribe) return machine.unsubscribe(app.unsubscribe);
  if (app?.publish) return machine.publish(app.publish);
  if (opened) return machine.opened({}, socket);
  if (receive !== undefined) return machine.receive(receive, socket);
  if (closed !== undefined) return machine.closed(closed, "", socket);
  return machine.tick(now);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { random, steps } = JSON.parse(line);
  const machine = new Connection({ random: draws(random) });
  let sockets = 1;
  const answers = steps.map((step) => {
    let events;
    try {
      events = given(machine, step);
    } catch (error) {
      return { failed: error.stack };
    }
    for (const { e, socket } of events) if (e === "open") sockets = Math.max(sockets, socket);
    const sent = Array.from({ length: sockets }, (_, index) => machine.takeOutgoing(index + 1).map((text) => JSON.parse(text)));
    return { events: events.map((event) => (event.signals !== undefined ? { ...event, signals: undefined, o: event.signals.map(({ o }) => o) } : event)), sent, deadline: machine.deadline };
  });
  console.log(JSON.stringify(answers));
}
