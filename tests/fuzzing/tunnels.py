"""A conversation with a proxy, in memory: what any handshake makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.fuzzing.cutting import nothing_logged
from tests.support.transports import BoundedTransport


class Outcome(NamedTuple):
    """
    What has to be the same for all cuttings.

    @ivar sent: what the proxy got.
    @ivar established: whether there is a tunnel.
    @ivar rest: what the target got.
    """

    sent: bytes
    established: bool
    rest: bytes


@dataclass
class Conversation:
    """
    @ivar error: why there is no tunnel.
    """

    sent: bytes
    rest: bytes
    error: BaseException | None


class _Target(Protocol):
    """Keeps what it gets."""

    got = b""

    def dataReceived(self, data: bytes) -> None:
        self.got += data


@implementer(IStreamClientEndpoint)
class _ToProxy:
    """Connects at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connection = protocolFactory.buildProtocol(None)
        self.transport = BoundedTransport(connection, self._clock)
        connection.makeConnection(self.transport)
        return succeed(connection)


def converse(endpoint: Callable[[IStreamClientEndpoint], Any], segments: list[bytes]) -> Conversation:
    """
    Say all that the proxy says, then end the connection.

    @param endpoint: makes the endpoint through the proxy that it is given.
    """
    clock, results = Clock(), list[Any]()
    proxy = _ToProxy(clock)
    with nothing_logged():
        endpoint(proxy).connect(Factory.forProtocol(_Target)).addBoth(results.append)
        transport = proxy.transport
        sent = transport.take()
        for segment in segments:
            if not transport.is_connected or transport.is_aborted:
                break
            transport.deliver(segment)
            sent += transport.take()
            clock.advance(0)
        if transport.is_connected:
            transport.end()
        clock.advance(0)
    (result,) = results
    assert not transport.is_connected and not clock.getDelayedCalls()
    if isinstance(result, _Target):
        return Conversation(sent, result.got, None)
    assert transport.is_aborted or not segments or not transport.is_waiting
    return Conversation(sent, b"", result.value)
