/**
 * The React entry point: `<SignalProvider client={client}>` around an app, `useSignals(subscription, view)` inside.
 *
 * Components that ask for the same share one subscription. It outlives a moment without any (250 ms: StrictMode mounts
 * twice, routes change), and what arrives is shown at most once per animation frame.
 */
import { createContext, createElement, useContext, useMemo, useSyncExternalStore } from "react";

const LINGER_MS = 250;
const FRAME_MS = 16; // where there are no animation frames
const KEEP = 100;

const Client = createContext(null);
const stores = new WeakMap(); // client → its stores by what was asked for

/** Gives `client` to every `useSignals` below. */
export function SignalProvider({ client, children }) {
  return createElement(Client.Provider, { value: client }, children);
}

const NOTHING = Object.freeze({ signals: [], latest: new Map(), state: "pending", gap: null, error: null });

const nextFrame = (work) => (globalThis.requestAnimationFrame ?? ((later) => setTimeout(later, FRAME_MS)))(work);

/** One subscription and what is shown of it, for as long as somebody looks. */
class Store {
  snapshot = NOTHING;
  #client;
  #options;
  #view;
  #shared;
  #key;
  #listeners = new Set();
  #sub = null;
  #linger = null;
  #arrived = [];
  #change = {};
  #drawing = false;

  constructor(client, options, view, shared, key) {
    this.#client = client;
    this.#options = options;
    this.#view = view;
    this.#shared = shared;
    this.#key = key;
  }

  watch = (listener) => {
    clearTimeout(this.#linger);
    this.#listeners.add(listener);
    if (this.#sub === null) this.#open();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#linger = setTimeout(() => this.#close(), LINGER_MS);
    };
  };

  #open() {
    if (!this.#shared.has(this.#key)) this.#shared.set(this.#key, this);
    this.#sub = this.#client.subscribe(this.#options);
    this.#sub.on("state", ({ state, error = null }) => this.#changed({ state, error }));
    this.#sub.on("gap", (gap) => this.#changed({ gap }));
    this.#sub.on("signal", (signal) => {
      this.#arrived.push(signal);
      if (this.#arrived.length > this.#view.keep && this.#view.latestBy === undefined) this.#arrived.shift();
      this.#changed({});
    });
  }

  #close() {
    if (this.#shared.get(this.#key) === this) this.#shared.delete(this.#key);
    this.#sub.close();
    this.#sub = null; // a component that was only hidden opens it again
  }

  #changed(change) {
    Object.assign(this.#change, change);
    if (this.#drawing) return;
    this.#drawing = true;
    nextFrame(() => this.#draw());
  }

  #draw() {
    const { keep, latestBy } = this.#view;
    const { signals, latest } = this.snapshot;
    const arrived = this.#arrived.splice(0);
    const changed = { ...this.#change };
    this.#change = {};
    this.#drawing = false;
    if (arrived.length > 0) {
      changed.signals = [...signals, ...arrived].slice(-keep);
      if (latestBy !== undefined) changed.latest = this.#newest(latest, arrived);
    }
    this.snapshot = Object.freeze({ ...this.snapshot, ...changed });
    for (const listener of [...this.#listeners]) listener();
  }

  /** At most `keep` keys: the one that has been silent the longest gives way. */
  #newest(latest, arrived) {
    const { keep, latestBy } = this.#view;
    const newest = new Map(latest);
    for (const signal of arrived) {
      const key = typeof latestBy === "function" ? latestBy(signal) : signal[latestBy];
      newest.delete(key);
      newest.set(key, signal);
      if (newest.size > keep) newest.delete(newest.keys().next().value);
    }
    return newest;
  }
}

function storeOf(client, options, view, key) {
  const shared = stores.get(client) ?? new Map();
  stores.set(client, shared);
  if (!shared.has(key)) shared.set(key, new Store(client, options, view, shared, key));
  return shared.get(key);
}

/**
 * What a subscription has brought: `{ signals, latest, state, gap, error }`, the newest signal last.
 *
 * `options` are those of `client.subscribe`; two that read the same are the same. `keep` bounds what is shown (100),
 * `latestBy` (`"entity"`, `"type"` or a function) fills `latest`, a Map from key to newest signal.
 */
export function useSignals(options = {}, { client, keep = KEEP, latestBy } = {}) {
  const provided = useContext(Client);
  const used = client ?? provided;
  if (used === null) throw new Error("useSignals has no client: wrap the app in <SignalProvider client={…}>, or pass { client }");
  const key = JSON.stringify([options, keep, String(latestBy)]);
  const store = useMemo(() => storeOf(used, options, { keep, latestBy }, key), [used, key]);
  const read = () => store.snapshot;
  return useSyncExternalStore(store.watch, read, () => NOTHING);
}
