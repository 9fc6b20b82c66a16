/** Numbers with their units, and times. */
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const NONE = "–";
export const count = (n: number | null) => (n === null ? NONE : whole.format(n));
export const plural = (n: number, name: string) => `${count(n)} ${name}${n === 1 ? "" : "s"}`;
export const rate = (n: number | null) => (n === null ? NONE : n >= 100 ? whole.format(Math.round(n)) : short.format(n));

export function duration(ms: number | null): string {
  if (ms === null) return NONE;
  if (ms < 1_000) return `${short.format(ms)} ms`;
  const s = ms / 1_000;
  if (s < 60) return `${short.format(s)} s`;
  if (s < 3_600) return parts(s, 60, "min", 1, "s");
  if (s < 86_400) return parts(s, 3_600, "h", 60, "min");
  return parts(s, 86_400, "d", 3_600, "h");
}

/** In two units, or in one when nothing is left for the other. */
function parts(s: number, large: number, name: string, small: number, smaller: string): string {
  const rest = Math.floor((s % large) / small);
  return `${Math.floor(s / large)} ${name}${rest > 0 ? ` ${rest} ${smaller}` : ""}`;
}

export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let n = bytes;
  let unit = 0;
  while (n >= 1_000 && unit < units.length - 1) [n, unit] = [n / 1_000, unit + 1];
  return `${short.format(n)} ${units[unit]}`;
}

export const clock = (ms: number) => new Date(ms).toLocaleTimeString("en-GB");
/** With milliseconds. */
export const moment = (ms: number) => `${clock(ms)}.${String(ms % 1_000).padStart(3, "0")}`;
export const stamp = (ms: number) => `${new Date(ms).toLocaleDateString("sv-SE")} ${clock(ms)}`;

export function distance(at: number | null, now: number): string {
  if (at === null) return NONE;
  const rounded = Math.round((at - now) / 1_000) * 1_000;
  return rounded === 0 ? "now" : rounded > 0 ? `in ${duration(rounded)}` : `${duration(-rounded)} ago`;
}
