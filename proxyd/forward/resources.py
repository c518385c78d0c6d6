"""
Ordinary Twisted Resources on our channel.

A C{twisted.web.server.Request} is given the heads and bodies that our channel
has read, and its answer goes out over our channel.  It is told so through the
same few methods through which C{twisted.web} puts its Requests on HTTP/2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IConsumer, IProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request, Site
from zope.interface import implementer

from proxyd.errors import ExchangeError, RequestError
from proxyd.forward.roles import Body
from proxyd.http.fields import tokens, values
from proxyd.http.request import RequestHead
from proxyd.http.response import is_bodiless
from proxyd.interfaces import IHeadResource

if TYPE_CHECKING:
    from proxyd.forward.channel import Channel

log = Logger()


class Resources:
    """Has them answer."""

    def __init__(self, root: IResource, clock: IReactorTime) -> None:
        # What they take for their site.
        self._site = Site(root, reactor=clock)

    def serve(
        self,
        root: IResource,
        head: RequestHead,
        channel: Channel,
        otherwise: Callable[[RequestHead, Channel], None] | None = None,
    ) -> None:
        """
        Find the Resource for a request below C{root}, and let it answer.

        One that provides L{IHeadResource} has the request at once; any other when
        the whole body is there, in memory or, if it is large, in a temporary file.

        @param otherwise: takes the request if the way leads back to C{root} itself.
        """
        responder = _ResourceResponder(self._site, head, channel)
        try:
            found = responder.find(root)
            if found is root and otherwise is not None:
                otherwise(head, channel)
                return
            if IHeadResource.providedBy(found):
                found.head_received(head, channel)
                return
        except ExchangeError as error:
            channel.send_error(error)
            return
        except Exception:
            # It is the code of whoever mounted it: it costs this request, not the connection.
            log.failure("a Resource for {path} failed", path=head.target.path)
            channel.send_error(ExchangeError("a Resource failed to take the request"))
            return
        responder.start()


class _Found:
    """A site in which the Resource for one request has been found already."""

    def __init__(self, site: Any, resource: IResource, prepath: list[bytes], postpath: list[bytes]) -> None:
        self._site = site
        self._resource = resource
        self._paths = prepath, postpath

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    def getResourceFor(self, request: Request) -> IResource:
        request.prepath, request.postpath = self._paths
        request.site = self._site
        return self._resource


@implementer(IConsumer)
class _ResourceResponder:
    """
    What a Request takes for its channel, and our channel for its responder.

    The camelCase half is called by C{twisted.web}.
    """

    def __init__(self, site: Any, head: RequestHead, channel: Channel) -> None:
        self._head = head
        self._channel = channel
        self._producer: Any = None
        self._pulls = False
        self._is_full = False
        self._is_over = False
        self.site = site
        self.transport: Any = self
        self._request = Request(self)
        # A Resource that would take the connection over (WebSocketResource) finds that it cannot, as on HTTP/2.
        self.transport = None

    def find(self, root: IResource) -> IResource:
        """Walk down the Resource tree."""
        request, head = self._request, self._head
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()
        target = head.target
        request.method = head.method
        request.path = b"*" if target.form == "asterisk" else target.path
        request.uri = request.path + target.query
        # twisted.web tells 1.1 by this very string.
        request.clientproto = b"HTTP/1.%d" % min(head.minor, 1)
        # The body is not there yet: what it says of a form is in args only when the Resource is rendered.
        request.args = parse_qs(target.query[1:], keep_blank_values=True)
        request.content = BytesIO()
        request.site = self.site
        request.prepath, request.sitepath = [], []  # type: ignore[attr-defined]
        request.postpath = [unquote_to_bytes(segment) for segment in target.path[1:].split(b"/")]
        found: IResource = getChildForRequest(root, request)
        self.site = _Found(self.site, found, request.prepath, request.postpath)
        return found

    def start(self) -> None:
        """Read the body, then let the Resource answer."""
        channel, head = self._channel, self._head
        self._request.gotLength(None if head.chunked else head.length or 0)
        try:
            channel.serve(self, channel.settings.limits.body)
            if head.expects_continue:
                channel.send_interim(100, b"Continue", [])
            payload, ended = channel.read_body()
        except RequestError as error:
            self.cancel()
            channel.send_error(error)
            return
        self.body_received(payload, ended)

    # From our channel

    def body_received(self, payload: bytes, ended: bool) -> None:
        self._request.handleContentChunk(payload)
        if ended:
            self._request.requestReceived(self._head.method, self._request.uri, self._request.clientproto)

    def cancel(self) -> None:
        # From now on nothing that the Resource writes goes anywhere.
        self._is_over = True
        producer, self._producer = self._producer, None
        if producer is not None:
            # Somebody else's code: whatever it does, the channel goes on to its end.
            with log.failuresHandled("a producer could not be stopped"):
                producer.stopProducing()
        self._request.connectionLost(Failure(ConnectionLost()))

    # What pulls counts how often it is paused, so that it is told of each change once.

    def pause(self) -> None:
        if not self._is_full:
            self._is_full = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def resume(self) -> None:
        if self._is_full:
            self._is_full = False
            if self._producer is not None:
                self._producer.resumeProducing()

    # From the Request

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        if self._is_over:
            return
        fields = [(name, value) for name, lines in headers.getAllRawHeaders() for value in lines]
        if b"close" in tokens(values(fields, b"connection")):
            self._channel.close_when_idle()
        fields = [field for field in fields if field[0].lower() not in (b"connection", b"keep-alive")]
        if is_bodiless(int(code), self._head.method):
            body = Body.NONE
        elif headers.hasHeader(b"Transfer-Encoding") or headers.hasHeader(b"Content-Length"):
            body = Body.FRAMED
        else:
            body = Body.STREAM
        self._channel.respond(int(code), reason, fields, body, ended=False, dated=headers.hasHeader(b"Date"))

    def write(self, data: bytes) -> None:
        if not self._is_over:
            self._channel.send_body(data, False)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def requestDone(self, request: Request) -> None:
        if not self._is_over:
            self._is_over = True
            self._channel.send_body(b"", True)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._pulls = not streaming
        if self._pulls:
            producer = _PullToPush(producer, self)
            producer.startStreaming()
        self._producer = producer
        if self._is_full:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        producer, self._producer = self._producer, None
        if self._pulls and producer is not None:
            producer.stopStreaming()

    def loseConnection(self) -> None:
        # After what was written, as a socket does; the answer is as whole as the Resource has made it.
        self._channel.close_when_idle()
        self._channel.close()

    def abortConnection(self) -> None:
        self._channel.abort()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.cancel()
        self._channel.close_when_idle()
        self._channel.send_error(RequestError("The body of the request is malformed."))

    def getPeer(self) -> IAddress:
        peer: IAddress = self._channel.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self._channel.transport.getHost()
        return host

    def getPeerCertificate(self) -> Any:
        """The client's certificate, where the transport is TLS."""
        return self._channel.transport.getPeerCertificate()

    def isSecure(self) -> bool:
        return self._channel.secure
