"""
The relay: a WebSocket connection to a client, one to an origin server, and the
frames between them.

A L{Switch} carries the two opening handshakes.  When both are done, two L{End}s
take over the transports; each gives what its peer sends to a
L{Follower<proxyd.websocket.frames.Follower>} and writes what that lets pass to
the other transport.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.http.fields import Fields, values
from proxyd.http.head import RequestHead, ResponseHead
from proxyd.http.upgrade import (
    check_switch,
    extension_names,
    offer,
    request_handshake_fields,
    response_handshake_fields,
)
from proxyd.timer import Timer
from proxyd.transports import cut_off, unsent
from proxyd.websocket.closing import GOING_AWAY, INTERNAL_ERROR, close_payload
from proxyd.websocket.downstream import DownstreamHandshake
from proxyd.websocket.frames import CLOSE, PING, Follower, Notice, Violation, control_frame, grammar
from proxyd.websocket.origin import OriginHandshake

CLOSE_S = 5.0
"""Seconds that a peer has to answer a Close, and then to end its connection; Autobahn gives 1, browsers take 2."""

LOOK_S = 1.0
"""Seconds between two looks at whether a slow reader still takes what comes before its Close."""

_MARK = b"proxyd" + os.urandom(8)
"""The payload of our own pings; their pongs are known by it, and go no further."""


class Record(Protocol):
    """What is remembered of the exchange that the relay grew out of."""

    started: float
    sent: int
    received: int
    duration: float
    failed: str


class Site(Protocol):
    """What all clients' connections have in common."""

    def exchange_ended(self, record: Any) -> None:
        """The relay is over, and so is its record."""

    def connection_ended(self) -> None:
        """A client's connection is over."""


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


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """
    How WebSockets are relayed.

    @ivar idle: seconds without messages and pongs until a relay is closed; 0 is never.
    @ivar ping: seconds between our own pings; 0 is never.
    @ivar max_message: octets of a message on the wire; 0 is no limit.
    """

    idle: float = 0
    ping: float = 0
    max_message: int = 0


class Relays:
    """
    Makes relays and knows those that are alive.

    @ivar live: all relays between their opening handshakes and their end.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.live: set[Relay] = set()
        self.is_draining = False

    def upgrade(self, head: RequestHead, options: RelayOptions) -> Switch:
        """
        Begin the opening handshake with the origin server.

        @param head: a request that is an upgrade.
        """
        return Switch(self, head, options)

    def drain(self) -> None:
        """Send a Close to both sides of every relay, of those that are still to come, too."""
        self.is_draining = True
        for relay in list(self.live):
            relay.close(GOING_AWAY)

    def abort(self) -> None:
        """Cut off every relay."""
        for relay in list(self.live):
            relay.abort()


class Switch:
    """
    The opening handshakes of one relay.

    @ivar handshake: the fields that ask the origin server for a WebSocket.
    """

    __slots__ = ("_agreed", "_head", "_options", "_origin", "_relays", "handshake")

    def __init__(self, relays: Relays, head: RequestHead, options: RelayOptions) -> None:
        self._relays = relays
        self._head = head
        self._options = options
        self._origin = OriginHandshake()
        self._agreed: tuple[bytes, ...] = ()
        self.handshake = request_handshake_fields(head, self._origin.websocket_key)

    def agreed(self, response: ResponseHead) -> Fields:
        """
        The origin server answered with a 101.

        @return: all fields of the client's 101.

        @raise proxyd.errors.ResponseMalformed: it is not what was asked for.
        """
        head = self._head
        check_switch(response, self._origin.websocket_key, offer(head))
        self._origin.complete(values(response.fields, b"sec-websocket-accept")[0])
        self._agreed = tuple(extension_names(values(response.fields, b"sec-websocket-extensions")))
        key = values(head.fields, b"sec-websocket-key")[0]
        fields = response_handshake_fields(response, key)
        assert values(fields, b"sec-websocket-accept") == [DownstreamHandshake().accept(key)]
        return fields

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


class State(Enum):
    """
    How far the closing handshake with one peer is::

        OPEN --a Close for it--> SENT --its Close--> ENDING --> LOST
          `-----its Close----> RECEIVED --a Close for it--^

    C{ENDING}: its TCP connection is being ended; anything but C{LOST} may go there at once when something failed.
    """

    OPEN = auto()
    SENT = auto()
    RECEIVED = auto()
    ENDING = auto()
    LOST = auto()


_DEFLATE = b"permessage-deflate"
"""The extension that gives RSV1 its meaning (RFC 7692 section 6)."""

_TAKING = (State.OPEN, State.RECEIVED)
"""Where frames may still be sent to a peer."""


@implementer(IPushProducer)
class End:
    """
    One of a relay's two sides, in place of the protocol of its transport.

    It is its transport's producer: what makes this side full is what the
    other one sends, so that the other one is not read for as long.

    @ivar is_origin: this is the origin server's side.
    @ivar transport: what it reads from and writes to.
    @ivar follower: the frames that its peer sends.
    @ivar other: the other side.
    @ivar is_full: the transport takes no more for now.
    @ivar active: when its peer last sent a part of a message, or a pong.
    @ivar taking: when its peer was last seen to have taken more of what it was sent; only looked at while closing.
    """

    __slots__ = (
        "__weakref__",
        "_close_code",
        "_heard",
        "_now",
        "_relay",
        "_unsent",
        "_write",
        "active",
        "follower",
        "is_full",
        "is_origin",
        "other",
        "state",
        "taking",
        "transport",
    )

    other: End

    def __init__(
        self, relay: Relay, is_origin: bool, transport: Any, follower: Follower, now: Callable[[], float]
    ) -> None:
        self._relay = relay
        self.is_origin = is_origin
        self._now = now
        self._close_code = 0
        self._heard = -1
        self._unsent = 0
        self.taking = 0.0
        self.transport = transport
        self.follower = follower
        self.state = State.OPEN
        self.is_full = False
        self.active = now()

    def take_over(self, other: End) -> None:
        """Become the transport's protocol."""
        self.other = other
        self._write = other.transport.write
        transport: Any = self.transport
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = self  # type: ignore[assignment]
        else:
            transport.protocol = self
        transport.registerProducer(self, True)

    # From the transport

    def dataReceived(self, data: bytes) -> None:
        octets = self.follower.receive(data)
        if type(octets) is Notice:
            self._heed(octets)
        else:
            self._write(octets)
            self.active = self._now()

    def _heed(self, notice: Notice) -> None:
        if notice.octets:
            self._write(notice.octets)
        if notice.is_active:
            self.active = self._now()
        if notice.is_close:
            self._received_close()
        elif notice.violation is not None:
            self._fail(notice.violation)
        elif notice.is_boundary:
            self.other.insert()
            if notice.rest:
                self.dataReceived(notice.rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        before, self.state = self.state, State.LOST
        self._let_go()
        if before in (State.OPEN, State.SENT):
            self._relay.note(self, "went away without a Close")
            self.other.cut()
        self.shut()
        self.other.shut()
        self._relay.lost()

    # IPushProducer, for the transport: it is full, or has room

    def pauseProducing(self) -> None:
        self.is_full = True
        if not self.other.follower.is_shut:
            self.other.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.is_full = False
        if not self.other.follower.is_shut:
            self.other.resume_reading()

    def stopProducing(self) -> None:
        """The connection is lost; L{connectionLost} follows."""

    def resume_reading(self) -> None:
        """The other side takes more again."""
        # A pong may have been waiting all the time.
        self._heard = -1
        self.transport.resumeProducing()

    def shut(self) -> None:
        """Nothing that the peer sends goes on any more."""
        if not self.follower.is_shut:
            self.follower.shut()
            if self.other.is_full and self.state is not State.LOST:
                # Its Close, or its end, is still to be seen.
                self.transport.resumeProducing()

    # The closing handshake

    def close(self, code: int) -> None:
        """Send a Close of our own, as soon as the frame on its way has passed."""
        if self.other.follower.is_between_frames:
            self._send_close(code)
        else:
            self._close_code = code
            self.other.follower.halt()

    @property
    def is_waiting(self) -> bool:
        """Whether a Close of our own waits for the end of a frame."""
        return self._close_code != 0

    def insert(self) -> None:
        """The frame on its way has passed: send what waited for that."""
        if self._close_code:
            self._send_close(self._close_code)
        else:
            self._send_ping()

    def cut(self) -> None:
        """The other side is lost or failed, which must not look like a good end."""
        if self.state in _TAKING:
            if self.other.follower.is_between_frames:
                self._send_close(INTERNAL_ERROR)
            else:
                self.abort()

    def _send_close(self, code: int) -> None:
        self._send(CLOSE, close_payload(code))
        self._sent_close()

    def _sent_close(self) -> None:
        """This peer was sent a Close, our own or the other side's."""
        self.other.shut()
        self._close_code = 0
        if self.state is State.OPEN:
            self.state = State.SENT
        else:
            self._end()
        self._relay.closing()

    def _received_close(self) -> None:
        """This peer has sent its Close, which was passed on unless the other side has had one."""
        if self.state is State.OPEN:
            self.state = State.RECEIVED
        else:
            self._end()
        if self.other.state in _TAKING:
            self.other._sent_close()

    def _end(self) -> None:
        """Both Close frames have crossed."""
        self.state = State.ENDING
        self._let_go()
        if not self.is_origin:
            # The server's side has to end TCP (section 7.1.1); the origin server does so itself.
            self.transport.loseConnection()
        self._relay.closing()

    def _fail(self, violation: Violation) -> None:
        """The peer broke the framing."""
        self._relay.note(self, f"websocket_error: {violation.text}")
        self.shut()
        other = self.other
        is_open = self.state is State.OPEN
        if is_open and not other.follower.is_between_frames:
            self.abort()
        else:
            if is_open:
                self._send(CLOSE, close_payload(violation.code))
            self.state = State.ENDING
            other.shut()
            self._let_go()
            if ITCPTransport.providedBy(self.transport) and not isinstance(self.transport, ProtocolWrapper):
                # What the peer still sends is read and dropped: unread octets would reset the connection,
                # and that could destroy the Close on its way.
                self.transport.loseWriteConnection()
            else:
                self.transport.loseConnection()
            self._relay.closing()
        other.cut()

    def abort(self) -> None:
        """Cut this side off."""
        if self.state is not State.LOST:
            self.state = State.ENDING
            self.other.shut()
            self._let_go()
            cut_off(self.transport)
            self._relay.closing()

    def _let_go(self) -> None:
        """Hold the other side up no more."""
        self._close_code = 0
        self.transport.unregisterProducer()
        if self.is_full:
            self.resumeProducing()

    # Time

    def ping(self) -> bool:
        """
        Send a ping of our own, as soon as the frame on its way has passed.

        @return: whether the peer has been heard of since the last one, if there was any chance to hear of it.
        """
        follower = self.follower
        heard = follower.octets + follower.swallowed
        if self.is_full or self.other.is_full:
            self._heard = -1
            return True
        if heard == self._heard:
            return False
        if self.other.follower.is_between_frames:
            self._send_ping()
        else:
            self.other.follower.halt()
        return True

    def _send_ping(self) -> None:
        self._heard = self.follower.octets + self.follower.swallowed
        self._send(PING, _MARK)

    def look(self) -> None:
        """See whether the peer has taken more of what it was sent since the last look."""
        before, self._unsent = self._unsent, 0 if self.state is State.LOST else unsent(self.transport)
        if self._unsent < before:
            self.taking = self._now()

    def overdue(self) -> None:
        """The peer has neither answered our Close nor ended its connection in time."""
        if self.state in (State.OPEN, State.SENT):
            self._relay.note(self, "did not answer a Close")
            self.abort()
            self.other.cut()
        elif self.state is State.ENDING:
            self.abort()

    def _send(self, opcode: int, payload: bytes) -> None:
        self.transport.write(control_frame(opcode, payload, os.urandom(4) if self.is_origin else None))


class Relay:
    """
    A client's WebSocket, an origin server's, and what holds them together.

    @ivar client: the client's side; its follower counts octets and messages from the client.
    @ivar origin: the origin server's side, likewise.
    @ivar record: of the exchange that this has grown out of.
    """

    __slots__ = (
        "__weakref__",
        "_is_closing",
        "_options",
        "_ping_at",
        "_relays",
        "_site",
        "_step_at",
        "_timer",
        "client",
        "origin",
        "record",
    )

    def __init__(
        self,
        relays: Relays,
        site: Site,
        record: Record,
        options: RelayOptions,
        extensions: tuple[bytes, ...],
        client: Any,
        origin: Any,
    ) -> None:
        """
        @param extensions: the names of those that were agreed on.
        @param client: the transport to the client.
        @param origin: the transport to the origin server.
        """
        now = relays.clock.seconds
        deflated = _DEFLATE in extensions
        extended = any(name != _DEFLATE for name in extensions)
        mark = _MARK if options.ping else b""

        def end(is_origin: bool, transport: Any) -> End:
            follower = Follower(grammar(not is_origin, deflated, extended, options.max_message), mark)
            return End(self, is_origin, transport, follower, now)

        self.client = end(False, client)
        self.origin = end(True, origin)
        self.record = record
        self._relays = relays
        self._site = site
        self._options = options
        self._is_closing = False
        self._step_at = 0.0
        self._ping_at = now() + options.ping
        self._timer = Timer(relays.clock, self._timed_out)

    def begin(self, client_early: bytes, origin_early: bytes) -> None:
        """
        Take over the transports.

        @param client_early: what the client has sent already.
        @param origin_early: what the origin server has sent already.
        """
        self._relays.live.add(self)
        self.client.take_over(self.origin)
        self.origin.take_over(self.client)
        self._schedule(self._relays.clock.seconds())
        if origin_early:
            self.origin.dataReceived(origin_early)
        if client_early:
            self.client.dataReceived(client_early)
        if self._relays.is_draining:
            self.close(GOING_AWAY)

    def close(self, code: int) -> None:
        """Send a Close to both sides, as soon as the frames on their way have passed."""
        if self.client.state is State.OPEN and self.origin.state is State.OPEN:
            self.client.close(code)
            self.origin.close(code)

    def abort(self) -> None:
        """Cut off both sides."""
        self.client.abort()
        self.origin.abort()

    def note(self, end: End, text: str) -> None:
        """Remember who failed; the first failure is the one that counts."""
        if not self.record.failed:
            self.record.failed = f"{'origin' if end.is_origin else 'client'} {text}"

    def closing(self) -> None:
        """A side got nearer to its end: it has L{CLOSE_S} for the next step."""
        if not (self.client.is_waiting or self.origin.is_waiting):
            self._begin_step()

    def _begin_step(self) -> None:
        self._is_closing = True
        self._step_at = self._relays.clock.seconds()
        self._timer.start(LOOK_S)

    def lost(self) -> None:
        """A side is lost."""
        client, origin, record = self.client, self.origin, self.record
        if client.state is not State.LOST or origin.state is not State.LOST:
            return
        self._timer.cancel()
        self._relays.live.discard(self)
        record.received = client.follower.octets
        record.sent = origin.follower.octets
        record.duration = self._relays.clock.seconds() - record.started
        # Nothing of this is left for the garbage collector.
        del self._timer
        del client.other, client._relay, client._write, origin.other, origin._relay, origin._write
        self._site.exchange_ended(record)
        self._site.connection_ended()

    # Time

    def _schedule(self, now: float) -> None:
        """Wake up when there may be something to do, which is later than now."""
        idle, ping = self._options.idle, self._options.ping
        deadlines = [self._ping_at] if ping else []
        if idle:
            deadlines.append(self._active + idle)
        if deadlines:
            self._timer.start(min(deadlines) - now)

    @property
    def _active(self) -> float:
        return max(self.client.active, self.origin.active)

    def _timed_out(self) -> None:
        if self._is_closing:
            self._hurry()
            return
        now = self._relays.clock.seconds()
        idle, ping = self._options.idle, self._options.ping
        if idle and now >= self._active + idle:
            self.close(GOING_AWAY)
            # Whatever waits for the end of a frame has waited long enough.
            self._begin_step()
            return
        if ping and now >= self._ping_at:
            self._ping_at = now + ping
            for end in (self.client, self.origin):
                if end.state is State.OPEN and not end.ping():
                    self.note(end, "answered no ping")
                    end.abort()
                    end.other.cut()
                    return
        self._schedule(now)

    def _hurry(self) -> None:
        """See whether a step has taken too long, with nothing to blame on a slow reader."""
        ends = self.client, self.origin
        for end in ends:
            end.look()
        now = self._relays.clock.seconds()
        left = {
            end: max(self._step_at, end.taking, end.other.taking if end.other.is_full else 0) + CLOSE_S - now
            for end in ends
            if end.state is not State.RECEIVED
        }
        self._timer.start(min((LOOK_S, *(seconds for seconds in left.values() if seconds > 0))))
        for end, seconds in left.items():
            if seconds <= 0:
                end.overdue()
