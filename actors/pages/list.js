/** The list of signals: newest first, bounded, and one change of the document per animation frame. */

const ROWS = 500;
const TEXT = 160; // characters of data in a row; the detail shows all of it

/** A colour per kind of signal: the same first token has the same hue on every page. */
function hue(type) {
  let sum = 7;
  for (const letter of type.split(".", 2).join(".")) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}

function span(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

function shorten(text) {
  return text.length > TEXT ? `${text.slice(0, TEXT)}…` : text;
}

/** `{ p: 1 }` as `p 1`, with the names quieter than the values; anything else as JSON. */
function summary(data) {
  const element = span("data", "");
  if (data === null || typeof data !== "object" || Array.isArray(data)) {
    element.textContent = shorten(JSON.stringify(data));
    return element;
  }
  let used = 0;
  for (const [name, value] of Object.entries(data)) {
    if (used > TEXT) break;
    const text = shorten(typeof value === "string" ? value : JSON.stringify(value));
    const label = document.createElement("b");
    label.textContent = `${name} `;
    element.append(label, `${text}  `);
    used += name.length + text.length;
  }
  return element;
}

function clock(ts) {
  const date = new Date(ts);
  const element = document.createElement("time");
  element.className = "time";
  element.dateTime = date.toISOString();
  element.textContent = `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
  return element;
}

function signalRow(signal) {
  const item = document.createElement("li");
  item.dataset.offset = signal.offset;
  const row = document.createElement("button");
  row.type = "button";
  row.className = "row";
  row.setAttribute("aria-expanded", "false");
  const type = span("type", signal.type);
  type.style.setProperty("--hue", hue(signal.type));
  row.append(span("offset", signal.offset), clock(signal.ts), type, span("entity", signal.entity), summary(signal.data));
  row.title = "Show the whole signal";
  item.append(row);
  return item;
}

function gapRow({ after, upto, reason }) {
  const item = document.createElement("li");
  item.className = "gap";
  if (reason === "epoch") item.textContent = "The stream was replaced: signals published meanwhile may be missing here.";
  else item.textContent = `Signals ${after + 1} to ${upto} are missing here (${reason}).`;
  return item;
}

export class SignalList {
  #list;
  #waiting = [];
  #signals = new WeakMap(); // row → its signal, for the detail
  #frame = null;
  #paused = false;
  #changed;

  /** `changed({ rows, waiting })` is called after each change. */
  constructor(list, changed) {
    this.#list = list;
    this.#changed = changed;
    list.addEventListener("click", (event) => this.#toggle(event.target.closest(".row")));
    list.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Take a signal or a gap; it is shown with the next frame. */
  add(item) {
    this.#waiting.push(item);
    if (this.#waiting.length > ROWS) this.#waiting.shift();
    this.#later();
  }

  clear() {
    this.#waiting = [];
    this.#list.replaceChildren();
    this.#later();
  }

  set paused(paused) {
    this.#paused = paused;
    this.#later();
  }

  /** Every change goes through here, so that a burst of signals costs one layout. A hidden page gets no frames and does no work. */
  #later() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      if (!this.#paused && this.#waiting.length > 0) this.#show(this.#waiting.splice(0));
      this.#changed({ rows: this.#list.childElementCount, waiting: this.#waiting.length });
    });
  }

  #show(items) {
    const fragment = document.createDocumentFragment();
    const fresh = this.#list.childElementCount > 0; // the first screenful does not flash
    for (const item of items) {
      const row = item.kind === "gap" ? gapRow(item) : signalRow(item);
      if (fresh) row.classList.add("fresh");
      this.#signals.set(row, item);
      fragment.prepend(row);
    }
    this.#list.prepend(fragment);
    while (this.#list.childElementCount > ROWS) this.#list.lastElementChild.remove();
  }

  #toggle(row) {
    if (row === null) return;
    const item = row.parentElement;
    const open = row.getAttribute("aria-expanded") === "true";
    row.setAttribute("aria-expanded", String(!open));
    if (open) return item.querySelector(".detail").remove();
    const { kind, cursor, epoch, ...signal } = this.#signals.get(item);
    const detail = document.createElement("pre");
    detail.className = "detail";
    detail.tabIndex = 0;
    detail.setAttribute("aria-label", `Signal ${signal.offset} of epoch ${epoch}`);
    detail.textContent = JSON.stringify(signal, null, 2);
    item.append(detail);
  }

  #move(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const row = event.target.closest(".row");
    if (step === undefined || row === null) return;
    event.preventDefault();
    let next = row.parentElement[step];
    while (next !== null && next.querySelector(".row") === null) next = next[step];
    next?.querySelector(".row").focus();
  }
}
