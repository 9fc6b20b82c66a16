import type { CursorStore } from "heliograph-client";

/**
 * Keeps cursors in one file, for Node, Deno and Bun. A crash leaves it as it was before a save, or as it is after it.
 * One process at a time; several subscriptions and clients with the same store are fine.
 */
export class FileCursorStore implements CursorStore {
  /** The file is made at the first save, in a folder that is there. */
  constructor(path: string);
  /** Throws when the file is another one, or damaged: a client reports that, and begins by `since`. */
  getItem(key: string): string | null;
  setItem(key: string, cursor: string): void;
}
