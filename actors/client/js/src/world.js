/** What a client needs of the place where it runs; every part can be given instead. */

/** Time, timers and chance. */
export function realWorld(given) {
  return {
    random: Math.random,
    now: Date.now,
    setTimeout: (work, ms) => setTimeout(work, ms),
    clearTimeout: (timer) => clearTimeout(timer),
    ...given,
  };
}

/** Tell what happens to the page and to the network, where there are such things; returns how to stop. */
export function watchBrowser(tell) {
  const { document } = globalThis;
  const watched = [
    [globalThis, "online", () => tell("online")],
    [globalThis, "offline", () => tell("offline")],
    [globalThis, "pagehide", () => tell("hidden")],
    [globalThis, "pageshow", () => tell("visible")],
    [document, "visibilitychange", () => tell(document.visibilityState)],
  ].filter(([target]) => target?.addEventListener);
  for (const [target, event, listener] of watched) target.addEventListener(event, listener);
  return () => {
    for (const [target, event, listener] of watched) target.removeEventListener(event, listener);
  };
}

/** A clock that never runs backwards, although the wall clock does when somebody sets it. */
export function steady(clock) {
  let [last, skew] = [0, 0];
  return () => {
    const now = clock();
    skew = Math.max(skew, last - now);
    return (last = now + skew);
  };
}

/**
 * The stream's address: http(s) or ws(s), by default the page's own host; `/v1/stream` unless it has a path. What is
 * absolute is taken as a text, because React Native's URL cannot be changed and adds a slash.
 */
export function streamUrl(url = "/", base = globalThis.location?.href) {
  const address = /^\w+:/.test(url) ? String(url) : new URL(url, base).href;
  return address.replace(/^http/, "ws").replace(/^(\w+:\/\/[^/?#]+)\/?(?=[?#]|$)/, "$1/v1/stream");
}

/** An id that nobody else makes; without Web Crypto (old React Native) it is only very likely to be. */
export function newId(random) {
  const parts = globalThis.crypto?.getRandomValues(new Uint32Array(4)) ?? [0, 0, 0, 0].map(() => random() * 2 ** 32);
  return [...parts].map((part) => Math.floor(part).toString(36)).join("-");
}
