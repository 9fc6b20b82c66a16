import type { Json, Signal, Where } from "heliograph-client";

export interface HistoryOptions {
  /** The address that a client would have; default the page's own host. */
  url?: string | URL;
  /** Sent as `Authorization: Bearer`; a function is asked before each page. */
  token?: string | (() => string | Promise<string>);
  types?: string | string[];
  entities?: string | string[];
  where?: Where;
  /** Where to begin, or in reverse the first that may come; default the oldest stored signal, in reverse the newest. */
  since?: "earliest" | { cursor: string };
  /** Newest first. */
  reverse?: boolean;
  /** The most signals; default all there are. */
  limit?: number;
  /** How many to ask for at once, 1 to 500; default 100. */
  page?: number;
  /** Ends the reading. */
  signal?: AbortSignal;
  /** Default the platform's. */
  fetch?: typeof fetch;
  setTimeout?: (work: () => void, ms: number) => unknown;
}

/** The stored signals that match, in order, up to the newest there is when the last page is read. */
export interface History<Data = Json> extends AsyncIterable<Signal<Data>> {
  /** Everything that matches up to here was read (in reverse: from here on); `null` before the first page. */
  readonly cursor: string | null;
}

/**
 * What is stored, page by page over `GET /v1/history`. What the server asks to be asked for later is asked again, up to five
 * times. Throws a `SignalError`: with `code` 410 when the log does not reach back to `since` (any more), 412 when `since`
 * is of another epoch.
 */
export function history<Data = Json>(options?: HistoryOptions): History<Data>;
