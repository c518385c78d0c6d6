"""
The client's end of the opening handshake.

@see: RFC 6455 section 4.2
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol

from proxyd.websocket.handshake import DETAILS, NO_CLOCK, Octets, configure


class DownstreamHandshake(WebSocketServerProtocol):
    """Answers a client that the origin server has agreed with."""

    transport: Any
    CONFIG_ATTRS: Any = WebSocketServerProtocol.CONFIG_ATTRS

    def __init__(self) -> None:
        super().__init__()
        self.transport = Octets()
        self._transport_details = DETAILS
        self._connectionMade()

    def accept(self, key: bytes) -> bytes:
        """
        Accept the client's request.

        @param key: its C{Sec-WebSocket-Key}.

        @return: our C{Sec-WebSocket-Accept}.

        @raise ValueError: this is no key.
        """
        self._dataReceived(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n\r\n" % key
        )
        written: bytes = self.transport.written
        _, found, rest = written.partition(b"Sec-WebSocket-Accept: ")
        if self.state != self.STATE_OPEN or not found:
            raise ValueError("the opening handshake failed")
        return rest.partition(b"\r\n")[0]


def _factory() -> WebSocketServerFactory:
    factory = WebSocketServerFactory(server=None, reactor=NO_CLOCK)
    factory.setProtocolOptions(versions=[13], openHandshakeTimeout=0, failByDrop=False)
    return factory


configure(DownstreamHandshake, _factory())
