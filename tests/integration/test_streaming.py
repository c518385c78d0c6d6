"""Large bodies and peers that stop reading: memory stays where it was (SPEC section 2)."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire

GIGABYTE = 1000 * 1000 * 1000
PIECE = bytes(range(256)) * 4096
ALLOWED = 40 * 1024 * 1024
"""Octets by which a proxy may grow."""


@pytest.fixture(params=["prompt", "epoll"])
def alone(request: pytest.FixtureRequest, start, own_origin: Origin) -> Proxy:
    """A proxy that nobody else uses, on our own reactor and on one of Twisted's."""
    reactor = None if request.param == "prompt" else request.param
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    return start(rules=[rule], reactor=reactor)


def pour(wire: Wire, size: int) -> None:
    """Send so many octets, or as many as are taken."""
    with contextlib.suppress(OSError):
        while size > 0:
            wire.send(PIECE[:size])
            size -= len(PIECE)


def drink(wire: Wire, size: int) -> None:
    """Read so many octets, of those that L{pour} sends."""
    buffer = bytearray(1024 * 1024)
    position = 0
    kept = wire._kept
    wire._kept = b""
    assert PIECE.startswith(kept)
    position += len(kept)
    while position < size:
        count = wire.socket.recv_into(buffer)
        assert count, f"the connection ended after {position} octets"
        offset = position % 256
        assert buffer[: min(count, 256)] == (PIECE[offset:256] + PIECE[:256])[: min(count, 256)]
        position += count
    assert position == size


def test_download(alone: Proxy, own_origin: Origin) -> None:
    """A gigabyte to the client."""
    with alone.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        idle = alone.memory()
        server.send(f"HTTP/1.1 200 OK\r\nContent-Length: {GIGABYTE}\r\n\r\n")
        pouring = threading.Thread(target=pour, args=(server, GIGABYTE))
        pouring.start()
        client.read_head()
        drink(client, GIGABYTE)
        pouring.join()
        assert alone.memory() - idle < ALLOWED


def test_upload(alone: Proxy, own_origin: Origin) -> None:
    """A gigabyte to the origin server."""
    with alone.connect() as client:
        client.request("POST", "/", f"Content-Length: {GIGABYTE}")
        server = own_origin.accept()
        server.read_head()
        idle = alone.memory()
        pouring = threading.Thread(target=pour, args=(client, GIGABYTE))
        pouring.start()
        drink(server, GIGABYTE)
        pouring.join()
        server.respond("thanks")
        assert client.read_message().body == b"thanks"
        assert alone.memory() - idle < ALLOWED


@pytest.mark.parametrize("framing", [f"Content-Length: {GIGABYTE}", "Connection: close"])
def test_client_that_stops_reading(alone: Proxy, own_origin: Origin, framing: str) -> None:
    """An origin server is not read faster than the client."""
    with alone.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        idle = alone.memory()
        server.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")
        server.socket.settimeout(1)
        pour(server, GIGABYTE)
        assert alone.memory() - idle < ALLOWED


@pytest.mark.parametrize("framing", [f"Content-Length: {GIGABYTE}", "Transfer-Encoding: chunked"])
def test_origin_that_stops_reading(alone: Proxy, own_origin: Origin, framing: str) -> None:
    """A client is not read faster than the origin server, even if it sends a chunk that never ends."""
    with alone.connect() as client:
        client.request("POST", "/", framing)
        if framing.endswith("chunked"):
            client.send(b"3fffffff\r\n")
        server = own_origin.accept()
        server.read_head()
        idle = alone.memory()
        client.socket.settimeout(1)
        pour(client, GIGABYTE)
        assert alone.memory() - idle < ALLOWED


def test_many_small_chunks(alone: Proxy, own_origin: Origin) -> None:
    """Chunks of one octet do not make a mountain."""
    with alone.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        idle = alone.memory()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunks = b"1\r\na\r\n" * 100000
        sending = threading.Thread(target=server.send, args=(chunks * 5 + b"0\r\n\r\n",))
        sending.start()
        assert client.read_message().body == b"a" * 500000
        sending.join()
        assert alone.memory() - idle < ALLOWED
