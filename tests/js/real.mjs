// Publishes and reads a hundred signals on a real server: `node real.mjs URL ws|undici json|msgpack`; prints the offsets.
import { SignalClient } from "heliograph-client";
import { history } from "heliograph-client/history";
import { msgpack } from "heliograph-client/msgpack";

const [url, packageName, encoding] = process.argv.slice(2);
const { WebSocket } = await import(packageName);
const client = new SignalClient({ url, WebSocket, encoding: encoding === "msgpack" ? msgpack : undefined });
const sub = client.subscribe({ types: "t.>", since: "earliest" });
const data = [null, true, "ä€𝄞", 1.5, -1, 2 ** 40, [1, { a: "b" }], "x".repeat(300)];
const answers = Array.from({ length: 100 }, (_, n) => {
  return client.publish({ type: "t.a", entity: "e", data: data[n % data.length], id: `k${n}`, tags: { n } });
});
const published = (await Promise.all(answers)).map(({ offset }) => offset);
const read = [];
const wrong = [];
for await (const { kind, offset, data: got } of sub) {
  read.push(kind === "signal" ? offset : kind);
  if (JSON.stringify(got) !== JSON.stringify(data[(offset - 1) % data.length])) wrong.push(offset);
  if (read.length === published.length) break;
}
const stored = history({ url, types: "t.>", page: 30 });
const paged = [];
for await (const { offset } of stored) paged.push(offset);
const rest = client.subscribe({ types: "t.>", since: { cursor: stored.cursor } }); // goes on where the pages ended
await client.publish({ type: "t.a", entity: "e" });
for await (const { offset } of rest) {
  paged.push(offset);
  break;
}
client.close();
console.log(JSON.stringify({ published, read, wrong, paged }));
