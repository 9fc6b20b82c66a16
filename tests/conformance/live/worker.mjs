// The scenario language inside workerd: the other half of tests/conformance, operation for operation.
//
// One process runs many programs one after another. Each is a run with a name; its actors are called
// "run|actor", so that no two runs share one, and log into their own run's trace. The run with the empty
// name is the scenario of the configuration: its actors have their plain names (ids are part of some traces).
import { DurableObject, RpcTarget } from "cloudflare:workers";
import unsafe from "workerd:unsafe";

// One isolate hosts the driver and every actor, so one array per run is a total order.
class Run {
  constructor(name, scenario) { this.name = name; this.scenario = scenario; this.trace = []; }
  actorName(actor) { return this.name ? `${this.name}|${actor}` : actor; }
  log(who, label, value) { this.trace.push(value === undefined ? [who, label] : [who, label, encode(value)]); }
}

const RUNS = new Map();
const ENDED = new Run("ended", { actors: {} });  // what alarms and timers of programs that are over belong to

function runNamed(name, env) {
  if (name === "" && !RUNS.has("")) RUNS.set("", new Run("", env.SCENARIO));
  return RUNS.get(name) ?? ENDED;
}

const PLAIN_LIMIT = 700;

function encode(v, depth = 0) {
  if (v === undefined) return { $: "undefined" };
  if (v === null || typeof v === "boolean") return v;
  if (typeof v === "number") return Number.isFinite(v) ? v : { $: "number", text: String(v) };
  if (typeof v === "bigint") return { $: "bigint", text: String(v) };
  if (typeof v === "string") {
    return v.length > PLAIN_LIMIT ? { $: "string", length: v.length, head: v.slice(0, 16) } : v;
  }
  if (typeof v === "function") return { $: "function" };
  if (v instanceof Error || (typeof v === "object" && "message" in v && "stack" in v)) return encodeError(v);
  if (v instanceof Date) return { $: "date", ms: v.getTime() };
  if (v instanceof ArrayBuffer || ArrayBuffer.isView(v)) {
    const u = v instanceof ArrayBuffer ? new Uint8Array(v) : new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
    if (u.length > 32) return { $: "bytes", length: u.length };
    return { $: "bytes", hex: [...u].map((b) => b.toString(16).padStart(2, "0")).join("") };
  }
  if (v instanceof Map) return { $: "map", entries: [...v].map(([k, x]) => [encode(k), encode(x, depth + 1)]) };
  if (v instanceof Set) return { $: "set", items: [...v].map((x) => encode(x)) };
  if (Array.isArray(v)) return v.map((x) => encode(x, depth + 1));
  if (depth > 6) return { $: "deep" };
  const out = {};
  for (const k of Object.keys(v)) out[k] = encode(v[k], depth + 1);
  return out;
}

const scrub = (s) =>
  String(s)
    .replace(/reference = [0-9a-z]+/g, "reference = <id>")
    .replace(/\b[0-9a-f]{64}\b/g, "<object-id>");

function encodeError(e) {
  if (typeof e !== "object" || e === null) return { $: "error", thrown: encode(e) };
  const out = { $: "error", name: e.name, message: scrub(e.message) };
  for (const flag of ["remote", "retryable", "overloaded", "durableObjectReset"]) if (e[flag]) out[flag] = true;
  return out;
}


// ---------------------------------------------------------------- expressions
function evalExpr(e, env) {
  if (Array.isArray(e)) return e.map((x) => evalExpr(x, env));
  if (e === null || typeof e !== "object") return e;
  const keys = Object.keys(e);
  if (keys.length === 1 && keys[0][0] === "$") {
    const a = e[keys[0]];
    switch (keys[0]) {
      case "$var": return env.vars[a];
      case "$mem": return env.mem?.[a];
      case "$undef": return undefined;
      case "$add": return evalExpr(a[0], env) + evalExpr(a[1], env);
      case "$lt": return evalExpr(a[0], env) < evalExpr(a[1], env);
      case "$eq": return evalExpr(a[0], env) === evalExpr(a[1], env);
      case "$rep": return a[0].repeat(a[1]);
      case "$bytes": return new Uint8Array((a.match(/../g) ?? []).map((h) => parseInt(h, 16)));
      case "$zeros": return new Uint8Array(a);
      case "$date": return new Date(a);
      case "$map": return new Map(evalExpr(a, env));
      case "$set": return new Set(evalExpr(a, env));
      case "$fn": return () => a;
      case "$keys": return Object.fromEntries(Array.from({ length: a[1] }, (_, i) => [a[0] + String(i).padStart(4, "0"), i]));
      case "$keylist": return Array.from({ length: a[1] }, (_, i) => a[0] + String(i).padStart(4, "0"));
      case "$cycle": { const o = { name: "loop" }; o.self = o; return o; }
    }
    throw new Error(`unknown expression ${keys[0]}`);
  }
  return Object.fromEntries(keys.map((k) => [k, evalExpr(e[k], env)]));
}

const ERRORS = { Error, TypeError, RangeError, SyntaxError };

function latch(env, name) {
  const m = (env.latches ??= new Map());
  if (!m.has(name)) { let r; const p = new Promise((x) => (r = x)); m.set(name, { p, r }); }
  return m.get(name);
}

// ------------------------------------------------------ operations (one step)
// step() may return a promise or a plain value.  In sync mode (constructor,
// transactionSync) a returned promise is an authoring mistake.
function step(op, env) {
  const [name, ...raw] = op;
  const a = (i) => evalExpr(raw[i], env);
  const st = env.txn ?? env.ctx?.storage;
  switch (name) {
    // ---- control
    case "log": env.run.log(env.who, raw[0], raw.length > 1 ? a(1) : undefined); return;
    case "show": return show(raw[0], raw[1], env);
    case "set": return chain(step(raw[1], env), (v) => { env.vars[raw[0]] = v; return v; });
    case "value": return a(0);
    case "return": env.result = a(0); return;
    case "throw": { const e = new (ERRORS[raw[1]] ?? Error)(a(0)); if (raw[2]) Object.assign(e, a(2)); throw e; }
    case "throwValue": throw a(0);
    case "if": return a(0) ? seq(raw[1], env) : raw[2] ? seq(raw[2], env) : undefined;
    case "try": return (async () => { try { await seq(raw[0], env); } catch (e) { env.vars.err = encodeError(e); env.run.log(env.who, raw[1] ?? "caught", e); } })();
    case "sleep": return new Promise((r) => setTimeout(r, a(0)));
    case "turn": return new Promise((r) => setTimeout(r, 0));
    case "microtasks": return (async () => { for (let i = 0; i < a(0); i++) await null; })();
    case "wait": return latch(env, raw[0]).p;
    case "signal": latch(env, raw[0]).r(); return;
    case "spawn": { const sub = { ...env }; (env.tasks ??= {})[raw[0]] = runAsync(raw[1], sub).then(() => sub.result); env.tasks[raw[0]].catch(() => {}); return; }
    case "join": return env.tasks[raw[0]];
    case "nowait": { const r = step(raw[0], env); if (r?.then) { (env.pending ??= []).push(r); r.then(() => {}, (e) => env.run.log(env.who, "unawaited-error", e)); } return; }
    case "timer": setTimeout(() => { runAsync(raw[1], env).catch((e) => env.run.log(env.who, "timer-error", e)); }, a(0)); return;
    case "waitUntil": env.ctx.waitUntil(runAsync(raw[0], { ...env })); return;
    case "now": return Date.now();
    // ---- in-memory instance state
    case "memSet": env.mem[raw[0]] = a(1); return;
    case "memGet": return env.mem[raw[0]];
    case "memIncr": return (env.mem[raw[0]] = (env.mem[raw[0]] ?? 0) + 1);
    // ---- async storage
    case "get": return st.get(a(0), a(1));
    case "put": return raw.length >= 2 && (typeof a(0) === "string") ? st.put(a(0), a(1), a(2)) : st.put(a(0), ...(raw.length > 1 ? [a(1)] : []));
    case "delete": return st.delete(a(0), a(1));
    case "list": return st.list(...(raw.length ? [a(0)] : []));
    case "deleteAll": return st.deleteAll(...(raw.length ? [a(0)] : []));
    case "sync": return env.ctx.storage.sync();
    case "outer": return step(raw[0], { ...env, txn: undefined });
    case "txn": return env.ctx.storage.transaction(async (t) => { const sub = { ...env, txn: t, result: undefined }; await seq(raw[0], sub); return sub.result; });
    case "txnSync": return env.ctx.storage.transactionSync(() => { const sub = { ...env, result: undefined }; runSync(raw[0], sub); return sub.result; });
    case "keepTxn": env.mem.txn = env.txn; return;
    case "lateTxnPut": return env.mem.txn.put(a(0), a(1));
    case "rollback": return env.txn.rollback();
    case "block": return env.ctx.blockConcurrencyWhile(async () => { const sub = { ...env, result: undefined }; await seq(raw[0], sub); return sub.result; });
    // ---- alarms
    case "setAlarm": return st.setAlarm(Date.now() + a(0), a(1));
    case "setAlarmAt": return st.setAlarm(a(0));
    case "getAlarm": return chain(st.getAlarm(), (t) => (t === null ? null : "set"));
    case "alarmIn": return chain(st.getAlarm(), (t) => (t === null ? null : Math.round((t - Date.now()) / 1000)));
    case "deleteAlarm": return st.deleteAlarm();
    // ---- synchronous KV
    case "kvPut": return env.ctx.storage.kv.put(a(0), a(1));
    case "kvGet": return env.ctx.storage.kv.get(a(0));
    case "kvDelete": return env.ctx.storage.kv.delete(a(0));
    case "kvList": return [...env.ctx.storage.kv.list(...(raw.length ? [a(0)] : []))];
    case "kvIter": env.mem[raw[0]] = env.ctx.storage.kv.list(...(raw.length > 1 ? [a(1)] : [])); return;
    case "kvNext": return env.mem[raw[0]].next();
    // ---- SQL
    case "sql": {
      const c = env.ctx.storage.sql.exec(a(0), ...(a(1) ?? []));
      const mode = raw[2] ?? "array";
      if (mode === "array") return c.toArray();
      if (mode === "one") return c.one();
      if (mode === "raw") return [...c.raw()];
      if (mode === "stats") { const rows = c.toArray().length; return { rows, rowsRead: c.rowsRead, rowsWritten: c.rowsWritten }; }
      return;
    }
    case "cursor": env.mem[raw[0]] = env.ctx.storage.sql.exec(a(1), ...(a(2) ?? [])); return;
    case "next": return env.mem[raw[0]].next();
    case "cursorInfo": { const c = env.mem[raw[0]]; return { columnNames: c.columnNames, rowsRead: c.rowsRead, rowsWritten: c.rowsWritten }; }
    case "dbSize": return env.ctx.storage.sql.databaseSize;
    case "maxPages": return env.ctx.storage.sql.setMaxPageCountForTest(a(0));
    // ---- bookmarks
    case "bookmark": return chain(env.ctx.storage.getCurrentBookmark(), (b) => { (env.mem.bookmarks ??= []).push(b); return { length: b.length, parts: b.split("-").map((p) => p.length), later: env.mem.bookmarks.length < 2 ? null : b > env.mem.bookmarks.at(-2) }; });
    case "bookmarkForTime": return env.ctx.storage.getBookmarkForTime(Date.now() - a(0));
    case "restoreBookmark": return env.ctx.storage.onNextSessionRestoreBookmark(env.mem.bookmarks.at(-1));
    // ---- lifecycle
    case "abort": return raw.length > 1 ? env.ctx.abort(a(0), a(1)) : raw.length ? env.ctx.abort(a(0)) : env.ctx.abort();
    case "id": return { name: env.ctx.id.name, text: env.ctx.id.toString().length };
    // ---- calls between actors (and from the driver)
    case "call": return stubOf(env, raw[0], raw[3]).run(raw[1], raw.length > 2 ? a(2) : undefined);
    case "stub": (env.stubs ??= {})[raw[0]] = stubOf(env, raw[1], raw[2]); return;
    case "scall": return env.stubs[raw[0]].run(raw[1], raw.length > 2 ? a(2) : undefined);
    case "fetch": return (async () => { const r = await stubOf(env, raw[0]).fetch("http://do/" + raw[1], { method: "POST" }); return { status: r.status, body: await r.text() }; })();
    case "evict": return unsafe.evict(stubOf(env, raw[0]), raw[1]);
    case "evictAll": return unsafe.evictAllDurableObjects(raw[0]);
    case "abortAll": return unsafe.abortAllDurableObjects();
    case "echo": return stubOf(env, raw[0]).echo(a(1));
    case "prop": return stubOf(env, raw[0])[raw[1]];
    case "missing": return stubOf(env, raw[0])[raw[1]]();
    case "pipeline": return (async () => { // counter(start).inc(n) sent without awaiting the counter
      const c = stubOf(env, raw[0]).counter(a(1));
      const [x, y] = await Promise.all([c.inc(1), c.inc(10)]);
      return [x, y];
    })();
    case "keepCounter": return (async () => { env.vars.counter = await stubOf(env, raw[0]).counter(a(1)); })();
    case "counterInc": return env.vars.counter.inc(a(0));
    case "counterDispose": env.vars.counter[Symbol.dispose](); return;
    case "callback": return stubOf(env, raw[0]).callback(async (x) => { env.run.log(env.who, "callback-ran", x); return x * 2; }, a(1));
    case "returnedFn": return (async () => { const f = await stubOf(env, raw[0]).adder(a(1)); return await f(a(2)); })();
    case "fail": return stubOf(env, raw[0]).fail(a(1));
    // ---- ids
    case "ids": return idFacts(env, raw[0], a(1));
    // ---- facets
    case "facetCall": return (async () => { const f = env.ctx.facets.get(raw[0], () => ({ class: env.ctx.exports.Scripted })); return await f.run(raw[1], raw.length > 2 ? a(2) : undefined); })();
    case "facetAbort": return env.ctx.facets.abort(raw[0], new Error(a(1)));
    case "facetDelete": return env.ctx.facets.delete(raw[0]);
    case "facetClone": return env.ctx.facets.clone(raw[0], raw[1]);
    case "facetStub": (env.stubs ??= {})[raw[0]] = env.ctx.facets.get(raw[1], () => ({ class: env.ctx.exports.Scripted })); return;
    // ---- hibernatable WebSockets
    case "wsList": return env.ctx.getWebSockets(...(raw.length ? [a(0)] : [])).map((w) => w.deserializeAttachment()?.id ?? null);
    case "wsCount": return env.ctx.getWebSockets(...(raw.length ? [a(0)] : [])).length;
    case "wsSend": for (const w of pick(env, raw[0])) w.send(a(1)); return;
    case "wsClose": for (const w of pick(env, raw[0])) w.close(...(raw.length > 1 ? [a(1)] : []), ...(raw.length > 2 ? [a(2)] : [])); return;
    case "wsState": return pick(env, raw[0]).map((w) => w.readyState);
    case "wsTags": return pick(env, raw[0]).map((w) => env.ctx.getTags(w));
    case "wsAttach": for (const w of pick(env, raw[0])) w.serializeAttachment(a(1)); return;
    case "wsAttachment": return pick(env, raw[0]).map((w) => w.deserializeAttachment());
    case "wsAuto": return raw.length ? env.ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair(a(0), a(1))) : env.ctx.setWebSocketAutoResponse();
    case "wsGetAuto": { const p = env.ctx.getWebSocketAutoResponse(); return p ? { request: p.request, response: p.response } : p; }
    case "wsAutoStamp": return pick(env, raw[0]).map((w) => { const t = env.ctx.getWebSocketAutoResponseTimestamp(w); return t === null ? null : t instanceof Date ? "date" : typeof t; });
    case "wsEventTimeout": return env.ctx.setHibernatableWebSocketEventTimeout(...(raw.length ? [a(0)] : []));
    case "wsGetEventTimeout": return env.ctx.getHibernatableWebSocketEventTimeout();
    case "wsAccept": { // accept a fresh pair outside of an upgrade, to probe limits
      const [c, s] = Object.values(new WebSocketPair()); (env.mem.pairs ??= []).push(c, s);
      if (raw[1] === "regular-first") s.accept();
      env.ctx.acceptWebSocket(s, ...(raw.length ? [a(0)] : [])); return;
    }
  }
  throw new Error(`unknown operation ${name}`);
}

const chain = (v, f) => (v?.then && !v.inc ? v.then(f) : f(v));

function show(label, op, env) {
  let r;
  try { r = step(op, env); } catch (e) { env.run.log(env.who, label, encodeError(e)); return; }
  if (r?.then) return r.then((v) => { env.run.log(env.who, label, v === undefined ? null : v); return v; }, (e) => env.run.log(env.who, label, encodeError(e)));
  env.run.log(env.who, label, r === undefined ? null : r);
  return r;
}

async function seq(ops, env) { for (const op of ops) { const r = step(op, env); if (r?.then) await r; } }
async function runAsync(ops, env) { await seq(ops ?? [], env); return env.result; }
function runSync(ops, env) {
  for (const op of ops ?? []) { const r = step(op, env); if (r?.then) { r.catch?.(() => {}); (env.pending ??= []).push(r); } }
  return env.result;
}

function pick(env, who) {
  if (who === "self") return [env.ws];
  if (who === "all") return env.ctx.getWebSockets();
  if (typeof who === "object" && who.tag !== undefined) return env.ctx.getWebSockets(who.tag);
  return env.ctx.getWebSockets().filter((w) => w.deserializeAttachment()?.id === who);
}

function stubOf(env, actor, options) {
  const spec = env.run.scenario.actors?.[actor] ?? {};
  return NS(env, spec.class).getByName(env.run.actorName(actor), options);
}

function idFacts(env, what, arg) {
  const ns = NS(env), other = NS(env, "ScriptedKv");
  const hex = (x) => x.toString();
  switch (what) {
    case "name": { const id = ns.idFromName(arg); return { name: id.name, text: hex(id), sameAgain: hex(ns.idFromName(arg)) === hex(id), equals: id.equals(ns.idFromName(arg)) }; }
    case "nameHash": return hex(ns.idFromName(arg));
    case "unique": { const x = ns.newUniqueId(), y = ns.newUniqueId(); return { length: hex(x).length, name: x.name, differ: hex(x) !== hex(y), equal: x.equals(y) }; }
    case "roundTrip": { const id = ns.idFromName(arg); const back = ns.idFromString(hex(id)); return { equal: back.equals(id), name: back.name }; }
    case "upperCase": return ns.idFromString(hex(ns.idFromName(arg)).toUpperCase()).equals(ns.idFromName(arg));
    case "parse": return hex(ns.idFromString(arg));
    case "foreign": return hex(other.idFromString(hex(ns.idFromName(arg))));
    case "getForeign": return typeof other.get(ns.idFromName(arg));
    case "jurisdiction": return hex(ns.newUniqueId({ jurisdiction: arg }));
    case "subNamespace": return typeof ns.jurisdiction(arg);
    case "stubProps": { const s = ns.getByName(arg); return { keys: Object.keys(s), name: s.name, sameId: s.id.equals(ns.idFromName(arg)) }; }
    case "hint": return typeof ns.get(ns.idFromName("hinted"), { locationHint: arg });
  }
  throw new Error("unknown id fact " + what);
}

// ------------------------------------------------------------------ the actor
class Counter extends RpcTarget {
  #n; #who; #run;
  constructor(n, who, run) { super(); this.#n = n; this.#who = who; this.#run = run; }
  inc(by) { this.#n += by; return this.#n; }
  [Symbol.dispose]() { this.#run.log(this.#who, "counter-disposed"); }
}

function makeClass(withAlarm) {
  class Actor extends DurableObject {
    constructor(ctx, env) {
      super(ctx, env);
      const name = ctx.id.name ?? ctx.props?.name ?? "unnamed";
      const at = name.indexOf("|");
      this.owner = runNamed(at < 0 ? "" : name.slice(0, at), env);
      this.who = name.slice(at + 1);
      const { actors } = this.owner.scenario;
      this.program = actors[this.who] ?? actors["*"] ?? {};
      this.mem = {};
      this.latches = new Map();
      if (this.program.logConstruct !== false) this.log("construct");
      if (this.program.ctor) runSync(this.program.ctor, this.frame());
      if (this.program.ctorBlock) ctx.blockConcurrencyWhile(() => runAsync(this.program.ctorBlock, this.frame()));
      if (this.program.ctorThrow) throw new Error(this.program.ctorThrow);
    }
    log(label, value) { this.owner.log(this.who, label, value); }
    frame(extra) {
      return { who: this.who, run: this.owner, ctx: this.ctx, bindings: this.env, mem: this.mem, latches: this.latches, vars: {}, ...extra };
    }
    async run(method, arg) {
      const ops = this.program.methods?.[method];
      if (!ops) throw new Error(`no method ${method}`);
      const f = this.frame({ vars: { arg } });
      return await runAsync(ops, f);
    }
    async fetch(request) {
      const url = new URL(request.url);
      if (request.headers.get("Upgrade") === "websocket") {
        const arg = JSON.parse(url.searchParams.get("arg") ?? "{}");
        const [client, server] = Object.values(new WebSocketPair());
        if (arg.regular) {
          server.accept();
          const f = () => this.frame({ ws: server });
          server.addEventListener("message", (m) => runAsync(this.program.message ?? [], { ...f(), vars: { msg: m.data } }));
          server.addEventListener("close", (c) => { this.log("regular-close", { code: c.code, reason: c.reason, wasClean: c.wasClean }); });
        } else {
          this.ctx.acceptWebSocket(server, ...(arg.tags ? [arg.tags] : []));
          if (arg.id !== undefined) server.serializeAttachment({ id: arg.id });
        }
        await runAsync(this.program.upgrade ?? [], this.frame({ ws: server, vars: { arg } }));
        return new Response(null, { status: 101, webSocket: client });
      }
      const result = await this.run(url.pathname.slice(1));
      return new Response(typeof result === "string" ? result : JSON.stringify(encode(result ?? null)));
    }
    async webSocketMessage(ws, msg) { await runAsync(this.program.message ?? [], this.frame({ ws, vars: { msg } })); }
    async webSocketClose(ws, code, reason, wasClean) {
      this.log("close-event", { code, reason, wasClean, id: ws.deserializeAttachment()?.id ?? null, state: ws.readyState });
      await runAsync(this.program.close ?? [], this.frame({ ws, vars: { code, reason } }));
    }
    async webSocketError(ws, e) { this.log("error-event", e); await runAsync(this.program.error ?? [], this.frame({ ws })); }
    // RPC surface used by the RPC scenarios
    echo(v) { return v; }
    counter(n) { return new Counter(n, this.who, this.owner); }
    adder(n) { return (x) => x + n; }
    async callback(f, x) { return await f(x); }
    fail({ name, message, props }) { const e = new (ERRORS[name] ?? Error)(message); if (!(name in ERRORS)) e.name = name; Object.assign(e, props); throw e; }
    get answer() { return 42; }
    #hidden() { return "hidden"; }
  }
  if (withAlarm) {
    Actor.prototype.alarm = async function alarm(info) {
      const scheduled = info?.scheduledTime;
      await runAsync(this.program.alarm ?? [], this.frame({ vars: {
        retryCount: info?.retryCount, isRetry: info?.isRetry,
        late: typeof scheduled === "number" ? Date.now() >= scheduled : null,
        now: Date.now(),
      } }));
    };
  }
  return Actor;
}

export class Scripted extends makeClass(true) {}
export class ScriptedKv extends makeClass(true) {}
export class ScriptedNoAlarm extends makeClass(false) {}

// ----------------------------------------------------------------- the driver
export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    const name = url.searchParams.get("run") ?? "";
    if (url.pathname === "/begin") { RUNS.set(name, new Run(name, await request.json())); return new Response("ok"); }
    if (url.pathname === "/end") { const { trace } = runNamed(name, env); RUNS.delete(name); return Response.json(trace); }
    const run = runNamed(name, env);
    if (url.pathname === "/trace") return Response.json(url.searchParams.has("take") ? run.trace.splice(0) : run.trace);
    if (url.pathname === "/drive") {
      const f = { who: "driver", run, bindings: env, vars: {}, ctx, latches: new Map() };
      try { await runAsync(await request.json(), f); } catch (e) { run.log("driver", "uncaught", e); }
      return new Response("ok");
    }
    if (url.pathname === "/ws") {
      const actor = url.searchParams.get("actor");
      return NS(env, run.scenario.actors?.[actor]?.class ?? undefined).getByName(run.actorName(actor)).fetch(request);
    }
    return new Response("not found", { status: 404 });
  },
};

function NS(env, cls) { return (env.bindings ?? env)[cls ?? "Scripted"]; }
