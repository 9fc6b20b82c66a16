// node clients.mjs NAME URL WANTED MODULES: a client on one of Node's WebSocket libraries, from the folder MODULES.
// Writes what clients.py writes.

import { createRequire } from "node:module";
import { follow, standard } from "./follow.mjs";

const [name, url, wanted, modules] = process.argv.slice(2);
const load = createRequire(`${modules}/`);

const DIALS = {
  undici: () => standard(load("undici").WebSocket),
  ws: () => {
    const { WebSocket } = load("ws");
    return (url, on) => {
      const socket = new WebSocket(url, ["signals.v1.json"]);
      socket.on("open", on.open);
      socket.on("message", (data) => on.message(data.toString()));
      socket.on("close", on.close);
      socket.on("error", () => {});
      return socket;
    };
  },
  "faye-websocket": () => {
    const { Client } = load("faye-websocket");
    return (url, on) => {
      const socket = new Client(url, ["signals.v1.json"]);
      socket.on("open", on.open);
      socket.on("message", (event) => on.message(event.data));
      socket.on("close", (event) => on.close(event.code));
      socket.on("error", () => {});
      return socket;
    };
  },
};

const write = (value) => console.log(JSON.stringify(value));
write(await follow(DIALS[name](), url, Number(wanted), (received) => write({ received })));
process.exit(0);
