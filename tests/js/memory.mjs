// A million signals through one client: `node --expose-gc memory.mjs [SIGNALS]`; prints the heap, in bytes, after each tenth.
import { World, settled } from "./world.mjs";

const SIGNALS = Number(process.argv[2] ?? 1_000_000);
const FRAME = 100;

const kept = new Map();
const world = new World({ cursorStore: { getItem: () => null, setItem: (key, cursor) => void kept.set(key, cursor) } });
const seen = { handled: 0, looped: 0 };
world.client.subscribe({ name: "handled" }).on("signal", () => (seen.handled += 1));
world.client.subscribe({ name: "latest", overflow: "latest", buffer: 100 }); // nobody reads it
world.client.subscribe({ name: "dropped", overflow: "drop_oldest", buffer: 100 });
const looped = world.client.subscribe({ name: "looped" });
(async () => {
  for await (const { kind } of looped) seen.looped += kind === "signal";
})();
world.greet();

/** What is still in use, and not what was and is not collected yet. */
async function heap() {
  await settled();
  gc();
  return process.memoryUsage().heapUsed;
}

const heaps = [];
for (let offset = 0; offset < SIGNALS; offset += FRAME) {
  world.signals(offset, ...Array.from({ length: FRAME }, (_, n) => offset + n + 1));
  world.pass(10); // cursors are saved, the link is asked
  const answer = world.client.publish({ type: "t", entity: "e" });
  const { id } = world.socket.sent.at(-1);
  world.socket.say({ t: "ok", id, o: 1, epoch: "E", dup: false }, { t: "pong" });
  await answer;
  await settled(); // the loop reads on
  world.socket.sent.length = 0;
  if ((offset + FRAME) % (SIGNALS / 10) === 0) heaps.push(await heap());
}
console.log(JSON.stringify({ ...seen, cursors: kept.size, heaps }));
world.client.close();
