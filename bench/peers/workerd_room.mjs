// A Durable Object on workerd: hibernatable sockets, one `send` for each subscriber.
export class Room {
  constructor(ctx) {
    this.ctx = ctx;
  }
  async fetch(request) {
    const pair = new WebSocketPair();
    this.ctx.acceptWebSocket(pair[1], [new URL(request.url).pathname.slice(1)]);
    return new Response(null, { status: 101, webSocket: pair[0] });
  }
  webSocketMessage(socket, message) {
    for (const subscriber of this.ctx.getWebSockets("sub")) subscriber.send(message);
  }
}

export default {
  fetch(request, env) {
    return env.rooms.get(env.rooms.idFromName("bench")).fetch(request);
  },
};
