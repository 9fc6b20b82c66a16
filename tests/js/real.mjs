// Publishes and reads a hundred signals on a real server: `node real.mjs URL ws|undici`; prints the offsets.
import { SignalClient } from "heliograph";

const [url, packageName] = process.argv.slice(2);
const { WebSocket } = await import(packageName);
const client = new SignalClient({ url, WebSocket });
const sub = client.subscribe({ types: "t.>", since: "earliest" });
const answers = Array.from({ length: 100 }, (_, n) => client.publish({ type: "t.a", entity: "e", data: n, id: `k${n}` }));
const published = (await Promise.all(answers)).map(({ offset }) => offset);
const read = [];
for await (const { kind, offset } of sub) {
  read.push(kind === "signal" ? offset : kind);
  if (read.length === published.length) break;
}
client.close();
console.log(JSON.stringify({ published, read }));
