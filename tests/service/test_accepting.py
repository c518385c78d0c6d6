"""L{proxyd.service.accepting}: a port without descriptors."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.tcp import Port

from proxyd.service.accepting import PAUSE_S, patient


class Listening:
    """A socket, and what happens when somebody is to be accepted."""

    def __init__(self) -> None:
        self.outcome: Any = None

    def accept(self) -> Any:
        if isinstance(self.outcome, int):
            raise OSError(self.outcome, os.strerror(self.outcome))
        return self.outcome

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 80


class Listener(Port):
    """A port that is not there, and whether it reads."""

    def __init__(self) -> None:
        self.socket = Listening()
        self.connected = True
        self.disconnecting = False
        self.reads = True

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 80)

    def startReading(self) -> None:
        self.reads = True

    def stopReading(self) -> None:
        self.reads = False


@pytest.fixture
def port() -> Listener:
    return Listener()


def test_everyday(port: Listener) -> None:
    """What is not about descriptors is the socket's own."""
    listening = port.socket
    assert patient(port, Clock(), lambda: True) is port
    assert port.socket.getsockname() == ("127.0.0.1", 80)
    listening.outcome = ("connection", "address")
    assert port.socket.accept() == ("connection", "address")
    listening.outcome = errno.EAGAIN
    with pytest.raises(BlockingIOError):
        port.socket.accept()
    listening.outcome = errno.ECONNABORTED
    with pytest.raises(ConnectionAbortedError):
        port.socket.accept()
    assert port.reads


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("why_not", [None, "full", "closing", "closed"])
def test_exhausted(port: Listener, number: int, why_not: str | None) -> None:
    """The port does not read for a while; then it does, unless somebody else has a reason against it."""
    clock, listening = Clock(), port.socket
    patient(port, clock, lambda: why_not != "full")
    listening.outcome = number
    with pytest.raises(BlockingIOError):
        port.socket.accept()
    assert not port.reads
    port.disconnecting = why_not == "closing"
    port.connected = why_not != "closed"
    clock.advance(PAUSE_S)
    assert port.reads is (why_not is None)


def test_other_ports() -> None:
    """What is no port of Twisted's own is left as it is."""
    one: Any = socket
    assert patient(one, Clock(), lambda: True) is one


def test_shut_down_by_another_process(port: Listener) -> None:
    """The end of a socket that several processes share is no error."""
    listening = port.socket
    patient(port, Clock(), lambda: True)
    listening.outcome = errno.EINVAL
    with pytest.raises(BlockingIOError):
        port.socket.accept()
    assert not port.reads
    with socket.create_server(("127.0.0.1", 0)) as shared, shared.dup() as ours:
        shared.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError, match="Invalid argument"):
            ours.accept()
