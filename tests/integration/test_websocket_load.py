"""WebSockets under load: peers that stop reading cost no memory, and thousands that failed leave nothing behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context, server_context
from tests.support.frames import BINARY, PONG
from tests.support.proxy import Proxy
from tests.support.websocket import UPGRADE, Pair, WebSocket, pair, switching
from tests.support.wire import PATIENCE_S, Message, Origin, Wire

SIDES = ["client", "origin"]
GIGABYTE = 1000 * 1000 * 1000
MEGABYTE = 1024 * 1024
ALLOWED = 40 * MEGABYTE
"""Octets by which a proxy may grow while it relays."""


@pytest.fixture(params=["prompt", "epoll"])
def alone(request: pytest.FixtureRequest, start, own_origin: Origin) -> Proxy:
    """A proxy that nobody else uses, on our own reactor and on one of Twisted's."""
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    return start(rules=[rule], reactor=None if request.param == "prompt" else request.param, log={"access": None})


def opened(client: Wire, origin: Origin) -> Pair:
    """Open a WebSocket by this connection of a client."""
    client.request("GET", "/", *UPGRADE)
    server = origin.accept()
    server.send(switching(server.read_head()))
    assert client.read_head().status == 101
    return pair(client, server)


# Back-pressure


def giant(mask: bytes | None) -> bytes:
    """The beginning of a frame that does not end before a gigabyte is through, and some of its payload."""
    return bytes((0x80 | BINARY, 0xFF if mask else 0x7F)) + GIGABYTE.to_bytes(8, "big") + (mask or b"")


def flood(wire: Wire, pattern: bytes) -> int:
    """
    Send a pattern over and over, until nobody takes any more.

    @return: how many octets were taken.
    """
    octets = memoryview(pattern * (MEGABYTE // len(pattern)))
    sent = 0
    wire.socket.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < GIGABYTE:
            sent += wire.socket.send(octets[sent % len(pattern) :])
    wire.socket.settimeout(PATIENCE_S)
    return sent


def drink(wire: Wire, pattern: bytes, size: int) -> None:
    """Read so many octets, which must be the pattern over and over."""
    octets = pattern * (MEGABYTE // len(pattern) + 1)
    position = 0
    while position < size:
        read = wire.read(min(MEGABYTE - len(pattern), size - position))
        offset = position % len(pattern)
        assert read == octets[offset : offset + len(read)]
        position += len(read)


def stop_reading(proxy: Proxy, one: WebSocket, other: WebSocket, shape: str) -> None:
    """One side floods, the other reads nothing; then it reads all, and all goes on."""
    idle = proxy.memory()
    if shape == "giant":
        one.wire.send(giant(one.mask))
        pattern = bytes(range(256))
        assert other.wire.read(len(giant(one.mask))) == giant(one.mask)
    else:
        pattern = one.frame(BINARY, b"small") + one.frame(PONG, b"")
    sent = flood(one.wire, pattern)
    assert sent < GIGABYTE
    assert proxy.memory() - idle < ALLOWED
    rest = pattern[sent % len(pattern) :]
    sending = threading.Thread(target=one.wire.send, args=(rest,))
    sending.start()
    drink(other.wire, pattern, sent + len(rest))
    sending.join()
    assert proxy.memory() - idle < ALLOWED
    # The other direction has not suffered.
    other.sends(BINARY, b"back")
    one.gets(BINARY, b"back")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", ["giant", "small"])
def test_a_reader_that_stops(alone: Proxy, own_origin: Origin, side: str, shape: str) -> None:
    """Whether one frame never ends or millions are short: the sender has to wait, and nothing is lost."""
    with alone.connect() as client:
        one, other = opened(client, own_origin).seen_from(side)
        stop_reading(alone, one, other, shape)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", ["giant", "small"])
def test_a_reader_that_stops_over_tls(start, own_origin: Origin, tmp_path: Path, side: str, shape: str) -> None:
    """The same with TLS on both sides."""
    authority = Authority(tmp_path / "ca")
    file = authority.sign("localhost")
    proxy = start(
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(file)]}}],
        rules=[{"name": "all", "pattern": "^/", "target": f"wss://localhost:{own_origin.port}",
                "tls": {"ca": str(authority.file)}}],
    )
    with Wire.to(proxy.port).over_tls(client_context(authority.file), "localhost") as client:
        client.request("GET", "/", *UPGRADE)
        with own_origin.accept().over_tls(server_context(file)) as server:
            server.send(switching(server.read_head()))
            assert client.read_head().status == 101
            one, other = pair(client, server).seen_from(side)
            stop_reading(proxy, one, other, shape)


def test_a_gigabyte_each_way(alone: Proxy, own_origin: Origin) -> None:
    """One frame each way, both at once: no octet is lost, and memory stays where it was."""
    with alone.connect() as client:
        peers = opened(client, own_origin)
        idle = alone.memory()
        piece = bytes(MEGABYTE)

        def send(one: WebSocket) -> None:
            one.wire.send(giant(one.mask))
            for left in range(GIGABYTE, 0, -MEGABYTE):
                one.wire.send(piece[:left])

        def read(one: WebSocket, other: WebSocket) -> None:
            assert one.wire.read(len(giant(other.mask))) == giant(other.mask)
            left = GIGABYTE
            while left:
                for _ in range(64):
                    left -= len(one.wire.read_some()) if left else 0
                most.append(alone.memory())

        most: list[int] = []
        working = [threading.Thread(target=send, args=(one,)) for one in peers]
        for thread in working:
            thread.start()
        reading = threading.Thread(target=read, args=(peers.client, peers.origin))
        reading.start()
        read(peers.origin, peers.client)
        for thread in (*working, reading):
            thread.join()
        assert max(most) - idle < ALLOWED
        peers.close()


# What is left behind


def refused_with_200(client: Wire, origin: Origin) -> None:
    """The origin server answers 200."""
    server, _ = _asked(client, origin)
    server.respond("no WebSocket here", "Connection: close")
    assert client.read_message().status == 200
    server.close()


def client_gone_half_way(client: Wire, origin: Origin) -> None:
    """The origin server is silent, and the client goes."""
    server, _ = _asked(client, origin)
    client.close()
    server.assert_cut()
    server.close()


def reset_before_head(client: Wire, origin: Origin) -> None:
    """The origin server resets the connection at once."""
    _asked(client, origin)[0].reset()
    assert client.read_message().status == 502


def reset_within_head(client: Wire, origin: Origin) -> None:
    """It resets the connection after half a 101."""
    server, request = _asked(client, origin)
    server.send(switching(request)[:-2])
    server.reset()
    assert client.read_message().status == 502


def bad_accept(client: Wire, origin: Origin) -> None:
    """Its 101 is none."""
    server, request = _asked(client, origin)
    server.send(switching(request).replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"))
    assert client.read_message().status == 502
    server.assert_cut()
    server.close()


def client_reset_at_once(client: Wire, origin: Origin) -> None:
    """The client asks and is gone."""
    client.request("GET", "/", *UPGRADE)
    client.reset()
    # It may have been too fast for the origin server to hear of it.
    origin.drop_pending()


def client_lost(client: Wire, origin: Origin) -> None:
    """The client is lost while its WebSocket is open."""
    peers = opened(client, origin)
    peers.client.wire.reset()
    peers.origin.is_closed(1011)


def origin_lost(client: Wire, origin: Origin) -> None:
    """The origin server is lost."""
    peers = opened(client, origin)
    peers.origin.wire.reset()
    peers.client.is_closed(1011)


def short_and_good(client: Wire, origin: Origin) -> None:
    """All is well."""
    peers = opened(client, origin)
    peers.client.sends(BINARY, b"hello")
    peers.origin.gets(BINARY, b"hello")
    peers.close()


ENDS: list[Callable[[Wire, Origin], None]] = [
    refused_with_200, client_gone_half_way, reset_before_head, reset_within_head, bad_accept, client_reset_at_once,
    client_lost, origin_lost, short_and_good,
]


def _asked(client: Wire, origin: Origin) -> tuple[Wire, Message]:
    client.request("GET", "/", *UPGRADE)
    server = origin.accept()
    return server, server.read_head()


def settled(proxy: Proxy, most: int) -> int:
    """
    Wait until a proxy has no more descriptors than it should have.

    @return: how much memory it uses then.
    """
    deadline = time.monotonic() + PATIENCE_S
    while proxy.descriptors() > most:
        assert time.monotonic() < deadline, f"{proxy.descriptors()} descriptors are open, not {most}"
        with proxy.connect() as client:
            client.request("OPTIONS", "*", "Connection: close")
            client.read_all()
    return proxy.memory()


@pytest.mark.parametrize(
    ("alone", "times"),
    [
        ("prompt", 2000),
        pytest.param("prompt", 12000, marks=pytest.mark.soak),
        pytest.param("epoll", 12000, marks=pytest.mark.soak),
    ],
    indirect=["alone"],
)
@pytest.mark.parametrize("end", ENDS, ids=[end.__name__ for end in ENDS])
def test_nothing_is_left_behind(
    alone: Proxy, own_origin: Origin, end: Callable[[Wire, Origin], None], times: int
) -> None:
    """After thousands of WebSockets that came to this end, descriptors and memory are what they were."""
    before = alone.descriptors()

    def run(times: int) -> int:
        for _ in range(times // 500):
            for _ in range(500):
                with alone.connect() as client:
                    end(client, own_origin)
                own_origin.end_all()
            # Whoever waits for nothing gets ahead: this is about what is left, not about how many are open at once.
            memory = settled(alone, before)
        return memory

    warm = run(500)
    assert run(times) - warm < 4 * MEGABYTE
