"""
One request and its response, between a client's channel and an origin server.

It is the only place that knows both sides.  Each side's transport pauses the
other when it is full, so that no more than a few buffers are ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd.errors import ExchangeError, RequestError, ResponseMalformed, UpstreamError
from proxyd.forward.channel import Channel
from proxyd.forward.html import Rewriter
from proxyd.forward.origin import OriginConnection, Timeouts
from proxyd.forward.pool import Upstream
from proxyd.forward.roles import LENGTH, STREAM, Body
from proxyd.http.fields import Fields, end_to_end, serialize, tokens, trailers_to_forward, values
from proxyd.http.framing import chunk, last_chunk
from proxyd.http.response import ResponseHead
from proxyd.http.upgrade import SWITCH

log = Logger()

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PROPFIND", b"REPORT", b"SEARCH"))
"""Methods that may be sent twice (RFC 9110 section 9.2.2; RFC 4918, 3253 and 5323 for the last three)."""

_CHANGED_WITH_BODY = frozenset(
    (b"content-length", b"etag", b"accept-ranges", b"digest", b"content-digest", b"repr-digest", b"content-md5")
)
"""Fields that are not true of a body that was changed."""


class Switch(Protocol):
    """Takes over when the origin server agrees to another protocol."""

    def agreed(self, response: ResponseHead) -> Fields:
        """
        @return: all fields of the 101 for the client.

        @raise ResponseMalformed: the origin's 101 is not what was asked for.
        """

    def begin(self, channel: Channel, origin: OriginConnection, early: bytes) -> None:
        """
        The client has its 101: both transports are the caller's to let go of.

        @param early: octets that the origin sent after its 101.
        """


class Terms(Protocol):
    """What a rule says of its exchanges."""

    @property
    def timeouts(self) -> Timeouts:
        """Those of the origin server."""

    @property
    def html(self) -> Callable[[], Rewriter] | None:
        """Makes what changes a page on its way back."""

    def trailers(self, trailers: Fields, connection: Collection[bytes]) -> Fields:
        """
        @param connection: the members of the request's C{Connection}.

        @return: those of the request's trailers that go on.
        """


class Exchange:
    """
    One request and its response: the client's channel calls it as its
    responder, the origin server's connection as its exchange.
    """

    __slots__ = (
        "_channel",
        "_chunked_request",
        "_connecting",
        "_head",
        "_method",
        "_origin",
        "_read",
        "_response",
        "_rewriter",
        "_switch",
        "_terms",
        "_upstream",
    )

    def __init__(
        self,
        channel: Channel,
        upstream: Upstream,
        head: bytes,
        terms: Terms,
        switch: Switch | None = None,
    ) -> None:
        """
        @param head: the request's head as the origin gets it.
        @param switch: takes over after a 101.
        """
        self._channel = channel
        self._upstream = upstream
        self._head = head
        self._terms = terms
        self._switch = switch
        self._method = channel.head.method
        self._chunked_request = channel.head.chunked
        self._read = False
        self._origin: OriginConnection | None = None
        self._connecting: Deferred[OriginConnection] | None = None
        self._response: ResponseHead | None = None
        self._rewriter: Rewriter | None = None

    def start(self) -> None:
        """Send the request as soon as there is a connection for it."""
        if self._switch is not None:
            self._connect(self._upstream.connect_apart())
            return
        origin = self._upstream.take()
        if origin is None:
            self._connect(self._upstream.connect(self._terms.timeouts.connect))
        else:
            self._send(origin)

    def _connect(self, connecting: Deferred[OriginConnection]) -> None:
        # Kept before it is given its callbacks, which forget it: they may be called at once.
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._not_connected).addErrback(self._broken)

    def _connected(self, origin: OriginConnection) -> None:
        if self._connecting is None:  # cancelled, too late
            origin.abort()
            return
        self._connecting = None
        self._send(origin)

    def _send(self, origin: OriginConnection) -> None:
        self._origin = origin
        try:
            payload, ended = self._channel.read_body()
        except RequestError as error:
            origin.abort()
            self._channel.send_error(error)
            return
        octets = self._head
        if payload or (ended and self._chunked_request):
            octets += self._framed(payload, ended)
        origin.begin(self, self._method, octets, ended, self._terms.timeouts)
        if not ended and self._channel.move_request(origin.transport):
            self._read = True

    def _not_connected(self, failure: Failure) -> None:
        if self._connecting is None:  # cancelled
            return
        self._connecting = None
        error = failure.value
        if not isinstance(error, ExchangeError):
            log.failure("connecting to {origin} failed unexpectedly", failure, origin=self._upstream.name)
            error = UpstreamError(f"connecting failed: {error}", stage="connect")
        self._channel.send_error(error)

    def _broken(self, failure: Failure) -> None:
        log.failure("sending a request to {origin} failed", failure, origin=self._upstream.name)
        self.cancel()
        self._channel.send_error(ExchangeError("an error in proxyd itself"))

    # From the client's channel

    def body_received(self, payload: bytes, ended: bool) -> None:
        if self._origin is not None:
            self._origin.send(self._framed(payload, ended), ended)

    def _framed(self, payload: bytes, ended: bool) -> bytes:
        """A piece of the request's body as the origin gets it."""
        if payload:
            self._read = True
        if not self._chunked_request:
            return payload
        framed = chunk(payload)
        if ended:
            channel = self._channel
            framed += last_chunk(self._terms.trailers(channel.request_trailers, channel.head.connection))
        return framed

    def cancel(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        elif self._origin is not None:
            self._origin.abort()
            self._origin = None

    def pause(self) -> None:
        if self._origin is not None:
            self._origin.pause()

    def resume(self) -> None:
        if self._origin is not None:
            self._origin.resume()

    # From the origin server's connection

    def interim_received(self, response: ResponseHead) -> None:
        self._channel.send_interim(
            response.status, response.reason, end_to_end(response.fields, response.connection)
        )

    def response_received(self, response: ResponseHead, payload: bytes, ended: bool, trailers: Fields) -> None:
        channel = self._channel
        record = channel.record
        now = channel.site.now
        record.origin_s = now() - record.started
        lines = response.lines
        if response.status == 426 and b"websocket" in tokens(values(response.fields, b"upgrade")):
            # As our own: it must say to what (RFC 9110 section 15.5.22), and this is served here.
            lines += serialize(SWITCH)
        if response.bodiless:
            body = Body.NONE
        else:
            body = STREAM if response.length is None else LENGTH
            html = self._terms.html
            if html is not None and self._is_changeable(response):
                self._rewriter = html()
                fields = end_to_end(response.fields, response.connection)
                lines = serialize(field for field in fields if field[0].lower() not in _CHANGED_WITH_BODY)
                body = STREAM
                payload = self._changed(self._rewriter, payload, ended)
        if ended:
            self._origin = None
            if trailers:
                trailers = trailers_to_forward(trailers, response.connection)
        else:
            self._response = response
            if self._origin is not None and _media_type(response) == b"text/event-stream":
                self._origin.never_silent()
        channel.respond_with(
            response.status, response.reason, lines, body, payload, ended, trailers, response.dated
        )
        if not ended and body is LENGTH and self._origin is not None:
            self._origin.move_body(channel.transport, self._payload_moved)

    def payload_received(self, payload: bytes, ended: bool, trailers: Fields) -> None:
        if self._rewriter is not None:
            payload = self._changed(self._rewriter, payload, ended)
        if ended:
            self._origin = None
            if trailers and self._response is not None:
                trailers = trailers_to_forward(trailers, self._response.connection)
        self._channel.send_body(payload, ended, trailers)

    def _payload_moved(self, count: int, ended: bool) -> None:
        if ended:
            self._origin = None
        self._channel.body_moved(count, ended)

    def _is_changeable(self, response: ResponseHead) -> bool:
        """Whether an answer is a page that can be changed as it streams."""
        if response.status != 200 or _media_type(response) != b"text/html":
            return False
        if any(b"utf-16" in value.lower() for value in values(response.fields, b"content-type")):
            return False
        if any(value.lower() != b"identity" for value in values(response.fields, b"content-encoding")):
            log.warn(
                "{origin} encoded a page although it was asked not to: the page is passed on unchanged",
                origin=self._upstream.name,
            )
            return False
        return True

    def _changed(self, rewriter: Rewriter, payload: bytes, ended: bool) -> bytes:
        changed = rewriter.feed(payload)
        return changed + rewriter.finish() if ended else changed

    def switched(self, response: ResponseHead, early: bytes) -> None:
        channel, origin, switch = self._channel, self._origin, self._switch
        assert origin is not None
        self._origin = None
        try:
            if switch is None:
                raise ResponseMalformed("the origin switched protocols without being asked to")
            fields = switch.agreed(response)
        except ExchangeError as error:
            origin.abort()
            channel.send_error(error)
            return
        record = channel.record
        record.origin_s = channel.site.now() - record.started
        channel.switch_protocols(response.reason, fields)
        switch.begin(channel, origin, early)

    def origin_failed(self, error: UpstreamError) -> None:
        origin, self._origin = self._origin, None
        assert origin is not None
        if origin.went_stale and not self._read and self._method in _IDEMPOTENT:
            # The origin closed the connection while it was unused, just as this request was sent
            # (RFC 9112 section 9.3.1): it is asked once more, on a connection that has no past.
            self._channel.hold_request()
            self._connect(self._upstream.connect(self._terms.timeouts.connect))
        else:
            self._channel.send_error(error)

    def origin_full(self) -> None:
        self._channel.pause_request()

    def origin_drained(self) -> None:
        self._channel.resume_request()


def _media_type(response: ResponseHead) -> bytes:
    return b"".join(values(response.fields, b"content-type")).partition(b";")[0].strip().lower()
