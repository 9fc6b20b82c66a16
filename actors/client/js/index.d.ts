/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** One signal as it arrives. `offset` counts up within `epoch`; `cursor` says "everything up to here". */
export interface Signal<Data = Json> {
  kind: "signal";
  epoch: string;
  offset: number;
  /** `null` inside a snapshot that is not complete. */
  cursor: string | null;
  id: string;
  type: string;
  entity: string;
  /** When the server took it in, in ms since 1970. */
  ts: number;
  data: Data;
  tags?: Record<string, string | number | boolean>;
  /** It is of a snapshot or a backfill, and may be older than signals that came before. */
  snapshot?: true;
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
  /** Unique among the open subscriptions of the client; made up if absent, and then no cursor is stored. */
  name?: string;
  /** Patterns: `price.>`, `price.*`, `!price.test.>`. Absent means any. */
  types?: string | string[];
  /** Patterns: `btc-*`, `!cpu0`. Absent means any. */
  entities?: string | string[];
  where?: Where;
  /** Where to begin, unless a stored cursor knows better; default `"now"`. */
  since?: "now" | "earliest" | "snapshot" | { last: number } | { ago_ms: number } | { cursor: string };
  /** Only the newest signal of each type and entity, every so many ms (20 to 60,000); default: every signal at once. */
  latestMs?: number;
  /** After a cursor that the log no longer reaches: go on with what it has (`"skip"`, default) or at its end (`"fail"`). */
  onGap?: "skip" | "fail";
  /**
   * What the server does when this client's network is too slow: end the connection, which resumes without loss
   * (`"close"`, default), or leave signals out, all but the newest of each type and entity (`"latest"`), or with a gap (`"skip"`).
   */
  onSlow?: "close" | "latest" | "skip";
  /** How many items may wait for a loop or a handler; default 1,000. */
  buffer?: number;
  /**
   * At that many: rest and go on from the cursor, losing nothing (`"block"`, default), give up the oldest in favour of one
   * gap (`"drop_oldest"`), or fail (`"error"`). `"latest"` keeps the newest of each type and entity all the time.
   */
  overflow?: "block" | "drop_oldest" | "latest" | "error";
  /** When the cursor moves: once the application is done with a signal (`"taken"`, default), or as it arrives. */
  ack?: "taken" | "receive";
}

export type SubscriptionState = "pending" | "catchup" | "live" | "paused" | "failed" | "closed";

/** One subscription: every matching signal once and in order, or a gap that says what is missing. */
export class Subscription<Data = Json> implements AsyncIterable<Signal<Data> | Gap> {
  private constructor();
  readonly name: string;
  readonly state: SubscriptionState;
  /** Where the application stands, for `since: { cursor }` another day; `null` until something was taken. */
  readonly cursor: string | null;
  /** A handler that returns a promise gets the next signal when that is settled. */
  on(event: "signal", handler: (signal: Signal<Data>) => unknown): () => void;
  on(event: "gap", handler: (gap: Gap) => unknown): () => void;
  on(event: "state", handler: (change: { state: SubscriptionState; error?: SignalError }) => unknown): () => void;
  [Symbol.asyncIterator](): AsyncGenerator<Signal<Data> | Gap, void, void>;
  /**
   * Change the filter as a whole, `latestMs` or `onSlow`, in place. `backfill` brings older signals that only the new filter lets
   * through. Resolves once the change is in force; rejects with a `SignalError` if it is refused.
   */
  update(change: SubscriptionChange): Promise<void>;
  close(): void;
}

export interface SubscriptionChange extends Pick<SubscribeOptions, "types" | "entities" | "where" | "onSlow"> {
  /** 0: every signal at once. */
  latestMs?: number;
  backfill?: { last: number } | { ago_ms: number };
}

export interface ClientState {
  state: "connecting" | "resuming" | "connected" | "draining" | "reconnecting" | "offline" | "closed";
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

/** What frames are: JSON by default, or what `heliograph-client/msgpack` has. */
export interface Encoding {
  /** As the handshake calls it. */
  readonly subprotocol: string;
  /** One frame of a message's JSON text. */
  encode(text: string): string | Uint8Array;
  /** The values of a frame's messages, in order; an Error in place of one that cannot be read. A frame is a string or an ArrayBuffer. */
  parse(frame: unknown): unknown[];
}

/** Web Storage, React Native's AsyncStorage, or two functions over a file. */
export interface CursorStore {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, cursor: string): unknown;
}

/**
 * `online`: there is a network, or another one. `offline`: there is none. `visible`: the application is looked at again.
 * `hidden`: it may be ended without another word.
 */
export type WatchedEvent = "online" | "offline" | "visible" | "hidden";

export interface ClientOptions {
  /** An http(s) or ws(s) address; default the page's own host. Without a path it is `/v1/stream`. */
  url?: string | URL;
  /** Sent with each hello; a function is asked before each connection and has 5 s together with it. */
  token?: string | (() => string | Promise<string>);
  /** Where the platform has none (Node 20): the class of the package `ws` or `undici`. */
  WebSocket?: new (url: string, protocols: string[]) => unknown;
  /** Default JSON; `msgpack` of `heliograph-client/msgpack` makes frames smaller. */
  encoding?: Encoding;
  /** Where named subscriptions keep their cursors from one run to the next; default nowhere. */
  cursorStore?: "session" | "local" | CursorStore;
  /** Tells the client what happens around it, and returns how to stop; default the events of a page, where there is one. */
  watch?: (tell: (event: WatchedEvent) => void) => void | (() => void);
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

export interface Condition {
  eq(v: Json): Where;
  ne(v: Json): Where;
  in(v: Json[]): Where;
  nin(v: Json[]): Where;
  gt(v: number): Where;
  gte(v: number): Where;
  lt(v: number): Where;
  lte(v: number): Where;
  prefix(v: string): Where;
  suffix(v: string): Where;
  contains(v: Json): Where;
  exists(): Where;
}

/** The value at a JSON Pointer of the signal, for `where`: `f("/data/pct").gte(2.5)`. */
export function f(pointer: string): Condition;
export function all(...conditions: Where[]): Where;
export function any(...conditions: Where[]): Where;
export function not(condition: Where): Where;

/** The protocol without I/O. Times are ms of a clock that does not run backwards; sockets have the numbers of `open`. */
export class Connection {
  constructor(options?: { random?: () => number; now?: number; client?: object; features?: string[]; encoding?: Encoding });
  clock: number;
  readonly deadline: number;
  start(): MachineEvent[];
  stop(): MachineEvent[];
  subscribe(options: { s: string; filter?: object; from?: unknown; on_gap?: "skip" | "fail"; on_slow?: "close" | "latest" | "skip"; min_ms?: number }): MachineEvent[];
  modify(change: { s: string; filter?: object; min_ms?: number; on_slow?: "close" | "latest" | "skip"; backfill?: object }): MachineEvent[];
  unsubscribe(s: string): MachineEvent[];
  pause(s: string): MachineEvent[];
  unpause(s: string): MachineEvent[];
  publish(signal: object): MachineEvent[];
  opened(options?: { token?: string }, socket?: number): MachineEvent[];
  /** Go on with a newer token. */
  auth(token: string, socket?: number): MachineEvent[];
  closed(code: number | null, reason?: string, socket?: number): MachineEvent[];
  /** One frame, as the encoding reads it. */
  receive(frame: unknown, socket?: number): MachineEvent[];
  /** The JSON texts to send on a socket, in order, a frame each; each is handed out once. */
  takeOutgoing(socket?: number): string[];
  tick(now: number): MachineEvent[];
  probe(): MachineEvent[];
  network(online: boolean): MachineEvent[];
}

export function afterClose(code: number | null): "stop" | "backoff" | "window";
export function backoffMs(failures: number, draw: number): number;
