// An origin server: what node's own http module makes of the answers that proxies get wrong.
'use strict';
const http = require('http');

let events = null; // the stream of server-sent events that is open
let number = 0;

function next() {
  number += 1;
  events.write(`id: ${number}\ndata: event ${number}\n\n`);
}

const server = http.createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  switch (pathname) {
    case '/echo': { // what was asked, and its body
      response.writeHead(200, {
        'Content-Type': 'application/octet-stream',
        'X-Method': request.method,
        'X-Length': request.headers['content-length'] || '',
        'X-Coding': request.headers['transfer-encoding'] || '',
        'X-Proto': request.headers['x-forwarded-proto'],
      });
      request.pipe(response);
      break;
    }
    case '/trailers': // chunks of every size, and what was worked out on the way
      response.writeHead(200, { Trailer: 'X-Sum', 'Content-Type': 'text/plain' });
      for (let size = 1; size <= 65536; size *= 4) response.write('a'.repeat(size));
      response.addTrailers({ 'X-Sum': '21845+65536' });
      response.end();
      break;
    case '/hints':
      response.writeEarlyHints({ link: ['</a.css>; rel=preload', '</b.css>; rel=preload'] }, () => {
        response.writeProcessing();
        response.end('after the hints');
      });
      break;
    case '/events': // the next event is sent when the one before was acknowledged
      response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
      console.log(`events after ${request.headers['last-event-id'] || 'nothing'}`);
      if (!request.headers['last-event-id']) number = 0;
      events = response;
      response.write('retry: 10\n\n');
      next();
      break;
    case '/acknowledge':
      response.end();
      if (searchParams.has('end')) events.end(); else next();
      break;
    case '/result': {
      let body = '';
      request.setEncoding('utf8');
      request.on('data', (data) => { body += data; });
      request.on('end', () => { response.end(); console.log(`result ${body}`); });
      break;
    }
    default:
      response.writeHead(404);
      response.end();
  }
});

server.on('checkContinue', (request, response) => {
  if (request.url === '/refuses') {
    response.writeHead(413, { Connection: 'close' });
    response.end('too much');
  } else {
    response.writeContinue();
    server.emit('request', request, response);
  }
});

server.listen(0, '127.0.0.1', () => console.log(`listens on ${server.address().port}`));
