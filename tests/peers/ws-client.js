// A WebSocket client: sends messages of the sizes that it is told, and checks that each comes back.
// Arguments: URL, whether it compresses, sizes, and the name of a file with the authority to trust.
'use strict';
const fs = require('fs');
const WebSocket = require('ws');

const [url, deflate, sizes, ca] = process.argv.slice(2);

function message(size, isBinary) {
  const octets = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1) octets[at] = 97 + ((at * 7 + (at >> 8)) % 26);
  return isBinary ? octets : octets.toString('latin1');
}

const sent = [];
for (const size of JSON.parse(sizes)) sent.push(message(size, false), message(size, true));

const socket = new WebSocket(url, ['one', 'two'], {
  perMessageDeflate: deflate === 'deflate' ? { threshold: 0 } : false,
  ca: ca && fs.readFileSync(ca),
});
let received = 0;
let pongs = 0;

socket.on('open', () => {
  socket.ping('are you there?');
  for (const one of sent) socket.send(one);
  // In fragments, an empty one among them.
  socket.send('in ', { fin: false });
  socket.send('', { fin: false });
  socket.send('fragments', { fin: true });
});
socket.on('pong', (data) => { if (data.toString() === 'are you there?') pongs += 1; });
socket.on('message', (data, isBinary) => {
  if (received === sent.length) {
    if (data.toString() !== 'in fragments') throw new Error(`${data} came`);
    socket.close(4001, 'good \u20ac');
    return;
  }
  const expected = sent[received];
  received += 1;
  if (isBinary !== Buffer.isBuffer(expected) || !data.equals(Buffer.from(expected))) {
    throw new Error(`message ${received} came back as something else`);
  }
});
socket.on('error', (error) => { throw error; });
socket.on('close', (code, reason) => {
  console.log(JSON.stringify({
    code, reason: reason.toString(), received, pongs, protocol: socket.protocol, extensions: socket.extensions,
  }));
});
