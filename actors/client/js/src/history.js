/** What is stored, page by page over `GET /v1/history`, for who wants to read far back at a pace of their own. */
import { filterOf } from "./filter.js";
import { SignalError } from "./index.js";
import { signalItem } from "./item.js";
import { realWorld, streamUrl } from "./world.js";

const PAGE = 100;
const TRIES = 5; // of one page, as long as the server asks to come back later
const RETRY_S = 1; // when it does not say how much later

/** The address of the history of the stream that a client would follow at `url`. */
function historyUrl(url) {
  const address = streamUrl(url).replace(/^ws/, "http").replace(/[?#].*$/, "").replace(/\/$/, "");
  return address.endsWith("/v1/stream") ? address.replace(/stream$/, "history") : `${address}/history`;
}

/**
 * The stored signals that match, up to the newest there is when the last page is read:
 *
 *     const stored = history({ url, types: "price.>", since: { cursor }, limit: 1_000 });
 *     for await (const signal of stored) …
 *
 * Takes `types`, `entities` and `where` as `subscribe` does; `since` `"earliest"` (default) or `{ cursor }`; `reverse`, then
 * newest first from `since` backwards; `limit` and how many signals a `page` has (1 to 500). A loop that is left goes on
 * when it is begun again. Throws a `SignalError`, with `code` 410 when the log no longer reaches back to where this is.
 */
export function history(options) {
  return new History(options);
}

export class History {
  /** Everything that matches up to here was read (in reverse: from here on); `null` before the first page. */
  cursor = null;
  #address;
  #filter;
  #token;
  #fetch;
  #abort;
  #world;
  #reverse;
  #left;
  #page;
  #read = [];
  #more = true;

  constructor({ url, token, since = "earliest", reverse = false, limit = Infinity, page = PAGE, signal, ...rest } = {}) {
    if (!(page >= 1 && page <= 500)) throw new RangeError(`page is ${page}; it is 1 to 500`);
    if (!(limit >= 1)) throw new RangeError(`limit is ${limit}; it is at least 1`);
    const { types, entities, where, fetch = globalThis.fetch, ...world } = rest;
    this.#address = historyUrl(url);
    this.#filter = filterOf({ types, entities, where });
    this.#token = token;
    this.#fetch = fetch;
    this.#abort = signal;
    this.#world = realWorld(world);
    this.#reverse = reverse;
    this.#left = limit;
    this.#page = page;
    this.cursor = since.cursor ?? null;
  }

  async *[Symbol.asyncIterator]() {
    while (this.#read.length > 0 || (this.#more && this.#left > 0)) {
      if (this.#read.length === 0) await this.#readPage();
      else yield this.#read.shift();
    }
  }

  async #readPage() {
    const query = { limit: Math.min(this.#page, this.#left) };
    if (this.cursor !== null) query.after = this.cursor;
    if (this.#reverse) query.reverse = true;
    if (Object.keys(this.#filter).length > 0) query.filter = JSON.stringify(this.#filter);
    const parts = Object.entries(query).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
    const { a, b, d, more, epoch } = await this.#asked(`${this.#address}?${parts.join("&")}`);
    this.#read = d.map((signal) => signalItem(epoch, signal));
    this.#left -= d.length;
    this.#more = more;
    this.cursor = `${epoch}:${this.#reverse ? a : b}`;
  }

  async #asked(url) {
    for (let tries = 1; ; tries += 1) {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const answer = await this.#fetch.call(globalThis, url, { headers, signal: this.#abort });
      if (answer.ok) return answer.json();
      const { status } = answer;
      if ((status === 429 || status === 503) && tries < TRIES) {
        const seconds = Number(answer.headers.get("retry-after")) || RETRY_S;
        await new Promise((resolve) => this.#world.setTimeout(resolve, seconds * 1_000));
        continue;
      }
      const { code = status, slug, msg = `answered ${status}` } = await answer.json().catch(() => ({}));
      throw new SignalError(msg, { code, slug });
    }
  }
}
