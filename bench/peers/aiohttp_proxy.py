"""aiohttp as a reverse proxy, on uvloop: C{aiohttp_proxy.py PORT ORIGIN}."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
GENERATED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Fields that the client would add of its own."""

PORT, ORIGIN = sys.argv[1:]
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """Answer one request with the origin server's answer, chunk by chunk."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await relay(request)
    fields = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
    fields.append(("X-Forwarded-For", request.remote or ""))
    fields.append(("X-Forwarded-Proto", request.scheme))
    fields.append(("X-Forwarded-Host", request.host))
    async with request.app[SESSION].request(
        request.method,
        f"http://127.0.0.1:{ORIGIN}{request.raw_path}",
        headers=fields,
        data=request.content if request.can_read_body else None,
        allow_redirects=False,
        skip_auto_headers=GENERATED,
    ) as answer:
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def pump(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    """Send all messages of one side to the other one."""
    async for message in source:
        if message.type == aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type == aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
    await target.close()


async def relay(request: web.Request) -> web.WebSocketResponse:
    """Take a WebSocket and open another one to the origin server."""
    client = web.WebSocketResponse(max_msg_size=0, compress=False)
    await client.prepare(request)
    url = f"ws://127.0.0.1:{ORIGIN}{request.raw_path}"
    async with request.app[SESSION].ws_connect(url, max_msg_size=0) as upstream:
        await asyncio.gather(pump(client, upstream), pump(upstream, client))
    return client


async def session(app: web.Application) -> AsyncIterator[None]:
    """The connections to the origin server, as long as the server runs."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, auto_decompress=False) as one:
        app[SESSION] = one
        yield


def main() -> None:
    """Serve until the process is ended."""
    uvloop.install()
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    web.run_app(app, host="127.0.0.1", port=int(PORT), access_log=None, print=None, keepalive_timeout=600, backlog=4096)


if __name__ == "__main__":
    main()
