"""What is told of a transport, whatever wraps it."""

from __future__ import annotations

import socket

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from proxyd.transports import cut_off, innermost, may_keep, unsent


def wrapped(transport: object, layers: int) -> object:
    """A transport inside wrappers."""
    for _ in range(layers):
        wrapper = ProtocolWrapper(WrappingFactory(None), None)
        wrapper.transport = transport
        transport = wrapper
    return transport


def test_innermost() -> None:
    """Below all wrappers."""
    transport = StringTransport()
    for layers in range(3):
        assert innermost(wrapped(transport, layers)) is transport


def test_cut_off() -> None:
    """What is below all wrappers is aborted; they hear of it as of any loss, with no chance to say good-bye."""
    transport = StringTransport()
    cut_off(wrapped(transport, 2))
    assert transport.disconnected
    assert transport.value() == b""


def test_a_transport_that_does_not_tell() -> None:
    """What is no socket holds nothing back, as far as one knows."""
    transport = StringTransport()
    transport.write(b"x" * 100)
    assert unsent(wrapped(transport, 1)) == 0


def test_what_may_keep_octets() -> None:
    """A socket does while they wait in its own buffer; of anything else one does not know."""
    assert may_keep(wrapped(StringTransport(), 1))
    listening = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listening.getsockname())
    ours, address = listening.accept()
    transport = Server(ours, Protocol(), address, None, 0, _Reactor())
    assert not may_keep(transport)
    transport.write(b"x")
    assert may_keep(transport)
    transport.doWrite()
    assert not may_keep(transport)
    for one in (listening, theirs, ours):
        one.close()


class _Reactor(Clock):
    """Lets a socket be used without a loop."""

    def addReader(self, reader: object) -> None:
        """Nothing reads."""

    addWriter = removeReader = removeWriter = addReader


def test_octets_in_the_kernel_and_in_our_own_buffer() -> None:
    """All that the other end has not read is counted, and the number falls while it reads."""
    listening = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listening.getsockname())
    ours, address = listening.accept()
    ours.setblocking(False)
    transport = Server(ours, Protocol(), address, None, 1, _Reactor())  # type: ignore[arg-type]
    assert unsent(transport) == 0
    transport.write(b"x" * 10_000_000)
    transport.doWrite()
    before = unsent(wrapped(transport, 2))
    assert before > len(transport.dataBuffer) - transport.offset
    while unsent(transport) >= before - 1_000_000:
        theirs.recv(1_000_000)
        transport.doWrite()
    for one in (theirs, ours, listening):
        one.close()
