/** What the page knows: who asks, the overview, the sources. It follows the console's hidden stream. */
import { computed, signal } from "@preact/signals";
import { SignalClient } from "heliograph-client";

import { Refusal, get } from "./api";

export interface Session { operator: string; version: string; streams: string[]; started: number; pages: string[] }
export interface Light { id: string; state: "green" | "amber" | "red"; rule: string; seen: string; link: string | null }
export interface Overview {
  at: number;
  signals_per_s: number | null;
  deliveries_per_s: number | null;
  connections: number;
  fanout_ms: { p50: number | null; p99: number | null };
  recoveries: { ok: number; gap: number; failed: number };
  errors_per_min: number;
  slow_consumers: number;
  retained: { signals: number; bytes: number };
  actors: { live: number; hibernated: number; failing: number };
  memory_bytes: number;
  cpu: number | null;
  loop_lag_ms: number;
  lights: Light[];
}
export interface Source {
  name: string; kind: string; schedule: string | null; timezone: string | null; stream: string;
  paused: boolean; running: boolean; last_run: number | null; duration_ms: number | null; next: number | null;
  produced: number; duplicates: number; rejected: number; failures: number; failing_since: number | null;
  last_error: string | null;
}
type Numbers = (number | null)[];
export interface Series { at: number[]; signals_per_s: Numbers; deliveries_per_s: Numbers; connections: Numbers; p50_ms: Numbers; p99_ms: Numbers }

const POINTS = 900; // 15 minutes of seconds

export const session = signal<Session | null>(null);
export const refusal = signal<Refusal | null>(null);
export const link = signal<string>("connecting");
export const overview = signal<Overview | null>(null);
export const series = signal<Series>({ at: [], signals_per_s: [], deliveries_per_s: [], connections: [], p50_ms: [], p99_ms: [] });
export const sources = signal<Map<string, Source> | null>(null);
export const lost = computed(() => session.value !== null && !["connected", "connecting", "draining"].includes(link.value));

let client: SignalClient | null = null;

/** What the address asks of a list: `#/actors?state=failing`. */
export const wished = (): Record<string, string> => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1]));

/** Ask who we are, and follow the stream if we may. */
export async function enter(): Promise<void> {
  try {
    session.value = await get<Session>("session");
    refusal.value = null;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status !== 0 || session.value === null) refusal.value = error;
    if (error.status === 401) leave();
    if (error.status === 0 && session.value === null) setTimeout(enter, 2_000);
    return;
  }
  if (client === null) follow();
  else await refresh();
}

/** Show nothing any more to somebody who was signed out. */
export function leave(): void {
  client?.close();
  client = null;
  session.value = null;
  overview.value = null;
  sources.value = null;
}

function follow(): void {
  const mine = (client = new SignalClient({ url: new URL("/console/stream", location.href) }));
  mine.on("state", ({ state }) => {
    if (client !== mine) return;
    link.value = state;
    if (state === "connected") void refresh();
    if (state === "reconnecting") void enter(); // it may be that the session has ended
  });
  const sub = mine.subscribe({ types: "console.>", since: { last: 1 }, overflow: "drop_oldest" });
  sub.on("signal", ({ type, data }) => {
    if (type === "console.overview") push(data as unknown as Overview);
    else if (type === "console.ingest") put(data as unknown as Source);
  });
}

async function refresh(): Promise<void> {
  try {
    const [past, found] = await Promise.all([get<Series>("overview/series?minutes=15"), get<{ sources: Source[] }>("ingest")]);
    series.value = past;
    sources.value = new Map(found.sources.map((source) => [source.name, source]));
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) void enter();
    else if (!(error instanceof Refusal)) throw error; // a lost server is told by the stream
  }
}

function push(now: Overview): void {
  overview.value = now;
  const { at, signals_per_s, deliveries_per_s, connections, p50_ms, p99_ms } = series.value;
  if (at.length > 0 && now.at <= at[at.length - 1]!) return;
  const add = <T>(values: T[], value: T) => [...values.slice(1 - POINTS), value];
  series.value = {
    at: add(at, now.at),
    signals_per_s: add(signals_per_s, now.signals_per_s),
    deliveries_per_s: add(deliveries_per_s, now.deliveries_per_s),
    connections: add(connections, now.connections),
    p50_ms: add(p50_ms, now.fanout_ms.p50),
    p99_ms: add(p99_ms, now.fanout_ms.p99),
  };
}

export function put(source: Source): void {
  sources.value = new Map(sources.value ?? []).set(source.name, source);
}
