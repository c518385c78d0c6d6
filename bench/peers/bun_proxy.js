// bun bun_proxy.js PORT ORIGIN: fetch() for requests, and for WebSockets a client for each that the server takes.
const [port, origin] = Bun.argv.slice(2).map(Number);
const HOP_BY_HOP = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
const MAX_MESSAGE = 64 * 1024 * 1024;

async function forward(request, path, client) {
    const headers = new Headers(request.headers);
    for (const name of HOP_BY_HOP) headers.delete(name);
    headers.set("x-forwarded-for", client);
    headers.set("x-forwarded-proto", "http");
    headers.set("x-forwarded-host", headers.get("host"));
    const { method, body } = request;
    const answer = await fetch(`http://127.0.0.1:${origin}${path}`, {
        method, headers, body, redirect: "manual", decompress: false,
    });
    return new Response(answer.body, { status: answer.status, headers: answer.headers });
}

function relay(client) {
    const upstream = new WebSocket(`ws://127.0.0.1:${origin}${client.data.path}`, { perMessageDeflate: false });
    upstream.binaryType = "arraybuffer";
    upstream.onopen = () => {
        for (const message of client.data.waiting) upstream.send(message);
        client.data.waiting = null;
    };
    upstream.onmessage = (event) => client.send(event.data);
    upstream.onclose = (event) => client.close(event.code === 1005 || event.code === 1006 ? 1000 : event.code);
    upstream.onerror = () => client.close(1011);
    client.data.upstream = upstream;
}

Bun.serve({
    port,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    fetch(request, server) {
        const { pathname, search } = new URL(request.url);
        const path = pathname + search;
        if (request.headers.get("upgrade") !== "websocket")
            return forward(request, path, server.requestIP(request).address);
        if (!server.upgrade(request, { data: { path, waiting: [], upstream: null } }))
            return new Response("no WebSocket", { status: 400 });
    },
    websocket: {
        maxPayloadLength: MAX_MESSAGE,
        backpressureLimit: MAX_MESSAGE,
        perMessageDeflate: false,
        idleTimeout: 0,
        open: relay,
        message({ data }, message) {
            if (data.waiting) data.waiting.push(message);
            else data.upstream.send(message);
        },
        close({ data }) {
            data.upstream?.close();
        },
    },
});
