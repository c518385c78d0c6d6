"""WebSockets through a real twistd: what clients and origin servers see, octet by octet (SPEC section 3)."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, client_context, server_context
from tests.support.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, close, frame
from tests.support.proxy import Proxy
from tests.support.websocket import KEY, UPGRADE, Pair, pair, switching
from tests.support.wire import PATIENCE_S, Message, Origin, Wire, wait_until_refused

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
SIDES = ["client", "origin"]

WITHIN = pytest.mark.parametrize(("size", "sent"), [(1000, 500), (400_000, 250_000)], ids=["short", "long"])
"""A frame's size, and what of it is on its way.  The rest of a long one goes from socket to socket in the kernel."""


class Site:
    """
    A proxy on one of the reactors, and an origin server, for all tests that need no special configuration.

    @ivar path: one that no other test uses.
    """

    def __init__(self, folder: Path, reactor: str | None) -> None:
        self.origin = Origin()
        target = f"http://127.0.0.1:{self.origin.port}"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            nobody = taken.getsockname()[1]
        rules: list[dict[str, Any]] = [
            {"name": "refused", "pattern": "^/refused/", "target": f"http://127.0.0.1:{nobody}"},
            {"name": "silent", "pattern": "^/silent/", "target": target, "timeouts": {"response": 0.3}},
            {"name": "no upgrades", "pattern": "^/plain/", "target": target, "ws": False},
            {"name": "disabled", "pattern": "^/disabled/", "target": target, "ws": False, "enabled": False},
            {"name": "guarded", "pattern": "^/guarded/", "target": f"ws://127.0.0.1:{self.origin.port}",
             "changeOrigin": True, "origins": ["https://good.test", "null"]},
            {"name": "changed", "pattern": "^/changed/(.*)$", "rewrite": "/new/$1", "changeOrigin": True,
             "target": f"ws://127.0.0.1:{self.origin.port}/base",
             "headers": {"X-Set": "by rule", "Cookie": None, "authorization": "Bearer ours"}},
            {"name": "application", "pattern": "^/app/(.*)$", "rewrite": "/$1", "target": target, "base": "/app/",
             "relativePaths": True},
            {"name": "all", "id": "all", "pattern": "^/", "target": target},
        ]
        self.proxy = Proxy(folder, {"rules": rules}, reactor=reactor)
        self._numbers = itertools.count()
        self._clients: list[Wire] = []
        self.path = ""

    def begin(self) -> None:
        """A new test begins."""
        self.path = f"/{next(self._numbers)}"

    def end(self) -> None:
        """A test ends: nothing of it reaches the next one."""
        for wire in self._clients:
            wire.close()
        self._clients.clear()
        self.origin.end_all()
        self.origin.assert_idle()

    def close(self) -> None:
        """All tests are done."""
        text = self.proxy.stop()
        self.origin.close()
        assert "Traceback" not in text, text

    def connect(self) -> Wire:
        """A client's connection, which ends with the test."""
        wire = self.proxy.connect()
        self._clients.append(wire)
        return wire

    def catch_up(self) -> None:
        """Wait until all that was sent so far has been read: who came later is served."""
        with self.proxy.connect() as other:
            other.request("OPTIONS", "*")
            other.read_message()

    def ask(self, *fields: str, path: str = "", client: Wire | None = None) -> tuple[Wire, Wire, Message]:
        """
        A client asks for a WebSocket.

        @param path: where the test's own path is put behind.
        @return: both sides' connections, and the request as the origin server got it.
        """
        client = client or self.connect()
        client.request("GET", path + self.path, *UPGRADE, *fields)
        server = self.origin.accept()
        return client, server, server.read_head()

    def open(self, *fields: str, agreed: tuple[str, ...] = ()) -> Pair:
        """
        Open a WebSocket.

        @param fields: further ones of the request.
        @param agreed: further ones of the 101.
        """
        client, server, request = self.ask(*fields)
        server.send(switching(request, *agreed))
        assert client.read_head().status == 101
        return pair(client, server)

    def logged(self) -> re.Match[str]:
        """The access log's line for the present test: status, octets to the client, and who failed."""
        line = rf'"GET \S*{self.path} HTTP/1\.[01]" (\d+|-) (\d+) [^\n]*?(?:failed="([^\n]*)")?\n'
        return self.proxy.output.wait_for(line)[0]


@pytest.fixture(scope="module", params=[None, "epoll"], ids=["prompt", "epoll"])
def shared_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Our own reactor, and one of Twisted's."""
    site = Site(tmp_path_factory.mktemp("websocket"), request.param)
    yield site
    site.close()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """A proxy and an origin server."""
    shared_site.begin()
    yield shared_site
    shared_site.end()


@pytest.fixture
def rule(own_origin: Origin) -> dict[str, object]:
    """A rule that sends all to the test's own origin server."""
    return {"name": "all", "id": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}


@pytest.fixture
def opened(own_origin: Origin) -> Iterator[Callable[..., Pair]]:
    """Open a WebSocket by a proxy with a configuration of its own."""
    clients: list[Wire] = []

    def opened(proxy: Proxy, path: str = "/") -> Pair:
        clients.append(proxy.connect())
        clients[-1].request("GET", path, *UPGRADE)
        server = own_origin.accept()
        server.send(switching(server.read_head()))
        assert clients[-1].read_head().status == 101
        return pair(clients[-1], server)

    yield opened
    for wire in clients:
        wire.close()


# The opening handshake


def test_the_origin_is_asked_first(site: Site) -> None:
    """The client hears nothing until the origin server has answered, and then what that said."""
    client, server, request = site.ask()
    client.assert_silent()
    server.send(switching(request))
    head = client.read_head()
    assert head.line == "HTTP/1.1 101 Switching Protocols"
    assert head.fields == [
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ]
    client.assert_silent()


def test_what_the_origin_is_asked(site: Site) -> None:
    """Fields of the handshake cross as they came, with a key of our own; the others as with any request."""
    fields = (
        "Sec-WebSocket-Protocol: chat, Super-Chat", "Sec-WebSocket-Protocol: third",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-odd;a=b",
        "Sec-WebSocket-Extensions: x-other", "Origin: null", "Cookie: a=\xe9", "Authorization: Basic eDp5", "X-Own: 1",
        "X-Forwarded-For: 6.6.6.6", "Keep-Alive: 5",
    )
    _, _, request = site.ask(*fields, path="/a%2Fb//x/../c")
    assert request.line == f"GET /a%2Fb//c{site.path} HTTP/1.1"
    key = request.get("Sec-WebSocket-Key")
    assert key != KEY
    address = ("127.0.0.1", str(site.proxy.port))
    assert sorted(request.fields) == sorted([
        ("Host", "example.test"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key or ""),
        ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", "chat, Super-Chat"),
        ("Sec-WebSocket-Protocol", "third"), ("Sec-WebSocket-Extensions", "x-other"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits, x-odd;a=b"),
        ("Origin", "null"), ("Cookie", "a=\xe9"), ("Authorization", "Basic eDp5"), ("X-Own", "1"),
        ("X-Forwarded-For", address[0]), ("X-Real-IP", address[0]), ("X-Forwarded-Host", "example.test"),
        ("X-Forwarded-Proto", "http"), ("X-Forwarded-Port", address[1]), ("Via", "1.1 proxyd"),
    ])


def test_what_the_client_is_answered(site: Site) -> None:
    """The origin server's reason, protocol, extensions, cookies and unknown fields, but none of its connection."""
    client, server, request = site.ask(
        "Sec-WebSocket-Protocol: one, Two", DEFLATE + ", x-odd; a=b", "Sec-WebSocket-Extensions: x-other"
    )
    server.send(
        switching(
            request, "Sec-WebSocket-Protocol: Two", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "X-Unknown: \xe9\x85",
            "Sec-WebSocket-Extensions: x-other; q=1", "Sec-WebSocket-Extensions: permessage-deflate", "Server: o",
            "Keep-Alive: timeout=5", status="101 Web Socket Protocol Handshak\xe9",
        )
    )
    head = client.read_head()
    assert head.line == "HTTP/1.1 101 Web Socket Protocol Handshak\xe9"
    assert head.fields[3:] == [
        ("Sec-WebSocket-Protocol", "Two"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"),
        ("X-Unknown", "\xe9\x85"), ("Sec-WebSocket-Extensions", "x-other; q=1"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"), ("Server", "o"),
    ]


def test_no_reason(site: Site) -> None:
    """A status line without a reason stays one."""
    client, server, request = site.ask()
    server.send(switching(request, status="101 "))
    assert client.read_head().line == "HTTP/1.1 101 "


def test_interim_answers(site: Site) -> None:
    """Early hints may come before a 101, too."""
    client, server, request = site.ask()
    server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + switching(request))
    assert client.read_head().fields == [("Link", "</a>")]
    assert client.read_head().status == 101


def test_the_key_differs_each_time(site: Site) -> None:
    """Two upgrades with the same key, on one connection, are asked for with two of our own."""
    client, server, first = site.ask()
    server.respond(status="401 Unauthorized")
    assert client.read_message().status == 401
    _, server, second = site.ask(client=client)
    assert len({KEY, first.get("Sec-WebSocket-Key"), second.get("Sec-WebSocket-Key")}) == 3
    server.send(switching(second))
    assert client.read_head().get("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_an_answer_in_pieces(site: Site) -> None:
    """However the origin server's 101 and what follows it are cut."""
    client, server, request = site.ask()
    octets = switching(request, "X-A: b") + frame(TEXT, b"hello", mask=None)
    for octet in octets:
        server.send(bytes((octet,)))
    assert client.read_head().get("X-A") == "b"
    pair(client, server).client.gets(TEXT, b"hello")


def test_octets_behind_the_101(site: Site) -> None:
    """Frames in the same segment as the 101 belong to the client."""
    client, server, request = site.ask()
    server.send(switching(request) + frame(TEXT, b"first", mask=None) + frame(BINARY, b"second" * 9, mask=None)[:30])
    client.read_head()
    peers = pair(client, server)
    peers.client.gets(TEXT, b"first")
    server.send(frame(BINARY, b"second" * 9, mask=None)[30:])
    peers.client.gets(BINARY, b"second" * 9)
    peers.close()


@pytest.mark.parametrize("end", ["close", "end_output"])
def test_an_origin_that_closes_behind_its_101(site: Site, end: str) -> None:
    """All in one go: the client gets its 101, the message and the Close, and may answer in peace."""
    client, server, request = site.ask()
    server.send(switching(request) + frame(TEXT, b"bye", mask=None) + close(1008, b"policy", mask=None))
    getattr(server, end)()
    assert client.read_head().status == 101
    peers = pair(client, server)
    peers.client.gets(TEXT, b"bye")
    peers.client.gets_close(1008, b"policy")
    peers.client.closes(1008)
    peers.client.is_over()
    assert site.logged()[3] is None


def test_a_close_before_the_101(site: Site) -> None:
    """A client that has thought better of it."""
    client, server, request = site.ask()
    client.send(close(1001))
    site.catch_up()
    server.send(switching(request))
    assert client.read_head().status == 101
    peers = pair(client, server)
    peers.origin.gets_close(1001)
    peers.origin.closes(1001)
    peers.client.gets_close(1001)
    peers.client.is_over()


@pytest.mark.parametrize("field", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_101_with_a_body(site: Site, field: str) -> None:
    """There is none, whatever a field says (RFC 9112 section 6.3): frames follow, and the field goes no further."""
    client, server, request = site.ask()
    server.send(switching(request, field) + frame(TEXT, b"hello", mask=None))
    assert len(client.read_head().fields) == 3
    pair(client, server).client.gets(TEXT, b"hello")


def test_a_second_request_before_the_101(site: Site) -> None:
    """Pipelining ends with an upgrade: what follows is taken for frames, which it is none of."""
    client, server, request = site.ask()
    client.request("GET", "/smuggled", *UPGRADE)
    site.catch_up()
    server.send(switching(request))
    assert client.read_head().status == 101
    peers = pair(client, server)
    peers.client.gets_close(1002)
    peers.origin.is_closed(1011)
    site.origin.assert_idle()


def test_an_upgrade_behind_other_requests(site: Site) -> None:
    """A connection that served plain requests, one sent together with the upgrade, becomes a WebSocket."""
    client = site.connect()
    client.send(b"GET /plain/1 HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    client.request("GET", f"http://other.test{site.path}", *UPGRADE)
    plain = site.origin.accept()
    for answer in (b"one", b"two"):
        plain.read_message()
        plain.respond(answer)
        assert client.read_message().body == answer
    server = site.origin.accept()
    request = server.read_head()
    assert (request.line, request.get("Host")) == (f"GET {site.path} HTTP/1.1", "other.test")
    server.send(switching(request))
    assert client.read_head().status == 101
    pair(client, server).close()


def test_octets_before_the_101(site: Site) -> None:
    """What the client sends ahead is kept, and delivered after the 101."""
    client, server, request = site.ask()
    client.send(frame(TEXT, b"early") + frame(PING, b"e") + frame(TEXT, b"late")[:3])
    site.catch_up()
    server.assert_silent()
    server.send(switching(request))
    client.read_head()
    client.send(frame(TEXT, b"late")[3:])
    peers = pair(client, server)
    peers.origin.gets(TEXT, b"early")
    peers.origin.gets(PING, b"e")
    peers.origin.gets(TEXT, b"late")
    peers.close()


def test_a_violation_before_the_101(site: Site) -> None:
    """What is sent ahead is held to the same rules."""
    client, server, request = site.ask()
    client.send(frame(TEXT, b"early") + frame(TEXT, b"no mask", mask=None))
    site.catch_up()
    server.send(switching(request))
    client.read_head()
    peers = pair(client, server)
    peers.client.gets_close(1002)
    peers.origin.gets(TEXT, b"early")
    peers.origin.is_closed(1011)


def test_many_octets_before_the_101(start, rule, own_origin: Origin) -> None:
    """They are kept up to limits.header; then the client is not read until the origin server has answered."""
    proxy = start(rules=[rule], limits={"header": 2048})
    size = 64 * 1024 * 1024
    octets = b"\x82\xff" + size.to_bytes(8, "big") + MASK + bytes(size)
    with proxy.connect() as client:
        client.request("GET", "/", *UPGRADE)
        server = own_origin.accept()
        request = server.read_head()
        idle = proxy.memory()
        sending = threading.Thread(target=client.send, args=(octets,))
        sending.start()
        server.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.read_some()
        assert sending.is_alive()
        assert proxy.memory() - idle < 2 * 1024 * 1024
        server.socket.settimeout(PATIENCE_S)
        server.send(switching(request))
        assert client.read_head().status == 101
        assert server.read(len(octets)) == octets
        sending.join()


# Refusals


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("401 Unauthorized", ("WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Bearer", "X-Odd: \xe9")),
        ("403 No way", ("Set-Cookie: a=1", "Set-Cookie: b=2")),
        ("404 Not Found", ()),
        ("426 Upgrade Required", ("Sec-WebSocket-Version: 13, 8",)),
        ("500 Oh", ("Retry-After: 3",)),
        ("302 Found", ("Location: http://elsewhere.test/",)),
        ("200 OK", ("Content-Type: text/html",)),
        ("204 No Content", ()),
    ],
)
def test_a_refusal(site: Site, status: str, fields: tuple[str, ...]) -> None:
    """Any answer but 101 goes to the client as it is; its connection is good for another request."""
    client, server, _ = site.ask()
    body = b"" if status.startswith("204") else b"because"
    length = () if status.startswith("204") else ("Content-Length: 7",)
    fields = (*fields, "Date: then")
    server.send("\r\n".join([f"HTTP/1.1 {status}", *fields, *length, "", ""]).encode("latin-1") + body)
    answer = client.read_message()
    assert (answer.line, answer.body) == (f"HTTP/1.1 {status}", body)
    assert answer.fields == [tuple(line.split(": ")) for line in (*fields, *length)]
    server.assert_ended()
    client.request("GET", "/next")
    following = site.origin.accept()
    assert following.read_message().line == "GET /next HTTP/1.1"
    following.respond("fine")
    assert client.read_message().body == b"fine"
    assert site.logged().groups() == (status[:3], str(len(body)), None)


def test_a_page_instead_of_a_websocket(site: Site) -> None:
    """It is changed as every page of its rule; with a WebSocket nothing is."""
    client, server, _ = site.ask(path="/app")
    page = b"<head><title>No</title></head><a href=/login>log in</a>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
    server.send(head % len(page) + page)
    answer = client.read_message()
    changed = b'<head><base href="/app/"><title>No</title></head><a href=./login>log in</a>'
    assert (answer.status, answer.body) == (200, changed)
    _, server, request = site.ask(path="/app", client=client)
    server.send(switching(request) + frame(TEXT, page, mask=None))
    assert client.read_head().status == 101
    assert client.read(len(page) + 2) == frame(TEXT, page, mask=None)


@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
def test_a_long_refusal(site: Site, framing: str) -> None:
    """Its body streams, with trailers, whatever tells its end; the WebSocket may be asked for again."""
    client, server, _ = site.ask()
    body = bytes(range(256)) * 8192
    if framing == "length":
        octets = b"Content-Length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunks":
        octets = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(body), body)
    else:
        octets = b"\r\n" + body

    def send() -> None:
        server.send(b"HTTP/1.1 403 Forbidden\r\n" + octets)
        server.end_output()

    sending = threading.Thread(target=send)
    sending.start()
    answer = client.read_message()
    sending.join()
    assert (answer.status, answer.body) == (403, body)
    assert answer.trailers == ((("X-Sum", "1"),) if framing == "chunks" else ())
    _, server, request = site.ask(client=client)
    server.send(switching(request))
    assert client.read_head().status == 101


def test_a_refusal_streams(site: Site) -> None:
    """The first octet of a refusal's body goes on as soon as it comes."""
    client, server, _ = site.ask()
    server.send(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    assert client.read_head().status == 503
    assert client.read(8) == b"3\r\none\r\n"
    server.send(b"0\r\n\r\n")
    assert client.read(5) == b"0\r\n\r\n"


def test_octets_before_a_refusal(site: Site) -> None:
    """What was sent ahead is frames: the connection ends, and a request in there is not one."""
    client, server, _ = site.ask()
    client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    client.request("GET", "/smuggled", *UPGRADE)
    site.catch_up()
    server.respond("no", status="403 Forbidden")
    answer = client.read_message()
    assert (answer.status, answer.body, answer.get("Connection")) == (403, b"no", "close")
    client.assert_ended()
    server.assert_ended()
    site.origin.assert_idle()


def test_octets_within_a_refusal(site: Site) -> None:
    """The same while the refusal's body is on its way, although its head promised a kept connection."""
    client, server, _ = site.ask()
    server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nnot")
    assert client.read_head().status == 403
    client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read(3) == b"not"
    site.catch_up()
    server.send(b"yet")
    assert client.read(3) == b"yet"
    client.assert_ended()
    site.origin.assert_idle()


@pytest.mark.parametrize("ahead", [b"", b"\x81\x80abcd"])
def test_octets_before_an_error_of_ours(site: Site, ahead: bytes) -> None:
    """After a 502 the connection is kept, unless something was sent ahead."""
    client, server, request = site.ask()
    client.send(ahead)
    site.catch_up()
    server.send(switching(request, "Sec-WebSocket-Protocol: never-offered"))
    answer = client.read_message()
    assert (answer.status, answer.get("Connection")) == (502, "close" if ahead else None)
    if ahead:
        client.assert_ended()
    else:
        site.ask(client=client)


def _but(drop: str, *add: str) -> Callable[[bytes], bytes]:
    """Change a good 101: drop a field, and add some."""

    def change(octets: bytes) -> bytes:
        lines = octets.decode("latin-1").split("\r\n")[:-2]
        kept = [line for line in lines if not line.startswith(drop + ":")]
        return "\r\n".join([*kept, *add, "", ""]).encode("latin-1")

    return change


ACCEPT, PROTOCOL = "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"
ACCEPT_OF_KEY = f"{ACCEPT}: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OTHER = "Sec-WebSocket-Extensions: x-other"

BAD_SWITCHES = [
    ("no Upgrade", _but("Upgrade"), "RFC 6455 4.1"),
    ("another Upgrade", _but("Upgrade", "Upgrade: h2c"), "RFC 6455 4.1"),
    ("two Upgrades", _but("Upgrade", "Upgrade: websocket, h2c"), "RFC 6455 4.1"),
    ("no Connection", _but("Connection"), "RFC 6455 4.1"),
    ("another Connection", _but("Connection", "Connection: close"), "RFC 6455 4.1"),
    ("no Accept", _but(ACCEPT), "RFC 6455 4.1"),
    ("an empty Accept", _but(ACCEPT, f"{ACCEPT}: "), "RFC 6455 4.1"),
    ("the Accept of the client's key", _but(ACCEPT, ACCEPT_OF_KEY), "RFC 6455 4.1"),
    ("two Accepts", _but("", ACCEPT_OF_KEY), "RFC 6455 4.1"),
    ("another protocol", _but("", f"{PROTOCOL}: three"), "RFC 6455 4.1"),
    ("a protocol in another case", _but("", f"{PROTOCOL}: ONE"), "RFC 6455 4.1"),
    ("two protocols", _but("", f"{PROTOCOL}: one, two"), "RFC 6455 4.2.2"),
    ("two lines of protocols", _but("", f"{PROTOCOL}: one", f"{PROTOCOL}: two"), "RFC 6455 11.3.4"),
    ("another extension", _but("", OTHER), "RFC 6455 9.1"),
    ("another extension behind a good one", _but("", DEFLATE, OTHER), "RFC 6455 9.1"),
]


@pytest.mark.parametrize(
    ("change", "rfc"), [row[1:] for row in BAD_SWITCHES], ids=[row[0] for row in BAD_SWITCHES]
)
def test_a_101_that_is_none(site: Site, change: Callable[[bytes], bytes], rfc: str) -> None:
    """The client gets 502 and keeps its connection; the origin server is cut off, and what it says goes nowhere."""
    client, server, request = site.ask("Sec-WebSocket-Protocol: one, two", DEFLATE)
    server.send(change(switching(request)) + frame(TEXT, b"hello", mask=None))
    answer = client.read_message()
    assert (answer.status, answer.get("Proxy-Status")) == (502, "proxyd; error=http_upgrade_failed")
    assert b"hello" not in answer.body
    server.assert_cut()
    assert (site.logged()[3] or "").startswith("origin http_upgrade_failed: ")
    _, server, request = site.ask(client=client)
    server.send(switching(request))
    assert client.read_head().status == 101


@pytest.mark.parametrize(
    "octets",
    [b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n", b"\x81\x05hello\r\n\r\n", b"HTTP/1.1 099 A\r\n\r\n",
     b"HTTP/1.1 101 A\r\nX-A: " + b"a" * 70000],
)
def test_an_answer_that_is_none(site: Site, octets: bytes) -> None:
    """What is no head of HTTP/1 is 502."""
    client, server, _ = site.ask()
    with contextlib.suppress(OSError):
        server.send(octets)
    assert client.read_message().status == 502


def test_a_protocol_that_nobody_offered(site: Site) -> None:
    """A client that offers no protocol gets none."""
    client, server, request = site.ask()
    server.send(switching(request, "Sec-WebSocket-Protocol: chat"))
    assert client.read_message().status == 502


def test_a_protocol_that_the_origin_leaves_out(site: Site) -> None:
    """What is offered need not be taken: what to do then is the client's to decide."""
    peers = site.open("Sec-WebSocket-Protocol: chat", DEFLATE)
    peers.close()


def test_a_silent_origin(site: Site) -> None:
    """No answer within timeouts.response is 504, and its connection is cut."""
    client, server, _ = site.ask(path="/silent")
    answer = client.read_message()
    assert (answer.status, answer.get("Proxy-Status")) == (504, "proxyd; error=http_response_timeout")
    server.assert_cut()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Switching"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_an_origin_that_hangs_up(site: Site, end: str, sent: bytes) -> None:
    """It ends the connection instead of answering, or within its head: 502."""
    client, server, _ = site.ask()
    server.send(sent)
    getattr(server, end)()
    answer = client.read_message()
    assert (answer.status, answer.get("Proxy-Status")) == (502, "proxyd; error=connection_terminated")
    client.request("OPTIONS", "*")
    assert client.read_message().status == 204


def test_an_origin_that_is_not_there(site: Site) -> None:
    """A refused connection is 502."""
    client = site.connect()
    client.request("GET", "/refused/", *UPGRADE)
    answer = client.read_message()
    assert (answer.status, answer.get("Proxy-Status")) == (502, "proxyd; error=connection_refused")


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_client_that_leaves(site: Site, end: str) -> None:
    """Before the origin server has answered: its connection is cut at once."""
    client, server, _ = site.ask()
    getattr(client, end)()
    server.assert_cut()
    assert site.logged()[3] == "client went away"


# What is an upgrade, and by which rule


def _without(*dropped: str) -> tuple[str, ...]:
    return tuple(line for line in UPGRADE if not line.startswith(dropped))


def _key(value: str) -> tuple[str, ...]:
    return (*_without("Sec-WebSocket-Key"), f"Sec-WebSocket-Key: {value}")


GET = "GET {} HTTP/1.1"

PLAIN = [
    ("POST", "POST {} HTTP/1.1", UPGRADE, b"", "RFC 6455 4.1"),
    ("HTTP/1.0", "GET {} HTTP/1.0", UPGRADE, b"", "RFC 6455 4.1"),
    ("a body", GET, (*UPGRADE, "Content-Length: 4"), b"body", "SPEC 3"),
    ("a body in chunks", GET, (*UPGRADE, "Transfer-Encoding: chunked"), b"0\r\n\r\n", "SPEC 3"),
    ("no key", GET, _without("Sec-WebSocket-Key"), b"", "RFC 6455 4.2.1"),
    ("an empty key", GET, _key(""), b"", "RFC 6455 4.2.1"),
    ("a short key", GET, _key("c2hvcnQ="), b"", "RFC 6455 4.2.1"),
    ("a long key", GET, _key("dGhlIHNhbXBsZSBub25jZSE="), b"", "RFC 6455 4.2.1"),
    ("a key that is no base64", GET, _key("!" * 22 + "=="), b"", "RFC 6455 4.2.1"),
    ("a key that is not padded", GET, _key(KEY.rstrip("=")), b"", "RFC 6455 4.2.1"),
    ("two keys", GET, (*UPGRADE, f"Sec-WebSocket-Key: {KEY}"), b"", "RFC 6455 11.3.1"),
    ("two keys in a line", GET, _key(f"{KEY}, {KEY}"), b"", "RFC 6455 11.3.1"),
    ("h2c", GET, (*_without("Upgrade"), "Upgrade: h2c", "HTTP2-Settings: AAMA"), b"", "RFC 9110 7.8"),
    ("another version of it", GET, (*_without("Upgrade"), "Upgrade: websocket/13"), b"", "RFC 9110 7.8"),
    ("no Upgrade", GET, _without("Upgrade"), b"", "RFC 6455 4.2.1"),
    ("no Connection", GET, _without("Connection"), b"", "RFC 9110 7.8"),
    ("another Connection", GET, (*_without("Connection"), "Connection: keep-alive"), b"", "RFC 9110 7.8"),
]


@pytest.mark.parametrize(
    ("line", "fields", "body", "rfc"), [row[1:] for row in PLAIN], ids=[row[0] for row in PLAIN]
)
def test_what_is_no_upgrade(site: Site, line: str, fields: tuple[str, ...], body: bytes, rfc: str) -> None:
    """It is served as a plain request without Upgrade; an origin server that switches all the same is 502."""
    for agrees in (False, True):
        client = site.connect()
        client.send("\r\n".join([line.format(site.path), "Host: example.test", *fields, "", ""]).encode() + body)
        # Behind a plain request there may be a connection that was used before.
        server = site.origin.accept()
        request = server.read_message()
        assert request.line.startswith(line.split()[0] + " ")
        assert request.body == body.removesuffix(b"0\r\n\r\n")
        assert request.all("Upgrade") == request.all("Connection") == []
        if agrees:
            server.send(switching(request) + frame(TEXT, b"tunnelled", mask=None))
            answer = client.read_message()
            assert (answer.status, answer.get("Proxy-Status")) == (502, "proxyd; error=http_protocol_error")
            assert b"tunnelled" not in answer.body
            server.assert_cut()
        else:
            server.respond("plain", "Connection: close")
            assert client.read_message().body == b"plain"
            server.close()


@pytest.mark.parametrize(
    "fields",
    [
        ("Upgrade: WebSocket", "Connection: keep-alive, UPGRADE", f"Sec-WebSocket-Key: {KEY}"),
        ("Upgrade: h2c, websocket", "Connection: Upgrade, HTTP2-Settings", f"sec-websocket-key: {KEY}",
         "HTTP2-Settings: AA"),
        ("Upgrade: h2c", "Upgrade: websocket", "Connection: close", "Connection: upgrade", f"SEC-WEBSOCKET-KEY: {KEY}"),
        ("Content-Length: 0", *UPGRADE[:3]),
    ],
)
def test_what_is_an_upgrade(site: Site, fields: tuple[str, ...]) -> None:
    """Lists, cases and no version at all: only WebSocket is asked for, in its plainest form."""
    client = site.connect()
    client.request("GET", site.path, *fields)
    server = site.origin.accept()
    request = server.read_head()
    assert (request.get("Upgrade"), request.get("Connection")) == ("websocket", "Upgrade")
    assert request.get("HTTP2-Settings") is None
    server.send(switching(request))
    assert client.read_head().status == 101
    pair(client, server).close()


@pytest.mark.parametrize("version", ["8", "14", "x", "13, 8"])
def test_another_version(site: Site, version: str) -> None:
    """It is for the origin server to say what it thinks of it (RFC 6455 section 4.4)."""
    client = site.connect()
    client.request("GET", site.path, *UPGRADE[:3], f"Sec-WebSocket-Version: {version}")
    server = site.origin.accept()
    request = server.read_head()
    assert (request.get("Upgrade"), request.get("Sec-WebSocket-Version")) == ("websocket", version)
    server.respond("", "Sec-WebSocket-Version: 13", status="426 Upgrade Required")
    answer = client.read_message()
    assert (answer.status, answer.get("Sec-WebSocket-Version")) == (426, "13")


def test_a_rule_without_upgrades(site: Site) -> None:
    """ws: false is 404 and no later rule is tried; a plain request is served."""
    client = site.connect()
    client.request("GET", "/plain/", *UPGRADE)
    answer = client.read_message()
    assert (answer.status, answer.get("Proxy-Status")) == (404, "proxyd; error=destination_not_found")
    site.origin.assert_idle()
    client.request("GET", "/plain/")
    server = site.origin.accept()
    server.read_message()
    server.respond("served", "Connection: close")
    assert client.read_message().body == b"served"


def test_a_disabled_rule(site: Site) -> None:
    """It matches nothing: the next rule takes the upgrade."""
    client, server, request = site.ask(path="/disabled")
    server.send(switching(request))
    assert client.read_head().status == 101


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "https://good.test:444", "http://good.test", "https://good.test/", ""]
)
def test_an_origin_that_may_not(site: Site, origin: str) -> None:
    """An Origin that the rule does not list is 403, and its target is not asked."""
    client = site.connect()
    client.request("GET", "/guarded/", *UPGRADE, f"Origin: {origin}")
    answer = client.read_message()
    assert (answer.status, answer.get("Proxy-Status")) == (403, "proxyd; error=http_request_denied")
    client.request("GET", "/guarded/", *UPGRADE, "Origin: https://good.test", "Origin: https://evil.test")
    assert client.read_message().status == 403
    site.origin.assert_idle()


@pytest.mark.parametrize("origin", ["https://good.test", "null"])
def test_an_origin_that_may(site: Site, origin: str) -> None:
    """It is compared as the client sent it, and then changed; a client without one is no browser's page."""
    _, _, request = site.ask(f"Origin: {origin}", path="/guarded")
    assert request.get("Origin") == f"ws://127.0.0.1:{site.origin.port}"
    _, _, request = site.ask(path="/guarded")
    assert request.get("Origin") is None


def test_what_a_rule_changes(site: Site) -> None:
    """Path, Host, Origin in the target's scheme as it is written, and fields; X-Forwarded-Proto stays http."""
    _, _, request = site.ask("Origin: http://page.test", "Cookie: a=1", "Authorization: theirs", path="/changed/a%2fb")
    assert request.line == f"GET /base/new/a%2fb{site.path} HTTP/1.1"
    authority = f"127.0.0.1:{site.origin.port}"
    assert (request.get("Host"), request.get("Origin")) == (authority, f"ws://{authority}")
    assert (request.get("X-Set"), request.get("Cookie")) == ("by rule", None)
    assert request.get("Authorization") == "Bearer ours"
    assert (request.get("X-Forwarded-Proto"), request.get("X-Forwarded-Host")) == ("http", "example.test")


def test_a_query(site: Site) -> None:
    """It goes on byte for byte."""
    client = site.connect()
    client.request("GET", "/?token=a%20b&x=/../", *UPGRADE)
    assert site.origin.accept().read_head().line == "GET /?token=a%20b&x=/../ HTTP/1.1"


# Frames

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 100000]


@pytest.mark.parametrize("side", SIDES)
def test_messages_of_every_size(site: Site, side: str) -> None:
    """Text and binary, around every border of the length's three forms, in order."""
    one, other = site.open().seen_from(side)
    for size in SIZES:
        for opcode in (TEXT, BINARY):
            one.sends(opcode, b"%d" % opcode * size)
            other.gets(opcode, b"%d" % opcode * size)
            other.sends(PONG, b"thanks")
            one.gets(PONG, b"thanks")


@pytest.mark.parametrize("side", SIDES)
def test_frames_stay_as_they_are(site: Site, side: str) -> None:
    """Fragments, empty ones too, are not merged; control frames stay where they are; masks are not changed."""
    one, other = site.open().seen_from(side)
    octets = (
        one.frame(TEXT, b"once", fin=False) + one.frame(PING, b"between") + one.frame(CONTINUATION, b"", fin=False)
        + one.frame(PONG) + one.frame(CONTINUATION, b"upon", fin=False) + one.frame(CONTINUATION, b" a time")
        + one.frame(PING, b"p" * 125) + one.frame(BINARY) + one.frame(TEXT, "\xe4\u20ac".encode())
    )
    long = octets + one.frame(TEXT, b"long" * 100_000, fin=False) + one.frame(CONTINUATION, b"er" * 75_000) + octets
    sending = threading.Thread(target=one.wire.send, args=(long,))
    sending.start()
    assert other.wire.read(len(long)) == long
    sending.join()
    for octet in octets:
        one.wire.send(bytes((octet,)))
    assert other.wire.read(len(octets)) == octets


def test_both_ways_at_once(site: Site) -> None:
    """Neither direction waits for the other."""
    peers = site.open()
    octets = {side: peers.seen_from(side)[0].frame(BINARY, side.encode() * 3000) * 200 for side in SIDES}
    sending = [threading.Thread(target=peers.seen_from(side)[0].wire.send, args=(octets[side],)) for side in SIDES]
    for thread in sending:
        thread.start()
    for side in SIDES:
        assert peers.seen_from(side)[1].wire.read(len(octets[side])) == octets[side]
    for thread in sending:
        thread.join()
    peers.close()


@pytest.mark.parametrize("side", SIDES)
def test_compressed_messages(site: Site, side: str) -> None:
    """With permessage-deflate agreed on, RSV1 marks compressed messages; their octets go on as they are."""
    one, other = site.open(DEFLATE, agreed=(DEFLATE + "; server_no_context_takeover",)).seen_from(side)
    for rsv, opcode, fin in [(4, TEXT, True), (4, BINARY, False), (0, CONTINUATION, True), (0, TEXT, True)]:
        one.sends(opcode, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=rsv, fin=fin)
        other.gets(opcode, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=rsv, fin=fin)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("opcode", "rsv"), [(CONTINUATION, 4), (PING, 4), (TEXT, 2), (TEXT, 6), (CLOSE, 4)]
)
def test_compressed_in_the_wrong_place(site: Site, side: str, opcode: int, rsv: int) -> None:
    """RSV1 is for first frames of messages, and the other bits are for nobody (RFC 7692 section 6.1)."""
    one, other = site.open(DEFLATE, agreed=(DEFLATE,)).seen_from(side)
    if opcode == CONTINUATION:
        one.sends(TEXT, b"a", fin=False, rsv=4)
        other.gets(TEXT, b"a", fin=False, rsv=4)
    one.sends(opcode, b"b", rsv=rsv)
    one.gets_close(1002)
    other.gets_close(1011)


def test_an_extension_that_we_do_not_know(site: Site) -> None:
    """Its bits and opcodes pass both ways; masks and lengths must still be right."""
    peers = site.open("Sec-WebSocket-Extensions: x-odd", agreed=("Sec-WebSocket-Extensions: x-odd",))
    for side in SIDES:
        one, other = peers.seen_from(side)
        for opcode, rsv in [(TEXT, 7), (0x3, 0), (0xB, 2), (PING, 1)]:
            one.sends(opcode, b"odd", rsv=rsv)
            other.gets(opcode, b"odd", rsv=rsv)
    peers.client.wire.send(frame(TEXT, b"no mask", mask=None))
    peers.client.gets_close(1002)


# What a peer may not send


class Bad:
    """
    A frame that may not be sent.

    @ivar text: how the access log calls what is wrong with it.
    @ivar section: of RFC 6455.
    """

    def __init__(self, text: str, section: str, opcode: int, payload: bytes = b"a", **options: Any) -> None:
        self.text = text
        self.section = section
        self._octets = lambda mask: frame(opcode, payload, mask=mask, **options)

    def octets(self, mask: bytes | None) -> bytes:
        """The frame."""
        return self._octets(mask)


VIOLATIONS = {
    "RSV1": Bad("a reserved bit", "5.2", TEXT, rsv=4),
    "RSV2": Bad("a reserved bit", "5.2", BINARY, rsv=2),
    "RSV3": Bad("a reserved bit", "5.2", TEXT, rsv=1),
    "RSV1 of a ping": Bad("a reserved bit", "5.2", PING, rsv=4),
    **{f"opcode {opcode}": Bad("an unknown opcode", "5.2", opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping in fragments": Bad("a control frame in fragments", "5.5", PING, fin=False),
    "a pong in fragments": Bad("a control frame in fragments", "5.5", PONG, fin=False),
    "a Close in fragments": Bad("a control frame in fragments", "5.5", CLOSE, b"", fin=False),
    "a long ping": Bad("a control frame over 125 octets", "5.5", PING, b"a" * 126),
    "a long Close": Bad("a control frame over 125 octets", "5.5", CLOSE, b"\x03\xe8" + b"a" * 124),
    "a ping of a long form": Bad("a control frame over 125 octets", "5.5", PING, length_size=2),
    "a continuation of nothing": Bad("a continuation of nothing", "5.4", CONTINUATION),
    "a fragment of nothing": Bad("a continuation of nothing", "5.4", CONTINUATION, fin=False),
    "125 in two octets": Bad("a length that is not minimal", "5.2", TEXT, b"a" * 125, length_size=2),
    "0 in two octets": Bad("a length that is not minimal", "5.2", TEXT, b"", length_size=2),
    "65535 in eight octets": Bad("a length that is not minimal", "5.2", BINARY, b"a" * 65535, length_size=8),
    "a Close of one octet": Bad("a Close of one octet", "5.5.1", CLOSE, b"\x03"),
    **{
        f"the close code {code}": Bad(f"the close code {code}", "7.4.2", CLOSE, code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)
    },
    "a reason in Latin-1": Bad("a reason that is not UTF-8", "5.5.1", CLOSE, b"\x03\xe8\xe9"),
    "half a character": Bad("a reason that is not UTF-8", "5.5.1", CLOSE, b"\x03\xe8" + "\u20ac".encode()[:2]),
    "a surrogate": Bad("a reason that is not UTF-8", "5.5.1", CLOSE, b"\x03\xe8\xed\xa0\x80"),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("bad", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_violation(site: Site, side: str, bad: Bad) -> None:
    """Who breaks the framing is failed with 1002; the other side has got what came before, and 1011."""
    one, other = site.open().seen_from(side)
    one.wire.send(one.frame(TEXT, b"good") + bad.octets(one.mask) + one.frame(TEXT, b"never"))
    one.gets_close(1002)
    one.wire.assert_ended()
    one.wire.close()
    other.gets(TEXT, b"good")
    other.is_closed(1011)
    assert site.logged()[3] == f"{side} websocket_error: {bad.text}"


@pytest.mark.parametrize("side", SIDES)
def test_the_top_bit(site: Site, side: str) -> None:
    """A length has 63 bits (RFC 6455 section 5.2); its header is enough."""
    one, other = site.open().seen_from(side)
    one.wire.send(_header(BINARY, 1 << 63, one.mask))
    one.gets_close(1002)
    one.wire.close()
    other.is_closed(1011)
    assert site.logged()[3] == f"{side} websocket_error: a length over 63 bits"


@pytest.mark.parametrize("side", SIDES)
def test_the_wrong_mask(site: Site, side: str) -> None:
    """Clients mask, servers do not (RFC 6455 section 5.1)."""
    one, other = site.open().seen_from(side)
    one.wire.send(frame(TEXT, b"a", mask=None if one.mask else MASK))
    one.gets_close(1002)
    other.is_closed(1011)
    one.wire.close()
    assert site.logged()[3] == f"{side} websocket_error: a frame {'without' if side == 'client' else 'with'} a mask"


@pytest.mark.parametrize("side", SIDES)
def test_a_message_inside_another(site: Site, side: str) -> None:
    """A new message must not begin before the end of the last one; the fragment before it has gone on."""
    one, other = site.open().seen_from(side)
    one.wire.send(one.frame(TEXT, b"a", fin=False) + one.frame(PING) + one.frame(TEXT, b"b"))
    one.gets_close(1002)
    one.wire.close()
    other.gets(TEXT, b"a", fin=False)
    other.gets(PING)
    other.is_closed(1011)
    assert site.logged()[3] == f"{side} websocket_error: a new message inside another"


@WITHIN
@pytest.mark.parametrize("side", SIDES)
def test_a_violation_of_who_is_within_a_frame(site: Site, side: str, size: int, sent: int) -> None:
    """A Close cannot be put into a frame that is on its way there: that side is cut off instead."""
    one, other = site.open().seen_from(side)
    octets = other.frame(TEXT, b"a" * size)
    other.wire.send(octets[:sent])
    one.wire.read(sent)
    one.sends(0x3)
    one.wire.assert_cut()
    other.wire.send(octets[sent:])
    other.is_closed(1011)


def test_no_violations(site: Site) -> None:
    """UTF-8 of messages is the ends' own duty."""
    peers = site.open()
    for side in SIDES:
        one, other = peers.seen_from(side)
        one.sends(TEXT, b"\xff\xfe")
        other.gets(TEXT, b"\xff\xfe")
    peers.close()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fragments", [[1001], [500, 501], [0, 1000, 1], [1 << 40]])
def test_a_message_that_is_too_long(start, rule, opened, side: str, fragments: list[int]) -> None:
    """Over limits.maxMessage octets, in one frame or in many, is 1009; not one octet of the frame too much goes on."""
    proxy = start(rules=[rule], limits={"maxMessage": 1000})
    one, other = opened(proxy).seen_from(side)
    one.sends(BINARY, b"a" * 999, fin=False)
    one.sends(PING, b"p" * 125)
    one.sends(CONTINUATION, b"a")
    other.gets(BINARY, b"a" * 999, fin=False)
    other.gets(PING, b"p" * 125)
    other.gets(CONTINUATION, b"a")
    for number, size in enumerate(fragments):
        opcode = CONTINUATION if number else TEXT
        if number + 1 < len(fragments):
            one.sends(opcode, b"a" * size, fin=False)
            other.gets(opcode, b"a" * size, fin=False)
        else:
            # Its header is enough.
            one.wire.send(_header(opcode, size, one.mask))
    one.gets_close(1009)
    one.wire.close()
    other.is_closed(1011)
    proxy.output.wait_for(f'failed="{side} websocket_error: a message over 1000 octets"')


def _header(opcode: int, size: int, mask: bytes | None) -> bytes:
    """The header of a last frame whose payload need not be made."""
    bit = 0x80 if mask else 0
    if size < 126:
        return bytes((0x80 | opcode, bit | size)) + (mask or b"")
    form, octets = (126, 2) if size < 0x10000 else (127, 8)
    return bytes((0x80 | opcode, bit | form)) + size.to_bytes(octets, "big") + (mask or b"")


# The closing handshake

CODES = [
    (None, b""), (1000, b""), (1000, b"done"), (1001, "\u20ac bye".encode()), (1002, b""), (1003, b""), (1007, b""),
    (1008, b"policy"), (1009, b""), (1010, b"ext"), (1011, b""), (1012, b""), (1013, b""), (1014, b""), (3000, b""),
    (3999, b""), (4000, b"own"), (4999, b"a" * 123),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("code", "reason"), CODES)
def test_a_close(site: Site, side: str, code: int | None, reason: bytes) -> None:
    """Code and reason go over unchanged, and so does the answer; then the server's side ends TCP, and all was well."""
    peers = site.open()
    one, other = peers.seen_from(side)
    one.closes(code, reason)
    other.gets_close(code, reason)
    peers.client.wire.assert_silent()
    other.closes(4321, b"the answer")
    one.gets_close(4321, b"the answer")
    peers.client.is_over()
    peers.origin.wire.assert_silent()
    peers.origin.is_over()
    assert site.logged()[3] is None


@pytest.mark.parametrize("side", SIDES)
def test_nothing_after_a_close(site: Site, side: str) -> None:
    """What comes behind a Close goes nowhere; the other direction goes on until it has its own."""
    one, other = site.open().seen_from(side)
    one.wire.send(one.frame(TEXT, b"before") + close(1000, mask=one.mask) + one.frame(TEXT, b"after"))
    other.gets(TEXT, b"before")
    other.gets_close(1000)
    one.sends(TEXT, b"still after")
    other.sends(TEXT, b"on its way")
    one.gets(TEXT, b"on its way")
    other.closes(1000)
    one.gets_close(1000)
    if side == "client":
        one.wire.assert_ended()
        other.wire.assert_silent()
    else:
        other.wire.assert_ended()
        one.wire.assert_silent()


def test_both_close_at_once(site: Site) -> None:
    """Each has sent its own Close before it gets the other's."""
    peers = site.open()
    peers.client.closes(1000, b"mine")
    peers.origin.closes(1001, b"yours")
    peers.client.gets_close(1001, b"yours")
    peers.origin.gets_close(1000, b"mine")
    peers.client.is_over()
    peers.origin.is_over()
    assert site.logged()[3] is None


@pytest.mark.parametrize("end", ["close", "reset"])
def test_an_origin_that_does_not_wait(site: Site, end: str) -> None:
    """It ends TCP right behind its Close, as many do: the client's closing handshake is none the worse."""
    peers = site.open()
    peers.origin.closes(1000, b"bye")
    peers.client.gets_close(1000, b"bye")
    getattr(peers.origin.wire, end)()
    peers.client.closes(1000)
    peers.client.is_over()
    assert site.logged()[3] is None


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("end", ["close", "reset", "end_output"])
def test_a_loss(site: Site, side: str, end: str) -> None:
    """A side that goes without a Close is a failure for the other: 1011, never a clean end."""
    one, other = site.open().seen_from(side)
    one.sends(TEXT, b"last words")
    other.gets(TEXT, b"last words")
    getattr(one.wire, end)()
    other.is_closed(1011)
    assert site.logged()[3] == f"{side} went away without a Close"


@WITHIN
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_loss_within_a_frame(site: Site, side: str, end: str, size: int, sent: int) -> None:
    """A Close would be taken for a part of it: the other side is cut off."""
    one, other = site.open().seen_from(side)
    one.wire.send(one.frame(BINARY, b"a" * size)[:sent])
    other.wire.read(sent)
    getattr(one.wire, end)()
    other.wire.assert_cut()
    assert site.logged()[3] == f"{side} went away without a Close"


@pytest.mark.parametrize("side", SIDES)
def test_a_loss_within_a_message(site: Site, side: str) -> None:
    """Between the fragments of a message is between frames."""
    one, other = site.open().seen_from(side)
    one.sends(TEXT, b"a", fin=False)
    # Half a header, and a control frame that has not come whole, have not gone on yet.
    one.wire.send(one.frame(PING, b"abc")[:-1])
    other.gets(TEXT, b"a", fin=False)
    one.wire.close()
    other.is_closed(1011)


def test_who_does_not_answer_a_close(start, rule, opened) -> None:
    """
    Each step of a closing handshake has five seconds: who takes longer is cut
    off, and the other side, when it is still there, learns that this was no good end.
    """
    proxy = start(rules=[rule])
    silent_origin, silent_client, lingering_origin, failed_client, both = [opened(proxy, f"/{n}") for n in range(5)]
    silent_origin.client.closes(1000)
    silent_client.origin.closes(1000)
    lingering_origin.client.closes(1000)
    lingering_origin.origin.closes(1000)
    failed_client.client.sends(0x3)
    both.origin.sends(0x3)
    silent_origin.origin.gets_close(1000)
    silent_client.client.gets_close(1000)
    lingering_origin.client.gets_close(1000)
    lingering_origin.client.is_over()
    lingering_origin.origin.gets_close(1000)
    failed_client.client.gets_close(1002)
    failed_client.origin.is_closed(1011)
    both.origin.gets_close(1002)
    both.client.gets_close(1011)
    # Five seconds pass.
    silent_origin.client.gets_close(1011)
    silent_origin.client.is_over()
    silent_origin.origin.wire.assert_cut()
    silent_client.client.wire.assert_cut()
    silent_client.origin.gets_close(1011)
    silent_client.origin.is_over()
    lingering_origin.origin.wire.assert_cut()
    both.client.wire.assert_cut()
    failures = ["origin did not answer a Close", "client did not answer a Close", None,
                "client websocket_error: an unknown opcode", "origin websocket_error: an unknown opcode"]
    for number, failure in enumerate(failures):
        failed = f' failed="{failure}"' if failure else ""
        proxy.output.wait_for(rf'"GET /{number} [^\n]*origin_time=\S+{failed}\n')


# Time-outs


def test_pings_of_our_own(start, rule, opened) -> None:
    """timeouts.websocketPing: both sides are pinged, and their pongs go no further; all others do."""
    proxy = start(rules=[rule], timeouts={"websocketPing": 0.4})
    peers = opened(proxy)
    for _ in range(2):
        for side in SIDES:
            one, other = peers.seen_from(side)
            ping = one.reads()
            assert (ping.opcode, ping.payload[:6], len(ping.payload)) == (PING, b"proxyd", 14)
            one.sends(PONG, ping.payload)
    peers.client.sends(PONG, b"proxyd")
    peers.client.sends(TEXT, b"and then")
    frames = itertools.takewhile(lambda read: read.opcode != TEXT, iter(peers.origin.reads, None))
    assert [(read.opcode, read.payload) for read in frames if read.opcode != PING] == [(PONG, b"proxyd")]


@pytest.mark.parametrize("side", SIDES)
def test_a_ping_that_is_not_answered(start, rule, opened, side: str) -> None:
    """Who has said nothing by the next ping is cut off, and the other side gets 1011."""
    proxy = start(rules=[rule], timeouts={"websocketPing": 0.4})
    one, other = opened(proxy).seen_from(side)
    while (read := other.reads()).opcode == PING:
        other.sends(PONG, read.payload)
    assert (read.opcode, read.payload) == (CLOSE, b"\x03\xf3")
    other.closes(1011)
    other.is_over()
    assert one.wire.assert_cut()
    proxy.output.wait_for(f'failed="{side} answered no ping"')


def test_an_idle_websocket(start, rule, opened) -> None:
    """timeouts.websocketIdle: both sides get 1001, and answer it; a rule may have its own."""
    proxy = start(rules=[{**rule, "timeouts": {"websocketIdle": 0.2}}], timeouts={"websocketIdle": 3600})
    peers = opened(proxy)
    for peer in peers:
        peer.gets_close(1001)
    for peer in peers:
        peer.closes(1001)
    peers.client.is_over()
    peers.origin.is_over()
    proxy.output.wait_for(r'"GET / HTTP/1\.1" 101 0 [^\n]*origin_time=\S+\n')


def test_pongs_keep_a_websocket_open(start, rule, opened) -> None:
    """Whose peers answer pings is not idle: many times as long as timeouts.websocketIdle."""
    proxy = start(rules=[rule], timeouts={"websocketIdle": 0.9, "websocketPing": 0.4})
    peers = opened(proxy)
    for _ in range(4):
        for peer in peers:
            ping = peer.reads()
            assert ping.opcode == PING
            peer.sends(PONG, ping.payload)


def test_time_outs_of_requests(start, rule, opened) -> None:
    """None of them holds for a WebSocket: many times as long as they are it is open, though it is silent."""
    short = {"header": 0.4, "body": 0.4, "response": 0.4, "keepAlive": 0.4, "connect": 0.4, "websocketPing": 0.5}
    proxy = start(rules=[rule], timeouts=short)
    peers = opened(proxy)
    for _ in range(3):
        for peer in peers:
            ping = peer.reads()
            assert ping.opcode == PING
            peer.sends(PONG, ping.payload)


# Draining and reloading


def test_drain(start, rule, opened) -> None:
    """SIGTERM: both sides get 1001 between frames, masked to the origin server, and the process ends."""
    proxy = start(rules=[rule])
    peers = opened(proxy)
    proxy.terminate()
    for peer in peers:
        peer.is_closed(1001)
    assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


@WITHIN
@pytest.mark.parametrize("side", SIDES)
def test_drain_within_a_frame(start, rule, opened, side: str, size: int, sent: int) -> None:
    """The frame that is on its way passes whole, and nothing after it but the Close."""
    proxy = start(rules=[rule])
    one, other = opened(proxy).seen_from(side)
    octets = one.frame(BINARY, b"a" * size)
    one.wire.send(octets[:sent])
    other.wire.read(sent)
    proxy.terminate()
    one.gets_close(1001)
    proxy.output.wait_for("draining: 1 connections")
    other.wire.assert_silent()
    one.wire.send(octets[sent:] + one.frame(TEXT, b"too late"))
    assert other.wire.read(len(octets) - sent) == octets[sent:]
    other.gets_close(1001)
    other.closes(1001)
    one.closes(1001)
    for peer in (one, other):
        peer.is_over()
    assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


@pytest.mark.parametrize("side", SIDES)
def test_drain_within_a_later_frame(start, rule, opened, side: str) -> None:
    """The same when long frames follow each other, each of which goes from socket to socket as a whole."""
    proxy = start(rules=[rule])
    one, other = opened(proxy).seen_from(side)
    long = one.frame(BINARY, b"a" * 100_000)
    one.wire.send(long * 3 + long[:50_000])
    assert other.wire.read(3 * len(long) + 50_000) == long * 3 + long[:50_000]
    proxy.terminate()
    one.gets_close(1001)
    other.wire.assert_silent()
    one.wire.send(long[50_000:] + long)
    assert other.wire.read(len(long) - 50_000) == long[50_000:]
    other.gets_close(1001)
    other.closes(1001)
    one.closes(1001)
    for peer in (one, other):
        peer.is_over()


def test_drain_of_many(start, rule, opened) -> None:
    """Two hundred WebSockets are closed, whatever their peers are at."""
    proxy = start(rules=[rule])
    all_peers = [opened(proxy) for _ in range(200)]
    for number, peers in enumerate(all_peers):
        if number % 3 == 0:
            peers.client.sends(TEXT, b"hello")
            peers.origin.gets(TEXT, b"hello")
        elif number % 3 == 1:
            peers.client.closes(1000)
            peers.origin.gets_close(1000)
    proxy.terminate()
    for number, peers in enumerate(all_peers):
        if number % 3 == 1:
            peers.origin.closes(1000)
            peers.client.gets_close(1000)
            peers.client.is_over()
            peers.origin.is_over()
        else:
            for peer in peers:
                peer.is_closed(1001)
    assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_drain_within_an_opening_handshake(start, rule, own_origin: Origin) -> None:
    """An origin server that agrees while we drain agrees in vain: no client sees a 101 that is closed at once."""
    proxy = start(rules=[rule])
    with proxy.connect() as client:
        client.request("GET", "/", *UPGRADE)
        server = own_origin.accept()
        request = server.read_head()
        proxy.terminate()
        wait_until_refused(proxy.port)
        server.send(switching(request))
        response = client.read_message()
        assert (response.status, response.get("Connection")) == (503, "close")
        client.assert_ended()
        server.assert_cut()
    assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_drain_deadline(start, rule, opened) -> None:
    """Who has not answered by timeouts.drain is cut off."""
    proxy = start(rules=[rule], timeouts={"drain": 0.3})
    peers = opened(proxy)
    proxy.terminate()
    for peer in peers:
        peer.gets_close(1001)
        peer.wire.assert_cut()
    assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_second_signal(start, rule, opened) -> None:
    """A second SIGTERM cuts off everything at once."""
    proxy = start(rules=[rule])
    peers = opened(proxy)
    proxy.terminate()
    for peer in peers:
        peer.gets_close(1001)
    proxy.terminate()
    for peer in peers:
        peer.wire.assert_cut()
    assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM


def test_reload(start, rule, opened, own_origin: Origin) -> None:
    """A WebSocket keeps the rule and the limits that it began with; the next one has the new ones."""
    proxy = start(rules=[rule], limits={"maxMessage": 10})
    old = opened(proxy)
    pending = proxy.connect()
    pending.request("GET", "/", *UPGRADE)
    server = own_origin.accept()
    request = server.read_head()
    proxy.reload({"rules": [{**rule, "pattern": "^/new"}], "limits": {"maxMessage": 100}})
    server.send(switching(request))
    assert pending.read_head().status == 101
    new = opened(proxy, "/new")
    for peers, limit in [(old, 10), (pair(pending, server), 10), (new, 100)]:
        peers.client.sends(TEXT, b"a" * limit)
        peers.origin.gets(TEXT, b"a" * limit)
        peers.origin.sends(TEXT, b"a" * (limit + 1))
        peers.origin.gets_close(1009)
        peers.client.is_closed(1011)
    with proxy.connect() as client:
        client.request("GET", "/", *UPGRADE)
        assert client.read_message().status == 404


# The access log


def test_combined_log(site: Site) -> None:
    """One line when a WebSocket has ended: 101, the octets to the client, how long it took, and who failed."""
    peers = site.open("User-Agent: tests")
    peers.origin.sends(TEXT, b"to the client")
    peers.client.gets(TEXT, b"to the client")
    peers.client.wire.close()
    peers.origin.is_closed(1011)
    line = site.logged()[0]
    assert re.search(
        rf' 101 15 "-" "tests" rule=all origin=127\.0\.0\.1:{site.origin.port} time=\d\.\d{{3}} '
        r'origin_time=\d\.\d{3} failed="client went away without a Close"\n$',
        line,
    ), line


def test_json_log(start, rule, opened, tmp_path: Path) -> None:
    """The same for programs, with the octets both ways: those of frames that went on."""
    proxy = start(rules=[rule], log={"access": "access.log", "format": "json"})
    peers = opened(proxy, "/a?b=c")
    peers.client.sends(BINARY, b"a" * 1000)
    peers.origin.gets(BINARY, b"a" * 1000)
    peers.origin.sends(TEXT, b"thanks")
    peers.client.gets(TEXT, b"thanks")
    peers.close()
    with proxy.connect() as client:
        # The line is there before anybody can be served by a process that has seen the connection end.
        client.request("OPTIONS", "*")
        client.read_message()
    entry = json.loads((proxy.folder / "access.log").read_text().splitlines()[0])
    assert (entry["status"], entry["target"], entry["received"], entry["sent"]) == (101, "/a?b=c", 1008 + 8, 8 + 4)
    assert (entry["rule"], entry["failed"]) == ("all", None)
    assert 0 < entry["origin_duration"] < entry["duration"]


# Other ways than TCP


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody knows."""
    return Authority(tmp_path / "ca")


@pytest.mark.parametrize("reactor", [None, "epoll"])
def test_tls(start, own_origin: Origin, authority: Authority, reactor: str | None) -> None:
    """TLS on both sides: large messages, early octets, closing, losses, violations."""
    file = authority.sign("localhost")
    proxy = start(
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(file)]}}],
        rules=[{"name": "all", "pattern": "^/", "target": f"wss://localhost:{own_origin.port}", "changeOrigin": True,
                "tls": {"ca": str(authority.file)}}],
        reactor=reactor,
    )

    def opened() -> Pair:
        client = Wire.to(proxy.port).over_tls(client_context(authority.file), "localhost")
        client.request("GET", "/", *UPGRADE, "Origin: https://localhost")
        client.send(frame(TEXT, b"early"))
        server = own_origin.accept().over_tls(server_context(file))
        request = server.read_head()
        assert request.get("X-Forwarded-Proto") == "https"
        assert request.get("Origin") == f"wss://localhost:{own_origin.port}"
        server.send(switching(request) + frame(TEXT, b"right behind", mask=None))
        assert client.read_head().status == 101
        peers = pair(client, server)
        peers.client.gets(TEXT, b"right behind")
        peers.origin.gets(TEXT, b"early")
        return peers

    peers = opened()
    for side in SIDES:
        one, other = peers.seen_from(side)
        octets = _header(BINARY, 10_000_000, one.mask) + bytes(10_000_000)
        sending = threading.Thread(target=one.wire.send, args=(octets,))
        sending.start()
        assert other.wire.read(len(octets)) == octets
        sending.join()
    peers.close()
    for side in SIDES:
        one, other = opened().seen_from(side)
        one.sends(0x3)
        one.gets_close(1002)
        one.wire.assert_ended()
        one.wire.close()
        other.is_closed(1011)
        one, other = opened().seen_from(side)
        one.wire.close()
        other.is_closed(1011)
        one, other = opened().seen_from(side)
        one.wire.send(one.frame(TEXT, b"half a frame")[:-1])
        other.wire.read(13 if one.mask is None else 17)
        one.wire.close()
        other.wire.assert_cut()
        other.wire.close()


def test_refusal_over_tls(start, own_origin: Origin, authority: Authority) -> None:
    """What was sent ahead of a refusal ends the connection, over TLS in good order, too."""
    proxy = start(
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(authority.sign("localhost"))]}}],
        rules=[{"name": "all", "pattern": "^/", "target": f"ws://127.0.0.1:{own_origin.port}"}],
    )
    with Wire.to(proxy.port).over_tls(client_context(authority.file), "localhost") as client:
        head = "\r\n".join(["GET / HTTP/1.1", "Host: a", *UPGRADE, "", ""])
        client.send(head + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        server = own_origin.accept()
        server.read_head()
        server.respond("no", status="403 Forbidden")
        assert client.read_message().status == 403
        client.assert_ended()


@pytest.mark.parametrize("reactor", [None, "epoll"])
def test_unix_sockets(start, tmp_path: Path, reactor: str | None) -> None:
    """A listener and a target on UNIX sockets: opening, messages, closing, a violation, a loss."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "o.sock"))
        listening.listen()
        listening.settimeout(PATIENCE_S)
        escaped = str(tmp_path / "o.sock").replace("/", "%2F")
        start(
            listen=[f"unix:{tmp_path / 'l.sock'}"],
            rules=[{"name": "u", "pattern": "^/", "target": f"http+unix://{escaped}"}],
            reactor=reactor,
        )

        def opened() -> Pair:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(tmp_path / "l.sock"))
            client = Wire(connection)
            client.request("GET", "/", *UPGRADE)
            server = Wire(listening.accept()[0])
            server.send(switching(server.read_head()))
            assert client.read_head().status == 101
            return pair(client, server)

        peers = opened()
        for side in SIDES:
            one, other = peers.seen_from(side)
            for size in SIZES:
                one.sends(BINARY, b"a" * size)
                other.gets(BINARY, b"a" * size)
        peers.close()
        for side in SIDES:
            one, other = opened().seen_from(side)
            one.sends(0x3)
            one.gets_close(1002)
            one.wire.assert_ended()
            one.wire.close()
            other.is_closed(1011)
            one, other = opened().seen_from(side)
            one.wire.close()
            other.is_closed(1011)


def test_haproxy_listener(start, rule, own_origin: Origin) -> None:
    """Behind HAProxy's PROXY protocol the relay takes the wrapper over."""
    proxy = start(listen=["haproxy:tcp:0:interface=127.0.0.1"], trustedProxies=["127.0.0.1"], rules=[rule])
    with proxy.connect() as client:
        client.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 5555 80\r\n")
        client.request("GET", "/", *UPGRADE)
        server = own_origin.accept()
        request = server.read_head()
        assert request.get("X-Real-IP") == "192.0.2.9"
        server.send(switching(request))
        assert client.read_head().status == 101
        peers = pair(client, server)
        peers.client.sends(TEXT, b"hello")
        peers.origin.gets(TEXT, b"hello")
        peers.close()


def test_per_client_limit(start, rule, opened) -> None:
    """A WebSocket is a request of its client's until it ends (limits.perClient)."""
    proxy = start(rules=[rule], limits={"perClient": 1})
    peers = opened(proxy)
    with proxy.connect() as client:
        client.request("GET", "/", *UPGRADE)
        assert client.read_message().status == 429
    peers.close()
    proxy.output.wait_for('"GET / HTTP/1.1" 101')
    opened(proxy).close()


def test_per_host_limit(start, rule, opened, own_origin: Origin) -> None:
    """WebSockets do not count towards limits.perHost."""
    proxy = start(rules=[rule], limits={"perHost": 1})
    peers = [opened(proxy) for _ in range(3)]
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("served")
        assert client.read_message().body == b"served"
    for one in peers:
        one.close()


def test_a_websocket_is_a_connection(start, rule, opened) -> None:
    """It counts towards limits.connections until it ends."""
    proxy = start(rules=[rule], limits={"connections": 1})
    peers = opened(proxy)
    with proxy.connect() as client:
        client.request("OPTIONS", "*")
        client.assert_silent()
        peers.close()
        assert client.read_message().status == 204

