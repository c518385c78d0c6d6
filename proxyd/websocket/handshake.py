"""
Autobahn's protocols without a socket.

The heads that go over the wire are read and written by C{http/} and checked by
C{http/upgrade}; Autobahn's own reading of heads refuses some that are legal
and takes octet 0x85 for a line's end.  So its protocol is fed a head of ours
that says the same in its plainest form.
"""

from __future__ import annotations

from typing import Any

from autobahn.wamp.types import TransportDetails

DETAILS = TransportDetails()
"""What Autobahn's protocols are told of their transport: nothing."""


class Octets:
    """What a protocol writes, in place of a transport."""

    __slots__ = ("written",)

    def __init__(self) -> None:
        self.written = b""

    def write(self, octets: bytes) -> None:
        self.written += octets

    def loseConnection(self) -> None:
        """Nothing is connected."""

    abortConnection = unregisterProducer = loseConnection


NO_CLOCK = object()
"""Stands in for a reactor: an opening handshake takes no time here."""


def configure(protocol: Any, factory: Any) -> None:
    """
    Make a factory's options those of a protocol's class.

    Autobahn copies and pretty-prints all of them for each connection, which
    is most of what one costs.
    """
    for name in protocol.CONFIG_ATTRS:
        setattr(protocol, name, getattr(factory, name))
    protocol.CONFIG_ATTRS = ()
    protocol.factory = factory
