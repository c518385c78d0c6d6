// Bun's WebSocket server: gives messages back, and closes with the code and the reason that it is told.
'use strict';
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request, server) {
    if (server.upgrade(request)) return undefined;
    return new Response('no WebSocket', { status: 426 });
  },
  websocket: {
    perMessageDeflate: true,
    maxPayloadLength: 64 * 1024 * 1024,
    backpressureLimit: 64 * 1024 * 1024,
    message(socket, message) {
      const close = typeof message === 'string' ? /^close (\d+) (.*)$/.exec(message) : null;
      if (close) socket.close(Number(close[1]), close[2]);
      else socket.send(message);
    },
  },
});
console.log(`listens on ${server.port}`);
