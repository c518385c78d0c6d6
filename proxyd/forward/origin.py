"""A connection to an origin server: one exchange after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.errors import ResponseMalformed, ResponseTruncated, TLSFailed, UpstreamError, UpstreamTimeout
from proxyd.http.fields import Fields
from proxyd.http.framing import BadChunk, BodyReader, BodyTruncated, LengthReader, response_body
from proxyd.http.response import ResponseHead, parse_response
from proxyd.splicing import can_splice
from proxyd.timer import Timer, Timers

log = Logger()


class Exchange(Protocol):
    """What an origin connection tells of the answer."""

    def interim_received(self, response: ResponseHead) -> None:
        """A 1xx answer other than 101; the final one is still to come."""

    def response_received(self, response: ResponseHead, payload: bytes, ended: bool, trailers: Fields) -> None:
        """The answer's head, and what is there of its body."""

    def switched(self, response: ResponseHead, early: bytes) -> None:
        """The origin answered 101; C{early} are the octets after it, of the new protocol."""

    def payload_received(self, payload: bytes, ended: bool, trailers: Fields) -> None:
        """More of the answer's body."""

    def origin_failed(self, error: UpstreamError) -> None:
        """There will be no more of the answer.  The connection is gone."""

    def origin_full(self) -> None:
        """The origin does not take more of the request for now."""

    def origin_drained(self) -> None:
        """The origin takes more of the request again."""


class Pool(Protocol):
    """Where a connection belongs between two exchanges: see L{proxyd.forward.pool}."""

    name: str
    response_head_size: int

    def give_back(self, connection: Any) -> None:
        """A connection has done its exchange and is good for another."""

    def forget(self, connection: Any) -> None:
        """An unused connection was closed."""

    def lost_one(self) -> None:
        """A connection that counted has ended."""


class Timeouts(Protocol):
    """Seconds; 0 is never."""

    @property
    def connect(self) -> float:
        """Until there is a connection."""

    @property
    def response(self) -> float:
        """From the request's last octet to the answer's head."""

    @property
    def body(self) -> float:
        """The longest silence within a body."""


@implementer(IPushProducer)
class OriginConnection(protocol.Protocol):
    """
    One connection to an origin server.

    @ivar went_stale: it was lost before an octet of an answer, after it had
        served another exchange: the origin closed it while it was unused.
    """

    transport: Any  # ITransport, IConsumer and IPushProducer, whatever wraps it
    went_stale = False

    def __init__(self, pool: Pool, timers: Timers, counted: bool) -> None:
        self._pool = pool
        self._counted = counted
        self._timer = Timer(timers, self._timed_out)
        self._exchange: Exchange | None = None
        self._method = b""
        self._buffer = b""
        self._heads_size = 0
        self._response: ResponseHead | None = None
        self._reader: BodyReader | None = None
        self._request_ended = False
        self._answering = False
        self._reused = False
        self._paused = False
        self._full = False
        self._response_timeout = 0.0
        self._silence = 0.0

    # One exchange

    def begin(self, exchange: Exchange, method: bytes, octets: bytes, ended: bool, timeouts: Timeouts) -> None:
        """
        Send a request's head, and what is there of its body.

        @param ended: that is all of the request.
        """
        self._exchange = exchange
        self._method = method
        self._response_timeout = timeouts.response
        self._silence = timeouts.body
        self._heads_size = 0
        self._request_ended = ended
        self._full = self._answering = False
        if ended:
            self._timer.start(self._response_timeout)
        else:
            self._timer.stop()
        self.transport.write(octets)

    def send(self, octets: bytes, ended: bool) -> None:
        """Send more of the request's body."""
        if ended:
            self._request_ended = True
            if self._response is None and not self._full:
                self._timer.start(self._response_timeout)
        if octets:
            self.transport.write(octets)

    def move_body(self, sink: Any, moved: Callable[[int, bool], None]) -> None:
        """
        Have what is still to come of the answer's body moved to a transport, if that can be done and pays.

        @param moved: called with the number of octets of each portion, and whether that was the last one.
        """
        reader = self._reader
        if isinstance(reader, LengthReader) and can_splice(self.transport, sink, reader.left):
            self.transport.splice(sink, reader.left, partial(self._moved, reader, moved))

    def _moved(self, reader: LengthReader, moved: Callable[[int, bool], None], count: int) -> None:
        reader.skip(count)
        if reader.finished:
            self._end(True)
        elif not self._paused:
            self._timer.start(self._silence)
        moved(count, reader.finished)

    def pause(self) -> None:
        """Take no more of the answer for now."""
        self._paused = True
        self._timer.stop()
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Take more of the answer again."""
        if self._paused:
            self._paused = False
            if self._response is not None:
                self._timer.start(self._silence)
            self.transport.resumeProducing()

    def never_silent(self) -> None:
        """An answer that may pause for as long as it likes, as server-sent events do."""
        self._silence = 0
        if self._response is not None:
            self._timer.stop()

    def abort(self) -> None:
        """End the connection: its exchange is no longer wanted."""
        self._exchange = None
        self._timer.cancel()
        self.transport.abortConnection()

    def hand_over(self) -> None:
        """Let go of the transport: whoever calls this is its protocol from now on."""
        self._exchange = None
        self._timer.cancel()
        self.transport.unregisterProducer()
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        if self._counted:
            self._pool.lost_one()

    # Between exchanges

    def wait_unused(self, seconds: float) -> None:
        """Close after some time without use."""
        self._timer.start(seconds)

    def close(self) -> None:
        """Close an unused connection."""
        self.transport.unregisterProducer()
        self._timer.start(self._CLOSE_S)
        self.transport.loseConnection()

    _CLOSE_S = 5.0
    """Seconds that TLS has to end before the connection is cut."""

    # From the transport

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # They would be taken for the next request's answer.
            self._warn_of_surplus()
            self._pool.forget(self)
            self.transport.abortConnection()
            return
        reader = self._reader
        if reader is None:
            self._answering = True
            self._receive_head(exchange, data)
            return
        payload = self._decode(reader, data)
        if payload or (payload is not None and reader.finished):
            exchange.payload_received(payload, reader.finished, reader.trailers)

    def _decode(self, reader: BodyReader, data: bytes) -> bytes | None:
        """
        More of the answer's body, and its end when that is there.

        @return: L{None} if it is malformed, which has been told then.
        """
        try:
            payload = reader.receive(data)
        except BadChunk as error:
            self._fail(ResponseMalformed(f"the answer's chunks are malformed: {error}"))
            return None
        if reader.finished:
            self._end(not reader.rest)
        elif not self._paused:
            self._timer.start(self._silence)
        return payload

    def _receive_head(self, exchange: Exchange, data: bytes) -> None:
        searched = 0
        if self._buffer:
            searched = max(0, len(self._buffer) - 3)
            data = self._buffer + data
        while True:
            end = data.find(b"\r\n\r\n", searched) + 4
            size = self._heads_size + (end if end > 3 else len(data))
            if size > self._pool.response_head_size:
                self._fail(
                    ResponseMalformed(
                        f"the answer's head is longer than {self._pool.response_head_size} octets",
                        error_type="http_response_header_section_size",
                    )
                )
                return
            if end < 4:
                if data.count(b"\n") != data.count(b"\r\n"):
                    self._fail(ResponseMalformed("a line of the answer's head ends without a carriage return"))
                    return
                self._buffer = data
                return
            try:
                response = parse_response(data[:end], self._method)
            except ResponseMalformed as error:
                self._fail(error)
                return
            data = data[end:]
            if response.status >= 200 or response.status == 101:
                break
            # Interim answers count towards the limit, or an origin could send them for ever.
            self._heads_size = size
            searched = 0
            exchange.interim_received(response)
        self._buffer = b""
        if response.status == 101:
            exchange.switched(response, data)
            return
        self._response = response
        if response.length == len(data) and not response.bodiless:
            # All of it is there, as it is of most answers: nothing is left to be followed.
            self._end(True)
            exchange.response_received(response, data, True, [])
            return
        self._reader = reader = response_body(response)
        if reader is None:
            self._end(not data)
            exchange.response_received(response, b"", True, [])
            return
        payload = self._decode(reader, data)
        if payload is not None:
            exchange.response_received(response, payload, reader.finished, reader.trailers)

    def _end(self, clean: bool) -> None:
        """
        The answer is complete.

        @param clean: nothing came after it.
        """
        if not clean:
            self._warn_of_surplus()
        response, self._response = self._response, None
        self._exchange = None
        self._reader = None
        reusable = clean and response is not None and response.keep_alive and self._request_ended
        if reusable and self._counted and not self._full:
            if self._paused:
                # Back in the pool it would never be read again.
                self._paused = False
                self.transport.resumeProducing()
            self._reused = True
            self._pool.give_back(self)
        elif self._request_ended:
            self.close()
        else:
            self._timer.stop()
            self.transport.abortConnection()

    def _warn_of_surplus(self) -> None:
        log.warn("{origin} sent octets behind its answer: the connection is not used again", origin=self._pool.name)

    def _fail(self, error: UpstreamError) -> None:
        exchange, self._exchange = self._exchange, None
        self._timer.cancel()
        self.transport.abortConnection()
        if exchange is not None:
            exchange.origin_failed(error)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._timer.cancel()
        self._pool.forget(self)
        exchange, self._exchange = self._exchange, None
        if self._counted:
            self._pool.lost_one()
        if exchange is None:
            return
        self.went_stale = self._reused and not self._answering
        reader = self._reader
        if reader is not None and reason.check(ConnectionDone):
            try:
                reader.end_of_input()
            except BodyTruncated:
                pass
            else:
                self._response = None
                exchange.payload_received(b"", True, [])
                return
        ended = f"the origin {'closed' if reason.check(ConnectionDone) else 'broke off'} the connection"
        if reader is not None:
            exchange.origin_failed(ResponseTruncated(f"{ended} within the body of its answer"))
        elif reason.check(SSL.Error):
            # TLS 1.3 servers refuse a client's certificate after the handshake.
            exchange.origin_failed(TLSFailed(f"the origin ended TLS: {reason.value}"))
        else:
            exchange.origin_failed(
                UpstreamError(
                    f"{ended} {'within the head of' if self._answering else 'before'} its answer",
                    stage="response" if self._request_ended else "request",
                    error_type="connection_terminated",
                )
            )

    # IPushProducer, for the transport: the origin is full, or has room

    def pauseProducing(self) -> None:
        self._full = True
        self._timer.start(self._silence)
        if self._exchange is not None:
            self._exchange.origin_full()

    def resumeProducing(self) -> None:
        self._full = False
        if self._exchange is None:
            return
        if self._response is not None:
            self._timer.start(0 if self._paused else self._silence)
        elif self._request_ended:
            self._timer.start(self._response_timeout)
        else:
            self._timer.stop()
        self._exchange.origin_drained()

    def stopProducing(self) -> None:
        """The connection is lost; L{connectionLost} follows."""

    def _timed_out(self) -> None:
        if self._exchange is None:
            self._pool.forget(self)
            self.transport.abortConnection()
        elif self._response is not None:
            self._fail(
                UpstreamTimeout(f"the origin paused for {self._silence:g} s within the body of its answer",
                                stage="response", error_type="connection_read_timeout")
            )
        elif self._full:
            self._fail(
                UpstreamTimeout(f"the origin took nothing of the request for {self._silence:g} s", stage="request",
                                error_type="connection_write_timeout")
            )
        else:
            what = "finish the head of its answer" if self._answering else "answer"
            self._fail(UpstreamTimeout(f"the origin did not {what} in {self._response_timeout:g} s", stage="response"))
