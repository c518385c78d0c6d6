"""A relay between two transports in memory, for tests that are both of its peers."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from proxyd.forward.record import Record
from proxyd.http.request import parse_request
from proxyd.http.response import parse_response
from proxyd.http.upgrade import accept_for
from proxyd.websocket.relay import Relay, RelayOptions
from proxyd.websocket.relays import Relays, Switch
from tests.support.frames import Frame, read_frame
from tests.support.transports import HIGH, BoundedTransport

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
"""The client's key: that of RFC 6455 section 1.3."""


DEFAULTS = RelayOptions()
"""Neither pings, nor a limit of any kind."""


class Site:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.connections_ended = 0

    def exchange_ended(self, record: Any) -> None:
        self.records.append(record)

    def connection_ended(self) -> None:
        self.connections_ended += 1


class Channel:
    """A client's connection at its 101."""

    def __init__(self, site: Site, transport: Any, early: bytes, record: Record) -> None:
        self.site = site
        self.transport = transport
        self._handed_over = early, record

    def hand_over(self) -> tuple[bytes, Record]:
        return self._handed_over


class OriginConnection:
    """An origin server's connection at its 101."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def hand_over(self) -> None:
        """It has nothing to hand over but its transport."""


def upgrade(relays: Relays, options: RelayOptions, *fields: bytes) -> Switch:
    """
    A client asks for a WebSocket.

    @param fields: further lines of its head.
    """
    lines = [
        b"GET /chat HTTP/1.1", b"Host: example.test", b"Upgrade: websocket", b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Version: 13", *fields, b"", b"",
    ]
    return relays.upgrade(parse_request(b"\r\n".join(lines)), options)


def switching(switch: Switch, *fields: bytes) -> bytes:
    """
    What an origin server says that agrees.

    @param fields: further lines of its head.
    """
    key = next(value for name, value in switch.handshake if name == b"Sec-WebSocket-Key")
    lines = [
        b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept_for(key), *fields, b"", b"",
    ]
    return b"\r\n".join(lines)


class Peer:
    """
    One of the two peers.

    @ivar transport: our transport to it.
    """

    def __init__(self, clock: Clock, high: int) -> None:
        self.transport = BoundedTransport(None, clock, high)
        self._clock = clock
        self._read = b""

    def sends(self, *segments: bytes) -> None:
        """It sends octets, if its connection is still there."""
        for segment in segments:
            self.transport.deliver(segment)

    def octets(self, size: int | None = None) -> bytes:
        """It reads octets."""
        return self.transport.take(size)

    def gets(self, size: int | None = None) -> list[Frame]:
        """It reads; the frames that are whole by now."""
        self._read += self.transport.take(size)
        frames = []
        while (found := read_frame(self._read)) is not None:
            frames.append(found[0])
            self._read = self._read[found[1] :]
        return frames

    @property
    def is_within_frame(self) -> bool:
        """Whether the last frame that it got is not whole."""
        return self._read != b""

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return not self.transport.is_connected


class Relayed:
    """
    A relay that has just begun.

    @ivar client: the client.
    @ivar origin: the origin server.
    """

    def __init__(
        self,
        options: RelayOptions = DEFAULTS,
        *,
        extensions: bytes = b"",
        client_early: bytes = b"",
        origin_early: bytes = b"",
        high: int = HIGH,
        relays: Relays | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.relays = relays or Relays(self.clock)
        self.site = Site()
        self.client = Peer(self.clock, high)
        self.origin = Peer(self.clock, high)
        fields = [b"Sec-WebSocket-Extensions: " + extensions] if extensions else []
        switch = upgrade(self.relays, options, *fields)
        switch.agreed(parse_response(switching(switch, *fields), b"GET"))
        self.record = Record(None, "192.0.2.1", self.clock.seconds())
        before = set(self.relays.live)
        switch.begin(
            Channel(self.site, self.client.transport, client_early, self.record),
            OriginConnection(self.origin.transport),
            origin_early,
        )
        self._begun = self.relays.live - before

    @property
    def relay(self) -> Relay:
        """The relay itself."""
        (relay,) = self._begun
        return relay

    def advance(self, seconds: float = 0) -> None:
        """Time passes; the reactor's loop goes round even when none does."""
        self.clock.advance(seconds)
        self.clock.advance(0)

    def assert_over(self) -> None:
        """All is done, told once, and nothing is left behind."""
        self.advance()
        assert self.client.is_lost and self.origin.is_lost
        assert not self.relays.live
        assert self.clock.getDelayedCalls() == []
        assert self.site.records == [self.record]
        assert self.site.connections_ended == 1
