"""
A tiny origin server to try proxyd with: C{python -m proxyd.demo [ENDPOINT]}.

It is what stands behind C{etc/demo.yaml}: a page, an echo of the request, a
large download, a sink for uploads, server-sent events and a WebSocket echo.
"""

from __future__ import annotations

import json
import sys
import time
from io import BytesIO
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, react
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

ENDPOINT = "tcp:8090:interface=127.0.0.1"
"""Where it listens unless told otherwise; C{etc/demo.yaml} says the same."""

DOWNLOAD_SIZE = 100 * 1000 * 1000
"""Octets of C{/download}."""

KEPT_SIZE = 64 * 1024
"""Octets of a body that C{/echo} shows; of the rest only the number is kept."""

_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>proxyd works</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem }
code { background: color-mix(in srgb, currentcolor 8%, transparent); padding: .1rem .3rem }
</style>
</head>
<body>
<h1>proxyd works</h1>
<p>This page came from a tiny origin server, through the rules in <code>etc/demo.yaml</code>.</p>
<ul>
<li><a href="echo/hello?a=1">/echo/...</a> shows the request as the origin server got it</li>
<li><a href="api/v1/users?a=1">/api/v1/...</a> does so, too, by a rule that rewrites the path</li>
<li><a href="download">/download</a> is 100 MB; <code>POST /upload</code> counts what you send</li>
<li><a href="events">/events</a> sends an event each second: <output id="event">waiting</output></li>
<li><code>/ws</code> echoes WebSocket messages: <output id="echo">waiting</output></li>
</ul>
<script>
new EventSource("events").onmessage = event => document.getElementById("event").value = event.data;
const socket = new WebSocket(new URL("ws", location.href.replace(/^http/, "ws")));
socket.onopen = () => socket.send("hello from your browser");
socket.onmessage = message => document.getElementById("echo").value = message.data;
</script>
</body>
</html>
"""


class _Body(BytesIO):
    """
    The beginning of a request's body.

    @ivar size: octets of all of it.
    """

    size = 0

    def write(self, data: Any, /) -> int:
        self.size += len(data)
        super().write(data[: max(0, KEPT_SIZE - self.tell())])
        return len(data)


class DemoSite(Site):
    """A site that can take uploads of any size: it keeps none."""

    def getContentFile(self, length: int | None) -> _Body:
        return _Body()


def _body(request: Request) -> _Body:
    assert isinstance(request.content, _Body)
    return request.content


class Page(Resource):
    """The page at the root."""

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        return _PAGE


class Echo(Resource):
    """The request, as JSON."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        fields = [
            [name.decode("latin-1"), value.decode("latin-1")]
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        seen = {
            "method": request.method.decode("latin-1"),
            "target": request.uri.decode("latin-1"),
            "version": request.clientproto.decode("latin-1"),
            "fields": fields,
            "body": _body(request).getvalue().decode("latin-1"),
        }
        return json.dumps(seen, indent=2).encode() + b"\n"


class Download(Resource):
    """A large body, written as fast as it is taken."""

    isLeaf = True

    def render_GET(self, request: Request) -> int:
        request.setHeader(b"Content-Type", b"application/octet-stream")
        request.setHeader(b"Content-Length", b"%d" % DOWNLOAD_SIZE)
        _Pulled(request)
        return NOT_DONE_YET


class _Pulled:
    """Produces the body of a download, piece by piece as the transport asks for them."""

    piece = bytes(64 * 1000)

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left = DOWNLOAD_SIZE
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        piece = self.piece[: self._left]
        self._left -= len(piece)
        self._request.write(piece)
        if not self._left:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        """The client has gone: nobody asks for more."""


class Upload(Resource):
    """Counts the octets of a body."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps({"received": _body(request).size}).encode() + b"\n"

    render_PUT = render_POST


class Events(Resource):
    """An event each second, for as long as the client listens."""

    isLeaf = True

    def __init__(self, clock: IReactorTime) -> None:
        Resource.__init__(self)
        self._clock = clock

    def render_GET(self, request: Request) -> int:
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"no-store")
        ticks = LoopingCall(lambda: request.write(b"data: %b\n\n" % time.strftime("%H:%M:%S").encode()))
        ticks.clock = self._clock
        request.notifyFinish().addErrback(lambda _: ticks.stop())
        ticks.start(1)
        return NOT_DONE_YET


class EchoProtocol(WebSocketServerProtocol):
    """Sends each message back."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


def make_site(reactor: Any) -> Site:
    """
    @return: the origin server, to listen with.
    """
    root = Resource()
    root.putChild(b"", Page())
    root.putChild(b"echo", Echo())
    root.putChild(b"download", Download())
    root.putChild(b"upload", Upload())
    root.putChild(b"events", Events(reactor))
    websockets = WebSocketServerFactory(reactor=reactor)
    websockets.protocol = EchoProtocol
    root.putChild(b"ws", WebSocketResource(websockets))
    return DemoSite(root, parsePOSTFormSubmission=False)


async def _main(reactor: Any, endpoint: str = ENDPOINT) -> None:
    try:
        port = await serverFromString(reactor, endpoint).listen(make_site(reactor))
    except CannotListenError as error:
        raise SystemExit(f"The origin server cannot listen: {error}") from error
    sys.stdout.write(f"The origin server listens on {port.getHost()}\n")
    if endpoint == ENDPOINT:
        sys.stdout.write("\n    Open http://127.0.0.1:8080/ and stop with Ctrl-C.\n")
        sys.stdout.write("    The admin page is http://127.0.0.1:8081/, its token demo-token-change-me.\n\n")
    sys.stdout.flush()
    await Deferred()


if __name__ == "__main__":
    react(_main, sys.argv[1:])
