// A WebSocket server: gives messages back, and closes with the code and the reason that it is told.
// Its argument says whether it compresses.
'use strict';
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  perMessageDeflate: process.argv[2] === 'deflate' ? { threshold: 0 } : false,
  handleProtocols: (protocols) => (protocols.has('two') ? 'two' : false),
}, () => console.log(`listens on ${server.address().port}`));

server.on('connection', (socket, request) => {
  console.log(`opened ${request.url} ${socket.protocol || 'none'} ${socket.extensions || 'none'}`);
  socket.on('message', (data, isBinary) => {
    const close = isBinary ? null : /^close (\d+) (.*)$/.exec(data.toString());
    if (close) socket.close(Number(close[1]), close[2]);
    else socket.send(data, { binary: isBinary });
  });
  socket.on('close', (code, reason) => console.log(`closed ${code} ${reason}`));
  socket.on('error', (error) => console.log(`error ${error.message}`));
});
