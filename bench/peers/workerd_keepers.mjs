// A Durable Object on workerd: what a socket sends is stored on disk and sent back.
export class Keeper {
  constructor(ctx) {
    this.ctx = ctx;
  }
  async fetch(request) {
    const pair = new WebSocketPair();
    this.ctx.acceptWebSocket(pair[1]);
    return new Response(null, { status: 101, webSocket: pair[0] });
  }
  webSocketMessage(socket, message) {
    this.ctx.storage.put("value", message);
    socket.send(message);
  }
}

export default {
  fetch(request, env) {
    return env.keepers.get(env.keepers.idFromName(new URL(request.url).pathname.slice(1))).fetch(request);
  },
};
