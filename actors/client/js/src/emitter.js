/** Errors and events: what both the client and its subscriptions are made of. */

/** What the server refused or the client gave up on; `code` is of the protocol [2.12] or a close code [2.13]. */
export class SignalError extends Error {
  constructor(message, { code = null, slug = null } = {}) {
    super(message);
    Object.assign(this, { name: "SignalError", code, slug });
  }
}

export const report = (error) => (globalThis.reportError ?? console.error)(error);

export class Emitter {
  #handlers = new Map();

  /** Call `handler` with each value of `event`; returns a function that ends this. One that throws is reported, and kept. */
  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  /** Tell the handlers; returns the promises of those that are not done yet. */
  _emit(event, value) {
    const pending = [];
    for (const handler of [...(this.#handlers.get(event) ?? [])]) {
      try {
        const answer = handler(value);
        if (answer?.then) pending.push(answer.then(null, report));
      } catch (error) {
        report(error);
      }
    }
    return pending;
  }
}
