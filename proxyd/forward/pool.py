"""
The connections to one origin server by one way.

An L{Upstream} is made for each (origin, way to it, TLS settings) and its
connections are never used for another.  At most C{limit} connections are open
at once; over it, requests wait for one in the order in which they came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from proxyd.errors import OverCapacity
from proxyd.forward.origin import OriginConnection
from proxyd.timer import Timers
from proxyd.transports import give_to

IDLE_S = 60.0
"""Seconds for which an unused connection is kept.  nginx's C{keepalive_timeout} of an upstream is 60."""


_Result = TypeVar("_Result")


class Upstream:
    """
    One origin server, the way to it, and our connections there.

    @ivar name: its authority, for logs.
    @ivar limit: the most connections at once; 0 is no limit.
    @ivar response_head_size: the most octets of an answer's head, interim ones included.
    @ivar open: how many connections count towards the limit, those being made included.
    """

    __slots__ = (
        "_clock",
        "_endpoint",
        "_idle",
        "_report",
        "_retired",
        "_timers",
        "_waiting",
        "limit",
        "name",
        "open",
        "response_head_size",
    )

    def __init__(
        self,
        name: str,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        limit: int = 0,
        response_head_size: int = 65536,
        report: Callable[[bool], None] = lambda succeeded: None,
    ) -> None:
        """
        @param report: told of each attempt to connect whether it succeeded.
        @param endpoint: reports failures as L{proxyd.errors.UpstreamError}, and within C{connect}'s time.
        """
        self.name = name
        self.open = 0
        self.response_head_size = response_head_size
        self._endpoint = endpoint
        self._clock = clock
        self._timers = Timers(clock)
        self._report = report
        self.limit = limit
        self._idle: list[OriginConnection] = []
        self._retired = False
        self._waiting: deque[Deferred[OriginConnection | None]] = deque()

    @property
    def idle(self) -> int:
        """How many connections are open and unused."""
        return len(self._idle)

    def take(self) -> OriginConnection | None:
        """
        @return: the connection that was used last, which is the least likely to have been closed by the origin.
        """
        return self._idle.pop() if self._idle else None

    def connect(self, patience: float) -> Deferred[OriginConnection]:
        """
        A new connection, or the next one that is given back when there are too many.

        Cancelling the Deferred aborts the attempt.

        @param patience: seconds to wait for room; 0 is for ever.
        """
        if not self.limit or self.open < self.limit:
            return self._connect()
        waiting: Deferred[OriginConnection | None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if patience:
            timeout = self._clock.callLater(patience, self._give_up, waiting, patience)

            def stop_clock(result: _Result) -> _Result:
                if timeout.active():
                    timeout.cancel()
                return result

            waiting.addBoth(stop_clock)
        return waiting.addCallback(lambda connection: self._connect() if connection is None else connection)

    def _give_up(self, waiting: Deferred[OriginConnection | None], patience: float) -> None:
        self._waiting.remove(waiting)
        waiting.errback(OverCapacity(f"no connection to {self.name} became free in {patience:g} s"))

    def connect_apart(self) -> Deferred[OriginConnection]:
        """A new connection that does not count towards the limit and never returns: for WebSockets."""
        return self._attempt(False)

    def _connect(self) -> Deferred[OriginConnection]:
        self.open += 1
        return self._attempt(True).addErrback(self._not_connected)

    def _attempt(self, counted: bool) -> Deferred[OriginConnection]:
        connecting: Deferred[Any] = self._endpoint.connect(_Factory(self, self._timers, counted))
        return connecting.addBoth(self._reported)

    def _reported(self, result: _Result) -> _Result:
        if isinstance(result, OriginConnection):
            # Every endpoint has left something between the two that is of no use any more.
            give_to(result.transport, result)
        self._report(not isinstance(result, Failure))
        return result

    def _not_connected(self, failure: Failure) -> Failure:
        self.lost_one()
        return failure

    def give_back(self, connection: OriginConnection) -> None:
        """A connection has done its exchange and is good for another."""
        if self._waiting:
            self._waiting.popleft().callback(connection)
        elif self._retired:
            connection.close()
        else:
            self._idle.append(connection)
            connection.wait_unused(IDLE_S)

    def forget(self, connection: OriginConnection) -> None:
        """An unused connection was closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def lost_one(self) -> None:
        """A connection that counted has ended: there is room for who waits longest."""
        self.open -= 1
        if self._waiting and self.open < self.limit:
            self._waiting.popleft().callback(None)

    def retire(self) -> None:
        """Keep no connection after its exchange, and none that is unused."""
        self._retired = True
        # Forgotten at once: over TLS a connection takes a while to end, and who began before may still ask for one.
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class _Factory(Factory):
    """Makes one connection."""

    noisy = False

    def __init__(self, upstream: Upstream, timers: Timers, counted: bool) -> None:
        self._arguments = (upstream, timers, counted)

    def buildProtocol(self, addr: object) -> OriginConnection:
        return OriginConnection(*self._arguments)
