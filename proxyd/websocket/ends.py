"""
One side of a relay, in place of the protocol of its transport.

An L{End} gives what its peer sends to a
L{Follower<proxyd.websocket.frames.Follower>}, writes what that lets pass to the
other side's transport, and carries its half of the closing handshake.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.splicing import WORTH, can_splice
from proxyd.transports import cut_off, give_to, unsent
from proxyd.websocket.closing import INTERNAL_ERROR, close_payload
from proxyd.websocket.frames import CLOSE, PING, Follower, Notice, Violation, control_frame

MARK = b"proxyd" + os.urandom(8)
"""The payload of our own pings; their pongs are known by it, and go no further."""


class Relay(Protocol):
    """What an end tells of itself."""

    def note(self, end: End, text: str) -> None:
        """This side failed."""

    def closing(self) -> None:
        """This side got nearer to its end."""

    def lost(self) -> None:
        """This side is lost."""


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


# An enumeration is slow to ask for its members, and a WebSocket's end does it thirty times: 2 us.
OPEN, SENT, RECEIVED, ENDING, LOST = State

_TAKING = (OPEN, RECEIVED)
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
        "_can_move",
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
        self._can_move = False
        self._unsent = 0
        self.taking = 0.0
        self.transport = transport
        self.follower = follower
        self.state = OPEN
        self.is_full = False
        self.active = now()

    def take_over(self, other: End) -> None:
        """Become the transport's protocol."""
        self.other = other
        self._write = other.transport.write
        self._can_move = can_splice(self.transport, other.transport, WORTH)
        give_to(self.transport, self)
        self.transport.registerProducer(self, True)

    # From the transport

    def dataReceived(self, data: bytes) -> None:
        octets = self.follower.receive(data)
        if type(octets) is Notice:
            self._heed(octets)
        else:
            # What is in a variable is called at once; as a method it would be looked up.
            write, now = self._write, self._now
            write(octets)
            self.active = now()
            if self.follower.left and self._can_move and self.follower.length >= WORTH:
                self._move()

    def _move(self) -> None:
        """
        Have the rest of a long frame moved, however little it is: what follows is mostly as long, and is moved whole.
        """
        self.transport.splice(self.other.transport, self.follower.left, self._moved, self.follower.measure)

    def _moved(self, count: int) -> None:
        self.active = self._now()
        if self.follower.skip(count):
            self.other.insert()

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
        before, self.state = self.state, LOST
        self._let_go()
        if before in (OPEN, SENT):
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
            if self._can_move:
                self.transport.splice(self.other.transport, 0, self._moved)
            if self.other.is_full and self.state is not LOST:
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
        if self.state is OPEN:
            self.state = SENT
        else:
            self._end()
        self._relay.closing()

    def _received_close(self) -> None:
        """This peer has sent its Close, which was passed on unless the other side has had one."""
        if self.state is OPEN:
            self.state = RECEIVED
        else:
            self._end()
        if self.other.state in _TAKING:
            self.other._sent_close()

    def _end(self) -> None:
        """Both Close frames have crossed."""
        self.state = ENDING
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
        is_open = self.state is OPEN
        if is_open and not other.follower.is_between_frames:
            self.abort()
        else:
            if is_open:
                self._send(CLOSE, close_payload(violation.code))
            self.state = ENDING
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
        if self.state is not LOST:
            self.state = ENDING
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
        self._send(PING, MARK)

    def look(self) -> None:
        """See whether the peer has taken more of what it was sent since the last look."""
        before, self._unsent = self._unsent, 0 if self.state is LOST else unsent(self.transport)
        if self._unsent < before:
            self.taking = self._now()

    def overdue(self) -> None:
        """The peer has neither answered our Close nor ended its connection in time."""
        if self.state in (OPEN, SENT):
            self._relay.note(self, "did not answer a Close")
            self.abort()
            self.other.cut()
        elif self.state is ENDING:
            self.abort()

    def _send(self, opcode: int, payload: bytes) -> None:
        self.transport.write(control_frame(opcode, payload, os.urandom(4) if self.is_origin else None))
