"""A proxy auto-config script from its URL."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

FETCH_S = 10.0
"""Seconds to read a URL."""

MAX_SCRIPT: Final = 1024 * 1024
"""Octets of a script."""


class _Body(protocol.Protocol):
    """The body of an answer, up to a size."""

    transport: Any

    def __init__(self) -> None:
        self._octets = b""
        self.read: Deferred[bytes] = Deferred(lambda _: self.transport.loseConnection())

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > MAX_SCRIPT and not self.read.called:
            self.read.errback(ValueError(f"it is longer than {MAX_SCRIPT} octets"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        if self.read.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.read.callback(self._octets)
        else:
            self.read.errback(reason)


def fetch(reactor: Any, url: str) -> Deferred[bytes]:
    """
    Read a script.

    @return: fails with whatever goes wrong, in words that say what.
    """
    # Slow to import, and for few only.
    from twisted.web.client import Agent

    def body(response: Any) -> Deferred[bytes]:
        reader = _Body()
        if response.code != 200:
            response.deliverBody(reader)
            reader.read.addErrback(lambda _: None)
            reader.transport.loseConnection()
            raise ValueError(f"the server said {response.code}")
        response.deliverBody(reader)
        return reader.read

    asking: Deferred[Any] = Agent(reactor).request(b"GET", url.encode("ascii"))
    return asking.addCallback(body).addTimeout(FETCH_S, reactor)
