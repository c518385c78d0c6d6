"""
A client's end of an open WebSocket connection.

Autobahn reads and writes the frames; here messages wait until somebody
receives them, the transport is paused when too many do, who sends waits while
the transport is full, and the closing handshake comes to an end::

    OPEN --our Close, or theirs--> CLOSING --theirs, or ours--> CLOSED --TCP ends--> LOST

A connection that is given up because of what the server sent goes to CLOSED
at once: a Close says why, and nothing more is read.

@see: RFC 6455 sections 5 to 7, RFC 7692 (permessage-deflate)
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any

from autobahn.websocket.compress import PerMessageDeflate
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from proxyd.errors import ConnectionClosed, ResponseMalformed
from proxyd.timer import Timer, Timers
from proxyd.websocket.closing import MAX_REASON, PROTOCOL_ERROR, close_payload, problem_of
from proxyd.websocket.frames import CLOSE, PING, PONG
from proxyd.websocket.handshake import Octets
from proxyd.websocket.origin import OriginHandshake

MAX_WAITING = 16
"""Messages that wait to be received before the server is kept from sending more."""

MAX_WAITING_OCTETS = 1024 * 1024
"""The same in octets: one message may be longer."""

_TEXT, _BINARY = 0x1, 0x2

WORTH_COMPRESSING = 64
"""Octets; shorter messages go as they are."""

DEFLATE = b"permessage-deflate"
"""What is offered; without C{client_max_window_bits} the server cannot ask for a window that zlib does not have."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """
    How a connection is run.

    @ivar compress: whether compression is offered.
    @ivar max_message: octets of a message that is received, unpacked; 0 is no limit.
    @ivar close_timeout: seconds for a closing handshake, and for the server to end TCP after it.
    """

    compress: bool = True
    max_message: int = 16 * 1024 * 1024
    close_timeout: float = 5


class Codec(OriginHandshake):
    """Autobahn's half: frames in, messages out, and back."""

    # What breaks the framing ends the reading; how the connection is closed is not decided here.
    failByDrop = True

    connection: WebSocketConnection
    _perMessageCompress: Any

    def begin(
        self, connection: WebSocketConnection, transport: Any, max_message: int, deflate: Collection[bytes] | None
    ) -> None:
        """
        The opening handshake is done: what is received from now on are frames.

        @param deflate: what L{read_deflate} has read.
        """
        self.connection = connection
        self.transport = transport
        self.maxMessagePayloadSize = max_message
        if deflate is not None:
            # The largest window, which is what 0 says, unpacks what was packed with any.
            self._perMessageCompress = PerMessageDeflate(False, _ALONE[0] in deflate, _ALONE[1] in deflate, 0, 0, None)

    def stop(self) -> None:
        """Read no more."""
        self.state = self.STATE_CLOSED
        self.data = b""

    def detach(self) -> None:
        """There is no transport any more."""
        self.transport = Octets()

    def send(self, opcode: int, payload: bytes) -> None:
        """Send a message in one frame."""
        deflate = self._perMessageCompress
        if deflate is None or len(payload) < WORTH_COMPRESSING:
            self.sendFrame(opcode=opcode, payload=payload)
            return
        deflate.start_compress_message()
        packed = deflate.compress_message_data(payload) + deflate.end_compress_message()
        self.sendFrame(opcode=opcode, payload=packed, rsv=4)

    # Autobahn calls these

    def processData(self) -> bool:
        return not self.connection.is_full and bool(super().processData())

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.connection.message_received(payload, isBinary)

    def onPing(self, payload: bytes) -> None:
        self.connection.ping_received(payload)

    def onPong(self, payload: bytes) -> None:
        self.connection.pong_received(payload)

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool:
        self.connection.close_received(b"" if code is None else code.to_bytes(2, "big") + (reasonRaw or b""))
        return True

    def _fail_connection(self, code: int = PROTOCOL_ERROR, reason: str = "") -> None:
        if not self.failedByMe:
            self.failedByMe = True
            self.connection.give_up(code, reason)


class _State(IntEnum):
    OPEN = 0
    CLOSING = 1
    CLOSED = 2
    LOST = 3


@implementer(IPushProducer)
class WebSocketConnection:
    """
    An open WebSocket connection.

    What takes time returns a Deferred, which coroutines can await.

    @ivar subprotocol: the one that the server chose, or L{None}.
    @ivar fields: those of the server's C{101}.
    """

    def __init__(
        self,
        clock: IReactorTime,
        transport: Any,
        codec: Codec,
        options: ConnectionOptions,
        subprotocol: str | None,
        fields: tuple[tuple[str, str], ...],
    ) -> None:
        self.subprotocol = subprotocol
        self.fields = fields
        self._clock = clock
        self._transport = transport
        self._codec = codec
        self._options = options
        self._state = _State.OPEN
        self._sent = (0, "")
        self._ended = (0, "")
        self._timer = Timer(Timers(clock), self._too_slow)
        # Incoming
        self._messages: deque[tuple[str | bytes, int]] = deque()
        self._octets = 0
        self._receivers: deque[Deferred[str | bytes]] = deque()
        self._is_paused = False
        self._is_processing = False
        self._is_discarding = False
        # Outgoing
        self._is_choked = False
        self._senders: deque[Deferred[None]] = deque()
        self._pings: dict[bytes, tuple[Deferred[float], float]] = {}
        self._unanswered: bytes | None = None
        self._closers: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<WebSocketConnection {self._state.name}>"

    # For everybody

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._state is _State.OPEN

    @property
    def close_code(self) -> int | None:
        """The close code, as L{ConnectionClosed} has it; L{None} before there is one."""
        return self._ended[0] or None

    @property
    def close_reason(self) -> str | None:
        """The reason that came with it."""
        return self._ended[1] if self._ended[0] else None

    def send(self, message: str | bytes) -> Deferred[None]:
        """
        Send text, or octets as a binary message.

        It is on its way, and in order, when this returns.  Wait before sending
        the next one, or memory fills with what the server does not read.

        @return: fires when there is room for more; fails with L{ConnectionClosed}.
        """
        if isinstance(message, str):
            opcode, payload = _TEXT, message.encode()
        elif isinstance(message, bytes | bytearray | memoryview):
            opcode, payload = _BINARY, bytes(message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        if self._state is not _State.OPEN:
            return fail(self._closed())
        self._codec.send(opcode, payload)
        if not self._is_choked:
            return succeed(None)
        room: Deferred[None] = Deferred(self._senders.remove)
        self._senders.append(room)
        return room

    def receive(self) -> Deferred[str | bytes]:
        """
        The next message: text is C{str}, binary is C{bytes}.

        @return: fails with L{ConnectionClosed} when there are none any more.  Cancelled, it loses no message.
        """
        if self._messages:
            message, size = self._messages.popleft()
            self._octets -= size
            if self._is_paused and not self.is_full:
                self._go_on()
            return succeed(message)
        if self._ended[0]:
            return fail(self._closed())
        receiver: Deferred[str | bytes] = Deferred(self._receivers.remove)
        self._receivers.append(receiver)
        return receiver

    def ping(self, payload: bytes | None = None) -> Deferred[float]:
        """
        Ask whether the server is there.

        @param payload: up to 125 octets, none that is under way already.

        @return: the seconds until the answer; fails with L{ConnectionClosed}.
        """
        if payload is None:
            payload = os.urandom(8)
        if len(payload) > 125 or payload in self._pings:
            raise ValueError("the payload of a ping has 125 octets at most, and is not that of another")
        if self._state is not _State.OPEN:
            return fail(self._closed())
        answered: Deferred[float] = Deferred(lambda _: self._pings.__delitem__(payload))
        self._pings[payload] = (answered, self._clock.seconds())
        self._codec.sendFrame(opcode=PING, payload=payload)
        return answered

    def close(self, code: int = 1000, reason: str = "", *, receiving: bool = False) -> Deferred[None]:
        """
        End the connection.

        What has been received already can still be had; what comes later is
        dropped, unless somebody goes on receiving it.  A server that does not
        answer in time is cut off.

        @param reason: at most 123 octets of UTF-8.
        @param receiving: drop nothing: L{receive} will be called until it fails.

        @return: fires when the connection is gone.  Cancelled, it cuts off.

        @raise ValueError: that may not be sent.
        """
        payload = close_payload(code, reason.encode())
        if self._state is _State.LOST:
            return succeed(None)
        if self._state is _State.OPEN:
            self._send_close(payload, code, reason)
            self._state = _State.CLOSING
            self._timer.start(self._options.close_timeout)
        if not receiving:
            self._is_discarding = True
        closer: Deferred[None] = Deferred(self._cut_off)
        self._closers.append(closer)
        self._go_on()
        return closer

    def _cut_off(self, closer: Deferred[None]) -> None:
        self._closers.remove(closer)
        self.abort()

    def abort(self) -> None:
        """Cut the connection off, without a closing handshake."""
        if self._state is not _State.LOST:
            self._end(1006, "it was cut off here")
            self._cut()

    def __aiter__(self) -> WebSocketConnection:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except ConnectionClosed as error:
            if error.is_clean:
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self) -> WebSocketConnection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(1000 if error is None else 1011)

    # For the codec and the socket

    @property
    def is_full(self) -> bool:
        """Whether as many messages wait as may."""
        if self._is_discarding or self._transport is None or self._state >= _State.CLOSED:
            return False
        return len(self._messages) >= MAX_WAITING or self._octets >= MAX_WAITING_OCTETS

    def data_received(self, data: bytes) -> None:
        """The server sent something."""
        if self._state >= _State.CLOSED:
            return
        self._codec.data += data
        if self._state is _State.CLOSING and not self._is_discarding:
            self._timer.start(self._options.close_timeout)
        self._process()

    def connection_lost(self) -> None:
        """TCP has ended."""
        self._codec.detach()
        self._transport = None
        # What came before the end counts, however many messages wait.
        self._process()
        self._end(1006, "the connection was lost")
        self._state = _State.LOST
        self._timer.cancel()
        closers, self._closers = self._closers, []
        for closer in closers:
            closer.callback(None)

    def message_received(self, payload: bytes, is_binary: bool) -> None:
        """A message is there."""
        if self._is_discarding:
            return
        message = payload if is_binary else payload.decode()
        if self._receivers:
            self._receivers.popleft().callback(message)
        else:
            self._messages.append((message, len(payload)))
            self._octets += len(payload)

    def ping_received(self, payload: bytes) -> None:
        """The server asks whether we are there."""
        if self._is_choked:
            # One answer to the last of several is enough (RFC 6455 section 5.5.3), and memory stays bounded.
            self._unanswered = payload
        elif self._state is _State.OPEN:
            self._codec.sendFrame(opcode=PONG, payload=payload)

    def pong_received(self, payload: bytes) -> None:
        """The server answers this ping, and with it all before."""
        if payload not in self._pings:
            return
        for earlier in list(self._pings):
            answered, since = self._pings.pop(earlier)
            answered.callback(self._clock.seconds() - since)
            if earlier == payload:
                return

    def close_received(self, payload: bytes) -> None:
        """The server closes, or answers our Close."""
        problem = problem_of(payload)
        if problem:
            self.give_up(PROTOCOL_ERROR, problem)
            return
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        reason = payload[2:].decode()
        if self._state is _State.OPEN:
            self._codec.sendFrame(opcode=CLOSE, payload=payload)
        self._end(code, reason)

    def give_up(self, code: int, reason: str) -> None:
        """The server broke the rules."""
        if self._state is _State.OPEN:
            self._send_close(close_payload(code, _shortened(reason)), code, reason)
        self._end(code, reason)

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._is_choked = True

    def resumeProducing(self) -> None:
        """It has room."""
        self._is_choked = False
        unanswered, self._unanswered = self._unanswered, None
        if unanswered is not None:
            self.ping_received(unanswered)
        while self._senders and not self._is_choked:
            self._senders.popleft().callback(None)

    def stopProducing(self) -> None:
        """It is lost; C{connection_lost} says so."""

    # Inside

    def _closed(self) -> ConnectionClosed:
        return ConnectionClosed(*(self._ended if self._ended[0] else self._sent))

    def _send_close(self, payload: bytes, code: int, reason: str) -> None:
        self._sent = code, reason
        self._codec.sendFrame(opcode=CLOSE, payload=payload)

    def _process(self) -> None:
        """Read what is there, and keep the server from sending more when enough waits."""
        if not self._is_processing:
            self._is_processing = True
            try:
                self._codec.consumeData()
            finally:
                self._is_processing = False
        if self.is_full and not self._is_paused:
            self._is_paused = True
            self._transport.pauseProducing()
            if self._state is _State.CLOSING:
                self._timer.stop()

    def _go_on(self) -> None:
        """There is room for messages again."""
        self._process()
        if self._is_paused and not self.is_full and self._transport is not None:
            self._is_paused = False
            self._transport.resumeProducing()
            if self._state >= _State.CLOSING:
                self._timer.start(self._options.close_timeout)

    def _end(self, code: int, reason: str) -> None:
        """There will be no more messages."""
        if self._ended[0]:
            return
        self._ended = code, reason
        self._state = _State.CLOSED
        self._codec.stop()
        if self._transport is not None:
            self._transport.unregisterProducer()
            self._timer.start(self._options.close_timeout)
            if self._is_paused:
                self._is_paused = False
                self._transport.resumeProducing()
        waiting: list[Deferred[Any]] = [*self._receivers, *self._senders, *(one for one, _ in self._pings.values())]
        self._receivers.clear()
        self._senders.clear()
        self._pings.clear()
        for one in waiting:
            one.errback(self._closed())

    def _too_slow(self) -> None:
        self._end(1006, f"no answer to the Close in {self._options.close_timeout:g} s")
        self._cut()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abortConnection()


def _shortened(reason: str) -> bytes:
    return reason.encode()[:MAX_REASON].decode(errors="ignore").encode()


def read_deflate(lines: list[bytes]) -> frozenset[bytes] | None:
    """
    What the server says of compression.

    @param lines: its C{Sec-WebSocket-Extensions}, which name nothing but what was offered.

    @return: the names of its parameters (RFC 7692 section 7.1), or L{None} for no compression.

    @raise ResponseMalformed: they make no sense.
    """
    members = [member for part in b",".join(lines).split(b",") if (member := part.strip(b" \t"))]
    if not members:
        return None
    found = [_PARAMETER.fullmatch(part.strip(b" \t")) for part in members[0].split(b";")[1:]]
    names = frozenset(parameter[1] or b"bits" for parameter in found if parameter is not None)
    if len(members) > 1 or len(names) < len(found):
        raise ResponseMalformed(
            "no WebSocket: what it says of permessage-deflate makes no sense", error_type="http_upgrade_failed"
        )
    return names


_ALONE = (b"server_no_context_takeover", b"client_no_context_takeover")
"""Who packs each message by itself."""

_PARAMETER = re.compile(
    rb'(server_no_context_takeover|client_no_context_takeover)|server_max_window_bits[ \t]*=[ \t]*("?)([89]|1[0-5])\2'
)
