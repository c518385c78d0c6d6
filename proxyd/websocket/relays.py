"""
All relays, and how one begins.

A L{Switch} carries the two opening handshakes; when both are done, a
L{Relay<proxyd.websocket.relay.Relay>} takes over the transports.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from proxyd.errors import OverCapacity
from proxyd.http.fields import Fields, values
from proxyd.http.request import RequestHead
from proxyd.http.response import ResponseHead
from proxyd.http.upgrade import (
    KEY_SIZE,
    as_key,
    check_switch,
    handshake_of,
    offer,
    request_handshake_fields,
    response_handshake_fields,
)
from proxyd.timer import Timers
from proxyd.websocket.closing import GOING_AWAY
from proxyd.websocket.relay import Relay, RelayOptions, Site


class Channel(Protocol):
    """A client's connection that has got its 101."""

    @property
    def site(self) -> Site:
        """What it has in common with others."""

    @property
    def transport(self) -> Any:
        """Its transport."""

    def hand_over(self) -> tuple[bytes, Any]:
        """
        Let go of the transport.

        @return: what the client has sent already, and the record to finish.
        """


class OriginConnection(Protocol):
    """An origin server's connection that has brought its 101."""

    @property
    def transport(self) -> Any:
        """Its transport."""

    def hand_over(self) -> None:
        """Let go of the transport."""


class Relays:
    """
    Makes relays and knows those that are alive.

    @ivar live: all relays between their opening handshakes and their end.
    @ivar draining: no more may begin.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.timers = Timers(clock)
        self.draining = False
        self.live: set[Relay] = set()

    def upgrade(self, head: RequestHead, options: RelayOptions) -> Switch:
        """
        Begin the opening handshake with the origin server.

        @param head: a request that is an upgrade.
        """
        return Switch(self, head, options)

    def drain(self, code: int = GOING_AWAY) -> None:
        """Send a Close to both sides of every relay, and let no more begin."""
        self.draining = True
        for relay in list(self.live):
            relay.close(code)

    def close_spread(self, code: int, seconds: float) -> None:
        """Close one relay after the other, and L{drain} when that is done: others may have begun meanwhile."""
        found = list(self.live)
        for index, relay in enumerate(found):
            # One that has been lost has nobody to tell.
            self._clock.callLater(seconds * index / len(found), self._close_if_live, relay, code)
        self._clock.callLater(seconds, self.drain, code)

    def _close_if_live(self, relay: Relay, code: int) -> None:
        if relay in self.live:
            relay.close(code)

    def abort(self) -> None:
        """Cut off every relay."""
        for relay in list(self.live):
            relay.abort()


class Switch:
    """
    The opening handshakes of one relay.

    @ivar handshake: the fields that ask the origin server for a WebSocket.
    """

    __slots__ = ("_agreed", "_asked", "_key", "_options", "_relays", "handshake")

    def __init__(self, relays: Relays, head: RequestHead, options: RelayOptions) -> None:
        self._relays = relays
        self._asked = asked = handshake_of(head)
        self._options = options
        # Autobahn's own handshakes cost 80 us for each relay; the tests compare ours with them.
        self._key = as_key(os.urandom(KEY_SIZE))
        self._agreed: tuple[bytes, ...] = ()
        self.handshake = request_handshake_fields(asked, self._key)

    def agreed(self, response: ResponseHead) -> Fields:
        """
        The origin server answered with a 101.

        @return: all fields of the client's 101.

        @raise proxyd.errors.ResponseMalformed: it is not what was asked for.
        @raise proxyd.errors.OverCapacity: no relay is to begin now.
        """
        if self._relays.draining:
            # A client must not see a 101 that is closed at once.
            raise OverCapacity("an upgrade was agreed to while draining")
        self._agreed = check_switch(response, self._key, offer(self._asked))
        return response_handshake_fields(response, values(self._asked, b"sec-websocket-key")[0])

    def begin(self, channel: Channel, origin: OriginConnection, early: bytes) -> None:
        """
        The client has its 101.

        @param early: octets that the origin server sent behind its 101.
        """
        client_early, record = channel.hand_over()
        origin.hand_over()
        relay = Relay(
            self._relays, channel.site, record, self._options, self._agreed, channel.transport, origin.transport
        )
        relay.begin(client_early, early)
