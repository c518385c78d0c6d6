// node tunnel.js PEM ORIGIN SECURE PLAIN: an HTTPS origin server, and two proxies that only know CONNECT: one that is
// reached with TLS, and one without.
// GET /SIZE sends that many octets; PUT takes what comes, and answers with its size.
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const net = require("node:net");

const [, , pem, ...ports] = process.argv;
const [origin, secure, plain] = ports.map(Number);
const credentials = { key: fs.readFileSync(pem), cert: fs.readFileSync(pem) };
const CHUNK = Buffer.alloc(65536, "x");

function send(answer, size) {
    answer.writeHead(200, { "Content-Length": size });
    let left = size;
    (function more() {
        while (left > 0) {
            const chunk = left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK;
            left -= chunk.length;
            if (!answer.write(chunk)) return answer.once("drain", more);
        }
        answer.end();
    })();
}

function receive(request, answer) {
    let size = 0;
    request.on("data", (chunk) => { size += chunk.length; });
    request.on("end", () => answer.end(`${size}\n`));
}

function connect(request, client, head) {
    const [host, port] = request.url.split(":");
    const target = net.connect({ host, port: Number(port), noDelay: true }, () => {
        client.write("HTTP/1.1 200 Connection established\r\n\r\n");
        target.write(head);
        target.pipe(client);
        client.pipe(target);
    });
    target.on("error", () => client.destroy());
    client.on("error", () => target.destroy());
}

https.createServer(credentials, (request, answer) => {
    if (request.method === "PUT") receive(request, answer);
    else send(answer, Number(request.url.slice(1)));
}).listen(origin, "127.0.0.1");
https.createServer(credentials).on("connect", connect).listen(secure, "127.0.0.1");
http.createServer().on("connect", connect).listen(plain, "127.0.0.1");
