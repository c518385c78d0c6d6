"""connect_websocket() against servers that others wrote, through real proxies, and against servers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.internet import reactor  # noqa: TID253
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from proxyd import connect_websocket
from proxyd.errors import (
    ConnectFailed,
    ConnectionClosed,
    HandshakeRefused,
    ProxyAuthenticationRequired,
    ProxyConnectFailed,
    ProxyConnectionRefused,
    ProxyTunnelFailed,
    TLSFailed,
    UpstreamTimeout,
)
from proxyd.http.upgrade import accept_for
from proxyd.websocket.client import WebSocketConnection
from tests.support.certificates import Authority, server_context
from tests.support.frames import BINARY, frame
from tests.support.peers import SCRIPTS, Peer, node
from tests.support.proxies import ENCODED, PASSWORD, USER, Running, free_port, microsocks, squid

HUGE = 20_000_000


class Python:
    """The WebSocket server of Python's C{websockets}."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._server: Server = serve(
            self._echo, "127.0.0.1", 0, ssl=context, max_size=None, subprotocols=[Subprotocol("two")],
            select_subprotocol=lambda _, offered: Subprotocol("two") if "two" in offered else None,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _echo(self, connection: ServerConnection) -> None:
        try:
            for message in connection:
                if message == "headers":
                    assert connection.request is not None
                    message = "\n".join(f"{name}: {value}" for name, value in connection.request.headers.raw_items())
                connection.send(message)
        except PeerClosed:
            pass

    def close(self) -> None:
        """Serve nobody any more."""
        self._server.shutdown()
        self._thread.join()


class World:
    """What all tests share."""

    authority: ClassVar[Authority]
    stranger: ClassVar[Authority]
    ports: ClassVar[dict[str, int]]
    squid: ClassVar[Running]
    closed_squid: ClassVar[Running]
    micro: ClassVar[Running]


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start all of them."""
    folder: Path = tmp_path_factory.mktemp("client")
    World.authority = Authority(folder / "ca")
    World.stranger = Authority(folder / "stranger")
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Peer:
            peer = Peer(*arguments, **options)
            stack.callback(peer.stop)
            return peer

        packing, plain = node(start, "ws-server.js", "deflate"), node(start, "ws-server.js", "plain")
        bun = start([SCRIPTS / "node_modules" / ".bin" / "bun", SCRIPTS / "bun-server.js"])
        python = Python()
        stack.callback(python.close)
        secure = Python(server_context(World.authority.sign("localhost")))
        stack.callback(secure.close)
        World.squid = stack.enter_context(squid(folder / "squid", World.authority, authenticates=False))
        World.closed_squid = stack.enter_context(squid(folder / "squid2", World.authority, authenticates=True))
        World.micro = stack.enter_context(microsocks(folder / "micro", authenticates=True))
        World.ports = {
            "node packing": packing.listens(),
            "node plain": plain.listens(),
            "bun": bun.listens(),
            "python": python.port,
            "secure": secure.port,
        }
        yield


def url(name: str) -> str:
    """Where a server is."""
    return f"{'wss' if name == 'secure' else 'ws'}://localhost:{World.ports[name]}/x?y"


def trusting() -> dict[str, Any]:
    """TLS options that trust the tests' authority."""
    return {"ca": World.authority.file}


def descriptors() -> int:
    """How many sockets are open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of listdir itself
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


async def echo(connection: WebSocketConnection, message: str | bytes) -> None:
    """Send something, and get it back."""
    sent = connection.send(message)
    assert await connection.receive() == message
    await sent


class Silent(Protocol):
    """A server that says what it is told to when somebody speaks to it."""

    def __init__(self, peer: Misbehaving) -> None:
        self.peer = peer
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.peer.received += len(data)
        if not self.peer.spoken_to.called:
            self.peer.heard = data
            if self.peer.answer is not None:
                self.transport.write(self.peer.answer(data))
            self.peer.spoken_to.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Misbehaving:
    """
    A server in this process that accepts connections and answers once.

    @ivar spoken_to: fires with its connection when there are octets.
    """

    def __init__(self, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.answer = answer
        self.spoken_to: Deferred[Silent] = Deferred()
        self.heard = b""
        self.received = 0
        self.listening: Any = None

    async def listen(self, case: TestCase) -> int:
        """Listen; return the port."""
        factory = Factory.forProtocol(lambda: Silent(self))
        self.listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        case.addCleanup(self.listening.stopListening)
        return int(self.listening.getHost().port)


def agreement(request: bytes) -> bytes:
    """A 101 for a request."""
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    return (
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        % accept_for(key)
    )


class Servers(TestCase):
    """Servers of three makers."""

    timeout = 30

    async def test_echo(self) -> None:
        """Messages of all sizes come back, packed or not; a ping is answered; the close code arrives."""
        for name in ("node packing", "node plain", "bun", "python"):
            connection = await connect_websocket(url(name), max_message=0, proxy=None)
            for size in (0, 1, 63, 64, 125, 126, 65535, 65536, 1_000_000):
                await echo(connection, "ä" * (size // 2))
                await echo(connection, os.urandom(size))
            assert await connection.ping() < 10
            await connection.close(4001, "enough")
            assert (connection.close_code, connection.close_reason) == (4001, "enough"), name

    async def test_huge(self) -> None:
        """So do 20 MB."""
        message = os.urandom(1000) * (HUGE // 1000)
        for name in ("node packing", "bun", "python"):
            connection = await connect_websocket(url(name), max_message=HUGE, proxy=None)
            await echo(connection, message)
            await connection.close()

    async def test_too_long(self) -> None:
        """What is longer than it may be ends the connection, packed or not."""
        for name in ("node packing", "node plain"):
            connection = await connect_websocket(url(name), max_message=1000, proxy=None)
            await echo(connection, "x" * 1000)
            connection.send("x" * 1001)
            error = await self.assertFailure(connection.receive(), ConnectionClosed)
            assert error.code == 1009
            await connection.close()

    async def test_many(self) -> None:
        """Ten thousand messages, sent while others are received: in order, none lost."""

        async def send() -> None:
            for number in range(10_000):
                await connection.send(str(number))
            await connection.send("close 4000 all")

        connection = await connect_websocket(url("node packing"), proxy=None)
        sending = Deferred.fromCoroutine(send())
        for number in range(10_000):
            assert await connection.receive() == str(number)
        error = await self.assertFailure(connection.receive(), ConnectionClosed)
        assert (error.code, error.reason) == (4000, "all")
        await sending
        await connection.close()

    async def test_server_closes(self) -> None:
        """The server's code and reason arrive; a clean end ends C{async for}."""
        for name in ("node packing", "bun"):
            connection = await connect_websocket(url(name), proxy=None)
            await connection.send("hello")
            await connection.send("close 1000 good bye")
            assert [message async for message in connection] == ["hello"]
            assert (connection.close_code, connection.close_reason) == (1000, "good bye")
            await connection.close()

    async def test_request(self) -> None:
        """The server sees the headers and chooses a subprotocol."""
        connection = await connect_websocket(
            f"ws://me:p%40ss@localhost:{World.ports['python']}/",
            headers=[("X-A", "1"), ("X-A", "2"), ("Origin", "https://a.example")],
            protocols=["one", "two"], proxy=None,
        )  # fmt: skip
        assert connection.subprotocol == "two"
        await connection.send("headers")
        lines = str(await connection.receive()).split("\n")
        assert lines[0] == f"Host: localhost:{World.ports['python']}"
        assert lines[1:5] == ["X-A: 1", "X-A: 2", "Origin: https://a.example", "Authorization: Basic bWU6cEBzcw=="]
        await connection.close()

    async def test_refused(self) -> None:
        """A server that wants no WebSocket says why."""
        port = await Misbehaving(lambda _: b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nX: y\r\n\r\nno").listen(self)
        error = await self.assertFailure(
            connect_websocket(f"ws://127.0.0.1:{port}", proxy=None), HandshakeRefused
        )
        assert (error.status, error.reason, error.body) == (403, "No", b"no")
        assert ("X", "y") in error.fields


class Ways(TestCase):
    """Through proxies."""

    timeout = 30

    def ways(self) -> dict[str, Any]:
        """All that are tested."""
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return {
            "none": "direct",
            "http": f"http://127.0.0.1:{World.squid.http}",
            "http, credentials": f"http://{ENCODED}127.0.0.1:{World.closed_squid.http}",
            "http, a field": {
                "url": f"http://127.0.0.1:{World.closed_squid.http}",
                "headers": {"Proxy-Authorization": f"Basic {basic}"},
            },
            "https": {"url": f"https://{ENCODED}localhost:{World.closed_squid.https}", "tls": trusting()},
            "https, unverified": {"url": f"https://localhost:{World.squid.https}", "tls": {"verify": False}},
            "socks5": f"socks5://{ENCODED}127.0.0.1:{World.micro.socks}",
            "socks5h": f"socks5h://{ENCODED}127.0.0.1:{World.micro.socks}",
        }

    async def test_all(self) -> None:
        """Each reaches plain and secure servers, with headers and protocols; the target sees no credential."""
        for way in self.ways().values():
            for name in ("python", "secure"):
                connection = await connect_websocket(
                    url(name), proxy=way, headers={"X-A": "1"}, protocols=("two",), tls=trusting()
                )
                assert connection.subprotocol == "two"
                await echo(connection, os.urandom(200_000))
                await connection.send("headers")
                text = str(await connection.receive()).lower()
                assert "\nx-a: 1" in text and "proxy-" not in text
                await connection.close()

    async def test_huge_in_tls_in_tls(self) -> None:
        """20 MB through TLS within TLS."""
        connection = await connect_websocket(
            url("secure"), proxy=self.ways()["https"], tls=trusting(), max_message=0, compress=False
        )
        await echo(connection, bytes(HUGE))
        await connection.close()

    async def test_environment(self) -> None:
        """The environment's proxy is used, unless it, or the caller, exempts the host."""
        dead = f"http://127.0.0.1:{free_port()}"
        for environment, options, is_reached in (
            ({"http_proxy": f"http://127.0.0.1:{World.squid.http}"}, {}, True),
            ({"http_proxy": dead}, {}, False),
            ({"HTTPS_PROXY": dead, "ALL_PROXY": ""}, {}, True),
            ({"http_proxy": dead, "NO_PROXY": "localhost"}, {}, True),
            ({"http_proxy": dead}, {"no_proxy": "other.example, localhost"}, True),
            ({"http_proxy": dead}, {"proxy": None}, True),
            ({"NO_PROXY": "*"}, {"proxy": dead}, False),
            ({}, {"proxy": dead, "no_proxy": ["localhost:1"]}, False),
        ):
            connecting = connect_websocket(url("python"), environment=environment, **options)  # type: ignore[arg-type]
            if is_reached:
                await (await connecting).close()
            else:
                await self.assertFailure(connecting, ProxyConnectionRefused)

    async def test_errors(self) -> None:
        """Each has its class, number, name, stage and hop, and shows no credential."""
        closed, dead = World.closed_squid, free_port()
        stranger = {"ca": World.stranger.file}
        private = {"url": f"https://hidden:hidden@localhost:{World.squid.https}", "tls": trusting()}
        for proxy, name, tls, kind, expected in (
            (f"http://hidden:hidden@127.0.0.1:{closed.http}", "python", {}, ProxyAuthenticationRequired,
             (34, "proxy_authentication_required", "proxy_handshake", "proxy")),
            (f"socks5://hidden:hidden@127.0.0.1:{World.micro.socks}", "python", {}, ProxyAuthenticationRequired,
             (34, "proxy_authentication_required", "proxy_handshake", "proxy")),
            (f"http://hidden:hidden@127.0.0.1:{World.squid.http}", "", {}, ProxyConnectFailed,
             (33, "proxy_connect_failed", "proxy_handshake", "proxy")),
            (f"http://hidden:hidden@127.0.0.1:{dead}", "python", {}, ProxyConnectionRefused,
             (35, "proxy_connection_refused", "initializing", "proxy")),
            ({**private, "tls": stranger}, "python", {}, ProxyTunnelFailed,
             (36, "proxy_tunnel_failed", "proxy_handshake", "proxy")),
            (private, "secure", stranger, ProxyTunnelFailed,
             (36, "proxy_tunnel_failed", "proxy_tls_handshake", "target")),
            (None, "secure", stranger, TLSFailed, (0, "target_tls_failed", "tls", None)),
            (None, "", {}, ConnectFailed, (0, "target_connect_failed", "connect", None)),
        ):  # fmt: skip
            where = url(name) if name else f"ws://localhost:{dead}"
            error = await self.assertFailure(connect_websocket(where, proxy=proxy, tls=tls), kind)
            assert (error.code, error.name, error.stage, getattr(error, "hop", None)) == expected, where
            assert "hidden" not in str(error) + repr(error) + Failure(error).getTraceback()

    async def test_insecure(self) -> None:
        """A target that nobody vouches for is reached when that is said, also under another name."""
        for tls in ({"verify": False}, {**trusting(), "serverName": "localhost"}):
            connection = await connect_websocket(f"wss://127.0.0.1:{World.ports['secure']}", tls=tls, proxy=None)
            await echo(connection, "hi")
            await connection.close()


class Pressure(TestCase):
    """Memory stays bounded."""

    timeout = 30

    async def test_sending(self) -> None:
        """Who waits for C{send} holds little more than a message that the server does not take."""
        server = Misbehaving(agreement)
        connection = await connect_websocket(f"ws://127.0.0.1:{await server.listen(self)}", proxy=None, compress=False)
        peer = await server.spoken_to
        peer.transport.pauseProducing()
        sent, waiting = 0, connection.send(b"")
        while waiting.called:
            waiting = connection.send(bytes(1_000_000))
            sent += 1
        assert sent < 20  # the kernel's buffers
        peer.transport.resumeProducing()
        await waiting
        connection.abort()
        await connection.close()
        await peer.lost

    async def test_receiving(self) -> None:
        """A server that sends without end is kept waiting."""
        server = Misbehaving(agreement)
        connection = await connect_websocket(f"ws://127.0.0.1:{await server.listen(self)}", proxy=None)
        peer = await server.spoken_to
        count = 0

        class Flood:
            is_paused = False

            def pauseProducing(self) -> None:
                self.is_paused = True

            def resumeProducing(self) -> None:
                nonlocal count
                self.is_paused = False
                while not self.is_paused and count < 300:
                    peer.transport.write(frame(BINARY, count.to_bytes(4, "big") + bytes(100_000), mask=None))
                    count += 1

            def stopProducing(self) -> None:
                """The test is over."""

        flood = Flood()
        peer.transport.registerProducer(flood, True)
        flood.resumeProducing()
        while not (connection.is_full and flood.is_paused):
            await deferLater(reactor, 0)  # a turn of the reactor
        assert count < 300
        for number in range(300):
            message = await connection.receive()
            assert isinstance(message, bytes) and message[:4] == number.to_bytes(4, "big")
        peer.transport.unregisterProducer()
        connection.abort()
        await connection.close()
        await peer.lost


class Cancelled(TestCase):
    """Attempts that are given up leave nothing behind."""

    timeout = 30

    async def given_up(self, where: str, answer: Callable[[bytes], bytes] | None, **options: Any) -> None:
        """Cancel when the server has been spoken to."""
        server = Misbehaving(answer)
        port = await server.listen(self)
        before = descriptors()
        options = {name: value.format(port) for name, value in options.items()}
        connecting = connect_websocket(where.format(port), **{"proxy": None, **options})
        peer = await server.spoken_to
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError)
        await peer.lost
        assert descriptors() == before, where

    async def test_stages(self) -> None:
        """Every stage: TLS, CONNECT, SOCKS, the opening handshake, a refusal's body."""
        target = "ws://target.test:81"
        ok = b"HTTP/1.1 200 OK\r\n\r\n"
        await self.given_up("wss://127.0.0.1:{}", None)
        await self.given_up(target, None, proxy="http://127.0.0.1:{}")
        await self.given_up(target, lambda _: b"HTTP/1.1 200", proxy="http://127.0.0.1:{}")
        await self.given_up(target, lambda _: ok, proxy="http://127.0.0.1:{}")
        await self.given_up("wss://target.test:81", lambda _: ok, proxy="http://127.0.0.1:{}")
        await self.given_up(target, None, proxy="https://127.0.0.1:{}")
        await self.given_up(target, lambda _: b"\5\0", proxy="socks5h://127.0.0.1:{}")
        await self.given_up("ws://127.0.0.1:{}", None)
        await self.given_up("ws://127.0.0.1:{}", lambda _: b"HTTP/1.1 10")
        await self.given_up("ws://127.0.0.1:{}", lambda _: b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nno")

    async def test_before_anything(self) -> None:
        """At once."""
        before = descriptors()
        connecting = connect_websocket(url("python"), proxy=None)
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError)
        assert descriptors() == before

    async def test_deadline(self) -> None:
        """One deadline is over everything."""
        server = Misbehaving()
        port = await server.listen(self)
        before = descriptors()
        connecting = connect_websocket(f"ws://127.0.0.1:{port}", proxy=None, open_timeout=0.2)
        await self.assertFailure(connecting, UpstreamTimeout)
        await (await server.spoken_to).lost
        assert descriptors() == before

    async def test_thousand(self) -> None:
        """A thousand connections that come and go, some of them badly, leave no descriptor."""
        before = descriptors()
        for number in range(20):
            opened = await DeferredList([connect_websocket(url("node plain"), proxy=None) for _ in range(50)])
            connections = [connection for _, connection in opened]
            for connection in connections[number % 2 :: 2]:
                connection.abort()
            await DeferredList([connection.close() for connection in connections])
        assert descriptors() == before
