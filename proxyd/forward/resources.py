"""
Ordinary Twisted Resources on our channel.

A C{twisted.web.server.Request} is given the heads and bodies that our channel
has read, and its answer goes out over our channel.  It is told so through the
same few methods through which C{twisted.web} puts its Requests on HTTP/2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IConsumer, IProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request
from zope.interface import implementer

from proxyd.errors import ExchangeError, RequestError
from proxyd.forward.responder import Body
from proxyd.http.fields import tokens, values
from proxyd.http.head import RequestHead, is_bodiless
from proxyd.interfaces import IHeadResource

if TYPE_CHECKING:
    from proxyd.forward.channel import Channel

log = Logger()


def serve_resource(root: IResource, head: RequestHead, channel: Channel) -> None:
    """
    Find the Resource for a request below C{root}, and let it answer.

    One that provides L{IHeadResource} has the request at once; any other when
    the whole body is there, in memory or, if it is large, in a temporary file.
    """
    responder = _ResourceResponder(root, head, channel)
    try:
        responder.find()
    except Exception:
        # getChild is the code of whoever mounted it: it costs this request, not the connection.
        log.failure("finding the Resource for {path} failed", path=head.target.path)
        channel.send_error(ExchangeError("a getChild method failed"))
        return
    responder.start()


class _Found:
    """A site in which the Resource for a request has been found already."""

    def __init__(self, site: Any, resource: IResource, prepath: list[bytes], postpath: list[bytes]) -> None:
        self._site = site
        self._resource = resource
        self._paths = prepath, postpath

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)

    def getResourceFor(self, request: Request) -> IResource:
        request.prepath, request.postpath = self._paths
        return self._resource


@implementer(IConsumer)
class _ResourceResponder:
    """
    What a Request takes for its channel, and our channel for its responder.

    The camelCase half is called by C{twisted.web}.
    """

    def __init__(self, root: IResource, head: RequestHead, channel: Channel) -> None:
        self._root = root
        self._head = head
        self._channel = channel
        self._producer: Any = None
        self._pulls = False
        self.transport = self
        self.site: Any = channel.site.web_site
        self._request = request = Request(self)
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.parseCookies()

    def find(self) -> None:
        """Walk down the Resource tree."""
        request = self._request
        request.method = self._head.method
        request.uri = self._head.target.path + self._head.target.query
        request.path = self._head.target.path
        request.clientproto = b"HTTP/1.%d" % self._head.minor
        request.site = self.site
        request.prepath = []
        request.postpath = [unquote_to_bytes(segment) for segment in request.path[1:].split(b"/")]
        self._resource = getChildForRequest(self._root, request)
        self.site = _Found(self.site, self._resource, request.prepath, request.postpath)

    def start(self) -> None:
        """Let the Resource answer, now or when the body is there."""
        channel, head = self._channel, self._head
        if IHeadResource.providedBy(self._resource):
            self._resource.head_received(head, channel)
            return
        request = self._request
        request.gotLength(head.length if head.length is not None or head.chunked else 0)
        try:
            channel.serve(self, channel.settings.limits.body)
            if head.expects_continue:
                channel.send_interim(100, b"Continue", [])
            payload, ended = channel.read_body()
        except RequestError as error:
            channel.send_error(error)
            return
        self.body_received(payload, ended)

    # From our channel

    def body_received(self, payload: bytes, ended: bool) -> None:
        self._request.handleContentChunk(payload)
        if ended:
            self._request.requestReceived(self._head.method, self._request.uri, self._request.clientproto)

    def cancel(self) -> None:
        self._stop_producer()
        self._request.connectionLost(Failure(ConnectionLost()))

    def pause(self) -> None:
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        if self._producer is not None:
            self._producer.resumeProducing()

    # From the Request

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
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
        self._channel.respond(int(code), reason, fields, body, ended=False)

    def write(self, data: bytes) -> None:
        self._channel.send_body(data, False)

    def writeSequence(self, iovec: list[bytes]) -> None:
        self.write(b"".join(iovec))

    def requestDone(self, request: Request) -> None:
        self._channel.send_body(b"", True)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        self._pulls = not streaming
        if self._pulls:
            producer = _PullToPush(producer, self)
        self._producer = producer
        if self._pulls:
            self._producer.startStreaming()

    def unregisterProducer(self) -> None:
        producer, self._producer = self._producer, None
        if self._pulls and producer is not None:
            producer.stopStreaming()

    def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def loseConnection(self) -> None:
        self._channel.abort()

    abortConnection = loseConnection

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._channel.close_when_idle()
        self._channel.send_error(RequestError("The body of the request is malformed."))

    def getPeer(self) -> IAddress:
        peer: IAddress = self._channel.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self._channel.transport.getHost()
        return host

    def isSecure(self) -> bool:
        return self._channel.secure
