"""
Another server is asked about each request, as nginx's C{auth_request} and Traefik's C{forwardAuth} do.

It gets a C{GET} that tells of the request and is never the request itself.
Only a 2xx that has come whole lets in.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxyd.control.auth.roles import Answered, Granted, Verdict
from proxyd.errors import AuthUnavailable, ExchangeError, UpstreamError
from proxyd.forward.origin import OriginConnection, Timeouts
from proxyd.forward.pool import Upstream
from proxyd.http.fields import Fields, canonical, end_to_end, serialize
from proxyd.http.request import RequestHead
from proxyd.http.response import ResponseHead, is_bodiless
from proxyd.rules.auth import ForwardAuth

MAX_ANSWER: Final = 1024 * 1024
"""Octets of the body of an authentication server's answer: a page to log in with, not a download."""

_TOLD = frozenset((b"authorization", b"cookie"))
"""What the authentication server gets of the request's own fields."""

_TOLD_OF_CLIENT = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"))
"""What it gets of what the origin server is told of the client."""

_NOT_OF_BODY = frozenset((b"content-length", b"trailer"))


class ForwardAuthenticator:
    """
    Lets in whom another server lets in.

    @ivar name: how logs call that server.
    @ivar upstream: the connections to it.
    """

    def __init__(self, auth: ForwardAuth, upstream: Upstream, timeouts: Timeouts) -> None:
        self.name = f"the authentication server {upstream.name}"
        self.upstream = upstream
        self.timeouts = timeouts
        names = [name.encode("ascii") for name in auth.headers]
        self.withheld = frozenset(map(canonical, names))
        self._copied = frozenset(name.lower() for name in names)
        self._start = b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (auth.request_target, auth.target.host_value)

    def check(self, head: RequestHead, forwarding: Fields) -> Deferred[Verdict]:
        target = head.target
        fields = [field for field in forwarding if field[0].lower() in _TOLD_OF_CLIENT]
        fields.append((b"X-Forwarded-Method", head.method))
        # As the origin server reads it: what names another path once its dot segments are followed must not
        # be judged by the path that it seems to name.
        fields.append((b"X-Forwarded-Uri", target.path + target.query))
        fields += [field for field in end_to_end(head.fields, head.connection) if field[0].lower() in _TOLD]
        return _Asking(self, b"%b%b\r\n" % (self._start, serialize(fields))).start()

    def verdict(self, response: ResponseHead, body: bytes) -> Verdict:
        """
        What an answer means.

        @raise AuthUnavailable: it is none.
        """
        status = response.status
        fields = end_to_end(response.fields, response.connection)
        if 200 <= status < 300:
            return Granted("", [field for field in fields if field[0].lower() in self._copied])
        # A 407 would ask the client for its credentials for a proxy, which it may well have.
        if 300 <= status < 500 and status != 407:
            fields = [field for field in fields if field[0].lower() not in _NOT_OF_BODY]
            whole = None if is_bodiless(status, b"GET") else body
            return Answered(self.upstream.name, status, response.reason, fields, whole)
        raise AuthUnavailable(f"{self.name} answered {status}")


class _Asking:
    """One question, and the exchange of a connection to the authentication server."""

    def __init__(self, authenticator: ForwardAuthenticator, octets: bytes) -> None:
        self._authenticator = authenticator
        self._octets = octets
        self._verdict: Deferred[Verdict] = Deferred(self._cancel)
        self._connecting: Deferred[OriginConnection] | None = None
        self._origin: OriginConnection | None = None
        self._response: ResponseHead | None = None
        self._body = bytearray()

    def start(self) -> Deferred[Verdict]:
        """
        Ask.

        @return: what that server says; it fails with L{ExchangeError} only.
        """
        origin = self._authenticator.upstream.take()
        if origin is None:
            self._connect()
        else:
            self._send(origin)
        return self._verdict

    def _connect(self) -> None:
        authenticator = self._authenticator
        self._connecting = connecting = authenticator.upstream.connect(authenticator.timeouts.connect)
        connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, origin: OriginConnection) -> None:
        if self._connecting is None:  # cancelled, too late
            origin.abort()
            return
        self._connecting = None
        self._send(origin)

    def _not_connected(self, failure: Failure) -> None:
        if self._connecting is None:  # cancelled
            return
        self._connecting = None
        self._fail(failure.value)

    def _send(self, origin: OriginConnection) -> None:
        self._origin = origin
        origin.begin(self, b"GET", self._octets, True, self._authenticator.timeouts)

    def _cancel(self, verdict: Deferred[Verdict]) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        self._abort()

    def _abort(self) -> None:
        origin, self._origin = self._origin, None
        if origin is not None:
            origin.abort()

    def _fail(self, error: object) -> None:
        self._abort()
        failure = AuthUnavailable(f"{self._authenticator.name} cannot be asked: {error}")
        if isinstance(error, BaseException):
            failure.__cause__ = error
        self._verdict.errback(failure)

    # From the connection

    def interim_received(self, response: ResponseHead) -> None:
        """What comes before the answer says nothing."""

    def response_received(self, response: ResponseHead, payload: bytes, ended: bool, trailers: Fields) -> None:
        self._response = response
        self.payload_received(payload, ended, trailers)

    def payload_received(self, payload: bytes, ended: bool, trailers: Fields) -> None:
        self._body += payload
        if ended:
            self._origin = None
            self._judge()
        elif len(self._body) > MAX_ANSWER:
            self._fail(f"its answer is longer than {MAX_ANSWER} octets")

    def _judge(self) -> None:
        assert self._response is not None
        if len(self._body) > MAX_ANSWER:
            self._fail(f"its answer is longer than {MAX_ANSWER} octets")
            return
        try:
            verdict = self._authenticator.verdict(self._response, bytes(self._body))
        except ExchangeError as error:
            self._verdict.errback(error)
        else:
            self._verdict.callback(verdict)

    def switched(self, response: ResponseHead, early: bytes) -> None:
        self._fail("it switched protocols without being asked to")

    def origin_failed(self, error: UpstreamError) -> None:
        origin, self._origin = self._origin, None
        if origin is not None and origin.went_stale:
            # It closed the connection while it was unused: it is asked once more, as in forward/exchange.
            self._connect()
        else:
            self._fail(error)

    def origin_full(self) -> None:
        """A head is small: there is nothing that could wait."""

    def origin_drained(self) -> None:
        """There is nothing that waits."""
