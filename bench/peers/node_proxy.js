// node node_proxy.js PORT ORIGIN: http-proxy, with connections to the origin server kept alive.
const http = require("node:http");
const { createProxyServer } = require("http-proxy");

const [port, origin] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 1024 });
const proxy = createProxyServer({ target: `http://127.0.0.1:${origin}`, agent, ws: true, xfwd: true });
proxy.on("error", (error, request, answer) => answer.destroy());

const server = http.createServer((request, answer) => proxy.web(request, answer));
server.on("upgrade", (request, socket, head) => proxy.ws(request, socket, head));
server.keepAliveTimeout = 600_000;
server.listen({ port, host: "127.0.0.1", backlog: 4096 });
