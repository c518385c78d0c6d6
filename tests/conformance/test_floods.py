"""
Clients and origin servers that cost much and give little: an ordinary client is served all the same, and memory
stays bounded.

The counts of the normal run are small; those of C{make soak} are what an attacker would begin with.
"""

from __future__ import annotations

import contextlib
import gzip
import resource
import socket
import threading
import zlib
from collections.abc import Iterator

import pytest

from tests.conformance.recorder import PATIENCE_S, Recorder
from tests.support.frames import BINARY, CONTINUATION, PING, TEXT
from tests.support.proxy import Proxy, until
from tests.support.websocket import UPGRADE, Pair, pair, switching
from tests.support.wire import Origin, Wire

KIB = 1024
MIB = 1024 * KIB

SLACK = 24 * MIB
"""Octets that a process may grow by for its own reasons: the allocator's arenas, caches, code that is loaded late."""

COUNTS = [300, pytest.param(9_000, marks=pytest.mark.soak)]
"""Below what fits into 20,000 descriptors when each client may need one more for its origin server."""

FEWER = [60, pytest.param(2_000, marks=pytest.mark.soak)]
"""Where each costs a connection to the origin server, and a thread of it, too."""


class Town:
    """
    A proxy, an origin server that answers all, and an ordinary client.

    @ivar allowed: octets by which proxyd may have grown at the end, besides L{SLACK}.
    """

    def __init__(self, proxy: Proxy, recorder: Recorder) -> None:
        self.proxy = proxy
        self.recorder = recorder
        self.allowed = 0
        self._number = 0
        self._ordinary = Wire.to(proxy.port)
        self.is_served()
        self._before = proxy.memory()

    def is_served(self) -> None:
        """The ordinary client gets its answer, on the connection that it has, and anybody on a new one."""
        with Wire.to(self.proxy.port) as new:
            for wire in (self._ordinary, new):
                self._number += 1
                wire.request("GET", f"/ordinary/{self._number}")
                answer = wire.read_message()
                assert answer.status == 200
                assert answer.body.endswith(b" to GET /ordinary/%d HTTP/1.1" % self._number)

    def is_modest(self) -> None:
        """Memory has not grown by more than is allowed."""
        grown = self.proxy.memory() - self._before
        assert grown < SLACK + self.allowed, f"{grown / MIB:.0f} MiB"

    def has_recovered(self, descriptors: int) -> None:
        """As many descriptors are open as before: those who left are forgotten."""
        for _ in range(10_000):
            if self.proxy.descriptors() <= descriptors:
                return
            self.is_served()
        raise AssertionError(f"{self.proxy.descriptors()} descriptors are open, not {descriptors}")

    def close(self) -> None:
        self._ordinary.close()


@pytest.fixture
def town(start) -> Iterator[Town]:
    """With time-outs that no test reaches, and no limit of connections to one origin server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    recorder = Recorder()
    proxy = start(
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{recorder.port}"}],
        timeouts={"header": 600, "body": 600, "response": 600, "keepAlive": 600},
        limits={"connections": 12_000, "perHost": 20_000},
        log={"access": None},
    )
    one = Town(proxy, recorder)
    yield one
    one.close()
    recorder.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    recorder.problems = [text for text in recorder.problems if "half a request" not in text]
    assert recorder.problems == []


@contextlib.contextmanager
def crowd(town: Town, count: int, kept: int = 0) -> Iterator[list[socket.socket]]:
    """
    So many clients; they all go at the end, and are forgotten.

    @param kept: connections to the origin server that are kept for others.
    """
    descriptors = town.proxy.descriptors()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(socket.create_connection(("127.0.0.1", town.proxy.port), PATIENCE_S))
        yield sockets
    finally:
        for one in sockets:
            one.close()
    town.has_recovered(descriptors + kept + 8)


@pytest.mark.parametrize("count", COUNTS)
def test_half_open(town: Town, count: int) -> None:
    """Clients that connect and say nothing cost a few KiB each, and nobody else anything."""
    # A transport, a channel, its timer and buffers: 8 KiB; the rest is room.
    town.allowed = count * 24 * KIB
    with crowd(town, count):
        town.is_served()
        town.is_modest()
    town.is_served()


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
def test_half_open_from_one_address(start, own_origin: Origin, count: int) -> None:
    """With limits.perClient one address holds no more than its share of connections, however many it makes."""
    own_origin.answer_all()
    rules = [{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}]
    proxy = start(rules=rules, limits={"perClient": 100}, timeouts={"header": 600}, log={"access": None})
    descriptors, memory = proxy.descriptors(), proxy.memory()
    with contextlib.ExitStack() as stack:
        for number in range(count):
            flood = stack.enter_context(socket.socket())
            flood.bind(("127.0.0.2", 0))
            flood.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionResetError):  # over the limit, and told so at once
                flood.connect(("127.0.0.1", proxy.port))
            if number % 100 == 99:
                with proxy.connect() as ordinary:
                    ordinary.request("GET", "/")
                    assert ordinary.read_message().status == 200
        until(lambda: proxy.descriptors() <= descriptors + 100 + 8)
        assert proxy.memory() - memory < SLACK
    until(lambda: proxy.descriptors() <= descriptors + 8)


@pytest.mark.parametrize("count", COUNTS)
def test_slow_heads(town: Town, count: int) -> None:
    """Heads that come octet by octet, on all connections at once (Slowloris)."""
    town.allowed = count * 24 * KIB
    head = b"GET /slow HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"
    with crowd(town, count, kept=50) as clients:
        for begin in range(0, len(head) - 1, 8):
            for client in clients:
                client.sendall(head[begin : min(begin + 8, len(head) - 1)])
            town.is_served()
        town.is_modest()
        # None of them was given up.
        for client in clients[:: max(1, count // 50)]:
            client.sendall(head[-1:])
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    town.is_served()


@pytest.mark.parametrize("count", FEWER)
def test_slow_bodies(town: Town, count: int) -> None:
    """Bodies that come octet by octet (R-U-Dead-Yet): each has a connection to the origin server, too."""
    town.allowed = count * 64 * KIB
    with crowd(town, count, kept=count) as clients:
        for client in clients:
            client.sendall(b"POST /part HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        for _ in range(5):
            for client in clients:
                client.sendall(b"a")
            town.is_served()
        town.is_modest()
        for client in clients:
            client.sendall(b"b")
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert sum(one.body == b"aaaaab" for one in town.recorder.requests) == count


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.soak)])
def test_slow_readers(town: Town, count: int) -> None:
    """Answers that nobody reads stay where they are: with the origin server."""
    size = 64 * MIB
    # "A few hundred KiB" each, whatever the answer's size.
    town.allowed = count * 512 * KIB
    descriptors = town.proxy.descriptors()
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", town.proxy.port))
        client.sendall(b"GET /large/%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
        clients.append(client)
    for client in clients:
        assert client.recv(1024).startswith(b"HTTP/1.1 200 ")
    for _ in range(200):
        town.is_served()
    town.is_modest()
    for client in clients:
        client.close()
    town.has_recovered(descriptors + 8)


@pytest.mark.parametrize("count", [100, pytest.param(5_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "fields",
    [
        b"a:\r\n" * 8000,
        b"X: " + b"a" * 32000 + b"\r\n",
        b"Connection: " + b"a," * 15000 + b"\r\n",
        b"Connection: x\r\n" * 2000,
        b"TE: " + b"trailers," * 3000 + b"\r\nConnection: te\r\n",
        b"X_Forwarded_For: a\r\n" * 1500,
        b"Upgrade: " + b"websocket," * 3000 + b"\r\n",
        b"Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 1.1.1.1\r\n" * 600,
    ],
    ids=["many", "long", "long Connection", "many Connections", "TE", "look-alikes", "Upgrade", "Forwarded"],
)
def test_large_heads(town: Town, fields: bytes, count: int) -> None:
    """Heads as large as limits.header allows, one after the other, are served or refused like any."""
    head = b"GET /x HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"
    assert len(head) <= 32768
    with Wire.to(town.proxy.port) as client:
        for number in range(count):
            client.send(head)
            assert client.read_message().status == 200
            if not number % 20:
                town.is_served()
    town.is_modest()


ENDLESS = {
    "chunk extensions": (b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n", 400),
    "long chunk extensions": (b"1;" + b"a" * 1000 + b"\r\na\r\n", 400),
    "trailers": (b"0\r\n" + b"X-A: b\r\n", 400),
    "one trailer": (b"0\r\nX-A: ", 400),
    "size": (b"0", 400),
}


@pytest.mark.parametrize("count", [20, pytest.param(1_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", ENDLESS)
def test_endless_parts_of_a_body(town: Town, name: str, count: int) -> None:
    """What is not content is read up to a limit: 400, and never kept."""
    piece, status = ENDLESS[name]
    first, rest = (piece, piece[3:] or b"a") if piece.startswith(b"0\r") else (piece, piece)
    for _ in range(count):
        with Wire.to(town.proxy.port) as client:
            client.send(b"POST /part HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + first)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(64):
                    client.send(rest * (64 * KIB // len(rest)))
            # What was sent on after the refusal may have been thrown away with a reset, but not the refusal.
            assert client.read_head().status == status
        town.is_served()
    town.is_modest()
    assert not [one for one in town.recorder.requests if one.line.startswith("POST")]


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"X-A: ", b"a"])
def test_endless_heads(town: Town, piece: bytes) -> None:
    """A head that does not end is 431 when limits.header is reached; of one that is only a line 414."""
    for _ in range(20):
        with Wire.to(town.proxy.port) as client:
            client.send(b"GET /" + (b"" if piece == b"a" else b" HTTP/1.1\r\nHost: a\r\n"))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(16):
                    client.send(piece * (64 * KIB // len(piece)))
            assert client.read_head().status == (414 if piece == b"a" else 431)
        town.is_served()
    town.is_modest()


def test_endless_empty_lines(start) -> None:
    """Who sends nothing but line breaks is given up after timeouts.header."""
    proxy = start(timeouts={"header": 0.5})
    with Wire.to(proxy.port) as client, pytest.raises(OSError):
        while True:
            client.send(b"\r\n")
            with Wire.to(proxy.port) as other:
                other.request("OPTIONS", "*")
                assert other.read_message().status == 204


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=pytest.mark.soak)])
def test_connections_that_come_and_go(town: Town, count: int) -> None:
    """Connections that are reset as soon as their request is sent leave nothing behind."""
    descriptors = town.proxy.descriptors()
    for number in range(count):
        wire = Wire.to(town.proxy.port)
        wire.request("GET", "/large/10000000")
        wire.reset()
        if not number % 50:
            town.is_served()
    town.has_recovered(descriptors + 8)
    town.is_modest()


# WebSockets


class Village:
    """A proxy and an origin server of WebSockets, whose ordinary users ask for C{OPTIONS *}."""

    def __init__(self, proxy: Proxy, origin: Origin) -> None:
        self.proxy = proxy
        self.origin = origin
        self._wires: list[Wire] = []
        self._ordinary = self.open()
        self.is_served()
        self._before = proxy.memory()

    def open(self, *fields: str) -> Pair:
        """Open a WebSocket, with these extensions."""
        client = Wire.to(self.proxy.port)
        self._wires.append(client)
        client.request("GET", "/", *UPGRADE, *fields)
        server = self.origin.accept()
        server.send(switching(server.read_head(), *fields))
        assert client.read_head().status == 101
        return pair(client, server)

    def is_served(self) -> None:
        """Another WebSocket and another client go on."""
        client, server = self._ordinary
        client.sends(TEXT, b"hello")
        server.gets(TEXT, b"hello")
        server.sends(TEXT, b"back")
        client.gets(TEXT, b"back")
        with Wire.to(self.proxy.port) as other:
            other.request("OPTIONS", "*")
            assert other.read_message().status == 204

    def is_modest(self) -> None:
        """Memory has not grown by more than is allowed."""
        grown = self.proxy.memory() - self._before
        assert grown < SLACK, f"{grown / MIB:.0f} MiB"

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


@pytest.fixture
def village(start, own_origin: Origin, request: pytest.FixtureRequest) -> Iterator[Village]:
    """Without a limit of messages, or with the one that the test names."""
    limit = getattr(request, "param", 0)
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    one = Village(start(rules=[rule], limits={"maxMessage": limit}, log={"access": None}), own_origin)
    yield one
    one.close()


def swallow(wire: Wire, size: int) -> None:
    """Read so many octets."""
    while size:
        size -= len(wire.read(min(size, MIB)))


ROUNDS = [50, pytest.param(3_000, marks=pytest.mark.soak)]


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("side", ["client", "origin"])
@pytest.mark.parametrize("kind", ["pings", "fragments", "empty fragments", "tiny messages"])
def test_frames_without_end(village: Village, kind: str, side: str, rounds: int) -> None:
    """However many frames there are, and whether their message ever ends: they go on as they come."""
    one, other = village.open().seen_from(side)
    if kind in ("fragments", "empty fragments"):
        one.sends(BINARY, b"", fin=False)
        other.gets(BINARY, b"", fin=False)
    piece = {
        "pings": one.frame(PING, b"p" * 125),
        "fragments": one.frame(CONTINUATION, b"a", fin=False),
        "empty fragments": one.frame(CONTINUATION, b"", fin=False),
        "tiny messages": one.frame(TEXT, b"a"),
    }[kind] * 5000
    reading = threading.Thread(target=swallow, args=(other.wire, rounds * len(piece)))
    reading.start()
    for number in range(rounds):
        one.wire.send(piece)
        if not number % 10:
            village.is_served()
    village.is_modest()
    one.closes(1000)
    reading.join()
    # Everything, and then the Close.
    other.gets_close(1000)
    other.closes(1000)
    one.gets_close(1000)
    one.wire.close()
    other.wire.close()


@pytest.mark.parametrize("village", [10_000], indirect=True)
@pytest.mark.parametrize("side", ["client", "origin"])
def test_fragments_up_to_a_limit(village: Village, side: str) -> None:
    """With limits.maxMessage a message of fragments ends where it gets too long: 1009, and 1011 to the other side."""
    for size in (1, 7, 100, 9_999):
        one, other = village.open().seen_from(side)
        one.sends(BINARY, b"", fin=False)
        other.gets(BINARY, b"", fin=False)
        for _ in range(10_000 // size):
            one.sends(CONTINUATION, b"a" * size, fin=False)
            other.gets(CONTINUATION, b"a" * size, fin=False)
        one.sends(CONTINUATION, b"a" * size, fin=False)
        one.gets_close(1009)
        other.gets_close(1011)
        village.is_served()
        one.wire.close()
        other.wire.close()
    village.is_modest()


@pytest.mark.parametrize("side", ["client", "origin"])
def test_compression_bomb_in_a_message(village: Village, side: str) -> None:
    """A message that would be a hundred MiB goes on as the hundred KiB that it is."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(100)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < MIB
    one, other = village.open("Sec-WebSocket-Extensions: permessage-deflate").seen_from(side)
    for _ in range(20):
        octets = one.frame(BINARY, bomb, rsv=4)
        sending = threading.Thread(target=one.wire.send, args=(octets,))
        sending.start()
        assert other.wire.read(len(octets)) == octets
        sending.join()
        village.is_served()
    village.is_modest()


def test_compression_bomb_in_an_answer(start, own_origin: Origin) -> None:
    """The same for Content-Encoding, on either way."""
    bomb = gzip.compress(bytes(200 * MIB), 9)
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    proxy = start(rules=[rule], log={"access": None})
    before = proxy.memory()
    for _ in range(10):
        with Wire.to(proxy.port) as client:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
            client.send(head)
            sending = threading.Thread(target=client.send, args=(bomb,))
            sending.start()
            server = own_origin.accept()
            request = server.read_message()
            sending.join()
            assert (request.get("Content-Encoding"), request.body) == ("gzip", bomb)
            answering = threading.Thread(
                target=server.respond, args=(bomb, "Content-Encoding: gzip", "Connection: close")
            )
            answering.start()
            answer = client.read_message()
            answering.join()
            assert (answer.get("Content-Encoding"), answer.body) == ("gzip", bomb)
        server.close()
    assert proxy.memory() - before < SLACK
