"""A proxy in memory: a client's transport, an origin server's, and everything between them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from zope.interface import implementer

from proxyd.errors import ExchangeError
from proxyd.forward.channel import Channel
from proxyd.forward.exchange import Exchange
from proxyd.forward.pool import Upstream
from proxyd.forward.record import Record
from proxyd.forward.site import ProxySite
from proxyd.http.head import RequestHead
from proxyd.interfaces import IHeadResource
from proxyd.rules.codec import rule_from_mapping
from proxyd.rules.outgoing import Outgoing
from tests.support.transports import BoundedTransport

TIMEOUTS = SimpleNamespace(header=10.0, body=60.0, connect=10.0, response=30.0, keep_alive=75.0)
LIMITS = SimpleNamespace(header=4096, uri=1024, body=0, connections=100)


@implementer(IHeadResource)
class _ToOrigin(Resource):
    """Sends every request to the one origin server."""

    def __init__(self, upstream: Upstream) -> None:
        Resource.__init__(self)
        self._upstream = upstream
        rule = rule_from_mapping({"name": "all", "pattern": "^/", "target": "http://origin.test"}, 0)
        self._outgoing = Outgoing(rule, {})

    def head_received(self, head: RequestHead, channel: Channel) -> None:
        octets = Outgoing.head(head, head.target.path, self._outgoing.fields(head, []))
        try:
            exchange = Exchange(channel, self._upstream, octets, TIMEOUTS)
            channel.serve(exchange)
            exchange.start()
        except ExchangeError as error:
            channel.send_error(error)


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects at once, to a transport in memory."""

    def __init__(self, clock: Clock) -> None:
        self.made: list[BoundedTransport] = []
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connection = protocolFactory.buildProtocol(None)
        transport = BoundedTransport(connection, self._clock)
        self.made.append(transport)
        connection.makeConnection(transport)
        return succeed(connection)


class MemoryProxy:
    """
    One client's connection, and the origin server's connections that are made for it.

    @ivar client: what the client writes to and reads from.
    @ivar origins: the same for the origin server, in the order in which they were made.
    @ivar records: of the exchanges that are over.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.records: list[Record] = []
        endpoint = _Endpoint(self.clock)
        self.origins = endpoint.made
        self.upstream = Upstream("origin.test:80", endpoint, self.clock)
        settings = SimpleNamespace(timeouts=TIMEOUTS, limits=LIMITS)
        root = _ToOrigin(self.upstream)
        self.site = ProxySite(root, settings, self.clock, self.records.append, lambda accepting: None)
        self.channel = self.site.buildProtocol(None)
        self.client = BoundedTransport(self.channel, self.clock)
        self.channel.makeConnection(self.client)
