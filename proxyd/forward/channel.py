"""
A client's connection: heads, bodies, pipelining, limits, time-outs.

The channel cuts heads off what the client sends and gives each to a
responder: an L{exchange<proxyd.forward.exchange>} with an origin server, or an
ordinary Resource.  The responder asks for the request's body when it wants
it, and answers through L{Channel.respond}.  One request is served at a time;
what a client sends ahead is kept, up to a limit, until its turn.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import Any

from twisted.internet import protocol
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.errors import ExchangeError, LimitExceeded, RequestError
from proxyd.forward.answers import error_answer
from proxyd.forward.heads import cut_head
from proxyd.forward.record import Record
from proxyd.forward.roles import LENGTH, STREAM, Body, Responder, Site
from proxyd.http.fields import Fields, serialize
from proxyd.http.framing import BadChunk, BodyReader, LengthReader, chunk, last_chunk, request_body
from proxyd.http.request import RequestHead, parse_request
from proxyd.http.upgrade import is_upgrade
from proxyd.splicing import can_splice
from proxyd.timer import Timer
from proxyd.times import date_line
from proxyd.transports import cut_off, may_keep, unsent

LINGER_S = 2.0
"""
Seconds for which octets are still read, and dropped, after the last answer:
closing with unread octets resets the connection, and a reset can destroy the
answer on its way (RFC 9112 section 9.6).  nginx's C{lingering_timeout} is 5.
"""

FIRST_S = 2.0
"""Seconds that a new connection has for its first request when no more are to follow."""

CLOSE_S = 10.0
"""Seconds that a client has to take the rest of its last answer and to end TLS, before it is cut off."""


_STARTS = tuple(b"HTTP/1.1 %d " % status for status in range(1000))
"""What an answer begins with, by its status."""


class State(Enum):
    """
    What a connection is at::

        IDLE --head--> BUSY --answered--> IDLE ...
                        |  `--upgraded--> HANDED_OVER
                        `--answered, and not kept--> CLOSING
    """

    IDLE = auto()
    BUSY = auto()
    HANDED_OVER = auto()
    CLOSING = auto()


# An enumeration is slow to ask for its members, and each request does it eight times: 0.4 us.
IDLE, BUSY, HANDED_OVER, CLOSING = State


@implementer(IPushProducer)
class Channel(protocol.Protocol):
    """
    One client's connection.

    It is its transport's producer for its whole life: the transport pauses and
    resumes it, and it the responder of the moment.

    @ivar site: what it shares with other channels.
    @ivar settings: those of the present request.
    @ivar head: the present request.
    @ivar record: what the access log will say of it.
    @ivar request_trailers: those of its body, when that has ended.
    @ivar upgrading: it asks for a WebSocket.
    @ivar peer: the address of the other end; empty on a UNIX socket.
    @ivar port: the local port; 0 on a UNIX socket.
    @ivar secure: whether the client came over TLS.
    """

    # More attributes than an object's own dictionary is quick with.
    __slots__ = (
        "_advancing", "_awaiting_rest", "_body_limit", "_buffer", "_chunked", "_client_full", "_head_sent", "_keep",
        "_minor", "_previous", "_reader", "_reading_body", "_reading_paused", "_recording", "_refusing", "_responder",
        "_responder_full", "_silent", "_state", "_timer", "_unsent", "connected", "head", "peer", "port", "record",
        "request_trailers", "secure", "settings", "site", "transport", "upgrading",
    )  # fmt: skip

    head: RequestHead
    record: Record
    transport: Any  # ITransport, IConsumer and IPushProducer, whatever wraps it

    def __init__(self, site: Site) -> None:
        self.site = site
        self.settings = site.settings
        self.request_trailers: Fields = []
        self.upgrading = False
        self.peer = ""
        self._silent: str | None = None  # the address towards which this counts until its first request
        self.port = -1
        self.secure = False
        self._state = IDLE
        self._timer = Timer(site.timers, self._timed_out)
        self._buffer = b""
        self._advancing = False
        # The header time-out runs: from a head's first octet, on a new connection from its beginning.
        self._awaiting_rest = True
        self._previous: RequestHead | None = None
        # The present request
        self._responder: Responder | None = None
        self._reader: BodyReader | None = None
        self._body_limit = 0
        self._reading_body = False
        self._refusing = False
        # The present answer
        self._minor = 1
        self._keep = True
        self._head_sent = False
        self._chunked = False
        self._recording = False
        # Who does not take more for now
        self._client_full = False
        self._unsent: float = 0
        self._responder_full = False
        self._reading_paused = False

    # From the transport

    def connectionMade(self) -> None:
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self.secure = ISSLTransport.providedBy(transport)
        has_room = self.site.connection_made(self)
        limit = self.settings.limits.per_client
        if limit and not self._greet(limit):
            transport.abortConnection()
        elif has_room:
            self.admitted()
        else:
            self._reading_paused = True
            transport.pauseProducing()

    def _greet(self, limit: int) -> bool:
        address = getattr(self.transport.getPeer(), "host", "")
        if not self.site.greet(address, limit):
            return False
        self._silent = address
        return True

    def _no_longer_silent(self, address: str) -> None:
        self._silent = None
        self.site.speaks(address)

    def admitted(self) -> None:
        """There is room for this connection."""
        # TLS's own handshake counts, too: it happens after this.
        self._timer.start(self.settings.timeouts.header)
        if self._reading_paused:
            self._update_reading()

    def dataReceived(self, data: bytes) -> None:
        if self._reading_body:
            self._receive_body(data)
            return
        state = self._state
        if state is CLOSING:
            return
        if self._buffer:
            data = self._buffer + data
        self._buffer = data
        if state is IDLE and not self._client_full:
            self._advance()
        elif len(data) > self.settings.limits.header:
            # Not before: a connection that is not read never shows that its client has gone.
            self._update_reading()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._timer.cancel()
        if self._silent is not None:
            self._no_longer_silent(self._silent)
        self._state = CLOSING
        self._reading_body = False
        self._buffer = b""
        self.site.channels.discard(self)
        if self._responder is not None:
            self._cancel()
        if self._recording:
            self.record.note("client", "connection", "went away")
            self._finish_record()
        self.site.connection_ended()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being served."""
        return self._state is BUSY

    @property
    def is_request_paused(self) -> bool:
        """Whether more of the request's body waits until what is there of it has been taken."""
        return self._responder_full

    @property
    def is_answer_paused(self) -> bool:
        """Whether more of the answer waits until the client has taken what is there of it."""
        return self._client_full

    # IPushProducer, for the transport: it is full, or has room

    def pauseProducing(self) -> None:
        self._client_full = True
        self._unsent = unsent(self.transport)
        self._timer.start(CLOSE_S if self._state is CLOSING else self.settings.timeouts.body)
        if self._responder is not None:
            self._responder.pause()

    def resumeProducing(self) -> None:
        self._client_full = False
        if self._state is BUSY:
            if self._reading_body and not self._reading_paused:
                self._timer.start(self.settings.timeouts.body)
            else:
                self._timer.stop()
            if self._responder is not None:
                self._responder.resume()
        elif self._state is IDLE:
            self._await_request()
            if self._reading_paused and self._state is IDLE:
                self._update_reading()

    def stopProducing(self) -> None:
        """The connection is lost; L{connectionLost} follows."""

    # Heads

    def _await_request(self) -> None:
        # Whoever has taken an answer only now was not told to go when the others were.
        self._timer.start(FIRST_S if self.site.draining else self.settings.timeouts.keep_alive)
        if self._buffer and not self._advancing:
            self._advance()

    def _advance(self) -> None:
        """Serve the requests that are there, one after the other."""
        self._advancing = True
        try:
            while self._state is IDLE and self._buffer and not self._client_full:
                limits = self.settings.limits
                try:
                    octets, self._buffer = cut_head(self._buffer, limits.header, limits.uri)
                except RequestError as error:
                    self._refuse(error)
                    return
                if not octets:
                    if not self._awaiting_rest:
                        self._awaiting_rest = True
                        self._timer.start(self.settings.timeouts.header)
                    return
                self._begin(octets)
        finally:
            self._advancing = False
            if self._reading_paused:
                self._look_ahead()

    def _look_ahead(self) -> None:
        """Read again, if there is room for what a client sends ahead."""
        if self._state is IDLE or self._state is BUSY:
            self._update_reading()

    def _begin(self, octets: bytes) -> None:
        site = self.site
        self.settings = site.settings
        self._awaiting_rest = False
        self._timer.stop()
        if self.port < 0:
            self._learn_addresses()
        try:
            head = parse_request(octets, self._previous)
        except RequestError as error:
            self._refuse(error)
            return
        self._state = BUSY
        self._head_sent = self._chunked = self._responder_full = self._refusing = False
        # What the client sends ahead is of another protocol then, and no request.
        self.upgrading = is_upgrade(head) if head.upgrade else False
        self._minor = head.minor
        self._keep = head.keep_alive and not site.draining
        self._reader = request_body(head)
        self.head = self._previous = head
        now = site.now
        self.record = Record(head, self.peer, now())
        self._recording = True
        site.respond(head, self)

    def _learn_addresses(self) -> None:
        if self._silent is not None:
            self._no_longer_silent(self._silent)
        # Not before the first request: HAProxy's protocol tells the client's address in front of it.
        self.peer = getattr(self.transport.getPeer(), "host", "")
        self.port = getattr(self.transport.getHost(), "port", 0)

    def _refuse(self, error: RequestError) -> None:
        """Answer a head that cannot be read; nothing after it can be, either."""
        if self.port < 0:
            self._learn_addresses()
        self._state = BUSY
        self._keep = self._head_sent = self._chunked = False
        self._refusing = True
        self._minor = 1
        self.record = Record(None, self.peer, self.site.now())
        self._recording = True
        self.record.fail(error)
        self._respond_error(error, None)

    # Bodies of requests

    def serve(self, responder: Responder, body_limit: int = 0) -> None:
        """
        Say who answers the present request.

        @param body_limit: the most octets that its body may have; 0 is no limit.

        @raise LimitExceeded: the body says that it is longer.
        """
        self._body_limit = body_limit
        if body_limit and (self.head.length or 0) > body_limit:
            raise LimitExceeded(f"The request's body is longer than {body_limit} octets.", 413)
        self._responder = responder

    def read_body(self) -> tuple[bytes, bool]:
        """
        Begin to read the request's body.

        @return: what is there of it, and whether that is all; what comes later goes to the responder.

        @raise RequestError: it is malformed or too long.
        """
        reader = self._reader
        if reader is None:
            return b"", True
        data, self._buffer = self._buffer, b""
        self._reading_body = True
        payload = self._decode(reader, data)
        if not reader.finished:
            self._timer.start(self.settings.timeouts.body)
        # Even when all of it is there: who is not read is never seen to go.
        self._update_reading()
        return payload, reader.finished

    def _decode(self, reader: BodyReader, data: bytes) -> bytes:
        try:
            payload = reader.receive(data)
        except BadChunk as error:
            self._reading_body = False
            raise RequestError(f"The request's body is malformed: {error}.") from error
        record = self.record
        record.received += len(payload)
        if self._body_limit and record.received > self._body_limit:
            self._reading_body = False
            raise LimitExceeded(f"The request's body is longer than {self._body_limit} octets.", 413)
        if reader.finished:
            self._body_ended(reader)
        return payload

    def _body_ended(self, reader: BodyReader) -> None:
        self._reading_body = False
        self._reader = None
        self._buffer = reader.rest
        self.request_trailers = reader.trailers
        self._timer.stop()

    def move_request(self, sink: Any) -> bool:
        """
        Have what is still to come of the request's body moved to a transport, if that can be done and pays.

        The responder is told of its end.

        @return: whether it is.
        """
        reader = self._reader
        if not isinstance(reader, LengthReader) or not can_splice(self.transport, sink, reader.left):
            return False
        self.transport.splice(sink, reader.left, self._request_moved)
        return True

    def _request_moved(self, count: int) -> None:
        reader, responder = self._reader, self._responder
        if not isinstance(reader, LengthReader) or responder is None:
            return  # the answer came before the request's end: nobody takes this any more
        reader.skip(count)
        self.record.received += count
        if reader.finished:
            self._body_ended(reader)
            responder.body_received(b"", True)
        elif not self._client_full and not self._reading_paused:
            self._timer.start(self.settings.timeouts.body)

    def hold_request(self) -> None:
        """Keep what comes of the request's body until it is read again."""
        if self._reading_body:
            self._reading_body = False
            self._timer.stop()

    def _receive_body(self, data: bytes) -> None:
        reader, responder = self._reader, self._responder
        assert reader is not None and responder is not None
        try:
            payload = self._decode(reader, data)
        except RequestError as error:
            self._abandon(error)
            return
        if not reader.finished and not self._client_full:
            self._timer.start(self.settings.timeouts.body)
        if payload or reader.finished:
            responder.body_received(payload, reader.finished)

    def _abandon(self, error: RequestError) -> None:
        """The request turned out bad while it was being served."""
        self._cancel()
        self.send_error(error)

    def _cancel(self) -> None:
        responder, self._responder = self._responder, None
        if responder is not None:
            responder.cancel()

    def pause_request(self) -> None:
        """Take no more of the request's body for now."""
        self._responder_full = True
        self._update_reading()

    def resume_request(self) -> None:
        """Take more of the request's body again."""
        self._responder_full = False
        self._update_reading()

    def _update_reading(self) -> None:
        if self._reading_body:
            pause = self._responder_full
        else:
            # Nor is the next request's turn before the client has taken what is there of its answers.
            waits = self._state is BUSY or (self._state is IDLE and self._client_full)
            pause = waits and len(self._buffer) > self.settings.limits.header
        if pause is self._reading_paused:
            return
        self._reading_paused = pause
        if pause:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()
        if self._reading_body and not self._client_full:
            # Only silence that we wait for counts: not the time in which we do not read.
            self._timer.start(0 if pause else self.settings.timeouts.body)

    # Answers

    def send_interim(self, status: int, reason: bytes, fields: Fields) -> None:
        """Send a 1xx answer; HTTP/1.0 has none (RFC 9110 section 15.2)."""
        if self._minor and not self._head_sent:
            self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, serialize(fields)))

    def respond(
        self,
        status: int,
        reason: bytes,
        fields: Fields,
        body: Body,
        payload: bytes = b"",
        ended: bool = True,
        trailers: Fields | None = None,
        *,
        dated: bool = False,
    ) -> None:
        """
        Send the answer's head, and what is there of its body.

        @param fields: end-to-end fields; hop-by-hop ones are added here.
        @param ended: that is all of it.
        @param dated: C{Date} is among the fields; else it is added here (RFC 9110 section 6.6.1).
        """
        self.respond_with(status, reason, serialize(fields), body, payload, ended, trailers, dated)

    def respond_with(
        self,
        status: int,
        reason: bytes,
        lines: bytes,
        body: Body,
        payload: bytes,
        ended: bool,
        trailers: Fields | None,
        dated: bool,
    ) -> None:
        """
        The same as L{respond} for whoever has the fields as they are sent.

        @param lines: the fields, each with the end of its line.
        """
        self.record.status = status
        self.record.sent += len(payload)
        framing = b"" if dated else date_line()
        if body is STREAM:
            if self._minor:
                self._chunked = True
                framing += b"Transfer-Encoding: chunked\r\n"
                payload = chunk(payload) + last_chunk(trailers or []) if ended else chunk(payload)
            else:
                self._keep = False
        if self._reader is not None or (self.upgrading and self._buffer):
            # An answer before the request's end: what follows cannot be told from the rest of its body,
            # nor after a refused upgrade from frames.
            self._keep = False
        if not self._keep:
            framing += b"Connection: close\r\n"
        elif not self._minor:
            framing += b"Connection: keep-alive\r\n"
        self._head_sent = True
        # In half of the time that formatting would take.
        self.transport.write(b"".join((_STARTS[status], reason, b"\r\n", lines, framing, b"\r\n", payload)))
        if ended:
            self._answered()

    def send_body(self, payload: bytes, ended: bool, trailers: Fields | None = None) -> None:
        """Send more of the answer's body."""
        self.record.sent += len(payload)
        if self._chunked:
            payload = chunk(payload) + last_chunk(trailers or []) if ended else chunk(payload)
        if payload:
            self.transport.write(payload)
        if ended:
            self._answered()

    def body_moved(self, count: int, ended: bool) -> None:
        """So many octets more of the answer's body have gone to the transport past this."""
        self.record.sent += count
        if ended:
            self._answered()

    def send_error(self, error: ExchangeError) -> None:
        """Answer with an error, or cut the client off when an answer has begun: it must not look complete."""
        self._responder = None
        self.record.fail(error)
        if self._head_sent:
            self.abort()
        else:
            self._respond_error(error, self.head)

    def _respond_error(self, error: ExchangeError, head: RequestHead | None) -> None:
        status, reason, fields, page = error_answer(error, head)
        if head is not None and head.method == b"HEAD":
            page = b""
        self.respond(status, reason, fields, LENGTH, page)

    def abort(self) -> None:
        """Cut the client off."""
        self._keep = self._reading_body = False
        if self._recording:
            self.record.note("proxyd", "connection", "cut the client off")
        self._cancel()
        cut_off(self.transport)

    def _answered(self) -> None:
        self._finish_record()
        self._responder = None
        if not self._keep or (self.upgrading and self._buffer):
            # Behind a refused upgrade there may be frames that came while its answer was on its way.
            self.close()
            return
        self._state = IDLE
        if not self._client_full:
            self._await_request()
        # Not before: else there would be one more reading for each request that is kept, whatever is kept already.
        if self._reading_paused and not self._advancing:
            self._look_ahead()

    def _finish_record(self) -> None:
        self._recording = False
        record = self.record
        now = self.site.now
        record.duration = now() - record.started
        self.site.exchange_ended(record)

    # The end

    def close_when_idle(self, idle_s: float = 0.0) -> None:
        """
        Close now when no request is being served, else after the present one.

        Who has only just connected has a request on its way, and would not
        expect to be turned away: it has L{FIRST_S} for it.

        @param idle_s: seconds until one is closed that has had requests and has none now; one more is answered.
        """
        self._keep = False
        if self._state is not IDLE:
            return
        if self._previous is None and not self._buffer:
            self._timer.start(FIRST_S)
        elif self._previous is not None and not idle_s:
            self.close()
        elif not self._buffer and not self._client_full:
            self._timer.start(idle_s)

    def close(self) -> None:
        """Send what is still to be sent, then end the connection."""
        if self._state is CLOSING:
            return
        self._state = CLOSING
        # Behind a head that could not be read there may be a body, on its way still.
        unread = self._refusing or self._reader is not None or bool(self._buffer)
        self._reading_body = False
        self._reader = None
        self._buffer = b""
        transport: Any = self.transport
        # Where the kernel takes all, nothing is left to be waited for: the connection ends with this turn.
        self._unsent = unsent(transport) if unread or may_keep(transport) else math.inf
        # With a producer TLS does not end, nor does TCP while it is paused.
        transport.unregisterProducer()
        if unread and ITCPTransport.providedBy(transport) and not self.secure:
            self._timer.start(LINGER_S)
            if self._reading_paused:
                self.transport.resumeProducing()
            self.transport.loseWriteConnection()
        else:
            self._timer.start(CLOSE_S)
            transport.loseConnection()

    def switch_protocols(self, reason: bytes, fields: Fields) -> None:
        """Send a 101: what follows is for L{hand_over}."""
        self.record.status = 101
        self._head_sent = True
        self.transport.write(b"HTTP/1.1 101 %b\r\n%b\r\n" % (reason, serialize(fields)))

    def hand_over(self) -> tuple[bytes, Record]:
        """
        Let go of the transport: whoever calls this is its protocol from now on,
        and calls C{site.connection_ended()} when it is lost.

        @return: octets that the client has sent already, and the record to finish.
        """
        self._state = HANDED_OVER
        self._timer.cancel()
        self.transport.unregisterProducer()
        self.site.channels.discard(self)
        if self._reading_paused:
            self.transport.resumeProducing()
        self._responder = None
        self._recording = False
        # No request will repeat its fields; what follows from them can be large, and this may last for days.
        self.head.memo = self.head.logged = self._previous = None
        early, self._buffer = self._buffer, b""
        return early, self.record

    def _timed_out(self) -> None:
        if self._state is CLOSING or self._client_full:
            left = unsent(self.transport)
            if left < self._unsent:
                # Slow is not silent.
                self._unsent = left
                self._timer.start(CLOSE_S if self._state is CLOSING else self.settings.timeouts.body)
                return
            if self._recording:
                self.record.note("client", "connection", "took nothing for too long")
            cut_off(self.transport)
        elif self._state is BUSY:
            self._keep = False
            self._abandon(LimitExceeded("The request's body came too slowly.", 408))
        elif self._buffer.strip(b"\r\n"):
            self._refuse(LimitExceeded("The request's head came too slowly.", 408))
        else:
            self.close()
