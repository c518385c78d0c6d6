"""Long bodies of known length, which go from socket to socket within the kernel: nobody sees a difference."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire

SIZE = 3_000_000
BODY = os.urandom(SIZE)
PUT = f"PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n".encode()
HEAD = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode()


@pytest.fixture
def alone(start: Callable[..., Proxy], own_origin: Origin) -> Proxy:
    """A proxy that nobody else uses."""
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    return start(rules=[rule], timeouts={"body": 0.5, "response": 0.5})


def sending(wire: Wire, octets: bytes) -> threading.Thread:
    """Send in a thread, as much as is taken."""

    def send() -> None:
        try:
            wire.send(octets)
        except OSError as error:
            assert isinstance(error, (ConnectionError, TimeoutError)), error

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("cut", [0, 1, 100_000, SIZE - 70_000, SIZE - 1])
def test_both_ways(alone: Proxy, own_origin: Origin, cut: int) -> None:
    """Whatever of a body comes with its head; both connections serve the next request, and the log has the sizes."""
    with alone.connect() as client:
        client.send(PUT + BODY[:cut])
        server = own_origin.accept()
        server.read_head()
        thread = sending(client, BODY[cut:] + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert server.read(SIZE) == BODY
        thread.join()
        thread = sending(server, HEAD + BODY[:cut])
        assert client.read_to(b"\r\n\r\n")
        assert client.read(cut) == BODY[:cut]
        thread.join()
        thread = sending(server, BODY[cut:])
        assert client.read(SIZE - cut) == BODY[cut:]
        thread.join()
        assert server.read_message().line == "GET /2 HTTP/1.1"
        server.respond("two")
        assert client.read_message().body == b"two"
    alone.output.wait_for(f'"PUT /1 HTTP/1.1" 200 {SIZE} ')


def test_over_tls(start: Callable[..., Proxy], own_origin: Origin, tmp_path: Path) -> None:
    """Over TLS nothing can be moved past us, and all is the same."""
    authority = Authority(tmp_path)
    listen = {"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(authority.sign("localhost"))]}}
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    proxy = start(listen=[listen], rules=[rule])
    with proxy.connect().over_tls(client_context(authority.file), "localhost") as client:
        thread = sending(client, PUT + BODY)
        server = own_origin.accept()
        server.read_head()
        assert server.read(SIZE) == BODY
        thread.join()
        thread = sending(server, HEAD + BODY)
        assert client.read_message().body == BODY
        thread.join()


def test_origin_ends_within(alone: Proxy, own_origin: Origin) -> None:
    """A body that is not whole does not look so."""
    with alone.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        thread = sending(server, HEAD + BODY[:-1])
        assert client.read_to(b"\r\n\r\n")
        assert client.read(SIZE - 1) == BODY[:-1]
        thread.join()
        server.close()
        assert client.assert_cut() == b""
    alone.output.wait_for('failed="origin http_response_incomplete: the origin closed the connection within the body')


def test_client_goes_away_within(alone: Proxy, own_origin: Origin) -> None:
    """An origin server need not send what nobody takes."""
    with alone.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        thread = sending(server, HEAD + BODY[:-1])
        client.read(1000)
    thread.join()
    server.assert_cut()
    alone.output.wait_for('failed="client went away"')


@pytest.mark.parametrize("who", ["the origin in its answer", "the client in its request"])
def test_silence(alone: Proxy, own_origin: Origin, who: str) -> None:
    """The time-outs are those of all bodies."""
    with alone.connect() as client:
        if "origin" in who:
            client.request("GET", "/")
            server = own_origin.accept()
            server.read_message()
            thread = sending(server, HEAD + BODY[:-1])
            assert client.read_to(b"\r\n\r\n") + client.read(SIZE - 1)
            client.assert_cut()
            alone.output.wait_for("origin connection_read_timeout: the origin paused for 0.5 s within the body")
        else:
            thread = sending(client, PUT + BODY[:-1])
            server = own_origin.accept()
            server.read_head()
            assert server.read(SIZE - 1) == BODY[:-1]
            assert client.read_message().status == 408
            server.assert_cut()
        thread.join()


def test_answer_before_the_end(alone: Proxy, own_origin: Origin) -> None:
    """An origin server may refuse a body while it comes; its answer reaches the client, who may go on sending."""
    with alone.connect() as client:
        client.send(PUT + BODY[:200_000])
        server = own_origin.accept()
        server.read_head()
        server.read(200_000)
        server.respond("too much", status="413 Content Too Large")
        answer = client.read_message()
        assert (answer.status, answer.body, answer.get("Connection")) == (413, b"too much", "close")
        thread = sending(client, BODY[200_000:])
        client.assert_ended()
        thread.join()
    server.assert_cut()
    alone.output.wait_for('"PUT /1 HTTP/1.1" 413 8 ')


def test_no_length_is_exceeded(alone: Proxy, own_origin: Origin) -> None:
    """What an origin server sends behind its answer reaches nobody."""
    with alone.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        thread = sending(server, HEAD + BODY + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        assert client.read_message().body == BODY
        thread.join()
        server.assert_cut()
        client.request("GET", "/next")
        own_origin.accept().respond("next")
        assert client.read_message().body == b"next"
