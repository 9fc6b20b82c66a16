/** Small curves of `host.cpu.usage`, one for each entity. */

const POINTS = 60;
const CURVES = 16;
const SVG = "http://www.w3.org/2000/svg";

function curve(entity) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = entity;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const area = document.createElementNS(SVG, "polygon");
  const line = document.createElementNS(SVG, "polyline");
  svg.append(area, line);
  const value = document.createElement("span");
  item.append(name, svg, value);
  return { item, area, line, value, points: [] };
}

export class Sparks {
  #list;
  #curves = new Map();
  #frame = null;

  constructor(list) {
    this.#list = list;
  }

  /** Take a signal; whatever is no CPU usage is ignored. */
  add({ type, entity, data }) {
    if (type !== "host.cpu.usage" || !Number.isFinite(data?.pct)) return;
    if (!this.#curves.has(entity)) {
      if (this.#curves.size === CURVES) return;
      this.#curves.set(entity, curve(entity));
      const sorted = [...this.#curves].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }));
      this.#list.replaceChildren(...sorted.map(([, { item }]) => item));
      this.#list.parentElement.hidden = false;
    }
    const { points } = this.#curves.get(entity);
    points.push(data.pct);
    if (points.length > POINTS) points.shift();
    this.#frame ??= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = null;
    for (const { points, line, area, value } of this.#curves.values()) {
      const first = POINTS - points.length;
      const path = points.map((pct, index) => `${first + index},${100 - pct}`).join(" ");
      line.setAttribute("points", path);
      area.setAttribute("points", `${first},100 ${path} ${POINTS - 1},100`);
      value.textContent = `${points[points.length - 1].toFixed(0)} %`;
    }
  }
}
