/** The messages of signals.v1 as a client reads and judges them. Numbers in brackets are sections of the protocol. */

export const NORMAL = 1000;
export const DEAD_LINK = 4198;
export const GAP = 4199;
const REPLACED = 4202; // a newer socket of this session took over
export const FEATURES = ["goaway", "mod", "snap", "latest", "ack"];
export const OF_SUBSCRIPTIONS = ["sig", "subok", "snap", "live", "gap", "unsubbed"];
export const OF_A_SUCCESSOR = ["sig", "live", "gap", "ok", "err"]; // all that is moved is in its hello

export const PING = '{"t":"ping"}'; // these exact bytes: a server answers them without waking anything [2.7]
export const WINDOW_MS = [0, 1_000]; // of close codes 42xx, unless a goaway named one
const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 30_000;

/** A message that breaks the protocol: nothing after it can be trusted. */
export class Broken extends Error {}

/**
 * What a close code asks for [2.13]: `"stop"`, `"backoff"` or `"window"`; `null` is no code. Who was told to go may have been
 * replaced by its own successor, which may be gone again.
 */
export function afterClose(code, toldToGo) {
  if ([1002, 1003, 1007, 1009, 1010, toldToGo || REPLACED].includes(code)) return "stop";
  const range = Math.floor(code / 100);
  if (range === 40) return "stop";
  return range === 42 || [NORMAL, 1001].includes(code) ? "window" : "backoff";
}

/** The wait before a reconnect after `failures` others: full jitter, so that a crowd does not come back at once. */
export function backoffMs(failures, draw) {
  return draw * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** failures);
}

/** `draw` in [0, 1) of the way through a window. */
export function drawn([min, max], draw) {
  return min + draw * (max - min);
}

const EPOCH = /^[\w-]{1,32}$/;
const CURSOR = /^([\w-]{1,32}):(0|[1-9]\d{0,15})$/;

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

const KINDS = {
  n: isCount,
  1: (value) => isCount(value) && value > 0,
  s: isText,
  b: (value) => typeof value === "boolean",
  e: (value) => isText(value) && EPOCH.test(value),
  c: (value) => isText(value) && CURSOR.test(value) && isCount(Number(value.split(":")[1])),
  o: isObject,
  a: (value) => Array.isArray(value) && value.every(isObject),
  d: (value) => Array.isArray(value) && value.every(isSignal),
  f: (value) => Array.isArray(value) && value.length <= 64 && value.every(isText),
  l: (value) => isObject(value) && isCount(value.a) && isCount(value.b),
  w: (value) => Array.isArray(value) && value.length === 2 && value.every(isCount) && value[0] <= value[1],
};

function isSignal(value) {
  if (!isObject(value) || !("data" in value) || !Number.isSafeInteger(value.ts)) return false;
  return KINDS[1](value.o) && [value.id, value.type, value.entity].every(isText);
}

/** The fields of each message and what each must be; those with `?` may be absent or null. */
const FIELDS = {
  welcome: "id:n session:s resume:s resumed:b epoch:e head:n oldest:n now:n ping_ms:1 dead_ms:1 limits:o server:s subs:a features:f?",
  subok: "s:s g:n from:c head:n filter:o id:n? recovered:b? lost:l?",
  sig: "a:n b:n d:d g:n? s:s? k:n?",
  snap: "s:s b:n d:d more:b",
  live: "s:s g:n b:n",
  gap: "s:s a:n b:n reason:s",
  reset: "epoch:e head:n reason:s?",
  unsubbed: "s:s code:n reason:s?",
  goaway: "after_ms:w deadline_ms:n reason:s? url:s?",
  ok: "id:n o:1? epoch:e? dup:b? exp_ms:n?",
  err: "code:n slug:s? msg:s? retry:b? id:n? s:s? at:s? retry_after_ms:n?",
};

function check(message) {
  for (const field of FIELDS[message.t].split(" ")) {
    const [name, [kind, optional]] = field.split(":");
    const value = message[name];
    if (optional && (value ?? null) === null) delete message[name];
    else if (!KINDS[kind](value)) throw new Broken(`${name} of ${message.t} is ${JSON.stringify(value)?.slice(0, 64)}`);
  }
}

/** A value as a message; `null` when its type is unknown, because new ones may appear at any time [2.2]. */
export function checked(message) {
  if (!isObject(message) || !isText(message.t)) {
    throw new Broken(message instanceof Error ? message.message : "a message is an object with a type");
  }
  if (!Object.hasOwn(FIELDS, message.t)) return null;
  check(message);
  if (message.t === "sig" && message.b < message.a) throw new Broken("b of sig is before its a");
  if (message.t === "welcome") {
    for (const answer of message.subs) {
      answer.t = answer.t === "err" ? "err" : "subok";
      check(answer);
    }
  }
  return message;
}

/** `{ epoch, c }` of a cursor's text. */
export function parseCursor(text) {
  const at = text.lastIndexOf(":");
  return { epoch: text.slice(0, at), c: Number(text.slice(at + 1)) };
}
