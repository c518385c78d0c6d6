"""
The opening handshake of a client, over any endpoint.

What we ask for is written here, the answer is read and checked by C{http/}.
One deadline is over everything; whoever cancels the attempt cuts the
connection off.

@see: RFC 6455 section 4.1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from proxyd.errors import HandshakeRefused, ResponseMalformed, ResponseTruncated, TLSFailed, UpstreamTimeout
from proxyd.http.fields import Fields, serialize, values
from proxyd.http.framing import BadChunk, response_body
from proxyd.http.response import ResponseHead, parse_response
from proxyd.http.upgrade import Offer, check_switch
from proxyd.timer import Timer, Timers
from proxyd.websocket.client import DEFLATE, Codec, ConnectionOptions, WebSocketConnection, read_deflate

MAX_HEAD = 64 * 1024
"""Octets of all that comes before the end of the server's answer."""

MAX_BODY = 4 * 1024
"""Octets of a refusal's body that are kept."""


@dataclass(frozen=True, slots=True)
class Opening:
    """
    What is asked for.

    @ivar target: the path and the query.
    @ivar fields: C{Host}, and what the caller adds.
    @ivar protocols: subprotocols, the most wanted one first.
    @ivar timeout: seconds for everything, the way to the server included; 0 is no limit.
    """

    target: bytes
    fields: Fields
    protocols: tuple[bytes, ...] = ()
    timeout: float = 10

    def head(self, key: bytes, compress: bool) -> bytes:
        """The request."""
        fields = [
            *self.fields,
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", key),
            (b"Sec-WebSocket-Version", b"13"),
        ]
        if self.protocols:
            fields.append((b"Sec-WebSocket-Protocol", b", ".join(self.protocols)))
        if compress:
            fields.append((b"Sec-WebSocket-Extensions", DEFLATE))
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (self.target, serialize(fields))


def open_websocket(
    clock: IReactorTime, endpoint: IStreamClientEndpoint, opening: Opening, options: ConnectionOptions
) -> Deferred[WebSocketConnection]:
    """
    Connect, and open a WebSocket.

    @return: fails with what C{endpoint} fails with, with L{HandshakeRefused}, or with an
        L{UpstreamError<proxyd.errors.UpstreamError>}.
    """
    deadline = clock.seconds() + opening.timeout if opening.timeout else 0.0
    factory = Factory.forProtocol(lambda: _Socket(clock, opening, options, deadline))
    factory.noisy = False
    connecting: Deferred[Any] = endpoint.connect(factory)
    connecting.addCallback(lambda socket: socket.opened)
    is_cancelled = False

    def cancel(_: object) -> None:
        nonlocal is_cancelled
        is_cancelled = True
        connecting.cancel()

    def done(result: WebSocketConnection | Failure) -> None:
        if not is_cancelled:
            opened.callback(result)

    # Endpoints have errors of their own for "cancelled"; that of a name's resolution is "not found".
    opened: Deferred[WebSocketConnection] = Deferred(cancel)
    connecting.addBoth(done)
    return opened


class _Socket(protocol.Protocol):
    """What is connected: first it carries the handshake, then the connection."""

    transport: Any

    def __init__(self, clock: IReactorTime, opening: Opening, options: ConnectionOptions, deadline: float) -> None:
        self._clock = clock
        self._opening = opening
        self._options = options
        self._deadline = deadline
        self._timer = Timer(Timers(clock), self._too_slow)
        self._codec: Codec | None = Codec()
        self._connection: WebSocketConnection | None = None
        self._received = b""
        self._seen = 0
        self._refusal: _Refusal | None = None
        self.opened: Deferred[WebSocketConnection] = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if self._deadline:
            self._timer.start(max(self._deadline - self._clock.seconds(), 0.001))
        assert self._codec is not None
        self.transport.write(self._opening.head(self._codec.websocket_key, self._options.compress))

    def dataReceived(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.data_received(data)
        elif self._refusal is not None:
            self._read_refusal(data)
        elif not self.opened.called:
            self._received += data
            try:
                self._read_heads()
            except ResponseMalformed as error:
                self._fail(error)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self._connection is not None:
            self._connection.connection_lost()
        elif not self.opened.called:
            if self._refusal is not None:
                self._fail(self._refusal.error())
            elif reason.check(SSL.Error) and not self._seen:
                # TLS 1.3 servers refuse a client's certificate after the handshake.
                self._fail(TLSFailed(f"the server ended TLS: {reason.value}"))
            else:
                self._fail(ResponseTruncated("the server ended the connection before its answer", stage="response"))
        self._connection = self._codec = None
        self.transport = None

    def _read_heads(self) -> None:
        while True:
            end = self._received.find(b"\r\n\r\n") + 4
            if self._seen + (end if end > 3 else len(self._received)) > MAX_HEAD:
                raise ResponseMalformed(f"the head of the server's answer is over {MAX_HEAD} octets")
            if end == 3:
                return
            head = parse_response(self._received[:end], b"GET")
            self._received = self._received[end:]
            self._seen += end
            if head.status == 101:
                self._open(head)
                return
            if head.status >= 200:
                self._refusal = _Refusal(head)
                rest, self._received = self._received, b""
                self._read_refusal(rest)
                return

    def _open(self, head: ResponseHead) -> None:
        codec, options, protocols = self._codec, self._options, self._opening.protocols
        assert codec is not None
        check_switch(head, codec.websocket_key, Offer(protocols, (DEFLATE,) if options.compress else ()))
        deflate = read_deflate(values(head.fields, b"sec-websocket-extensions"))
        codec.complete(values(head.fields, b"sec-websocket-accept")[0])
        chosen = values(head.fields, b"sec-websocket-protocol")
        connection = self._connection = WebSocketConnection(
            self._clock, self.transport, codec, options, chosen[0].decode("latin-1") if chosen else None, _texts(head)
        )
        codec.begin(connection, self.transport, options.max_message, deflate)
        self.transport.registerProducer(connection, True)
        self._timer.cancel()
        rest, self._received = self._received, b""
        # The caller may ask for the first message before it is read.
        self.opened.callback(connection)
        if rest:
            connection.data_received(rest)

    def _read_refusal(self, data: bytes) -> None:
        refusal = self._refusal
        if refusal is not None and not self.opened.called and refusal.is_complete_with(data):
            self._fail(refusal.error())

    def _too_slow(self) -> None:
        self._fail(
            UpstreamTimeout(f"the server did not answer in {self._opening.timeout:g} s", stage="response")
            if self._refusal is None
            else self._refusal.error()
        )

    def _cancelled(self, opened: Deferred[WebSocketConnection]) -> None:
        self._fail(CancelledError())

    def _fail(self, error: Exception) -> None:
        self._timer.cancel()
        self._codec = None
        self._received = b""
        self.transport.abortConnection()
        self.opened.errback(error)


class _Refusal:
    """An answer that is no 101."""

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._reader = response_body(head)
        self._body = b""

    def is_complete_with(self, data: bytes) -> bool:
        """Read on; whether as much is there as will be kept."""
        reader = self._reader
        if reader is None:
            return True
        try:
            self._body += reader.receive(data) if data else b""
        except BadChunk:
            return True
        return reader.finished or len(self._body) >= MAX_BODY

    def error(self) -> HandshakeRefused:
        """The refusal, as far as it has come."""
        head = self._head
        return HandshakeRefused(head.status, head.reason.decode("latin-1"), _texts(head), self._body[:MAX_BODY])


def _texts(head: ResponseHead) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.fields)
