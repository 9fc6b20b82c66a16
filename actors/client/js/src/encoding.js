/** How messages become frames, and frames messages again; msgpack.js is another one. */

const parsed = (line) => {
  try {
    return JSON.parse(line);
  } catch (error) {
    return error;
  }
};

export const json = {
  subprotocol: "signals.v1.json",
  /** One frame of a message's JSON text. */
  encode: (text) => text,
  /** The values of a frame's messages, in order; in place of one that cannot be read, an Error that says why. */
  parse: (frame) => String(frame).split("\n").filter((line) => line.trim() !== "").map(parsed),
};
