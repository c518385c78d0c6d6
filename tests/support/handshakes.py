"""
Autobahn's halves of the opening handshake, without a socket: what proxyd's own are compared with.

Autobahn's protocols are fed a head of ours in its plainest form: their reading
of heads refuses some that are legal, and takes octet 0x85 for a line's end.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet.task import Clock

from proxyd.http.fields import Fields, serialize
from proxyd.websocket.handshake import DETAILS, Octets


def accepted_by_server(handshake: Fields) -> bytes | None:
    """
    What Autobahn's server answers to a key.

    @param handshake: the fields that ask for a WebSocket.

    @return: its C{Sec-WebSocket-Accept}, or L{None} if it refuses.
    """
    factory = WebSocketServerFactory(reactor=Clock())
    server: Any = WebSocketServerProtocol()
    server.factory = factory
    server.transport = transport = Octets()
    server._transport_details = DETAILS
    server._connectionMade()
    server._dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % serialize(handshake))
    _, found, rest = transport.written.partition(b"Sec-WebSocket-Accept: ")
    return rest.partition(b"\r\n")[0] if found else None


class Client:
    """
    Autobahn's client, which has asked.

    @ivar key: its key.
    """

    def __init__(self) -> None:
        factory = WebSocketClientFactory("ws://localhost", reactor=Clock())
        self._protocol: Any = WebSocketClientProtocol()
        self._protocol.factory = factory
        self._protocol.transport = Octets()
        self._protocol._transport_details = DETAILS
        self._protocol._connectionMade()
        self.key: bytes = self._protocol.websocket_key

    def opens(self, answer: bytes) -> bool:
        """Whether it takes this head for an agreement."""
        self._protocol._dataReceived(answer)
        return bool(self._protocol.state == self._protocol.STATE_OPEN)
