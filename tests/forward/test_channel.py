"""L{proxyd.forward.channel}: a client's connection, without a reactor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import Request

from proxyd.forward.site import ProxySite
from proxyd.service.settings import Limits, Timeouts
from tests.support.transports import BoundedTransport

SIZE = 1 << 20


class Large(Resource):
    """More than a client takes at once."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"x" * SIZE


@pytest.mark.parametrize("takes", [1.0, 5.0])
def test_slow_client_of_a_process_that_is_replaced(takes: float) -> None:
    """Who is still taking an answer is not cut off before C{timeouts.body}, and not kept for long afterwards."""
    clock = Clock()
    settings = SimpleNamespace(timeouts=Timeouts(), limits=Limits())
    site = ProxySite(Large(), settings, clock, lambda record: None, lambda accepting: None)
    channel = site.buildProtocol(None)
    transport = BoundedTransport(channel, clock)
    channel.makeConnection(transport)  # type: ignore[arg-type]
    transport.deliver(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    site.drain(2.0)
    clock.advance(takes)
    assert not transport.is_aborted
    assert len(transport.take()) > SIZE
    for _ in range(3):
        clock.advance(1)
    assert not transport.is_connected
    assert not transport.is_aborted
