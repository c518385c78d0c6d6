"""Rules whose targets are reached through real proxies: every kind of target through every kind of proxy."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.support.certificates import Authority, server_context
from tests.support.proxies import ENCODED, PASSWORD, USER, Running, dante, microsocks, openssh, squid, tinyproxy
from tests.support.wire import Origin


class Proxies(NamedTuple):
    """All of them, running."""

    authority: Authority
    squid: Running
    closed_squid: Running
    tiny: Running
    closed_tiny: Running
    micro: Running
    closed_micro: Running
    dante: Running
    ssh: Running


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    """Each proxy, once for all and once for those who know the password."""
    folder = tmp_path_factory.mktemp("proxies")
    authority = Authority(folder / "ca")
    with ExitStack() as stack:
        yield Proxies(
            authority,
            stack.enter_context(squid(folder / "squid", authority, authenticates=False)),
            stack.enter_context(squid(folder / "squid2", authority, authenticates=True)),
            stack.enter_context(tinyproxy(folder / "tiny", authenticates=False)),
            stack.enter_context(tinyproxy(folder / "tiny2", authenticates=True)),
            stack.enter_context(microsocks(folder / "micro", authenticates=False)),
            stack.enter_context(microsocks(folder / "micro2", authenticates=True)),
            stack.enter_context(dante(folder / "dante")),
            stack.enter_context(openssh(folder / "ssh")),
        )


def ways(proxies: Proxies) -> dict[str, Any]:
    """Every proxy that is tested, as a rule names it."""
    private = {"tls": {"ca": str(proxies.authority.file)}}
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    field = {"headers": {"Proxy-Authorization": f"Basic {basic}"}}
    open_, closed = proxies.squid, proxies.closed_squid
    return {
        "none": "direct",
        "http squid": f"http://127.0.0.1:{open_.http}",
        "http squid, Basic in the URL": f"http://{ENCODED}127.0.0.1:{closed.http}",
        "http squid, a field": {"url": f"http://127.0.0.1:{closed.http}", **field},
        "http tinyproxy": f"http://127.0.0.1:{proxies.tiny.http}",
        "http tinyproxy, Basic in the URL": f"http://user:secret@127.0.0.1:{proxies.closed_tiny.http}",
        "https squid, unverified": {"url": f"https://localhost:{open_.https}", "tls": {"verify": False}},
        "https squid, private CA": {"url": f"https://localhost:{open_.https}", **private},
        "https squid, private CA, Basic": {"url": f"https://{ENCODED}127.0.0.1:{closed.https}", **private},
        "https squid, private CA, a field": {"url": f"https://localhost:{closed.https}", **private, **field},
        "socks5 microsocks": f"socks5://127.0.0.1:{proxies.micro.socks}",
        "socks5 microsocks, password": f"socks5://{ENCODED}127.0.0.1:{proxies.closed_micro.socks}",
        "socks5h microsocks": f"socks5h://127.0.0.1:{proxies.micro.socks}",
        "socks5h microsocks, password": f"socks5h://{ENCODED}127.0.0.1:{proxies.closed_micro.socks}",
        "socks4 dante": f"socks4://127.0.0.1:{proxies.dante.socks}",
        "socks4a openssh": f"socks4a://me@127.0.0.1:{proxies.ssh.socks}",
        "socks5h dante": f"socks5h://127.0.0.1:{proxies.dante.socks}",
    }


NAMES = list(ways(Proxies(type("A", (), {"file": ""}), *[Running()] * 8)))  # type: ignore[arg-type]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def serve_one(origin: Origin, context: Any, seen: list[Any]) -> threading.Thread:
    """Answer one request, or one upgrade with an echo of one frame."""

    def run() -> None:
        server = origin.accept()
        if context is not None:
            server = server.over_tls(context)
        request = server.read_head()
        seen.append(request)
        if request.get("Upgrade"):
            accept = hashlib.sha1(
                f"{request.get('Sec-WebSocket-Key')}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()
            )
            server.send(
                b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                + base64.b64encode(accept.digest()) + b"\r\n\r\n\x81\x05hello"
            )
            assert server.read(8)[:2] == b"\x88\x82"
            server.send(b"\x88\x02\x03\xe8")
        else:
            server.respond("through")
        server.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("way", NAMES)
def test_matrix(start, own_origin: Origin, proxies: Proxies, way: str, scheme: str) -> None:
    """Each target is reached, TLS to it runs inside the tunnel, and it never sees the proxy's credentials."""
    context = None
    if scheme in ("https", "wss"):
        context = server_context(proxies.authority.sign("localhost"))
    target = f"{scheme}://localhost:{own_origin.port}"
    rule = {"name": "all", "pattern": "^/", "target": target, "proxy": ways(proxies)[way]}
    proxy = start(rules=[{**rule, "tls": {"ca": str(proxies.authority.file)}}])
    seen: list[Any] = []
    thread = serve_one(own_origin, context, seen)
    with proxy.connect() as client:
        if scheme in ("ws", "wss"):
            client.request(
                "GET", "/x", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}",
                "Sec-WebSocket-Version: 13",
            )
            assert client.read_head().status == 101
            assert client.read(7) == b"\x81\x05hello"
            client.send(b"\x88\x82\0\0\0\0\x03\xe8")
            assert client.read(4) == b"\x88\x02\x03\xe8"
        else:
            client.request("GET", "/x")
            assert client.read_message().body == b"through"
    thread.join()
    assert seen[0].line == "GET /x HTTP/1.1"
    assert not [name for name, _ in seen[0].fields if name.lower().startswith("proxy-")]
    text = proxy.stop()
    assert "p@ss" not in text and "p%40ss" not in text and "secret" not in text


def test_tls_in_tls(start, own_origin: Origin, proxies: Proxies) -> None:
    """TLS to the target inside TLS to the proxy carries a hundred megabytes each way."""
    size = 100 * 1000 * 1000
    piece = bytes(range(256)) * 4096
    context = server_context(proxies.authority.sign("localhost"))
    rule = {"name": "all", "pattern": "^/", "target": f"https://localhost:{own_origin.port}"}
    way = ways(proxies)["https squid, private CA"]
    proxy = start(rules=[{**rule, "proxy": way, "tls": {"ca": str(proxies.authority.file)}}])

    def serve() -> None:
        with own_origin.accept().over_tls(context) as server:
            server.read_head()
            received = 0
            while received < size:
                received += len(server.read_some())
            server.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
            for sent in range(0, size, len(piece)):
                server.send(piece[: size - sent])
            with contextlib.suppress(OSError):
                server.read_all()

    thread = threading.Thread(target=serve)
    thread.start()
    with proxy.connect() as client:
        client.request("POST", "/", f"Content-Length: {size}")
        idle = proxy.memory()
        for sent in range(0, size, len(piece)):
            client.send(piece[: size - sent])
        assert client.read_head().status == 200
        position = 0
        while position < size:
            data = client.read_some()
            assert data == (piece + piece)[position % len(piece) :][: len(data)]
            position += len(data)
        assert proxy.memory() - idle < 40 * 1024 * 1024
    proxy.terminate()
    thread.join()


def tunnels(start, own_origin: Origin, proxies: Proxies, count: int) -> None:
    """Open so many tunnels, and let as many fail in each of several ways."""
    pattern = {"name": "t", "target": f"http://127.0.0.1:{own_origin.port}"}
    refusing = Origin()
    proxy = start(
        rules=[
            {**pattern, "id": "open", "pattern": "^/open", "proxy": f"http://127.0.0.1:{proxies.squid.http}"},
            {**pattern, "id": "socks", "pattern": "^/socks", "proxy": f"socks5://127.0.0.1:{proxies.micro.socks}"},
            {**pattern, "id": "secret", "pattern": "^/refused", "proxy": f"http://127.0.0.1:{proxies.closed_squid.http}"},
            {**pattern, "id": "away", "pattern": "^/away", "proxy": "http://127.0.0.1:1"},
            {**pattern, "id": "silent", "pattern": "^/silent", "proxy": f"http://127.0.0.1:{refusing.port}"},
        ],
        log={"access": None},
    )

    def once(path: str) -> None:
        with proxy.connect() as client:
            client.request("GET", path, "Connection: close")
            if path == "/silent":
                refusing.accept().reset()
            elif path in ("/open", "/socks"):
                server = own_origin.accept()
                server.read_message()
                server.respond("ok", "Connection: close")
                server.close()
            assert client.read_message().status == (200 if path in ("/open", "/socks") else 502)

    paths = ("/open", "/socks", "/refused", "/away", "/silent")
    for path in paths:
        for _ in range(20):
            once(path)
    descriptors, memory = proxy.descriptors(), proxy.memory()
    for path in paths:
        for _ in range(count):
            once(path)
    assert proxy.descriptors() <= descriptors + 2
    assert proxy.memory() - memory < 8 * 1024 * 1024
    refusing.close()


def test_nothing_is_left_of_tunnels(start, own_origin: Origin, proxies: Proxies) -> None:
    """Tunnels that were opened, refused or lost leave no descriptor and no memory behind."""
    tunnels(start, own_origin, proxies, 100)


@pytest.mark.soak
def test_nothing_is_left_of_thousands_of_tunnels(start, own_origin: Origin, proxies: Proxies) -> None:
    """Ten thousand of them."""
    tunnels(start, own_origin, proxies, 2000)
