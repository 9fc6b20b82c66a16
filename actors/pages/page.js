/** The live page: one subscription, the filter that shapes it, and what is told about the connection. */

import { SignalClient } from "/client.js";
import { SignalList } from "/assets/list.js";
import { Sparks } from "/assets/sparks.js";

const TYPING_MS = 350;
const RATE_S = 5;
const $ = (id) => document.getElementById(id);

const client = new SignalClient({ name: "live-page" });
const list = new SignalList($("signals"), shown);
const sparks = new Sparks($("sparks"));
let sub = null;
let received = 0;
let gaps = 0;
let arrivals = []; // how many signals came in each of the last seconds

// The connection.

let reconnectsAt = 0;

function told() {
  const { state, attempt, reason, code } = client.state;
  const seconds = Math.max(0, Math.ceil((reconnectsAt - Date.now()) / 1000));
  const again = attempt > 1 ? ` (attempt ${attempt})` : "";
  return {
    connecting: "Connecting…",
    connected: ["pending", "catchup"].includes(sub?.state) ? "Connected, catching up…" : "Connected",
    resuming: `Resuming…${again}`,
    draining: "The server is restarting; this page follows",
    offline: "No network; this page goes on when it is back",
    reconnecting: seconds > 0 ? `Reconnecting in ${seconds} s${again}` : `Reconnecting…${again}`,
    closed: `Stopped: ${reason || `close code ${code}`}. Reload the page to try again.`,
  }[state];
}

function tellState() {
  $("state").dataset.state = client.state.state;
  const text = told();
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

client.on("state", ({ delayMs = 0 }) => {
  reconnectsAt = Date.now() + delayMs;
  tellState();
  $("announce").textContent = told(); // once for each state; the countdown is for eyes only
});

// The subscription.

function patterns(text) {
  return text.split(/[\s,]+/).filter((pattern) => pattern !== "");
}

function problem(text) {
  $("problem").hidden = text === "";
  $("problem").textContent = text;
  for (const input of [$("types"), $("entities")]) {
    input.setAttribute("aria-invalid", String(text !== "" && input.value !== ""));
  }
}

function refused(text) {
  problem(text);
  list.clear();
}

function subscribe() {
  sub?.close();
  list.clear();
  received = 0;
  $("received").textContent = received;
  problem("");
  const types = patterns($("types").value);
  const entities = patterns($("entities").value);
  $("clear").hidden = types.length + entities.length === 0;
  const filter = { ...(types.length > 0 && { types }), ...(entities.length > 0 && { entities }) };
  sub = client.subscribe({ ...filter, since: { last: 50 }, onGap: "skip" });
  sub.on("signal", take);
  sub.on("gap", (gap) => {
    gaps += 1;
    $("gaps").textContent = gaps;
    $("gaps").className = "bad";
    list.add(gap);
  });
  sub.on("state", ({ state, error }) => {
    if (state === "failed" && client.state.state !== "closed") refused(`The server refused this filter: ${error.message}`);
    tellState();
  });
  const words = new URLSearchParams();
  for (const [key, kept] of Object.entries(filter)) words.set(key, kept.join(" "));
  history.replaceState(null, "", words.size > 0 ? `#${words}` : location.pathname);
}

function take(signal) {
  received += 1;
  if (sub.state === "live") arrivals[0] = (arrivals[0] ?? 0) + 1; // what is read back from the log is no rate
  $("received").textContent = received.toLocaleString("en");
  $("last").textContent = signal.offset;
  sparks.add(signal);
  list.add(signal);
}

function shown({ rows, waiting }) {
  $("empty").hidden = rows > 0;
  const filtered = !$("clear").hidden;
  const nothing = $("problem").hidden ? "Nothing matches this filter yet." : "Correct the filter to go on.";
  $("empty-text").textContent = filtered ? nothing : "Waiting for the first signal.";
  $("empty-hint").textContent = filtered
    ? "* stands for one token, a last > for all that follow, a leading ! excludes."
    : "Publish one with the command under “Try next”.";
  $("pause-text").textContent = paused() ? `Resume${waiting > 0 ? ` (${waiting} new)` : ""}` : "Pause";
}

// The controls.

function paused() {
  return $("pause").getAttribute("aria-pressed") === "true";
}

function pause(on) {
  $("pause").setAttribute("aria-pressed", String(on));
  list.paused = on;
}

let typing = null;

function typed() {
  clearTimeout(typing);
  typing = setTimeout(subscribe, TYPING_MS);
}

function fill() {
  const words = new URLSearchParams(location.hash.slice(1));
  $("types").value = words.get("types") ?? "";
  $("entities").value = words.get("entities") ?? "";
}

$("filter").addEventListener("input", typed);
$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  subscribe();
});
$("clear").addEventListener("click", () => {
  $("filter").reset();
  subscribe();
  $("types").focus();
});
$("pause").addEventListener("click", () => pause(!paused()));
addEventListener("hashchange", () => {
  fill();
  subscribe();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
  if (event.key === "/") $("types").focus();
  else if (event.key === "p") pause(!paused());
  else return;
  event.preventDefault();
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = navigator.clipboard === undefined; // pages without TLS on another machine
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

if (location.origin !== "http://127.0.0.1:8787") {
  $("tail-command").textContent = `heliograph tail ${location.origin} --types 'host.cpu.>'`;
  $("publish-command").textContent = `heliograph publish ${location.origin} --type alert.high --entity btc-usd --data '{"p": 1}'`;
}

setInterval(() => {
  const sum = arrivals.reduce((total, count) => total + (count ?? 0), 0);
  const rate = sum / RATE_S;
  $("rate").textContent = rate >= 10 ? Math.round(rate).toLocaleString("en") : rate.toFixed(1);
  arrivals = [0, ...arrivals.slice(0, RATE_S - 1)];
  tellState();
}, 1000);

fill();
subscribe();
tellState();
