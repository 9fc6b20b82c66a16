/** The sockets of a client: none, one, or two while a new one takes the place of the old one [2.14]. */
import { Socket } from "./socket.js";

/** `used` is the one that requests go to, `next` the one that is to take its place. */
export class Sockets {
  used = null;
  next = null;
  #numbers = 0;

  get list() {
    return [this.used, this.next].filter(Boolean);
  }

  /** The socket in use can be spoken on. */
  get ready() {
    return Boolean(this.used?.greeting);
  }

  /** What is new is for the socket in use; while another one takes its place it waits for that. */
  get open() {
    return this.ready && !this.next;
  }

  /** The open socket of this number; without one, the one in use. */
  find(number) {
    if (number === undefined) return this.used;
    return this.list.find((socket) => socket.number === number) ?? null;
  }

  /** Ask for the socket to use, or while there is one for its successor; returns its number. */
  ask(openBy) {
    const socket = new Socket((this.#numbers += 1), openBy, Boolean(this.used));
    if (this.used) this.next = socket;
    else this.used = socket;
    return socket.number;
  }

  /** Forget all of them; returns the numbers of those that were there. */
  close() {
    const numbers = this.list.map(({ number }) => number);
    this.used = this.next = null;
    return numbers;
  }

  /** The next one is in use from now on; returns the one before. */
  succeed() {
    const old = this.used;
    this.used = this.next;
    this.next = null;
    this.used.successor = false;
    return old;
  }

  leave(s) {
    for (const socket of this.list) socket.leave(s);
  }

  /** Whether the next one is live with everything, and as far as either has brought the application. */
  hasMoved(feeds) {
    if (!this.next?.greeting) return false;
    return [...this.next.places].every(([s, { state, epoch, c }]) => {
      return state === "live" && `${epoch}:${c}` === feeds.get(s).cursor;
    });
  }
}
