import type { Encoding } from "heliograph-client";

/** The subprotocol `signals.v1.msgpack`: `new SignalClient({ url, encoding: msgpack })`. */
export const msgpack: Encoding;
