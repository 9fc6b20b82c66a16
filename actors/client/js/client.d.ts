/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** One signal as it arrives. `offset` counts up within `epoch`; `cursor` says "everything up to here". */
export interface Signal<Data = Json> {
  kind: "signal";
  epoch: string;
  offset: number;
  cursor: string;
  id: string;
  type: string;
  entity: string;
  /** When the server took it in, in ms since 1970. */
  ts: number;
  data: Data;
  tags?: Record<string, string | number | boolean>;
}

/** Signals with `after < offset <= upto` will not come; `null`: unknown, because the stream was replaced. */
export interface Gap {
  kind: "gap";
  epoch: string | null;
  after: number | null;
  upto: number | null;
  reason: "retention" | "slow" | "epoch";
}

export type Where =
  | { all: Where[] }
  | { any: Where[] }
  | { not: Where }
  | { f: string; op: "exists" }
  | {
      f: string;
      op: "eq" | "ne" | "in" | "nin" | "gt" | "gte" | "lt" | "lte" | "prefix" | "suffix" | "contains";
      v: Json;
    };

export interface SubscribeOptions {
  /** Unique among the open subscriptions of the client; made up if absent. */
  name?: string;
  /** Patterns: `price.>`, `price.*`, `!price.test.>`. Absent means any. */
  types?: string | string[];
  /** Patterns: `btc-*`, `!cpu0`. Absent means any. */
  entities?: string | string[];
  where?: Where;
  /** Where to begin; default `"now"`. */
  since?: "now" | "earliest" | { last: number } | { cursor: string };
  /** After a cursor that the log no longer reaches: go on with what it has (`"skip"`, default) or at its end (`"fail"`). */
  onGap?: "skip" | "fail";
  /** How many items may wait for a loop; default 1,000. */
  buffer?: number;
  /** At that many: rest and go on from the cursor, losing nothing (`"pause"`, default), or give up the oldest (`"drop"`). */
  overflow?: "pause" | "drop";
}

export type SubscriptionState = "pending" | "catchup" | "live" | "paused" | "failed" | "closed";

/** One subscription: every matching signal once and in order, or a gap that says what is missing. */
export class Subscription<Data = Json> implements AsyncIterable<Signal<Data> | Gap> {
  private constructor();
  readonly name: string;
  readonly state: SubscriptionState;
  /** Where the application stands, for `since: { cursor }` another day; `null` until something has arrived. */
  readonly cursor: string | null;
  on(event: "signal", handler: (signal: Signal<Data>) => unknown): () => void;
  on(event: "gap", handler: (gap: Gap) => unknown): () => void;
  on(event: "state", handler: (change: { state: SubscriptionState; error?: SignalError }) => unknown): () => void;
  [Symbol.asyncIterator](): AsyncGenerator<Signal<Data> | Gap, void, void>;
  close(): void;
}

export interface ClientState {
  state: "connecting" | "resuming" | "connected" | "draining" | "reconnecting" | "closed";
  /** Of `reconnecting`: which retry comes next, from 1, and after how many ms. */
  attempt?: number;
  delayMs?: number;
  /** Of `reconnecting` and `closed`: the close code, `null` without one, and the reason in words. */
  code?: number | null;
  reason?: string;
  /** Of `closed`: the server, and not `close()`, asked for it. */
  terminal?: boolean;
  /** Of `connected`. */
  session?: string;
  resumed?: boolean;
}

export interface ClientOptions {
  /** An http(s) or ws(s) address; default the page's own host. Without a path it is `/v1/stream`. */
  url?: string | URL;
  /** Sent with each hello; a function is asked before each connection and has 5 s together with it. */
  token?: string | (() => string | Promise<string>);
  /** Where the platform has none (Node 20): the class of the package `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => unknown;
  /** What the server's console calls this client. */
  name?: string;
  random?: () => number;
  now?: () => number;
  setTimeout?: (work: () => void, ms: number) => unknown;
  clearTimeout?: (timer: any) => void;
}

export interface Publication {
  type: string;
  entity: string;
  data?: Json;
  /** Names the publication: repeated under the same id within the server's window it is stored once. Made up if absent. */
  id?: string;
  tags?: Record<string, string | number | boolean>;
}

export interface Published {
  id: string;
  epoch: string;
  offset: number;
  /** It was stored before, under the same id. */
  dup: boolean;
}

export class SignalError extends Error {
  constructor(message: string, about?: { code?: number | null; slug?: string | null });
  readonly code: number | null;
  readonly slug: string | null;
}

/** A connection that heals itself: it reconnects, resumes each subscription at its cursor and repeats unanswered publications. */
export class SignalClient {
  constructor(options?: ClientOptions);
  readonly state: ClientState;
  subscribe<Data = Json>(options?: SubscribeOptions): Subscription<Data>;
  /** Resolves once the signal is durable. Rejects with a `SignalError` if it is refused or too many are waiting. */
  publish(publication: Publication): Promise<Published>;
  on(event: "state", handler: (state: ClientState) => unknown): () => void;
  /** What the server says about the connection as a whole. */
  on(event: "notice", handler: (error: SignalError) => unknown): () => void;
  /** A frame went missing and is asked for again; nothing to do. */
  on(event: "loss", handler: (loss: { name: string; cursor: number; after: number }) => unknown): () => void;
  close(): void;
}

/** What the machine returns: `{ e, … }`, as the vectors in `actors/protocol/vectors/README.md` list them. */
export type MachineEvent = { e: string; [field: string]: unknown };

/** The protocol without I/O. Times are ms of a clock that does not run backwards. */
export class Connection {
  constructor(options?: { random?: () => number; now?: number; client?: object });
  outgoing: string[];
  clock: number;
  readonly deadline: number;
  start(): MachineEvent[];
  stop(): MachineEvent[];
  subscribe(options: { s: string; filter?: object; from?: unknown; on_gap?: "skip" | "fail" }): MachineEvent[];
  unsubscribe(s: string): MachineEvent[];
  pause(s: string): MachineEvent[];
  unpause(s: string): MachineEvent[];
  publish(signal: object): MachineEvent[];
  cursor(s: string): string | null;
  opened(options?: { token?: string }): MachineEvent[];
  closed(code: number | null, reason?: string): MachineEvent[];
  receive(text: string, now?: number): MachineEvent[];
  tick(now: number): MachineEvent[];
  probe(now?: number): MachineEvent[];
}

export function afterClose(code: number | null): "stop" | "backoff" | "window";
export function backoffMs(attempt: number, draw: number): number;
