"""
Autobahn's half of the opening handshake with an origin server, for a client's own connection.

@see: RFC 6455 section 4.1
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.types import ConnectingRequest

from proxyd.errors import ResponseMalformed
from proxyd.websocket.handshake import DETAILS, NO_CLOCK, Octets, configure

_REQUEST = ConnectingRequest(host="localhost", port=80, resource="/")
"""The plainest request there is; what the origin server gets is made from the client's (C{http/upgrade})."""


class OriginHandshake(WebSocketClientProtocol):
    """
    Asks an origin server for a WebSocket.

    @ivar websocket_key: the key of our own that goes to the origin server.
    """

    transport: Any
    CONFIG_ATTRS: Any = WebSocketClientProtocol.CONFIG_ATTRS
    websocket_key: bytes

    def __init__(self) -> None:
        super().__init__()
        self.transport = Octets()
        self._transport_details = DETAILS
        self._connectionMade()

    def startHandshake(self) -> None:
        # Autobahn's own formats the details of the transport and goes through a Deferred.
        self._actuallyStartHandshake(_REQUEST)

    def complete(self, accept: bytes) -> None:
        """
        The origin server agreed.

        @param accept: its C{Sec-WebSocket-Accept}.

        @raise ResponseMalformed: that is no answer to our key.
        """
        self._dataReceived(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        if self.state != self.STATE_OPEN:
            raise ResponseMalformed("the opening handshake failed", error_type="http_upgrade_failed")


def _factory() -> WebSocketClientFactory:
    factory = WebSocketClientFactory("ws://localhost", reactor=NO_CLOCK)
    factory.setProtocolOptions(openHandshakeTimeout=0, failByDrop=False)
    return factory


configure(OriginHandshake, _factory())
