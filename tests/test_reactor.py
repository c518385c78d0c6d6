"""The reactor whose sockets send once a turn, with real sockets: one reactor for each test, turned by hand or run."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    UserError,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IReactorCore,
    IReactorFDSet,
    IReactorUNIX,
    IResolverSimple,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from proxyd import polling, splicing
from proxyd.reactor import PromptReactor, when_turn_ends
from proxyd.splicing import MOST, WORTH, ISplicing, can_splice, is_allowed
from proxyd.transports import unsent
from tests.support.certificates import Authority

TURNS = 2000
"""Turns of the reactor within which what a test waits for must have come; most take no time."""

MEBIBYTE = 1024 * 1024


@implementer(IHalfCloseableProtocol)
class Recorder(Protocol):
    """Keeps what happens; it is its own factory's last protocol."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None
        self.read_lost = self.write_lost = False
        self.on_data: Callable[[bytes], None] = lambda data: None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.on_data(data)

    def readConnectionLost(self) -> None:
        self.read_lost = True

    def writeConnectionLost(self) -> None:
        self.write_lost = True

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason


class Recorders(Factory):
    """Makes a L{Recorder} for each connection."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Recorder] = []

    def buildProtocol(self, addr: object) -> Recorder:
        self.made.append(Recorder())
        return self.made[-1]

    # Of a client's factory

    def startedConnecting(self, connector: object) -> None:
        """It begins."""

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        """It has ended."""

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """It never was."""
        raise reason.value


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """What was logged as a failure; a test that expects some takes them out."""
    found: list[Any] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] is LogLevel.critical:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)
    assert found == []


@pytest.fixture
def reactor(failures: list[Any]) -> Iterator[PromptReactor]:
    """A reactor of our own, beside that of the process: it is turned by hand, and nothing fails unseen."""
    one = PromptReactor()
    yield one
    one.disconnectAll()
    one._poller.close()
    one.pipe.close()
    one.waker.connectionLost(Failure(RuntimeError("the test is over")))


def turn_until(reactor: PromptReactor, done: Callable[[], object]) -> None:
    """Turn the reactor until something is so."""
    for _ in range(TURNS):
        if done():
            return
        reactor.iterate(0.01)
    raise AssertionError("it did not come")


class Pair:
    """A connection: Twisted's side of it, and a plain socket as the other."""

    def __init__(self, protocol: Recorder, other: socket.socket) -> None:
        self.protocol = protocol
        self.other = other
        other.settimeout(10)

    @property
    def transport(self) -> Any:
        """Twisted's side."""
        return self.protocol.transport

    def close(self, reactor: PromptReactor) -> None:
        """End both sides, in whatever state they are."""
        self.other.close()
        if not self.protocol.lost:
            self.transport.abortConnection()
            turn_until(reactor, lambda: self.protocol.lost)


def accepted(reactor: PromptReactor, listening: Any, other: socket.socket) -> Pair:
    """Connect a plain socket to a port, and wait for the protocol that this makes."""
    factory = listening.factory
    count = len(factory.made)
    address = listening.getHost()
    other.settimeout(10)
    other.connect(address.name if hasattr(address, "name") else (address.host, address.port))
    turn_until(reactor, lambda: len(factory.made) > count and factory.made[-1].transport)
    return Pair(factory.made[-1], other)


def _tcp_server(reactor: PromptReactor, folder: Path) -> Pair:
    listening = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    return accepted(reactor, listening, socket.socket())


def _unix_server(reactor: PromptReactor, folder: Path) -> Pair:
    listening = reactor.listenUNIX(str(folder / "s"), Recorders())
    return accepted(reactor, listening, socket.socket(socket.AF_UNIX))


def _adopted(reactor: PromptReactor, folder: Path) -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, Recorders())
    return accepted(reactor, port, socket.socket())


def _adopted_unix(reactor: PromptReactor, folder: Path) -> Pair:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        listening.listen()
        listening.setblocking(False)
        port = reactor.adoptStreamPort(listening.fileno(), socket.AF_UNIX, Recorders())
    return accepted(reactor, port, socket.socket(socket.AF_UNIX))


def connected(reactor: PromptReactor, listening: socket.socket, connect: Callable[[Recorders], object]) -> Pair:
    """Let the reactor connect to a plain socket."""
    factory = Recorders()
    with listening:
        listening.settimeout(10)
        connect(factory)
        turn_until(reactor, lambda: factory.made and factory.made[0].transport)
        return Pair(factory.made[0], listening.accept()[0])


def _tcp_client(reactor: PromptReactor, folder: Path) -> Pair:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    return connected(reactor, listening, lambda factory: reactor.connectTCP("127.0.0.1", port, factory))


def _unix_client(reactor: PromptReactor, folder: Path) -> Pair:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "s"))
    listening.listen()
    return connected(reactor, listening, lambda factory: reactor.connectUNIX(str(folder / "s"), factory))


KINDS = {
    "tcp server": _tcp_server,
    "tcp client": _tcp_client,
    "unix server": _unix_server,
    "unix client": _unix_client,
    "adopted": _adopted,
    "adopted unix": _adopted_unix,
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def pair(request: pytest.FixtureRequest, reactor: PromptReactor, tmp_path: Path) -> Iterator[Pair]:
    """A connection of each kind that there is."""
    one = request.param(reactor, tmp_path)
    yield one
    one.close(reactor)


@pytest.fixture
def tcp(reactor: PromptReactor, tmp_path: Path) -> Iterator[Pair]:
    """One kind, for what is the same for all."""
    one = _tcp_server(reactor, tmp_path)
    yield one
    one.close(reactor)


def is_readable(other: socket.socket) -> bool:
    """Whether something is there to be read now."""
    return bool(select.select([other], [], [], 0)[0])


def read(reactor: PromptReactor, other: socket.socket, size: int) -> bytes:
    """Read so many octets while the reactor turns."""
    data = bytearray()
    other.setblocking(False)

    def more() -> bool:
        while len(data) < size and is_readable(other):
            octets = other.recv(MEBIBYTE)
            assert octets, f"it ended after {len(data)} octets"
            data.extend(octets)
        return len(data) >= size

    turn_until(reactor, more)
    other.settimeout(10)
    return bytes(data)


def test_when_a_turn_ends(reactor: PromptReactor, tcp: Pair) -> None:
    """What is to be done then is done when all has been sent, and what it writes is sent, too; others call it later."""
    called: list[object] = []

    def call() -> None:
        called.append(is_readable(tcp.other))
        tcp.transport.write(b" after")

    when_turn_ends(reactor, call)
    tcp.transport.write(b"before")
    assert called == []
    reactor.iterate(0)
    assert called == [True]
    assert tcp.other.recv(100) == b"before after"
    clock = Clock()
    when_turn_ends(clock, lambda: called.append("later"))
    clock.advance(0)
    assert called == [True, "later"]


def test_interfaces(reactor: PromptReactor) -> None:
    """It is a whole reactor."""
    for interface in (IReactorCore, IReactorFDSet, IReactorUNIX):
        verifyObject(interface, reactor)


def test_time(reactor: PromptReactor) -> None:
    """Its time is not the wall clock's, which may be set: calls come when so much time has passed."""
    called: list[str] = []
    before = time.monotonic()
    reactor.callLater(0.01, called.append, "later")
    assert before <= reactor.seconds() <= time.monotonic()
    turn_until(reactor, lambda: called == ["later"])
    assert time.monotonic() - before >= 0.01


def test_sent_when_the_turn_is_over(reactor: PromptReactor, pair: Pair) -> None:
    """What is written within a turn goes out together at its end: it waits for no poll."""
    pair.transport.write(b"one ")
    pair.transport.write(b"")
    pair.transport.writeSequence([b"two", b" ", b"three"])
    assert not is_readable(pair.other)
    assert unsent(pair.transport) == 13
    reactor.iterate(0)
    assert pair.other.recv(100) == b"one two three"


def test_sent_with_the_turn_of_an_event(reactor: PromptReactor, pair: Pair) -> None:
    """An answer goes out within the turn in which the question came."""
    pair.protocol.on_data = pair.transport.write
    pair.other.sendall(b"hello")
    turn_until(reactor, lambda: pair.protocol.received)
    assert pair.other.recv(100) == b"hello"


def test_much_within_one_turn(reactor: PromptReactor, pair: Pair) -> None:
    """Who writes more and more hears that the socket is full, whatever becomes of the turn."""
    calls: list[str] = []
    pair.transport.registerProducer(Calls(calls), True)
    octets = 0
    while not calls:
        pair.transport.write(b"x" * 1000)
        octets += 1000
        assert octets < 64 * MEBIBYTE
    assert read(reactor, pair.other, octets) == b"x" * octets
    turn_until(reactor, lambda: calls == ["pause", "resume"])
    pair.transport.unregisterProducer()


def test_lost_before_the_turn_is_over(reactor: PromptReactor, pair: Pair) -> None:
    """What was written before the other side's end was heard of is sent."""
    pair.protocol.on_data = pair.transport.write
    pair.other.sendall(b"question")
    pair.other.shutdown(socket.SHUT_WR)
    turn_until(reactor, lambda: pair.protocol.lost or pair.protocol.read_lost)
    assert pair.other.recv(100) == b"question"


def test_received(reactor: PromptReactor, pair: Pair) -> None:
    """What the other side sends is received."""
    pair.other.sendall(b"hello")
    turn_until(reactor, lambda: pair.protocol.received == b"hello")


def test_order(reactor: PromptReactor, pair: Pair) -> None:
    """What does not fit waits its turn, and what is written after it does not overtake it."""
    pieces = [struct.pack(">I", number) * (1 + number % 7 * 5000) for number in range(600)]
    received = b""
    for number, piece in enumerate(pieces[:-1]):
        pair.transport.write(piece)
        if number in (200, 400):
            # There is room again, and what waits for it has not had its turn.
            received += pair.other.recv(50_000)
    pair.transport.writeSequence([pieces[-1][:2], pieces[-1][2:]])
    expected = b"".join(pieces)
    received += read(reactor, pair.other, len(expected) - len(received))
    assert received == expected
    pair.transport.write(b"and again")
    assert read(reactor, pair.other, 9) == b"and again"


class Calls:
    """A producer that keeps what it is told to do."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def pauseProducing(self) -> None:
        self._calls.append("pause")

    def resumeProducing(self) -> None:
        self._calls.append("resume")

    def stopProducing(self) -> None:
        self._calls.append("stop")


def test_slow_reader(reactor: PromptReactor, tcp: Pair) -> None:
    """One write that is sent in parts: the producer is paused for as long, and nothing is lost."""
    calls: list[str] = []
    tcp.transport.registerProducer(Calls(calls), True)
    tcp.transport.write(b"a few octets pause nobody")
    assert calls == []
    data = os.urandom(16 * MEBIBYTE)
    tcp.transport.write(data)
    assert calls == ["pause"]
    assert read(reactor, tcp.other, len(data) + 25)[25:] == data
    turn_until(reactor, lambda: calls == ["pause", "resume"])
    tcp.transport.unregisterProducer()


def test_error_in_send(reactor: PromptReactor, tcp: Pair) -> None:
    """An error in send does not come out of write: the loss is reported from the reactor's loop."""
    tcp.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.other.close()
    # The reset is there at once on one machine; each write but the first would raise EPIPE.
    for _ in range(3):
        tcp.transport.write(b"x")
        tcp.transport.send()
    assert tcp.protocol.lost is None
    turn_until(reactor, lambda: tcp.protocol.lost)
    # No end in good order, though the kernel has told of the reset to who wrote, and now does to nobody.
    assert isinstance(tcp.protocol.lost, Failure) and tcp.protocol.lost.check(ConnectionLost)
    assert not tcp.protocol.read_lost


@pytest.mark.parametrize("end", ["abortConnection", "loseConnection"])
@pytest.mark.parametrize("late", [b"", b"x"])
def test_write_after_the_end(reactor: PromptReactor, pair: Pair, end: str, late: bytes) -> None:
    """What is written to a lost connection goes nowhere, quietly."""
    pair.transport.write(b"answer")
    assert read(reactor, pair.other, 6) == b"answer"
    pair.other.close()
    turn_until(reactor, lambda: pair.protocol.read_lost or pair.protocol.lost)
    getattr(pair.transport, end)()
    pair.transport.write(late)
    pair.transport.writeSequence([late])
    turn_until(reactor, lambda: pair.protocol.lost)
    pair.transport.write(b"z")
    later: list[str] = []
    when_turn_ends(reactor, lambda: later.append("z"))
    turn_until(reactor, lambda: later)


def test_closing_with_octets_to_send(reactor: PromptReactor, pair: Pair) -> None:
    """loseConnection waits for what was written before it."""
    data = b"x" * 4 * MEBIBYTE
    pair.transport.write(data)
    pair.transport.loseConnection()
    assert read(reactor, pair.other, len(data)) == data
    turn_until(reactor, lambda: pair.protocol.lost)
    assert pair.other.recv(1) == b""


def test_closing_with_nothing_to_send(reactor: PromptReactor, pair: Pair) -> None:
    """The end comes at once, but not within the call; more than one of them is one."""
    pair.transport.loseConnection()
    pair.transport.loseConnection()
    assert pair.protocol.lost is None
    turn_until(reactor, lambda: pair.protocol.lost)
    assert isinstance(pair.protocol.lost, Failure) and pair.protocol.lost.check(ConnectionDone)
    assert pair.other.recv(1) == b""


def test_written_after_closing(reactor: PromptReactor, pair: Pair) -> None:
    """What is written before the end comes is sent, however much it is."""
    data = b"x" * 4 * MEBIBYTE
    pair.transport.loseConnection()
    pair.transport.write(data)
    assert read(reactor, pair.other, len(data)) == data
    turn_until(reactor, lambda: pair.protocol.lost)
    assert pair.other.recv(1) == b""


def _segments_received(one: socket.socket) -> int:
    """C{tcpi_segs_in} of the kernel's struct tcp_info."""
    return int(struct.unpack_from("I", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 140)[0])


def test_last_octets_and_end_in_one_segment(reactor: PromptReactor, tcp: Pair) -> None:
    """What many short connections have most of."""
    before = _segments_received(tcp.other)
    tcp.transport.write(b"x")
    tcp.transport.loseConnection()
    turn_until(reactor, lambda: tcp.protocol.lost)
    assert tcp.other.recv(2) == b"x"
    assert tcp.other.recv(1) == b""
    assert _segments_received(tcp.other) == before + 1


def test_last_octets_before_octets_that_nobody_reads(reactor: PromptReactor, tcp: Pair) -> None:
    """What has come and is not read makes a reset of the end, which must not take with it what was written."""
    tcp.transport.pauseProducing()
    tcp.other.sendall(b"more than was asked for")
    assert select.select([tcp.transport.socket], [], [], 10)[0]
    tcp.transport.write(b"the answer")
    tcp.transport.loseConnection()
    turn_until(reactor, lambda: tcp.protocol.lost)
    assert tcp.other.recv(100) == b"the answer"


def test_reset_that_cannot_be_read_yet(reactor: PromptReactor, tcp: Pair) -> None:
    """Linux tells of it so when it is asked just as the reset comes: it is no end in good order."""
    tcp.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.other.close()
    reactor._doReadOrWrite(tcp.transport, tcp.transport.fileno(), select.EPOLLERR | select.EPOLLHUP)
    assert isinstance(tcp.protocol.lost, Failure) and tcp.protocol.lost.check(ConnectionLost)


def test_closed_before_its_turn(reactor: PromptReactor, tmp_path: Path) -> None:
    """Who is closed is told of nothing any more, though it has come already."""
    listening: Any = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    one, other = (accepted(reactor, listening, socket.socket()) for _ in range(2))
    one.protocol.on_data = lambda data: other.transport.loseConnection()
    other.protocol.on_data = lambda data: one.transport.loseConnection()
    for pair in (one, other):
        pair.other.sendall(b"x")
    turn_until(reactor, lambda: one.protocol.lost or other.protocol.lost)
    assert sorted((one.protocol.received, other.protocol.received)) == [b"", b"x"]
    for pair in (one, other):
        pair.close(reactor)


def made(reactor: PromptReactor, folder: Path, count: int) -> list[Pair]:
    """Connections that the reactor makes, of both kinds in turn."""
    pairs = []
    for number in range(count):
        within = folder / str(number)
        within.mkdir()
        pairs.append((_tcp_client, _unix_client)[number % 2](reactor, within))
    return pairs


def looked_at(reactor: PromptReactor, pairs: list[Pair]) -> list[Pair]:
    """Turn the reactor once: whose octets have been received, in this order."""
    order: list[Pair] = []
    for pair in pairs:
        pair.protocol.on_data = lambda data, pair=pair: order.append(pair)  # type: ignore[misc]
    reactor.iterate(0)
    return order


def test_what_was_begun_goes_first(reactor: PromptReactor, tmp_path: Path) -> None:
    """An answer is passed on before requests are taken that came before it, and not all of those at once."""
    answers = made(reactor, tmp_path, 2)
    listening: Any = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    requests = [accepted(reactor, listening, socket.socket()) for _ in range(2 * polling.MOST)]
    for pair in (*requests, *answers):
        pair.other.sendall(b"x")

    order = looked_at(reactor, requests + answers)
    assert set(order[:2]) == set(answers)
    assert 0 < len(order) - 2 <= polling.MOST < len(requests)
    answers[0].other.sendall(b"y")
    assert looked_at(reactor, requests + answers)[0] is answers[0]

    turn_until(reactor, lambda: all(pair.protocol.received for pair in requests))
    for pair in (*requests, *answers):
        pair.close(reactor)


def test_neither_waits_for_the_other(reactor: PromptReactor, tmp_path: Path) -> None:
    """However much comes from origins, with each turn requests are taken, too."""
    answers = made(reactor, tmp_path, polling.MOST_MADE + 10)
    listening: Any = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    requests = [accepted(reactor, listening, socket.socket()) for _ in range(3)]
    for pair in (*requests, *answers):
        pair.other.sendall(b"x")

    order = looked_at(reactor, requests + answers)
    assert len(order) == polling.MOST_MADE + len(requests)
    assert set(order[polling.MOST_MADE:]) == set(requests)

    turn_until(reactor, lambda: all(pair.protocol.received for pair in answers))
    for pair in (*requests, *answers):
        pair.close(reactor)


@pytest.mark.parametrize("end", ["close", "abort", "close while it is paused"])
@pytest.mark.parametrize("kind", [_tcp_client, _unix_client])
def test_descriptor_of_one_that_was_made(
    reactor: PromptReactor, tmp_path: Path, kind: Callable[[PromptReactor, Path], Pair], end: str
) -> None:
    """Whoever is accepted with the number of a connection that was made does not go first, and all else works."""
    listening: Any = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    answer = made(reactor, tmp_path, 1)[0]
    old = kind(reactor, tmp_path)
    fd = old.transport.fileno()
    # What the numbers below that one are taken by.
    other = socket.socket()
    if end == "close while it is paused":
        old.transport.pauseProducing()
    if end == "abort":
        old.transport.abortConnection()
    else:
        old.transport.loseConnection()
    turn_until(reactor, lambda: old.protocol.lost)
    request = accepted(reactor, listening, other)
    assert request.transport.fileno() == fd

    request.transport.pauseProducing()
    request.transport.resumeProducing()
    for pair in (request, answer):
        pair.other.sendall(b"x")
    assert looked_at(reactor, [request, answer])[0] is answer
    for pair in (request, answer, old):
        pair.close(reactor)


def test_exception_at_the_end(reactor: PromptReactor, failures: list[Any], tcp: Pair) -> None:
    """A protocol that fails at its end is logged, and costs nobody else anything."""

    def fail(reason: Failure) -> None:
        raise ValueError("it was to fail")

    tcp.protocol.connectionLost = fail  # type: ignore[method-assign, assignment]
    tcp.transport.loseConnection()
    turn_until(reactor, lambda: failures)
    assert "failed at the end of a turn" in failures.pop()["log_format"]
    tcp.protocol.lost = Failure(ConnectionDone())
    assert tcp.other.recv(1) == b""


def test_abort_after_closing(reactor: PromptReactor, tcp: Pair) -> None:
    """Of two ends the harder one counts, once."""
    tcp.transport.loseConnection()
    tcp.transport.abortConnection()
    turn_until(reactor, lambda: tcp.protocol.lost)
    assert isinstance(tcp.protocol.lost, Failure) and tcp.protocol.lost.check(ConnectionAborted)
    with pytest.raises(ConnectionResetError):
        tcp.other.recv(1)


def test_closing_after_half_close(reactor: PromptReactor, pair: Pair) -> None:
    """The other direction ends, too."""
    pair.transport.loseWriteConnection()
    pair.transport.loseConnection()
    turn_until(reactor, lambda: pair.protocol.lost)
    assert pair.other.recv(1) == b""


def test_abort_with_octets_to_send(reactor: PromptReactor, tcp: Pair) -> None:
    """abortConnection drops what was not sent, and takes nothing after it."""
    tcp.transport.write(b"x" * 16 * MEBIBYTE)
    tcp.transport.abortConnection()
    tcp.transport.write(b"too late")
    turn_until(reactor, lambda: tcp.protocol.lost)
    with pytest.raises(ConnectionResetError):
        while tcp.other.recv(MEBIBYTE):
            pass


def test_producer_after_abort(reactor: PromptReactor, pair: Pair) -> None:
    """Who writes until it is told to pause is told so, though the connection is about to end."""
    calls: list[str] = []
    pair.transport.write(b"answer")
    assert read(reactor, pair.other, 6) == b"answer"
    pair.transport.registerProducer(Calls(calls), True)
    pair.transport.abortConnection()
    octets = 0
    while not calls:
        pair.transport.write(b"x" * 10_000)
        octets += 10_000
        assert octets < MEBIBYTE
    turn_until(reactor, lambda: pair.protocol.lost)


class Moved:
    """What a transport says that it has moved, and the producer that the other one pauses."""

    def __init__(
        self, source: Pair, sink: Pair, count: int, measure: Callable[[bytes], int] | None = None
    ) -> None:
        self.octets = 0
        self.pauses = 0
        self._source = source.transport
        sink.transport.registerProducer(self, True)
        source.transport.splice(sink.transport, count, self.moved, measure)

    def moved(self, count: int) -> None:
        self.octets += count

    def pauseProducing(self) -> None:
        self.pauses += 1
        self._source.pauseProducing()

    def resumeProducing(self) -> None:
        self._source.resumeProducing()

    def stopProducing(self) -> None:
        """The sink is lost."""


@pytest.fixture
def sink(reactor: PromptReactor, tmp_path: Path) -> Iterator[Pair]:
    """Another connection."""
    folder = tmp_path / "sink"
    folder.mkdir()
    one = _unix_client(reactor, folder)
    yield one
    one.close(reactor)


def test_moved(reactor: PromptReactor, pair: Pair, sink: Pair) -> None:
    """So many octets go to the other socket, in their place among what is written to it; what follows is received."""
    verifyObject(ISplicing, pair.transport)
    data = os.urandom(8 * MEBIBYTE)
    sending = threading.Thread(target=pair.other.sendall, args=(data + b"after it",))
    sink.transport.write(before := os.urandom(MEBIBYTE))
    moved = Moved(pair, sink, len(data))
    sending.start()
    # Until the sink is full: then nothing is read any more.
    turn_until(reactor, lambda: moved.pauses)
    assert moved.octets < len(data)
    assert read(reactor, sink.other, len(before) + len(data)) == before + data
    sink.transport.write(b"behind it")
    assert read(reactor, sink.other, 9) == b"behind it"
    turn_until(reactor, lambda: pair.protocol.received == b"after it")
    assert moved.octets == len(data)
    sending.join()


def test_where_splicing_is_forbidden(monkeypatch: pytest.MonkeyPatch, reactor: PromptReactor, tcp: Pair) -> None:
    """In a sandbox that does not let us, all octets pass through us."""
    transport = tcp.transport
    assert can_splice(transport, transport, WORTH)
    assert not can_splice(transport, transport, WORTH - 1)

    def forbidden(*arguments: object, **more: object) -> int:
        raise PermissionError(errno.EPERM, "forbidden")

    is_allowed.cache_clear()
    with monkeypatch.context() as changed:
        changed.setattr(os, "splice", forbidden)
        assert not can_splice(transport, transport, WORTH)
    is_allowed.cache_clear()
    assert can_splice(transport, transport, WORTH)


def test_moved_no_more(reactor: PromptReactor, tcp: Pair, sink: Pair) -> None:
    """With a count of 0 all that comes is received again."""
    moved = Moved(tcp, sink, 100)
    tcp.other.sendall(b"one")
    assert read(reactor, sink.other, 3) == b"one"
    tcp.transport.splice(sink.transport, 0, moved.moved)
    tcp.other.sendall(b"two")
    turn_until(reactor, lambda: tcp.protocol.received == b"two")
    assert moved.octets == 3


@pytest.fixture(params=["as it is", "Linux 6.8"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an older one only what comes next can be looked at."""
    if request.param == "Linux 6.8":
        monkeypatch.setattr(splicing, "can_look_ahead", lambda sock: False)


def _measure(head: bytes) -> int:
    """A letter is so many octets; a line is for the protocol."""
    return {b"m": MEBIBYTE, b"k": 1024}.get(head[:1], 0)


@pytest.mark.usefixtures("kernel")
def test_moved_one_after_the_other(reactor: PromptReactor, pair: Pair, sink: Pair) -> None:
    """What follows is looked at, where it is, to say how much of it is moved, too; the rest is received."""
    moved = Moved(pair, sink, 5, _measure)
    data = b"first" + b"m" * MEBIBYTE + b"k" * 3072
    sending = threading.Thread(target=pair.other.sendall, args=(data + b"after it",))
    sending.start()
    assert read(reactor, sink.other, len(data)) == data
    turn_until(reactor, lambda: pair.protocol.received == b"after it")
    assert moved.octets == len(data)
    pair.other.sendall(b"m is a letter now")
    turn_until(reactor, lambda: pair.protocol.received == b"after itm is a letter now")
    sending.join()


@pytest.mark.usefixtures("kernel")
def test_moved_after_a_while(reactor: PromptReactor, tcp: Pair, sink: Pair) -> None:
    """Between two of them nothing is there to be looked at; what is written meanwhile is between them."""
    Moved(tcp, sink, 5, _measure)
    tcp.other.sendall(b"first")
    assert read(reactor, sink.other, 5) == b"first"
    sink.transport.write(b"between")
    assert read(reactor, sink.other, 7) == b"between"
    tcp.other.sendall(b"k" * 1000)
    assert read(reactor, sink.other, 1000) == b"k" * 1000
    sink.transport.write(b"behind")
    tcp.other.sendall(b"k" * 24)
    assert read(reactor, sink.other, 30) == b"behind" + b"k" * 24
    tcp.other.close()
    turn_until(reactor, lambda: tcp.protocol.read_lost)
    assert tcp.protocol.received == b""


def test_exception_while_moving(reactor: PromptReactor, failures: list[Any], tcp: Pair, pair: Pair, sink: Pair) -> None:
    """It costs its own connection; what was taken from that goes nowhere, least of all to another one."""
    looks_ahead = splicing.can_look_ahead(tcp.transport.socket)

    def measure(head: bytes) -> int:
        nonlocal looks_ahead
        if looks_ahead:
            looks_ahead = False
            return 0
        raise ZeroDivisionError

    Moved(tcp, sink, 5, measure)
    tcp.other.sendall(b"first" + b"k" * 1024)
    turn_until(reactor, lambda: tcp.protocol.lost)
    assert failures.pop()["log_failure"].check(ZeroDivisionError)
    sink.transport.unregisterProducer()
    Moved(pair, sink, 6)
    pair.other.sendall(b"second")
    assert read(reactor, sink.other, 6) == b"second"


@pytest.mark.usefixtures("kernel")
def test_turn_of_a_flood(reactor: PromptReactor, tcp: Pair, sink: Pair) -> None:
    """Who sends one after the other without an end is not the only one who is heard."""

    def measure(head: bytes) -> int:
        tcp.other.sendall(b"k" * 4096)
        return 4096 if moved.octets < 4 * MOST else 0

    moved = Moved(tcp, sink, 4096, measure)
    tcp.other.sendall(b"k" * 8192)
    turn_until(reactor, lambda: moved.octets)
    assert moved.octets == MOST


@pytest.mark.parametrize("count", [0, 10])
def test_nothing_is_read_while_closing(reactor: PromptReactor, tcp: Pair, sink: Pair, count: int) -> None:
    """In the turn in which a connection is closed nothing more comes from it, whoever says where it is to go."""
    tcp.other.sendall(b"late")
    tcp.transport.loseConnection()
    moved = Moved(tcp, sink, count)
    tcp.transport.doRead()
    turn_until(reactor, lambda: tcp.protocol.lost)
    assert tcp.protocol.received == b"" and moved.octets == 0


@pytest.mark.parametrize("reset", [False, True])
def test_source_that_ends(reactor: PromptReactor, tcp: Pair, sink: Pair, reset: bool) -> None:
    """The end of what is moved is the end of its connection."""
    moved = Moved(tcp, sink, 100)
    tcp.other.sendall(b"one")
    assert read(reactor, sink.other, 3) == b"one"
    if reset:
        tcp.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.other.close()
    turn_until(reactor, lambda: tcp.protocol.lost if reset else tcp.protocol.read_lost)
    assert (moved.octets, tcp.protocol.received, sink.protocol.lost) == (3, b"", None)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("reset", [False, True])
def test_source_that_ends_behind_all(reactor: PromptReactor, tcp: Pair, sink: Pair, reset: bool) -> None:
    """What came before the end goes on, and how it ended is told after that."""
    moved = Moved(tcp, sink, 3, _measure)
    tcp.other.sendall(b"one" + b"k" * 1024)
    if reset:
        tcp.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.other.close()
    turn_until(reactor, lambda: tcp.protocol.lost if reset else tcp.protocol.read_lost)
    assert (moved.octets, tcp.protocol.received) == (1027, b"")
    assert read(reactor, sink.other, 1027) == b"one" + b"k" * 1024
    assert tcp.protocol.lost is None or tcp.protocol.lost.check(ConnectionLost)


def test_sink_that_is_lost(reactor: PromptReactor, tcp: Pair, sink: Pair) -> None:
    """What is moved to a lost connection goes nowhere, as what is written to it does."""
    moved = Moved(tcp, sink, MEBIBYTE + 3)
    sink.other.close()
    tcp.other.sendall(b"one")
    turn_until(reactor, lambda: sink.protocol.lost)
    sending = threading.Thread(target=tcp.other.sendall, args=(b"x" * MEBIBYTE + b"after it",))
    sending.start()
    turn_until(reactor, lambda: tcp.protocol.received == b"after it")
    assert moved.octets == MEBIBYTE + 3
    sending.join()


def test_half_close_by_us(reactor: PromptReactor, pair: Pair) -> None:
    """loseWriteConnection ends our direction only, after what was written."""
    data = b"x" * 4 * MEBIBYTE
    pair.transport.write(data)
    pair.transport.loseWriteConnection()
    assert read(reactor, pair.other, len(data)) == data
    turn_until(reactor, lambda: pair.protocol.write_lost)
    assert pair.other.recv(1) == b""
    pair.other.sendall(b"still heard")
    turn_until(reactor, lambda: pair.protocol.received == b"still heard")
    assert pair.protocol.lost is None


def test_half_close_by_the_other(reactor: PromptReactor, pair: Pair) -> None:
    """Who has ended his direction can still be written to."""
    pair.other.sendall(b"question")
    pair.other.shutdown(socket.SHUT_WR)
    turn_until(reactor, lambda: pair.protocol.read_lost)
    assert pair.protocol.received == b"question"
    pair.transport.write(b"answer")
    assert read(reactor, pair.other, 6) == b"answer"
    assert pair.protocol.lost is None


@pytest.mark.parametrize(("interface", "host"), [("127.0.0.1", "127.0.0.1"), ("", "127.0.0.1"), ("::", "::1")])
def test_accepted(reactor: PromptReactor, interface: str, host: str) -> None:
    """An accepted connection knows both ends, is told apart in the log, and sends without delay."""
    listening: Any = reactor.listenTCP(0, Recorders(), interface=interface)
    port = listening.getHost().port
    with socket.create_connection((host, port), 10) as other:
        turn_until(reactor, lambda: listening.factory.made and listening.factory.made[0].transport)
        protocol: Any = listening.factory.made[0]
        transport = protocol.transport
        assert (transport.getHost().host, transport.getHost().port) == (host, port)
        assert (transport.getPeer().host, transport.getPeer().port) == other.getsockname()[:2]
        transport.setTcpNoDelay(True)
        assert transport.getTcpNoDelay()
        transport.setTcpNoDelay(False)
        assert not transport.getTcpNoDelay()
        assert transport.logPrefix() == f"Recorder,0,{host}"
        assert repr(transport) == f"<Recorder #0 from {host} on {port}>"
        transport.loseConnection()
        turn_until(reactor, lambda: protocol.lost)
        assert host in repr(transport)


def test_not_accepted(reactor: PromptReactor, failures: list[Any]) -> None:
    """Whom the factory wants no protocol for is sent away; where it fails, that is logged; others are served."""
    factory = Recorders()
    build = factory.buildProtocol
    outcomes: list[Any] = [None, ZeroDivisionError("on purpose")]

    def choosy(addr: object) -> Recorder | None:
        if not outcomes:
            return build(addr)
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return None

    factory.buildProtocol = choosy  # type: ignore[method-assign, assignment]
    port = reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(3)]
        turn_until(reactor, lambda: factory.made and factory.made[0].transport)
        assert others[0].recv(1) == others[1].recv(1) == b""
        others[2].sendall(b"fine")
        turn_until(reactor, lambda: factory.made[0].received == b"fine")
    assert failures.pop()["log_failure"].type is ZeroDivisionError


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM])
def test_gone_before_it_was_accepted(reactor: PromptReactor, number: int) -> None:
    """Who has gone, or was kept away by a firewall, costs nobody else anything."""
    listening: Any = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    real, errors = listening.socket, [number]

    class Listening:
        """Fails once."""

        def accept(self) -> Any:
            if errors:
                number = errors.pop()
                raise OSError(number, os.strerror(number))
            return real.accept()

    listening.socket = Listening()
    with socket.create_connection(("127.0.0.1", real.getsockname()[1]), 10):
        turn_until(reactor, lambda: listening.factory.made and listening.factory.made[0].transport)
    assert not errors
    listening.socket = real


def test_nothing_left(reactor: PromptReactor, tmp_path: Path) -> None:
    """A connection that was accepted and has ended is gone, transport and all, without the garbage collector."""
    listening: Any = reactor.listenTCP(0, Recorders(), interface="127.0.0.1")
    accepted(reactor, listening, socket.socket()).close(reactor)
    gc.collect()
    gc.disable()
    try:
        with socket.socket() as other:
            accepted(reactor, listening, other)
            recorder = listening.factory.made.pop()
            left = weakref.ref(recorder.transport)
            recorder.transport.loseConnection()
            turn_until(reactor, lambda: recorder.lost)
        recorder.transport = None
        assert left() is None
    finally:
        gc.enable()


def test_descriptor_with_octets(reactor: PromptReactor, tmp_path: Path) -> None:
    """A descriptor goes with the octet that is written after it, and overtakes none before it."""
    pair = _unix_server(reactor, tmp_path)
    ours, theirs = os.pipe()
    pair.transport.write(b"before")
    pair.transport.sendFileDescriptor(ours)
    assert socket.recv_fds(pair.other, 100, 1)[:2] == (b"before", [])
    pair.transport.write(b"with a descriptor")
    assert not is_readable(pair.other)

    turn_until(reactor, lambda: is_readable(pair.other))
    octets, descriptors, _, _ = socket.recv_fds(pair.other, 100, 1)
    assert len(descriptors) == 1
    assert octets + read(reactor, pair.other, 17 - len(octets)) == b"with a descriptor"
    for descriptor in (ours, theirs, *descriptors):
        os.close(descriptor)
    pair.close(reactor)


def test_start_tls(reactor: PromptReactor, tcp: Pair, tmp_path: Path) -> None:
    """After startTLS nothing goes out in plain text, and TLS is spoken."""
    authority = Authority(tmp_path)
    own = PrivateCertificate.loadPEM(authority.sign("proxyd.test").read_bytes())
    tcp.transport.write(b"plain")
    tcp.transport.startTLS(own.options())
    assert tcp.other.recv(100) == b"plain"
    # Twisted's TLS gathers small writes with the process's reactor, which does not run here; large ones it does not.
    data = b"x" * 100_000
    tcp.transport.write(data)
    context = ssl.create_default_context(cafile=str(authority.file))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="proxyd.test")
    received = b""

    def step() -> bool:
        nonlocal received
        try:
            if client.version() is None:
                client.do_handshake()
                client.write(b"hello")
            received += client.read(MEBIBYTE)
        except ssl.SSLWantReadError:
            pass
        tcp.other.sendall(outgoing.read())
        if is_readable(tcp.other):
            octets = tcp.other.recv(65536)
            assert data[:100] not in octets
            incoming.write(octets)
        return received == data and tcp.protocol.received == b"hello"

    turn_until(reactor, step)


def test_exception_in_data_received(reactor: PromptReactor, failures: list[Any], tmp_path: Path) -> None:
    """An exception in a protocol costs its own connection, and is logged; others go on."""
    factory = Recorders()
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    bad = accepted(reactor, listening, socket.socket())
    good = accepted(reactor, listening, socket.socket())

    def fail(data: bytes) -> None:
        raise ZeroDivisionError("on purpose")

    bad.protocol.on_data = fail
    bad.other.sendall(b"x")
    turn_until(reactor, lambda: bad.protocol.lost)
    assert isinstance(bad.protocol.lost, Failure) and bad.protocol.lost.check(ZeroDivisionError)
    assert failures.pop()["log_failure"].type is ZeroDivisionError
    good.other.sendall(b"fine")
    turn_until(reactor, lambda: good.protocol.received == b"fine")
    good.transport.write(b"fine, too")
    assert read(reactor, good.other, 9) == b"fine, too"
    bad.close(reactor)
    good.close(reactor)


def test_connection_lost_by_another(reactor: PromptReactor, tmp_path: Path) -> None:
    """Of two that are ready in the same turn, one may end the other."""
    factory = Recorders()
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    first = accepted(reactor, listening, socket.socket())
    second = accepted(reactor, listening, socket.socket())
    for one, another in ((first, second), (second, first)):
        one.protocol.on_data = lambda data, another=another: another.transport.connectionLost(Failure(OSError("ended")))
        one.other.sendall(b"x")
    turn_until(reactor, lambda: first.protocol.lost or second.protocol.lost)
    assert [bool(one.protocol.lost) for one in (first, second)].count(True) == 1
    first.close(reactor)
    second.close(reactor)


@implementer(IResolverSimple)
class Names:
    """Knows one name, without a thread."""

    def getHostByName(self, name: str, timeout: object = ()) -> Deferred[str]:
        """As a resolver."""
        assert name == "localhost"
        return succeed("127.0.0.1")


class Attempts(Recorders):
    """Keeps why there is no connection."""

    def __init__(self) -> None:
        super().__init__()
        self.reason: Failure | None = None

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """It never was."""
        self.reason = reason


def unused_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on."""
    with socket.create_server((address, 0)) as one:
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1", ConnectionRefusedError),
        ("localhost", ConnectionRefusedError),
        ("255.255.255.255", ConnectError),
    ],
)
def test_no_connection(reactor: PromptReactor, host: str, reason: type[Exception]) -> None:
    """Why there is none is told, to an address and to a name, and never before the attempt has been returned."""
    reactor.installResolver(Names())
    factory = Attempts()
    connector = reactor.connectTCP(host, unused_port(), factory)
    assert factory.reason is None
    turn_until(reactor, lambda: factory.reason)
    assert factory.reason is not None
    factory.reason.trap(reason)
    assert connector.transport is None
    assert not factory.made


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "255.255.255.255"])
def test_attempt_given_up(reactor: PromptReactor, host: str) -> None:
    """Whoever stops an attempt at once hears of that, and of nothing else."""
    reactor.installResolver(Names())
    factory = Attempts()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reactor.connectTCP(host, listening.getsockname()[1], factory).stopConnecting()
        assert factory.reason is not None
        factory.reason.trap(UserError)
        for _ in range(3):
            reactor.iterate(0)
    assert not factory.made


def test_nothing_left_of_an_attempt(reactor: PromptReactor) -> None:
    """An attempt that was given up is gone without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            connector: Any = reactor.connectTCP("127.0.0.1", listening.getsockname()[1], Attempts())
            left = weakref.ref(connector.transport)
            connector.stopConnecting()
            assert left() is None
    finally:
        gc.enable()


def test_name(reactor: PromptReactor) -> None:
    """A name is looked up before the attempt begins."""
    reactor.installResolver(Names())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        factory = Attempts()
        reactor.connectTCP("localhost", listening.getsockname()[1], factory)
        turn_until(reactor, lambda: factory.made and factory.made[0].transport)
        pair = Pair(factory.made[0], listening.accept()[0])
    pair.other.sendall(b"hello")
    turn_until(reactor, lambda: pair.protocol.received == b"hello")
    pair.close(reactor)


def test_other_speaks_first(reactor: PromptReactor) -> None:
    """What is there already when the connection is made is not lost."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        factory = Attempts()
        reactor.connectTCP("127.0.0.1", listening.getsockname()[1], factory)
        pair = Pair(Recorder(), listening.accept()[0])
        pair.other.sendall(b"greeting")
        turn_until(reactor, lambda: factory.made and factory.made[0].received == b"greeting")
    pair.protocol = factory.made[0]
    pair.transport.write(b"answer")
    assert read(reactor, pair.other, 6) == b"answer"
    pair.close(reactor)


def test_address_of_ipv6(reactor: PromptReactor) -> None:
    """An address of IPv6 is connected to, too."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        factory = Attempts()
        reactor.connectTCP("::1", listening.getsockname()[1], factory)
        turn_until(reactor, lambda: factory.made and factory.made[0].transport)
        Pair(factory.made[0], listening.accept()[0]).close(reactor)
