/** A list of any length: only the rows in view are asked for and drawn. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { get } from "./api";
import { link } from "./model";

const ROW_PX = 36; // --row in console.css
const WINDOW = 200; // rows of one request
const SPARE = 8; // rows drawn beyond each edge

interface Loaded<Row> { offset: number; rows: Row[] }
type Load = (offset: number, limit: number) => void;

/** What the API says of a window of a list; only the answer to the newest question counts. */
export function useWindow<Answer>(path: string, wish: Record<string, string>) {
  const [found, show] = useState<Answer & { offset: number } | null>(null);
  const [error, fail] = useState("");
  const asked = useRef(0);
  const load = useCallback<Load>((offset, limit) => {
    const turn = (asked.current += 1);
    get<Answer>(`${path}?${new URLSearchParams({ ...wish, offset: `${offset}`, limit: `${limit}` })}`).then(
      (answer) => turn === asked.current && (show({ ...answer, offset }), fail("")),
      (refused: Error) => turn === asked.current && fail(refused.message),
    );
  }, [wish]);
  useEffect(() => load(0, WINDOW), [load, link.value === "connected"]);
  return { found, error, load };
}

/** A list without rows: asked for again once a second, as one with rows. */
export function Empty({ load, children }: { load: Load; children: preact.ComponentChildren }) {
  useEffect(() => {
    const timer = setInterval(() => load(0, WINDOW), 1_000);
    return () => clearInterval(timer);
  }, [load]);
  return <p class="empty">{children}</p>;
}

/** The head of a table; names that begin with `#` stand over numbers. */
export const Heads = ({ names }: { names: string[] }) => (
  <thead><tr>{names.map((name) => <th key={name} scope="col" class={name.startsWith("#") ? "number" : ""}>{name.replace("#", "")}</th>)}</tr></thead>
);

/** A number in a row of a list; nothing to look at when it is 0, and bad news when it is not and says so. */
export const Amount = ({ of, bad = false, children }: { of: number; bad?: boolean; children: preact.ComponentChildren }) => (
  <span class={`number ${of === 0 ? "quiet" : bad ? "error" : ""}`}>{children}</span>
);

/** Rows are asked for again once a second, so that the list is live. */
export function List<Row>({ name, kind, total, load, loaded, draw, open }: {
  name: string;
  kind: string;
  total: number;
  load: Load;
  loaded: Loaded<Row>;
  draw: (row: Row) => preact.ComponentChildren;
  open: (row: Row) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [top, scroll] = useState(0);
  const [chosen, choose] = useState(0);
  const seen = Math.ceil((box.current?.clientHeight ?? 600) / ROW_PX);
  const first = Math.max(0, Math.min(total, top) - SPARE);
  const last = Math.min(total, top + seen + SPARE);
  const offset = Math.max(0, top - Math.floor((WINDOW - seen) / 2));
  const covers = loaded.offset <= first && loaded.offset + loaded.rows.length >= last;

  const from = useRef(offset);
  from.current = offset;
  useEffect(() => {
    if (!covers) load(offset, WINDOW);
  }, [covers, covers ? 0 : offset, load]);
  useEffect(() => {
    const timer = setInterval(() => load(from.current, WINDOW), 1_000);
    return () => clearInterval(timer);
  }, [load]);

  const row = (n: number) => loaded.rows[n - loaded.offset];
  const key = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: seen, PageUp: -seen, Home: -total, End: total }[event.key];
    const found = row(chosen);
    if (step !== undefined) {
      const next = Math.max(0, Math.min(total - 1, chosen + step));
      const view = box.current!;
      choose(next);
      if (next * ROW_PX < view.scrollTop) view.scrollTop = next * ROW_PX;
      else if ((next + 1) * ROW_PX > view.scrollTop + view.clientHeight) view.scrollTop = (next + 1) * ROW_PX - view.clientHeight;
    } else if (event.key === "Enter" && found !== undefined) open(found);
    else return;
    event.preventDefault();
  };

  return (
    <div
      ref={box} class={`list ${kind}`} style={{ maxHeight: `${total * ROW_PX + 2}px` }} role="listbox" tabIndex={0} aria-label={name}
      aria-activedescendant={chosen >= first && chosen < last ? `row-${chosen}` : undefined}
      onKeyDown={key}
      onScroll={() => scroll(Math.floor(box.current!.scrollTop / ROW_PX))}
    >
      <div class="rows" role="presentation" style={{ height: `${total * ROW_PX}px` }}>
        {Array.from({ length: Math.max(0, last - first) }, (_, n) => first + n).map((n) => {
          const found = row(n);
          return (
            <div
              key={n} id={`row-${n}`} class="row" role="option" aria-selected={n === chosen} aria-posinset={n + 1} aria-setsize={total}
              style={{ transform: `translateY(${n * ROW_PX}px)` }}
              onClick={() => (choose(n), found !== undefined && open(found))}
            >
              {found === undefined ? "…" : draw(found)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
