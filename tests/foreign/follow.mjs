// `signals.v1` in a page, for whatever WebSocket there is: one subscription to everything. Runs in Node and in a page.

const NORMAL = 1000;
const AGAIN_MS = 50;

// Connects again until `wanted` signals are there. `dial(url, on)` opens a socket, calls `on.open`, `on.message(text)`
// and `on.close(code)`, and returns `{send, close}`. `tell(received)` is called whenever more has come.
export async function follow(dial, url, wanted, tell) {
  const told = { code: null, offsets: [], resumed: [], compressed: [] };
  let cursor = -1, epoch = null, resume;

  const hello = () => JSON.stringify({
    t: "hello", id: 1, features: ["deflate"], resume,
    subs: [{ s: "all", filter: {}, from: epoch === null ? "earliest" : { cursor: `${epoch}:${cursor}` } }],
  });

  const hear = (message) => {
    if (message.t === "welcome") {
      const [subok] = message.subs;
      if (subok.t !== "subok") throw new Error(JSON.stringify(subok));
      ({ epoch, resume } = message);
      cursor = Number(subok.from.split(":").at(-1));
      told.resumed.push(message.resumed);
      told.compressed.push(message.features.includes("deflate"));
    } else if (message.t === "sig" && message.b > cursor) {
      if (message.a > cursor) throw new Error(`missing: ${cursor} to ${message.a}`);
      told.offsets.push(...message.d.map((signal) => signal.o).filter((offset) => offset > cursor));
      cursor = message.b;
    }
  };

  const once = () => new Promise((resolve, reject) => {
    const socket = dial(url, {
      open: () => socket.send(hello()),
      message: (text) => {
        try {
          for (const line of text.split("\n")) hear(JSON.parse(line));
        } catch (error) {
          reject(error);
        }
        tell(told.offsets.length);
        if (told.offsets.length >= wanted) socket.close(NORMAL);
      },
      close: resolve,
    });
  });

  while (told.offsets.length < wanted) {
    told.code = await once();
    if (told.offsets.length < wanted) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  return told;
}

// The WebSocket of browsers, which undici has, too.
export const standard = (WebSocket) => (url, on) => {
  const socket = new WebSocket(url, ["signals.v1.json"]);
  let opened = false;
  socket.onopen = () => {
    opened = true;
    on.open();
  };
  socket.onmessage = (event) => on.message(event.data);
  socket.onclose = (event) => on.close(event.code);
  socket.onerror = () => {
    if (!opened) on.close(null);  // undici 6 says no more than this when nobody listens
  };
  return socket;
};
