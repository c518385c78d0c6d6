"""
One tree of ordinary Resources, served four times: C{python sites.py FOLDER}.

It prints where: by a stock C{twisted.web} Site, by proxyd beside its rules, by
proxyd without rules, and by proxyd with an ordinary Resource as the root that
hands what it does not know to the rules.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.pages import notFound
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Request, Site
from twisted.web.static import Data, File
from twisted.web.util import Redirect
from zope.interface import implementer

from proxyd.forward.channel import Channel
from proxyd.forward.roles import Body
from proxyd.forward.site import ProxySite
from proxyd.http.request import RequestHead
from proxyd.interfaces import IHeadResource
from proxyd.reactor import install
from proxyd.service.assembly import make_service

PIECE = b"x" * 65536

TURNS = 50
"""So many turns of the reactor without being asked for more: a pull producer was paused."""


class Rendered(Resource):
    """A leaf that renders with a function."""

    isLeaf = True

    def __init__(self, render: Callable[[Request], Any]) -> None:
        Resource.__init__(self)
        self._render = render

    def render(self, request: Request) -> Any:
        return self._render(request)


class Events:
    """
    What has happened, for those who wait for it.

    @ivar call_later: the reactor's.
    """

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self.call_later = call_later
        self._happened: dict[bytes, bytes] = {}
        self._waiting: dict[bytes, Deferred[bytes]] = {}

    def happen(self, name: bytes, what: str = "") -> None:
        """Note an event, and tell who waits for it."""
        self._happened[name] = what.encode()
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting.callback(self._happened.pop(name))

    def render(self, request: Request) -> Any:
        """Answer when the event has happened that the path names."""
        (name,) = request.postpath or [b""]
        if name in self._happened:
            return self._happened.pop(name)
        self._waiting[name] = waiting = Deferred()

        def answer(what: bytes) -> None:
            request.write(what)
            request.finish()

        waiting.addCallback(answer)
        return NOT_DONE_YET


def echo(request: Request) -> bytes:
    """What a Resource sees of a request."""
    request.setHeader(b"Content-Type", b"application/json")
    seen = {
        "method": request.method.decode(),
        "uri": request.uri.decode(),
        "path": request.path.decode(),
        "version": request.clientproto.decode(),
        "prepath": [part.decode("latin-1") for part in request.prepath or []],
        "postpath": [part.decode("latin-1") for part in request.postpath or []],
        "args": {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in (request.args or {}).items()
        },
        "fields": sorted(
            [name.decode(), value.decode("latin-1")]
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ),
        "content": sha256(request.content.read()).hexdigest(),
        "cookies": {name.decode(): value.decode() for name, value in request.received_cookies.items()},
        "host": request.getRequestHostname().decode(),
        "client": request.getClientAddress().host,
        "secure": request.isSecure(),
        "user": request.getUser().decode(),
        "site": type(request.site).__name__,
    }
    return json.dumps(seen).encode()


def cookie(request: Request) -> bytes:
    """Sets two cookies."""
    request.addCookie(b"a", b"1", path=b"/")
    request.addCookie(b"b", b"2", httpOnly=True)
    return b"set"


def session(request: Request) -> bytes:
    """Counts the visits of a session."""
    own = request.getSession()
    own.visits = getattr(own, "visits", 0) + 1
    return b"%d" % own.visits


def fails(request: Request) -> bytes:
    """Fails before it has written anything."""
    raise ZeroDivisionError("on purpose")


def partly(request: Request) -> Any:
    """Writes something, then ends the connection in the way that the path says."""
    request.setHeader(b"Content-Length", b"1000")
    request.write(b"y" * 100)
    if request.postpath == [b"lose"]:
        request.loseConnection()
    elif request.postpath == [b"lose", b"transport"]:
        request.transport.loseConnection()
    elif request.postpath == [b"finish"]:
        request.loseConnection()
        request.finish()
    else:
        request.transport.abortConnection()
    return NOT_DONE_YET


def status(request: Request) -> bytes:
    """Answers with the status that the path says."""
    (code,) = request.postpath or [b"200"]
    request.setResponseCode(int(code))
    return b"body"


def unfinished(request: Request) -> Any:
    """An answer of unknown length, in three pieces."""
    request.write(b"one ")
    request.write(b"two ")
    request.write(b"three")
    request.finish()
    return NOT_DONE_YET


def takes_over(request: Request) -> bytes:
    """Would speak another protocol on the connection, as a WebSocketResource does."""
    if request.channel.transport is None:
        request.setResponseCode(426)
    return b""


class Later:
    """An answer that waits until it is released."""

    def __init__(self) -> None:
        self._waiting: list[Request] = []

    def render(self, request: Request) -> Any:
        """Wait; or, if the path says so, release all that wait."""
        if request.postpath == [b"release"]:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.write(b"at last")
                one.finish()
            return b"%d" % len(waiting)
        self._waiting.append(request)
        return NOT_DONE_YET


class Push:
    """Pushes until it is paused; when it is resumed it is at its end."""

    def __init__(self, request: Request, events: Events) -> None:
        self._request = request
        self._events = events
        self._written = 0
        self._pauses = 0
        self._more = self._events.call_later(0, self._write)
        request.registerProducer(self, True)

    def _write(self) -> None:
        self._more = self._events.call_later(0, self._write)
        self._written += len(PIECE)
        self._request.write(PIECE)

    def pauseProducing(self) -> None:
        """The client takes no more."""
        self._pauses += 1
        if self._more.active():
            self._more.cancel()
        self._events.happen(b"paused")

    def resumeProducing(self) -> None:
        """The client takes more again."""
        self._request.unregisterProducer()
        self._request.write(b"|%d" % self._written)
        self._request.finish()

    def stopProducing(self) -> None:
        """The client has gone."""
        if self._more.active():
            self._more.cancel()
        self._events.happen(b"stopped")
        if self._request.postpath:
            raise ZeroDivisionError("on purpose")


class Pull:
    """Is asked for each piece, until there were so many."""

    pieces = 320

    def __init__(self, request: Request, events: Events) -> None:
        self._request = request
        self._events = events
        self._left = self.pieces
        # More than any client takes at once: it is paused already when it is registered.
        request.write(PIECE)
        request.registerProducer(self, False)
        self._watch(self._left, TURNS)

    def _watch(self, left: int, turns: int) -> None:
        if not self._left:
            self._events.happen(b"paused", "never")
        elif not turns:
            self._events.happen(b"paused")
        else:
            self._events.call_later(0, self._watch, self._left, turns - 1 if self._left == left else TURNS)

    def resumeProducing(self) -> None:
        """Write one piece."""
        self._request.write(PIECE)
        self._left -= 1
        if not self._left:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        """The client has gone."""
        self._events.happen(b"stopped")


class Failing(Resource):
    """Cannot find its children."""

    def getChild(self, path: bytes, request: Request) -> IResource:
        raise ZeroDivisionError("on purpose")


class Meeting(Resource):
    """Looks at the request while the way to its children is found."""

    def getChild(self, path: bytes, request: Request) -> IResource:
        request.setHeader(b"X-Met", b"%d" % len(request.args[b"a"]))
        request.getSession()
        return Data(b"%b" % path, "text/plain")


class Gate(Resource):
    """Hands every request on to another Resource."""

    def __init__(self, beyond: IResource) -> None:
        Resource.__init__(self)
        self._beyond = beyond

    def getChild(self, path: bytes, request: Request) -> IResource:
        return self._beyond


@implementer(IHeadResource)
class Streaming(Resource):
    """Sends a body back while it comes."""

    isLeaf = True

    def head_received(self, head: RequestHead, channel: Channel) -> None:
        """Begin."""
        if head.target.path.endswith(b"/fails"):
            raise ZeroDivisionError("on purpose")
        _Echoing(channel).start()


class _Echoing:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def start(self) -> None:
        self._channel.serve(self)
        payload, ended = self._channel.read_body()
        self._channel.respond(200, b"OK", [(b"Content-Type", b"text/plain")], Body.STREAM, payload, ended)

    def body_received(self, payload: bytes, ended: bool) -> None:
        self._channel.send_body(payload, ended)

    def cancel(self) -> None:
        pass

    def pause(self) -> None:
        self._channel.pause_request()

    def resume(self) -> None:
        self._channel.resume_request()


def grow(root: Resource, folder: str, call_later: Callable[..., Any]) -> None:
    """Put all Resources below a root."""
    events = Events(call_later)

    def waits(request: Request) -> Any:
        request.notifyFinish().addBoth(lambda result: events.happen(b"lost", type(result).__name__))
        events.happen(b"waiting")
        return NOT_DONE_YET

    def finishes(request: Request) -> bytes:
        request.notifyFinish().addBoth(lambda result: events.happen(b"finished", type(result).__name__))
        return b"done"

    def pushes(request: Request) -> Any:
        request.notifyFinish().addBoth(lambda result: events.happen(b"gone", type(result).__name__))
        Push(request, events)
        return NOT_DONE_YET

    def pulls(request: Request) -> Any:
        Pull(request, events)
        return NOT_DONE_YET

    getting = Resource()
    getting.render_GET = lambda request: b"got"  # type: ignore[attr-defined]
    closing = Rendered(lambda request: request.setHeader(b"Connection", b"close") or b"bye")
    zipped = EncodingResourceWrapper(Data(b"z" * 10000, "text/plain"), [GzipEncoderFactory()])
    for name, resource in {
        "static": File(folder),
        "echo": Rendered(echo),
        "getting": getting,
        "closing": closing,
        "zipped": zipped,
        "cookie": Rendered(cookie),
        "session": Rendered(session),
        "partly": Rendered(partly),
        "status": Rendered(status),
        "unfinished": Rendered(unfinished),
        "fails": Rendered(fails),
        "nothing": Rendered(lambda request: "no octets"),
        "later": Rendered(Later().render),
        "events": Rendered(events.render),
        "waits": Rendered(waits),
        "finishes": Rendered(finishes),
        "pushes": Rendered(pushes),
        "pulls": Rendered(pulls),
        "redirect": Redirect(b"/elsewhere"),
        "failing": Failing(),
        "meeting": Meeting(),
        "missing": notFound(),
        "streaming": Streaming(),
        "takeover": Rendered(takes_over),
    }.items():
        root.putChild(name.encode(), resource)


def main(folder: str) -> None:
    """Serve until the process is ended."""
    install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    file = Path(folder, "proxyd.yaml")
    file.write_text(
        "listen: ['tcp:0:interface=127.0.0.1']\n"
        "limits: {body: 1000000}\n"
        "log: {access: null}\n"
        "rules: [{name: none, pattern: ^/rules, target: 'http://127.0.0.1:1'}]\n"
    )
    root = Resource()
    grow(root, folder, reactor.callLater)
    stock = reactor.listenTCP(0, Site(root), interface="127.0.0.1")

    service = make_service(reactor, str(file))
    grow(service.resource, folder, reactor.callLater)
    service.resource.putChild(b"gate", Gate(service.resource))
    service.privilegedStartService()
    service.startService()

    gate = Gate(service.resource)
    gate.putChild(b"echo", Rendered(echo))
    ports = [stock, *service.ports]
    for one in (root, gate):
        site = ProxySite(one, service.config, reactor, lambda record: None, lambda accepting: None)
        ports.append(reactor.listenTCP(0, site, interface="127.0.0.1"))
    numbers = [port.getHost().port for port in ports]
    reactor.callWhenRunning(lambda: print("ports", *numbers, flush=True))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
