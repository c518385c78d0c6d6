"""What all clients' connections have in common."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.web.resource import IResource
from zope.interface import implementer

from proxyd.errors import LimitExceeded
from proxyd.forward.channel import Channel
from proxyd.forward.record import Record
from proxyd.forward.roles import Settings
from proxyd.http.request import RequestHead
from proxyd.interfaces import IHeadResource
from proxyd.reactor import when_turn_ends
from proxyd.timer import Timers

if TYPE_CHECKING:
    from proxyd.forward.resources import Resources

MIN_SILENT = 16
"""Connections without a request that any address may have: browsers open some in advance."""


@implementer(IProtocolNegotiationFactory)
class ProxySite(Factory):
    """
    Makes a L{Channel} for each client, and counts them.

    @ivar root: the root of the Resource tree.
    @ivar respond: gives a request to it.
    @ivar timers: what the timers of connections share.
    @ivar now: the clock's time, seconds.
    @ivar settings: in force for the next request of every connection.
    @ivar draining: no request is to follow the present ones.
    @ivar channels: all connections that speak HTTP.
    @ivar accepts: whether there is room for a further connection.
    @ivar open: how many connections there are, whatever they speak.
    @ivar serving: how many requests and WebSockets each client address has in progress.
    @ivar silent: how many connections each address has that have not made a request yet, where that is limited.
    """

    noisy = False

    def __init__(
        self,
        root: IResource,
        settings: Settings,
        clock: IReactorTime,
        exchanges_ended: Callable[[list[Record]], None],
        accepting: Callable[[bool], None],
        trusts: Callable[[str], bool] = lambda address: False,
    ) -> None:
        """
        @param exchanges_ended: called at the end of a turn of the reactor with the records of the exchanges that
            ended within it: one by one they would cost a request 4 us more.
        @param accepting: called when new connections are to be accepted no more, or again.
        @param trusts: whether an address is that of a proxy, which has connections for many clients.
        """
        self.root = root
        self.settings = settings
        self._clock = clock
        self.timers = Timers(clock)
        self.now = self.timers.now
        self.draining = False
        self.channels: set[Channel] = set()
        self.serving: Counter[str] = Counter()
        self.silent: Counter[str] = Counter()
        self._trusts = trusts
        self.open = 0
        self._exchanges_ended = exchanges_ended
        self._ended: list[Record] = []
        self._accepting = accepting
        self.accepts = True
        self._waiting: deque[Channel] = deque()
        self._drained: Deferred[None] | None = None
        self.respond: Callable[[RequestHead, Channel], None] = (
            root.head_received if IHeadResource.providedBy(root) else self._serve_resource
        )

    @cached_property
    def resources(self) -> Resources:
        """What serves ordinary Resources."""
        # Twisted's own HTTP server takes a twentieth of the time until proxyd listens: who has such a request waits.
        from proxyd.forward.resources import Resources

        return Resources(self.root, self._clock)

    def _serve_resource(self, head: RequestHead, channel: Channel) -> None:
        self.resources.serve(self.root, head, channel)

    def acceptableProtocols(self) -> list[bytes]:
        # Without an answer to ALPN Twisted refuses the clients that offer it (curl, browsers).
        return [b"http/1.1"]

    def buildProtocol(self, addr: object) -> Channel:
        return Channel(self)

    def use(self, settings: Settings) -> None:
        """Take other settings for the next request of every connection."""
        self.settings = settings
        self._make_room()

    def connection_made(self, channel: Channel) -> bool:
        """
        Count a connection.

        @return: whether there is room for it; if not, it is resumed when another has ended.
        """
        self.open += 1
        self.channels.add(channel)
        # A port takes several connections in one go: what it took too much has to wait, too.
        limit = self.settings.limits.connections
        has_room = self.open <= limit
        if not has_room:
            self._waiting.append(channel)
        if self.open >= limit:
            self._update_accepting()
        return has_room

    def connection_ended(self) -> None:
        """A connection is lost, whatever it spoke last."""
        self.open -= 1
        if self._waiting or not self.accepts:
            self._make_room()
        if self._drained is not None and not self.open:
            self._drained.callback(None)
            self._drained = None

    def _make_room(self) -> None:
        """Let those in who wait, and accept others, as far as the limit allows."""
        while self._waiting and self.open - len(self._waiting) < self.settings.limits.connections:
            channel = self._waiting.popleft()
            if channel in self.channels:
                channel.admitted()
        self._update_accepting()

    def _update_accepting(self) -> None:
        accepts = self.open < self.settings.limits.connections
        if accepts is not self.accepts and not self.draining:
            self.accepts = accepts
            self._accepting(accepts)

    def greet(self, address: str, limit: int) -> bool:
        """
        Count a connection towards its address until it L{speaks}.

        @param limit: the most such connections that one address may have; L{MIN_SILENT} it may have in any case.

        @return: whether it may be one of them.
        """
        if self.silent[address] >= max(limit, MIN_SILENT) and not self._trusts(address):
            return False
        self.silent[address] += 1
        return True

    def speaks(self, address: str) -> None:
        """A connection that was L{greet}ed has made a request, or is lost."""
        left = self.silent[address] - 1
        if left:
            self.silent[address] = left
        else:
            del self.silent[address]

    def admit(self, record: Record, limit: int) -> None:
        """
        Count an exchange towards its client's address until it ends, once.

        @param limit: the most exchanges that one address may have at once.

        @raise LimitExceeded: it has as many.
        """
        if record.counted:
            return
        client = record.client
        if self.serving[client] >= limit:
            raise LimitExceeded(f"More than {limit} requests at once are not served.", 429)
        self.serving[client] += 1
        record.counted = True

    def exchange_ended(self, record: Record) -> None:
        """An exchange is over, and so is its record."""
        if record.counted:
            left = self.serving[record.client] - 1
            if left:
                self.serving[record.client] = left
            else:
                del self.serving[record.client]
        ended = self._ended
        if not ended:
            when_turn_ends(self._clock, self.report)
        ended.append(record)

    def report(self) -> None:
        """Tell of the exchanges that have ended within this turn, without waiting for its end."""
        ended, self._ended = self._ended, []
        if ended:
            self._exchanges_ended(ended)

    def drain(self, idle_s: float = 0.0) -> Deferred[None]:
        """
        Let every connection end after its present request.

        @param idle_s: seconds for which one without a request may still get its last one.

        @return: fires when all have ended.
        """
        self.draining = True
        self.close_when_idle(idle_s)
        if not self.open:
            return succeed(None)
        self._drained = Deferred()
        return self._drained

    def close_when_idle(self, idle_s: float = 0.0) -> None:
        """Close all connections without a request, in so many seconds, and the others after their present one."""
        for channel in list(self.channels):
            channel.close_when_idle(idle_s)

    def abort(self) -> None:
        """Cut off every connection that speaks HTTP."""
        for channel in list(self.channels):
            channel.abort()
