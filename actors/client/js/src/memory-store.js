/** Keeps cursors as long as it lives: over the clients of one page or process, and in tests. */
export class MemoryCursorStore {
  #cursors = new Map();

  getItem(key) {
    return this.#cursors.get(key) ?? null;
  }

  setItem(key, cursor) {
    this.#cursors.set(key, cursor);
  }
}
