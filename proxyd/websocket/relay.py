"""
The relay: a WebSocket connection to a client, one to an origin server, and the
frames between them.

Its two L{End<proxyd.websocket.ends.End>}s follow the frames; the relay has what
they share: the record, the clock, and the order of the closing handshakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from proxyd.timer import Timer, Timers
from proxyd.websocket.closing import GOING_AWAY
from proxyd.websocket.ends import LOST, MARK, OPEN, RECEIVED, End
from proxyd.websocket.frames import Follower, grammar

CLOSE_S = 5.0
"""Seconds that a peer has to answer a Close, and then to end its connection; Autobahn gives 1, browsers take 2."""

LOOK_S = 1.0
"""Seconds between two looks at whether a slow reader still takes what comes before its Close."""

_DEFLATE = b"permessage-deflate"
"""The extension that gives RSV1 its meaning (RFC 7692 section 6)."""


class Record(Protocol):
    """What is remembered of the exchange that the relay grew out of."""

    started: float
    sent: int
    received: int
    duration: float
    relayed: tuple[int, int, int, int]

    def note(self, party: str, stage: str, text: str) -> None:
        """Note who failed."""


class Site(Protocol):
    """What all clients' connections have in common."""

    def exchange_ended(self, record: Any) -> None:
        """The relay is over, and so is its record."""

    def connection_ended(self) -> None:
        """A client's connection is over."""


class Registry(Protocol):
    """Who knows all relays: see L{proxyd.websocket.relays}."""

    timers: Timers
    live: set[Any]


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
        relays: Registry,
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
        now = relays.timers.now
        deflated = _DEFLATE in extensions
        extended = any(name != _DEFLATE for name in extensions)
        mark = MARK if options.ping else b""

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
        self._timer = Timer(relays.timers, self._timed_out)

    def begin(self, client_early: bytes, origin_early: bytes) -> None:
        """
        Take over the transports.

        @param client_early: what the client has sent already.
        @param origin_early: what the origin server has sent already.
        """
        self._relays.live.add(self)
        self.client.take_over(self.origin)
        self.origin.take_over(self.client)
        self._schedule(self._relays.timers.now())
        if origin_early:
            self.origin.dataReceived(origin_early)
        if client_early:
            self.client.dataReceived(client_early)

    def close(self, code: int) -> None:
        """Send a Close to both sides, as soon as the frames on their way have passed."""
        if self.client.state is OPEN and self.origin.state is OPEN:
            self.client.close(code)
            self.origin.close(code)

    def abort(self) -> None:
        """Cut off both sides."""
        self.client.abort()
        self.origin.abort()

    def note(self, end: End, text: str) -> None:
        """A side failed."""
        self.record.note("origin" if end.is_origin else "client", "websocket", text)

    def closing(self) -> None:
        """A side got nearer to its end: it has L{CLOSE_S} for the next step."""
        if not (self.client.is_waiting or self.origin.is_waiting):
            self._begin_step()

    def _begin_step(self) -> None:
        self._is_closing = True
        self._step_at = self._relays.timers.now()
        self._timer.start(LOOK_S)

    def lost(self) -> None:
        """A side is lost."""
        client, origin, record = self.client, self.origin, self.record
        if client.state is not LOST or origin.state is not LOST:
            return
        self._timer.cancel()
        self._relays.live.discard(self)
        record.received = client.follower.octets
        record.sent = origin.follower.octets
        record.relayed = (client.follower.frames, record.received, origin.follower.frames, record.sent)
        record.duration = self._relays.timers.now() - record.started
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
        now = self._relays.timers.now()
        idle, ping = self._options.idle, self._options.ping
        if idle and now >= self._active + idle:
            self.close(GOING_AWAY)
            # Whatever waits for the end of a frame has waited long enough.
            self._begin_step()
            return
        if ping and now >= self._ping_at:
            self._ping_at = now + ping
            for end in (self.client, self.origin):
                if end.state is OPEN and not end.ping():
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
        now = self._relays.timers.now()
        left = {
            end: max(self._step_at, end.taking, end.other.taking if end.other.is_full else 0) + CLOSE_S - now
            for end in ends
            if end.state is not RECEIVED
        }
        self._timer.start(min((LOOK_S, *(seconds for seconds in left.values() if seconds > 0))))
        for end, seconds in left.items():
            if seconds <= 0:
                end.overdue()
