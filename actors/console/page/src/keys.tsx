/** Keys that work on every page, and the list of them. */
import { useLayoutEffect, useRef } from "preact/hooks"; // of layout: a key counts from the moment the page is seen

const KEYS = [
  ["?", "this list"], ["/", "to the filter"], ["↑ ↓", "one row up or down, in lists and tables"], ["Page Up, Page Down", "a screen of rows, in lists"],
  ["Home, End", "to the first row, to the last"], ["Enter", "open the row of a list"], ["Esc", "back to the list"],
];

/** Escape leaves what was opened, but first closes a dialog that lies over it. */
export function useEscape(leave: () => void): void {
  useLayoutEffect(() => {
    const key = (event: KeyboardEvent) => event.key === "Escape" && document.querySelector("dialog[open]") === null && leave();
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
}

/** Listens for the keys of every page, and is the list of them once somebody presses `?`. */
export function Keys() {
  const box = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const key = (event: KeyboardEvent) => {
      const target = event.target as Element;
      if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input, textarea, select") || document.querySelector("dialog[open]") !== null) return;
      if (event.key === "?") box.current!.showModal();
      else if (!toFilter(event.key) && !alongTable(event.key, target)) return;
      event.preventDefault();
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
  return (
    <dialog ref={box} aria-labelledby="keys">
      <h2 id="keys">Keys</h2>
      <dl class="keys">{KEYS.map(([key, what]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
      <form method="dialog"><button type="submit">Close</button></form>
    </dialog>
  );
}

function toFilter(key: string): boolean {
  const filter = document.querySelector<HTMLElement>("[data-filter]");
  if (key !== "/" || filter === null) return false;
  filter.focus();
  return true;
}

function alongTable(key: string, target: Element): boolean {
  const rows = [...(target.closest(".wide")?.querySelectorAll<HTMLElement>("tbody tr") ?? [])];
  const at = rows.indexOf(target.closest("tr") as HTMLElement); // -1 on the table itself
  const next = { ArrowDown: Math.min(at + 1, rows.length - 1), ArrowUp: Math.max(at - 1, 0), Home: 0, End: rows.length - 1 }[key];
  const row = next === undefined ? undefined : rows[next];
  if (row === undefined) return false;
  row.tabIndex = -1;
  row.focus();
  return true;
}
