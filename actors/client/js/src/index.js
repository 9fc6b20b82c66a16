/**
 * Heliograph's client for browsers, workers, Node and React Native: one module, no dependency.
 *
 *     const client = new SignalClient({ url: "http://127.0.0.1:8787" });
 *     const sub = client.subscribe({ types: ["price.>"], since: { last: 100 } });
 *     for await (const item of sub) {            // or sub.on("signal", (signal) => …)
 *       if (item.kind === "gap") refetch(item);
 *       else console.log(item.offset, item.type, item.entity, item.data);
 *     }
 *
 * `Connection` is the protocol (signals.v1) without I/O: inputs in, events and frames out, checked by the vectors that
 * every client passes. `SignalClient` gives it WebSockets and a clock.
 */
export { SignalClient } from "./client.js";
export { Connection } from "./connection.js";
export { SignalError } from "./emitter.js";
export { all, any, f, not } from "./filter.js";
export { Subscription } from "./subscription.js";
export { afterClose, backoffMs } from "./wire.js";
