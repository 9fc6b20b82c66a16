// What is stored, page by page over HTTP, with a server in place of fetch.
import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { history } from "../../actors/client/js/src/history.js";
import { SignalError, f } from "../../actors/client/js/src/index.js";
import { signal } from "./world.mjs";

const HEAD = 250;

/** A server with the offsets 1 to 250, whose pages end early now and then; `refusals` are answered first. */
function served({ refusals = [], ...options } = {}) {
  const asked = [];
  const waits = [];
  const fetch = async (href, { headers }) => {
    const url = new URL(href);
    asked.push({ path: url.pathname, headers, ...Object.fromEntries(url.searchParams) });
    const refusal = refusals.shift();
    if (refusal) return Response.json(refusal.body, { status: refusal.status, headers: refusal.headers });
    const limit = Math.min(Number(url.searchParams.get("limit")), asked.length % 3 === 0 ? 0 : 500);
    const at = url.searchParams.get("after");
    const offset = at === null ? null : Number(at.split(":")[1]);
    const bounds = { epoch: "E", oldest: 1, head: HEAD };
    if (url.searchParams.get("reverse") === "true") {
      const b = offset ?? HEAD;
      const a = Math.max(0, b - limit);
      return Response.json({ a, b, d: Array.from({ length: b - a }, (_, n) => signal(b - n)), more: a > 0, ...bounds });
    }
    const a = offset ?? 0;
    const b = Math.min(HEAD, a + limit);
    return Response.json({ a, b, d: Array.from({ length: b - a }, (_, n) => signal(a + 1 + n)), more: b < HEAD, ...bounds });
  };
  const setTimeout = (work, ms) => {
    waits.push(ms);
    queueMicrotask(work);
  };
  return { asked, waits, stored: history({ url: "https://example.test", fetch, setTimeout, ...options }) };
}

async function offsets(stored) {
  const read = [];
  for await (const { offset } of stored) read.push(offset);
  return read;
}

const upto = (last, first = 1) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

describe("history", () => {
  it("reads everything once and in order, over pages that are short or empty", async () => {
    const { asked, stored } = served();
    assert.equal(stored.cursor, null);
    assert.deepEqual(await offsets(stored), upto(HEAD));
    assert.equal(stored.cursor, "E:250"); // where a subscription goes on
    assert.deepEqual(asked[0], { path: "/v1/history", headers: {}, limit: "100" });
    assert.deepEqual(asked.slice(1).map(({ after }) => after), ["E:100", "E:200", "E:200"]);
  });

  it("gives signals as a subscription does", async () => {
    const { stored } = served({ limit: 1 });
    for await (const item of stored) {
      assert.deepEqual(item, { kind: "signal", epoch: "E", offset: 1, cursor: "E:1", id: "x1", type: "t", entity: "e", ts: 1, data: { n: 1 } });
    }
  });

  it("takes a filter, a place to begin, a limit and the size of a page", async () => {
    const options = { types: "price.>", where: f("/data/p").gt(1), since: { cursor: "E:10" }, limit: 7, page: 5 };
    const { asked, stored } = served(options);
    assert.deepEqual(await offsets(stored), upto(17, 11));
    const filter = { types: ["price.>"], where: { f: "/data/p", op: "gt", v: 1 } };
    assert.deepEqual(JSON.parse(asked[0].filter), filter);
    assert.deepEqual(asked.map(({ after, limit }) => [after, limit]), [["E:10", "5"], ["E:15", "2"]]);
  });

  it("goes backwards from the newest, or from a cursor", async () => {
    assert.deepEqual(await offsets(served({ reverse: true }).stored), upto(HEAD).reverse());
    const { stored } = served({ reverse: true, since: { cursor: "E:5" } });
    assert.deepEqual(await offsets(stored), [5, 4, 3, 2, 1]);
    assert.equal(stored.cursor, "E:0");
  });

  it("a loop that is left goes on where it was", async () => {
    const { stored } = served();
    for await (const { offset } of stored) if (offset === 120) break;
    assert.deepEqual(await offsets(stored), upto(HEAD, 121));
  });

  it("asks a fresh token for each page, and named streams at their own address", async () => {
    let tokens = 0;
    const { asked, stored } = served({ url: "wss://example.test/v1/streams/news", token: async () => `t${(tokens += 1)}`, page: 200 });
    await offsets(stored);
    assert.deepEqual(asked.map(({ path, headers }) => [path, headers.authorization]), [
      ["/v1/streams/news/history", "Bearer t1"],
      ["/v1/streams/news/history", "Bearer t2"],
    ]);
  });

  it("a server that is busy is asked again when it says, and not for ever", async () => {
    const later = { status: 503, headers: { "retry-after": "2" }, body: { code: 503, slug: "overloaded", msg: "later" } };
    const { waits, stored } = served({ refusals: [later, { ...later, headers: {} }], limit: 1 });
    assert.deepEqual(await offsets(stored), [1]);
    assert.deepEqual(waits, [2_000, 1_000]);
    const { asked, stored: never } = served({ refusals: Array(9).fill(later) });
    await assert.rejects(offsets(never), (error) => error instanceof SignalError && error.slug === "overloaded");
    assert.equal(asked.length, 5);
  });

  it("says why there is no page: a log that does not reach back so far, a proxy's page", async () => {
    const expired = { status: 410, body: { code: 410, slug: "cursor_expired", msg: "the log begins at 90" } };
    const { stored } = served({ refusals: [expired], since: { cursor: "E:1" } });
    await assert.rejects(offsets(stored), ({ code, slug, message }) => code === 410 && slug === "cursor_expired" && /begins at 90/.test(message));
    const fetch = async () => new Response("<h1>Bad gateway</h1>", { status: 502 });
    await assert.rejects(offsets(history({ url: "https://example.test", fetch })), ({ code, message }) => code === 502 && /502/.test(message));
  });

  it("is ended by its signal", async () => {
    const abort = new AbortController();
    abort.abort();
    const fetch = async (_, { signal: given }) => given.throwIfAborted();
    await assert.rejects(offsets(history({ url: "https://example.test", fetch, signal: abort.signal })), { name: "AbortError" });
  });

  it("refuses pages and limits that cannot be", () => {
    assert.throws(() => history({ url: "https://example.test", page: 501 }), /1 to 500/);
    assert.throws(() => history({ url: "https://example.test", limit: 0 }), /at least 1/);
  });
});
