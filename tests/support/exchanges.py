"""A proxy in memory: a client's transport, an origin server's, and everything between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from zope.interface import implementer

from proxyd.errors import ConnectFailed, ExchangeError
from proxyd.forward.channel import Channel
from proxyd.forward.exchange import Exchange
from proxyd.forward.pool import Upstream
from proxyd.forward.record import Record
from proxyd.forward.site import ProxySite
from proxyd.http.request import RequestHead
from proxyd.interfaces import IHeadResource
from proxyd.rules.codec import rule_from_mapping
from proxyd.rules.outgoing import Outgoing, outgoing_head
from tests.support.transports import HIGH, BoundedTransport

TIMEOUTS = SimpleNamespace(header=10.0, body=60.0, connect=10.0, response=30.0, keep_alive=75.0)
LIMITS = SimpleNamespace(header=4096, uri=1024, body=0, connections=100, per_client=0)


@implementer(IHeadResource)
class _ToOrigin(Resource):
    """Sends every request to the one origin server."""

    def __init__(self, proxy: MemoryProxy) -> None:
        Resource.__init__(self)
        self._proxy = proxy
        rule = rule_from_mapping({"name": "all", "pattern": "^/", "target": "http://origin.test"}, 0)
        self._outgoing = Outgoing(rule, {})
        self._terms = SimpleNamespace(timeouts=TIMEOUTS, html=None, trailers=self._outgoing.trailers)

    def head_received(self, head: RequestHead, channel: Channel) -> None:
        octets = outgoing_head(head, head.target.path, self._outgoing.fields(head, []))
        try:
            exchange = Exchange(channel, self._proxy.upstream, octets, self._terms)
            channel.serve(exchange)
            exchange.start()
        except ExchangeError as error:
            channel.send_error(error)


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """
    Connects at once or when told to, to a transport in memory.

    @ivar waiting: the attempts that are neither accepted nor refused.
    """

    def __init__(self, clock: Clock, waits: bool, high: int) -> None:
        self.made: list[BoundedTransport] = []
        self.waiting: list[tuple[Deferred[Any], IProtocolFactory]] = []
        self._clock = clock
        self._waits = waits
        self._high = high

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        if not self._waits:
            return succeed(self._connection(protocolFactory))
        connecting: Deferred[Any] = Deferred(lambda _: self.waiting.remove(attempt))
        attempt = connecting, protocolFactory
        self.waiting.append(attempt)
        return connecting

    def accept(self) -> None:
        """Who waits longest is connected."""
        connecting, factory = self.waiting.pop(0)
        connecting.callback(self._connection(factory))

    def refuse(self) -> None:
        """Who waits longest is not."""
        self.waiting.pop(0)[0].errback(ConnectFailed("refused"))

    def _connection(self, factory: IProtocolFactory) -> Any:
        connection = factory.buildProtocol(None)
        transport = BoundedTransport(connection, self._clock, self._high)
        self.made.append(transport)
        connection.makeConnection(transport)
        return connection


class MemoryProxy:
    """
    One client's connection, and the origin server's connections that are made for it.

    @ivar client: what the client writes to and reads from.
    @ivar origins: the same for the origin server, in the order in which they were made.
    """

    def __init__(self, *, waits: bool = False, limit: int = 0, high: int = HIGH) -> None:
        """
        @param waits: C{endpoint} accepts connections when it is told to.
        @param limit: the most connections to the origin server at once.
        @param high: see L{BoundedTransport}.
        """
        self.clock = Clock()
        self._records: list[Record] = []
        self.endpoint = _Endpoint(self.clock, waits, high)
        self.origins = self.endpoint.made
        self._limit = limit
        self._high = high
        self.change_rules()
        settings = SimpleNamespace(timeouts=TIMEOUTS, limits=LIMITS)
        self.site = ProxySite(_ToOrigin(self), settings, self.clock, self._records.extend, lambda accepting: None)
        self.client = self.connect()
        self.channel = self.client.protocol

    @property
    def records(self) -> list[Record]:
        """Of the exchanges that are over."""
        self.site.report()
        return self._records

    def change_rules(self) -> None:
        """Requests go by another rule from now on, and so by connections of its own."""
        self.upstream = Upstream("origin.test:80", self.endpoint, self.clock, self._limit)

    def connect(self) -> BoundedTransport:
        """Another client's connection."""
        channel = self.site.buildProtocol(None)
        transport = BoundedTransport(channel, self.clock, self._high)
        channel.makeConnection(transport)
        return transport
