import type { CursorStore } from "heliograph-client";

/** Keeps cursors as long as it lives: over the clients of one page or process, and in tests. */
export class MemoryCursorStore implements CursorStore {
  constructor();
  getItem(key: string): string | null;
  setItem(key: string, cursor: string): void;
}
