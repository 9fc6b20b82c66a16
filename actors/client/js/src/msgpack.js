/**
 * The subprotocol `signals.v1.msgpack`: `new SignalClient({ url, encoding: msgpack })`.
 *
 * It allows only what JSON has, so there is little to read and to write, and less code in doing that than in teaching a
 * library what to refuse.
 */
const TEXTS = ['{"t":"ping"}', '{"t":"pong"}']; // these are texts under this subprotocol, too
const DEPTH_MAX = 128; // so that nothing exhausts the stack
const UINT32 = 2 ** 32;
const ASCII = /^[\0-\x7f]*$/;
const PERCENT = Array.from({ length: 256 }, (_, byte) => `%${byte.toString(16).padStart(2, "0")}`);

export const msgpack = {
  subprotocol: "signals.v1.msgpack",
  /** One frame of a message's JSON text. */
  encode: (text) => (TEXTS.includes(text) ? text : encode(JSON.parse(text))),
  /** The values of a frame's messages, in order; an Error in place of one that cannot be read, and nothing behind it. */
  parse(frame) {
    const values = [];
    try {
      if (TEXTS.includes(frame)) return [JSON.parse(frame)];
      if (typeof frame === "string") throw new Error("a text frame; this subprotocol sends binary ones");
      const reader = new Reader(frame);
      while (!reader.atEnd) values.push(reader.value());
    } catch (error) {
      values.push(error);
    }
    return values;
  },
};

/** A value that JSON has, as MessagePack, each part of it in the shortest form. */
export function encode(value) {
  const bytes = [];
  write(value, bytes);
  return Uint8Array.from(bytes);
}

function write(value, bytes) {
  if (value === null) bytes.push(0xc0);
  else if (typeof value === "boolean") bytes.push(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") writeNumber(value, bytes);
  else if (typeof value === "string") {
    const text = utf8(value);
    writeLength(text.length, [0xa0, 32, 0xd9, 0xda, 0xdb], bytes);
    for (const byte of text) bytes.push(byte);
  } else if (Array.isArray(value)) {
    writeLength(value.length, [0x90, 16, null, 0xdc, 0xdd], bytes);
    for (const item of value) write(item, bytes);
  } else {
    const entries = Object.entries(value);
    writeLength(entries.length, [0x80, 16, null, 0xde, 0xdf], bytes);
    for (const part of entries.flat(1)) write(part, bytes);
  }
}

/** `fixed` and a length below `most` in one byte, or a mark and 1, 2 or 4 bytes. */
function writeLength(length, [fixed, most, mark8, mark16, mark32], bytes) {
  if (length < most) bytes.push(fixed + length);
  else if (length < 0x100 && mark8 !== null) bytes.push(mark8, length);
  else if (length < 0x10000) bytes.push(mark16, length >> 8, length & 0xff);
  else bytes.push(mark32, ...uint32(length));
}

function writeNumber(value, bytes) {
  if (!Number.isSafeInteger(value)) {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    bytes.push(0xcb, ...new Uint8Array(view.buffer));
  } else if (value >= -32 && value < 128) bytes.push(value & 0xff);
  else if (value >= 0 && value < 0x100) bytes.push(0xcc, value);
  else if (value >= 0 && value < 0x10000) bytes.push(0xcd, value >> 8, value & 0xff);
  else if (value >= 0 && value < UINT32) bytes.push(0xce, ...uint32(value));
  else if (value >= -0x80 && value < 0) bytes.push(0xd0, value & 0xff);
  else if (value >= -0x8000 && value < 0) bytes.push(0xd1, (value >> 8) & 0xff, value & 0xff);
  else if (value >= -UINT32 / 2 && value < 0) bytes.push(0xd2, ...uint32(value));
  else bytes.push(value < 0 ? 0xd3 : 0xcf, ...uint32(Math.floor(value / UINT32)), ...uint32(value % UINT32));
}

/** The low 32 bits, the highest byte first; of a negative number its two's complement. */
const uint32 = (value) => [value >> 24, value >> 16, value >> 8, value].map((part) => part & 0xff);

// UTF-8 without TextEncoder and TextDecoder, because React Native has not both in every version. Percent-encoding is
// as strict; only what is no ASCII takes this way.

function utf8(text) {
  if (ASCII.test(text)) return Array.from(text, (one) => one.charCodeAt(0));
  const encoded = encodeURIComponent(text.replace(/[\ud800-\udfff]/gu, "\ufffd")); // as WebSockets do with texts
  return encoded.match(/%..|[^%]/g).map((one) => (one.length > 1 ? parseInt(one.slice(1), 16) : one.charCodeAt(0)));
}

function textOf(bytes) {
  let text = "";
  for (const byte of bytes) {
    if (byte > 0x7f) return decodeURIComponent(Array.from(bytes, (one) => PERCENT[one]).join(""));
    text += String.fromCharCode(byte);
  }
  return text;
}

/**
 * Reads one value after the other. Refused, by an Error, is what is no MessagePack, and what JSON has not: bytes and
 * extensions, NaN and Infinity, integers beyond ±(2⁵³−1), text that is not UTF-8, keys that are no text or come twice.
 */
export class Reader {
  #bytes;
  #view;
  #at = 0;

  /** Of an ArrayBuffer, or of a view on one. */
  constructor(data) {
    this.#bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length);
  }

  get atEnd() {
    return this.#at === this.#bytes.length;
  }

  value(depth = DEPTH_MAX) {
    const mark = this.#uint(1);
    if (mark < 0x80) return mark;
    if (mark < 0x90) return this.#object(mark & 0x0f, depth);
    if (mark < 0xa0) return this.#array(mark & 0x0f, depth);
    if (mark < 0xc0) return this.#text(mark & 0x1f);
    if (mark >= 0xe0) return mark - 0x100;
    if (mark === 0xc0) return null;
    if (mark === 0xc2 || mark === 0xc3) return mark === 0xc3;
    if (mark === 0xca || mark === 0xcb) return this.#float(mark === 0xca ? 4 : 8);
    if (mark >= 0xcc && mark <= 0xcf) return this.#uint(1 << (mark - 0xcc));
    if (mark >= 0xd0 && mark <= 0xd3) return this.#int(1 << (mark - 0xd0));
    if (mark >= 0xd9 && mark <= 0xdb) return this.#text(this.#uint(1 << (mark - 0xd9)));
    if (mark === 0xdc || mark === 0xdd) return this.#array(this.#uint(mark === 0xdc ? 2 : 4), depth);
    if (mark === 0xde || mark === 0xdf) return this.#object(this.#uint(mark === 0xde ? 2 : 4), depth);
    throw new Error(`0x${mark.toString(16)} begins no type that JSON has`);
  }

  /** Where the next `length` bytes begin. */
  #skip(length) {
    const begin = this.#at;
    if (length > this.#bytes.length - begin) throw new Error("MessagePack that is cut short");
    this.#at += length;
    return begin;
  }

  #uint(length) {
    const at = this.#skip(length);
    if (length === 1) return this.#view.getUint8(at);
    if (length === 2) return this.#view.getUint16(at);
    if (length === 4) return this.#view.getUint32(at);
    return exact(this.#view.getUint32(at) * UINT32 + this.#view.getUint32(at + 4));
  }

  #int(length) {
    const at = this.#skip(length);
    if (length === 1) return this.#view.getInt8(at);
    if (length === 2) return this.#view.getInt16(at);
    if (length === 4) return this.#view.getInt32(at);
    return exact(this.#view.getInt32(at) * UINT32 + this.#view.getUint32(at + 4));
  }

  #float(length) {
    const at = this.#skip(length);
    const value = length === 4 ? this.#view.getFloat32(at) : this.#view.getFloat64(at);
    if (!Number.isFinite(value)) throw new Error(`${value} is no JSON number`);
    return value;
  }

  #text(length) {
    const begin = this.#skip(length);
    return textOf(this.#bytes.subarray(begin, begin + length));
  }

  #array(length, depth) {
    assertDepth(depth);
    const items = []; // no longer than what is there, whatever the header announces
    while (items.length < length) items.push(this.value(depth - 1));
    return items;
  }

  #object(length, depth) {
    assertDepth(depth);
    const object = {};
    for (let count = 0; count < length; count += 1) {
      const key = this.value(1);
      if (typeof key !== "string") throw new Error(`a key of type ${typeof key}; a key is a text`);
      if (Object.hasOwn(object, key)) throw new Error(`the key ${JSON.stringify(key)} comes twice`);
      const value = this.value(depth - 1);
      if (key === "__proto__") Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
      else object[key] = value;
    }
    return object;
  }
}

function assertDepth(depth) {
  if (depth === 0) throw new Error(`nested deeper than ${DEPTH_MAX}`);
}

function exact(value) {
  if (!Number.isSafeInteger(value)) throw new Error(`the integer ${value} is beyond ±(2^53−1)`);
  return value;
}
