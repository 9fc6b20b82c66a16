// node echo.mjs MODULES URL AGENT: undici's WebSocket, which is Node's own, echoing to the suite's server.

import { createRequire } from "node:module";

const [modules, url, agent] = process.argv.slice(2);
const { WebSocket } = createRequire(`${modules}/`)("undici");

const visit = (resource, onmessage = () => {}) => new Promise((resolve) => {
  const socket = new WebSocket(`${url}${resource}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => onmessage(socket, event.data);
  socket.onclose = resolve;
  socket.onerror = () => setTimeout(resolve, 1_000);
});

let count = 0;
await visit("/getCaseCount", (_, data) => { count = Number(data); });
for (let number = 1; number <= count; number += 1) {
  await visit(`/runCase?case=${number}&agent=${agent}`, (socket, data) => socket.send(data));
}
await visit(`/updateReports?agent=${agent}`);
process.exit(0);
