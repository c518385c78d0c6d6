"""Half-close through proxies: what a transport offers passes every wrapper but TLS."""

from __future__ import annotations

import threading

from twisted.internet import reactor  # noqa: TID253
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.support.wire import Origin


@implementer(IHalfCloseableProtocol)
class Asks(Protocol):
    """Says all that it has to say at once, and reads the answer to its end."""

    def __init__(self) -> None:
        self.answer = b""
        self.ended: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"question")
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self.answer += data

    def readConnectionLost(self) -> None:
        self.ended.callback(self.answer)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """That was asked for."""


class HalfCloseTests(TestCase):
    """Through CONNECT and SOCKS, by endpoint strings."""

    timeout = 20

    async def asked(self, proxy: str, greet: bytes, reply: bytes) -> None:
        """Half-close what goes through a proxy; the other half goes on."""
        origin = Origin()
        self.addCleanup(origin.close)
        seen: list[bytes] = []

        def serve() -> None:
            with origin.accept() as wire:
                wire.read_to(greet)
                wire.send(reply)
                seen.append(wire.read_all())
                wire.send(b"answer")

        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = clientFromString(reactor, proxy.format(origin.port))
        asks = await endpoint.connect(Factory.forProtocol(Asks))
        self.assertEqual(await asks.ended, b"answer")
        thread.join()
        self.assertTrue(seen[0].endswith(b"question"))

    async def test_connect(self) -> None:
        """Through an HTTP proxy's tunnel."""
        way = "connect:host=target.test:port=80:proxy=http\\://127.0.0.1\\:{}"
        await self.asked(way, b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n")

    async def test_socks(self) -> None:
        """Through SOCKS4A, which is one question and one answer."""
        way = "socks:host=target.test:port=80:proxy=socks4a\\://127.0.0.1\\:{}"
        await self.asked(way, b"target.test\0", b"\x00\x5a" + bytes(6))
