/** The publications that wait for an answer: kept in order, sent again after a reconnect under their ids. */
import { Broken } from "./wire.js";

const IN_FLIGHT = 16; // so that a reconnect does not begin with a burst
export const RETRY_MS = 1_000; // for a retryable error that names no time

export class Publications {
  pausedUntil = Infinity; // the server asked for it; all wait, so that they keep their order
  #waiting = []; // { signal, request }
  #encoding;
  #tell;

  constructor(encoding, tell) {
    this.#encoding = encoding;
    this.#tell = tell;
  }

  add(signal) {
    this.#waiting.push({ signal, request: null });
  }

  /** What was in flight may or may not have arrived: all of it waits to be sent again. */
  disconnected() {
    this.pausedUntil = Infinity;
    for (const publication of this.#waiting) publication.request = null;
  }

  /** Send what may be sent now on `socket`; what no message can carry is refused. */
  flush(socket) {
    if (this.pausedUntil < Infinity) return;
    let flying = this.#waiting.filter(({ request }) => request !== null).length;
    for (const publication of this.#waiting.filter(({ request }) => request === null)) {
      if (flying >= IN_FLIGHT) return;
      const { signal } = publication;
      const id = socket.nextRequest();
      const text = JSON.stringify({ t: "pub", id, signal });
      const bytes = byteLength(this.#encoding.encode(text));
      if (bytes > socket.messageBytes) {
        const most = `the server takes ${socket.messageBytes} on a socket, larger ones by POST /v1/signals`;
        this.#refused(publication, { code: 413, slug: "too_large", msg: `message of ${bytes} bytes; ${most}` });
        continue;
      }
      publication.request = id;
      socket.outgoing.push(text);
      flying += 1;
    }
  }

  /** `ok` or `err` with an id; false when no publication has it. */
  answered(message, now) {
    const publication = this.#waiting.find(({ request }) => request === message.id);
    if (!publication) return;
    const { o, epoch, dup = false } = message;
    if (message.t === "ok") {
      if (!o || !epoch) throw new Broken("ok of a publication without o and epoch");
      this.#drop(publication);
      this.#tell({ e: "published", id: publication.signal.id, o, epoch, dup });
    } else if (message.retry === true) {
      publication.request = null;
      this.pausedUntil = now + (message.retry_after_ms ?? RETRY_MS);
    } else this.#refused(publication, message);
  }

  #refused(publication, { code, slug = "", msg = "" }) {
    this.#drop(publication);
    this.#tell({ e: "refused", id: publication.signal.id, code, slug, msg });
  }

  #drop(publication) {
    this.#waiting.splice(this.#waiting.indexOf(publication), 1);
  }
}

/** Bytes of a frame: a text's in UTF-8, without a TextEncoder, because React Native has none in every version. */
function byteLength(frame) {
  return typeof frame === "string" ? encodeURIComponent(frame).replace(/%../g, "x").length : frame.length;
}
