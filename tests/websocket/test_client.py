"""A client's connection in memory: the test is the server, octet by octet."""

from __future__ import annotations

import gc
import weakref
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPushProducer, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from proxyd.errors import (
    ConnectionClosed,
    HandshakeRefused,
    ResponseMalformed,
    ResponseTruncated,
    TLSFailed,
    UpstreamTimeout,
)
from proxyd.http.upgrade import accept_for
from proxyd.websocket.client import MAX_WAITING, ConnectionOptions, WebSocketConnection
from proxyd.websocket.opening import MAX_HEAD, Opening, open_websocket
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close, frame, read_frame
from tests.support.transports import BoundedTransport

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@implementer(IStreamClientEndpoint)
class Memory:
    """Connects at once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.transport: Any = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        self.transport = BoundedTransport(protocol, self.clock)
        protocol.makeConnection(self.transport)
        return succeed(protocol)


class Server:
    """
    The other side of one connection.

    @ivar opened: what the client waits for.
    """

    def __init__(
        self, *, protocols: tuple[bytes, ...] = (), timeout: float = 10, compress: bool = True, max_message: int = 0
    ) -> None:
        self.clock = Clock()
        endpoint = Memory(self.clock)
        opening = Opening(b"/x", [(b"Host", b"a")], protocols, timeout)
        options = ConnectionOptions(compress, max_message, 5)
        self.opened = open_websocket(self.clock, endpoint, opening, options)
        self.transport: BoundedTransport = endpoint.transport
        self.request = self.transport.take().decode()
        self._octets = b""

    @property
    def key(self) -> bytes:
        """The client's key."""
        return self.request.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0].encode()

    def sends(self, *parts: bytes) -> None:
        """It sends something, and the client sees it."""
        for part in parts:
            self.transport.deliver(part)
        self.clock.advance(0)

    def agreement(self, *lines: str) -> bytes:
        """Its 101."""
        accept = f"Sec-WebSocket-Accept: {accept_for(self.key).decode()}"
        return "\r\n".join(
            ["HTTP/1.1 101 Yes", "Upgrade: websocket", "Connection: Upgrade", accept, *lines, "", ""]
        ).encode()

    def agrees(self, *lines: str, behind: bytes = b"") -> WebSocketConnection:
        """It sends its 101; the connection is open."""
        self.sends(self.agreement(*lines) + behind)
        return result_of(self.opened)

    def gets(self) -> list[Frame]:
        """The frames that the client has sent."""
        self._octets += self.transport.take()
        frames = []
        while (found := read_frame(self._octets)) is not None:
            frames.append(found[0])
            self._octets = self._octets[found[1] :]
        return frames

    def ends(self) -> None:
        """It ends TCP."""
        self.transport.end()
        self.clock.advance(0)

    def is_left_alone(self) -> None:
        """Nothing is left of the connection."""
        self.clock.advance(0)
        assert not self.transport.is_connected
        assert not self.clock.getDelayedCalls()


def result_of(deferred: Deferred[Any]) -> Any:
    """What has come of it by now."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "it waits"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def waits(deferred: Deferred[Any]) -> bool:
    """Whether nothing has come of it yet."""
    seen: list[bool] = []

    def look(result: Any) -> Any:
        seen.append(True)
        return result

    deferred.addBoth(look)
    return not seen


def server_frame(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    """A frame of a server."""
    return frame(opcode, payload, mask=None, **options)


# The opening handshake


def test_request() -> None:
    """What is asked for."""
    server = Server(protocols=(b"one", b"two"))
    assert server.request.split("\r\n") == [
        "GET /x HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {server.key.decode()}", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: one, two", "Sec-WebSocket-Extensions: permessage-deflate", "", "",
    ]  # fmt: skip
    assert "Extensions" not in Server(compress=False).request
    assert Server().key != Server().key


def test_answer() -> None:
    """What the server chose is known; octets behind its 101 are its first messages."""
    server = Server(protocols=(b"one", b"two"))
    connection = server.agrees("Sec-WebSocket-Protocol: two", "X-A: b", behind=server_frame(TEXT, b"first"))
    assert connection.subprotocol == "two"
    assert ("X-A", "b") in connection.fields
    assert result_of(connection.receive()) == "first"
    assert connection.is_open and connection.close_code is None and connection.close_reason is None
    assert verifyObject(IPushProducer, connection)
    assert repr(connection) == "<WebSocketConnection OPEN>"


def test_interim_answers() -> None:
    """1xx before the 101 are skipped, however they are cut."""
    server = Server()
    octets = b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + server.agreement()
    server.sends(*(octets[index : index + 1] for index in range(len(octets))))
    assert result_of(server.opened).is_open


@pytest.mark.parametrize(
    ("answer", "status", "body", "rest"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 5\r\nX: y\r\n\r\nnever", 403, b"never", b""),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nX: y\r\n\r\n", 403, b"", b""),
        (b"HTTP/1.1 204 No\r\nX: y\r\n\r\n", 204, b"", b""),
        (b"HTTP/1.1 200 No\r\nContent-Length: 9999\r\nX: y\r\n\r\n", 200, b"b" * 4096, b"b" * 5000),
        (b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n3\r\nwho\r\n", 401, b"who", b"0\r\n\r\n"),
        (b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n3\r\nwho\r\n", 401, b"who", b"zzz\r\n"),
    ],
)
def test_refusals(answer: bytes, status: int, body: bytes, rest: bytes) -> None:
    """A refusal has its status, its fields and the beginning of its body; the socket is closed."""
    server = Server()
    server.sends(answer)
    if rest:
        assert waits(server.opened)
        server.sends(rest)
    with pytest.raises(HandshakeRefused, match=f"refused the WebSocket: {status} No") as caught:
        result_of(server.opened)
    assert (caught.value.status, caught.value.reason, caught.value.body) == (status, "No", body)
    assert ("X", "y") in caught.value.fields
    server.is_left_alone()


@pytest.mark.parametrize("end", ["end", "time"])
def test_refusal_that_breaks_off(end: str) -> None:
    """A refusal counts when its body does not come to an end."""
    server = Server()
    server.sends(b"HTTP/1.0 500 Oh\r\n\r\nha")
    assert waits(server.opened)
    if end == "end":
        server.ends()
    else:
        server.clock.advance(10)
    with pytest.raises(HandshakeRefused) as caught:
        result_of(server.opened)
    assert caught.value.body == b"ha"
    server.is_left_alone()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"220 mail.test ESMTP\r\n\r\n", "malformed|HTTP"),
        (b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "Sec-WebSocket-Accept is wrong"),
        (b"HTTP/1.1 101 Yes\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "Upgrade is not websocket"),
        (b"HTTP/1.1 100 More\r\n\r\n" * 4000, f"is over {MAX_HEAD} octets"),
        (b"HTTP/1.1 101 Yes\r\nX: " + b"x" * MAX_HEAD, f"is over {MAX_HEAD} octets"),
    ],
)
def test_nonsense(answer: bytes, text: str) -> None:
    """What is no answer is an error; the socket is closed."""
    server = Server()
    server.sends(answer)
    with pytest.raises(ResponseMalformed, match=text):
        result_of(server.opened)
    server.is_left_alone()


@pytest.mark.parametrize(
    "line",
    [
        "Sec-WebSocket-Extensions: x-unknown",
        "Sec-WebSocket-Protocol: other",
        f"{DEFLATE}; client_max_window_bits=10",
        f"{DEFLATE}; server_max_window_bits",
        f"{DEFLATE}; server_max_window_bits=16",
        f"{DEFLATE}; server_max_window_bits=7",
        f"{DEFLATE}; server_max_window_bits=08",
        f"{DEFLATE}; server_no_context_takeover=1",
        f"{DEFLATE}; server_no_context_takeover; server_no_context_takeover",
        f"{DEFLATE}; x",
        f"{DEFLATE};",
        f"{DEFLATE}, permessage-deflate",
    ],
)
def test_not_offered(line: str) -> None:
    """The server may choose nothing else than what was offered, in a form that makes sense."""
    server = Server(protocols=(b"one",))
    server.sends(server.agreement(line))
    with pytest.raises(ResponseMalformed, match="no WebSocket: "):
        result_of(server.opened)
    server.is_left_alone()


@pytest.mark.parametrize(
    "line",
    [
        DEFLATE,
        f'{DEFLATE}; server_max_window_bits="8"',
        f"{DEFLATE};server_max_window_bits = 15 ;client_no_context_takeover",
        f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover",
    ],
)
def test_compression(line: str) -> None:
    """Long messages go packed; short ones do not; what comes packed is unpacked."""
    server = Server()
    connection = server.agrees(line)
    unpacking = zlib.decompressobj(-15)
    for _ in range(2):
        connection.send("ab" * 500)
        (packed,) = server.gets()
        assert packed.rsv == 4 and len(packed.payload) < 100
        if "client_no" in line:
            unpacking = zlib.decompressobj(-15)
        assert unpacking.decompress(packed.payload + b"\0\0\xff\xff") == b"ab" * 500
    connection.send("short")
    assert server.gets() == [Frame(TEXT, b"short", True, 0, True)]
    packing = zlib.compressobj(9, zlib.DEFLATED, -9)
    octets = packing.compress(b"cd" * 1000) + packing.flush(zlib.Z_SYNC_FLUSH)
    half = len(octets) // 2
    server.sends(
        server_frame(BINARY, octets[:half], rsv=4, fin=False), server_frame(CONTINUATION, octets[half:-4])
    )
    assert result_of(connection.receive()) == b"cd" * 1000
    server.sends(server_frame(TEXT, b"plain"))
    assert result_of(connection.receive()) == "plain"


def test_early_end() -> None:
    """A server that hangs up before its answer."""
    server = Server()
    server.sends(b"HTTP/1.1 101")
    server.ends()
    with pytest.raises(ResponseTruncated, match="before its answer"):
        result_of(server.opened)
    server.is_left_alone()


def test_tls_ends() -> None:
    """TLS 1.3 servers refuse our certificate after the handshake."""
    server = Server()
    server.transport._lose(SSL.Error([("", "", "alert bad certificate")]))
    with pytest.raises(TLSFailed):
        result_of(server.opened)
    server.is_left_alone()


def test_deadline() -> None:
    """A server that is silent, or slow, is given up in time; 0 is never."""
    server = Server()
    server.clock.advance(9)
    server.sends(b"HTTP/1.1 101")
    assert waits(server.opened)
    server.clock.advance(1)
    with pytest.raises(UpstreamTimeout, match="in 10 s"):
        result_of(server.opened)
    assert server.transport.is_aborted
    server.is_left_alone()
    assert not Server(timeout=0).clock.getDelayedCalls()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101", b"HTTP/1.1 403 No\r\n\r\nbecause"])
def test_cancelled(sent: bytes) -> None:
    """Who cancels the attempt cuts the connection off."""
    server = Server()
    if sent:
        server.sends(sent)
    server.opened.cancel()
    with pytest.raises(CancelledError):
        result_of(server.opened)
    assert server.transport.is_aborted
    server.is_left_alone()


# Messages


def test_sending() -> None:
    """Text and octets, in their order, masked."""
    server = Server()
    connection = server.agrees()
    for message in ("grün", b"\0\xff", bytearray(b"a"), memoryview(b"b"), "", b"", "x" * 70000):
        sending = connection.send(message)  # type: ignore[arg-type]
        (got,) = server.gets()
        assert result_of(sending) is None
        expected = message.encode() if isinstance(message, str) else bytes(message)
        assert got == Frame(TEXT if isinstance(message, str) else BINARY, expected, True, 0, True)
    with pytest.raises(TypeError, match="str or bytes, not int"):
        connection.send(1)  # type: ignore[arg-type]


def test_receivers_in_turn() -> None:
    """Who asks first gets the first message; who gives up loses none."""
    server = Server()
    connection = server.agrees()
    first, second, third = (connection.receive() for _ in range(3))
    second.cancel()
    server.sends(server_frame(TEXT, b"1") + server_frame(BINARY, b"2"))
    assert (result_of(first), result_of(third)) == ("1", b"2")
    with pytest.raises(CancelledError):
        result_of(second)


def test_too_many_messages() -> None:
    """A server is kept from sending when enough waits, and goes on when some has been received."""
    server = Server()
    connection = server.agrees()
    server.sends(b"".join(server_frame(TEXT, b"%d" % number) for number in range(40)))
    assert server.transport.is_paused
    assert len(connection._messages) == MAX_WAITING
    server.transport.deliver(server_frame(TEXT, b"40") + close(1000, mask=None))
    received = []
    while len(received) < 41:
        received.append(result_of(connection.receive()))
        assert len(connection._messages) <= MAX_WAITING
        server.clock.advance(0)
    assert received == [str(number) for number in range(41)]
    assert not server.transport.is_paused
    with pytest.raises(ConnectionClosed):
        result_of(connection.receive())


def test_too_many_octets() -> None:
    """The same by size; one message may be larger than all that may wait."""
    server = Server()
    connection = server.agrees()
    server.sends(server_frame(BINARY, b"x" * 2_000_000) + server_frame(BINARY, b"y" * 5))
    assert server.transport.is_paused
    assert len(result_of(connection.receive())) == 2_000_000
    assert not server.transport.is_paused
    assert result_of(connection.receive()) == b"yyyyy"


def test_full_transport() -> None:
    """Who sends waits while the server reads nothing."""
    server = Server()
    connection = server.agrees()
    first = connection.send(b"x" * 100_000)
    second = connection.send("behind")
    third = connection.send("it")
    assert waits(first) and waits(second)
    second.cancel()
    assert [one.opcode for one in server.gets()] == [BINARY, TEXT, TEXT]
    assert result_of(first) is None and result_of(third) is None
    with pytest.raises(CancelledError):
        result_of(second)
    assert result_of(connection.send("again")) is None


def test_lost_while_sending() -> None:
    """Who waits learns that the connection is lost."""
    server = Server()
    connection = server.agrees()
    waiting = [connection.send(b"x" * 100_000), connection.receive(), connection.ping()]
    server.transport.reset()
    for one in (*waiting, connection.send("x"), connection.receive(), connection.ping()):
        with pytest.raises(ConnectionClosed, match="closed: 1006 the connection was lost"):
            result_of(one)
    assert (connection.close_code, connection.close_reason) == (1006, "the connection was lost")
    assert result_of(connection.close()) is None
    connection.abort()
    server.is_left_alone()


def test_pings() -> None:
    """The server's are answered; the answers to ours are timed, and answer earlier ones."""
    server = Server()
    connection = server.agrees()
    server.sends(server_frame(PING, b"hey"))
    assert server.gets() == [Frame(PONG, b"hey", True, 0, True)]
    first, second, third, given_up = connection.ping(), connection.ping(b"2"), connection.ping(b"3"), connection.ping()
    assert [one.opcode for one in server.gets()] == [PING] * 4
    given_up.cancel()
    server.clock.advance(2)
    server.sends(server_frame(PONG, b"unasked"), server_frame(PONG, b"2"))
    assert (result_of(first), result_of(second)) == (2, 2)
    assert waits(third)
    for payload in (b"3", b"x" * 126):
        with pytest.raises(ValueError, match="payload of a ping"):
            connection.ping(payload)
    with pytest.raises(CancelledError):
        result_of(given_up)
    server.sends(server_frame(PONG, b"3"))


def test_pings_while_full() -> None:
    """A server that pings and reads nothing does not fill our memory: the last one is answered."""
    server = Server()
    connection = server.agrees()
    sending = connection.send(b"x" * 100_000)
    unsent = server.transport.unsent
    server.sends(*(server_frame(PING, b"%d" % number) for number in range(1000)))
    assert server.transport.unsent == unsent
    server.gets()
    assert result_of(sending) is None
    assert server.gets() == [Frame(PONG, b"999", True, 0, True)]


def test_iteration() -> None:
    """C{async for} ends with a clean close, and fails with another."""

    async def read(connection: WebSocketConnection) -> list[str | bytes]:
        return [message async for message in connection]

    for code, is_clean in ((1000, True), (1001, True), (None, True), (1011, False), (4000, False)):
        server = Server()
        reading = Deferred.fromCoroutine(read(server.agrees()))
        server.sends(server_frame(TEXT, b"a"), close(code, mask=None))
        if is_clean:
            assert result_of(reading) == ["a"]
        else:
            with pytest.raises(ConnectionClosed, match=f"{code}"):
                result_of(reading)


def test_block() -> None:
    """C{async with} closes at its end, with 1011 after an error."""

    async def use(connection: WebSocketConnection, problem: Exception | None) -> None:
        async with connection as same:
            assert same is connection
            if problem is not None:
                raise problem

    for problem, code in ((None, 1000), (KeyError(), 1011)):
        server = Server()
        using = Deferred.fromCoroutine(use(server.agrees(), problem))
        assert server.gets() == [Frame(CLOSE, code.to_bytes(2, "big"), True, 0, True)]
        server.sends(close(code, mask=None))
        server.ends()
        if problem is None:
            result_of(using)
        else:
            with pytest.raises(KeyError):
                result_of(using)


# The closing handshake


def test_we_close() -> None:
    """Close, its answer, the end of TCP: then all is gone."""
    server = Server()
    connection = server.agrees()
    server.sends(server_frame(TEXT, b"before"))
    closing = connection.close(4001, "bye")
    assert server.gets() == [Frame(CLOSE, b"\x0f\xa1bye", True, 0, True)]
    with pytest.raises(ConnectionClosed, match="4001 bye"):
        result_of(connection.send("late"))
    server.sends(server_frame(TEXT, b"dropped") + close(4001, b"bye", mask=None) + server_frame(TEXT, b"forbidden"))
    assert waits(closing)
    server.ends()
    assert result_of(closing) is None
    assert result_of(connection.receive()) == "before"
    with pytest.raises(ConnectionClosed, match="4001 bye"):
        result_of(connection.receive())
    server.is_left_alone()


def test_they_close() -> None:
    """The same code goes back; messages before it can still be had."""
    server = Server()
    connection = server.agrees()
    server.sends(server_frame(TEXT, b"last"), close(1001, b"going", mask=None))
    assert server.gets() == [Frame(CLOSE, b"\x03\xe9going", True, 0, True)]
    assert not connection.is_open
    assert result_of(connection.receive()) == "last"
    server.sends(b"what comes after a Close is nothing")
    closing = connection.close()
    assert server.gets() == []
    server.ends()
    assert result_of(closing) is None
    assert (connection.close_code, connection.close_reason) == (1001, "going")
    server.is_left_alone()


def test_close_without_code() -> None:
    """An empty Close is answered with one, and is clean."""
    server = Server()
    connection = server.agrees()
    server.sends(close(mask=None))
    assert server.gets() == [Frame(CLOSE, b"", True, 0, True)]
    assert (connection.close_code, connection.close_reason) == (1005, "")
    server.ends()
    server.is_left_alone()


@pytest.mark.parametrize("answers", [True, False])
def test_close_in_vain(answers: bool) -> None:
    """A server that does not answer a Close, or does not end TCP after it, is cut off."""
    server = Server()
    connection = server.agrees()
    closing = connection.close()
    server.clock.advance(3)
    if answers:
        server.sends(close(1000, mask=None))
        server.clock.advance(3)
    assert waits(closing)
    server.clock.advance(5)
    assert result_of(closing) is None
    assert connection.close_code == (1000 if answers else 1006)
    assert server.transport.is_aborted
    server.is_left_alone()


def test_close_while_full() -> None:
    """Nobody receives any more: what waits does not hold the closing handshake up."""
    server = Server()
    connection = server.agrees()
    server.sends(b"".join(server_frame(TEXT, b"%d" % number) for number in range(40)))
    server.transport.deliver(server_frame(TEXT, b"40") + close(1000, mask=None))
    closing = connection.close()
    server.clock.advance(0)
    server.ends()
    assert result_of(closing) is None
    assert [result_of(connection.receive()) for _ in range(16)] == [str(number) for number in range(16)]
    with pytest.raises(ConnectionClosed, match="1000"):
        result_of(connection.receive())
    server.is_left_alone()


def test_close_and_go_on_receiving() -> None:
    """Nothing is dropped, and a slow receiver has all the time that it needs."""
    server = Server()
    connection = server.agrees()
    closing = connection.close(receiving=True)
    server.sends(b"".join(server_frame(TEXT, b"%d" % number) for number in range(40)))
    server.transport.deliver(close(1000, mask=None))
    received = []
    for _ in range(40):
        server.clock.advance(4)
        received.append(result_of(connection.receive()))
    assert received == [str(number) for number in range(40)]
    server.clock.advance(0)
    server.ends()
    assert result_of(closing) is None and connection.close_code == 1000
    server.is_left_alone()


def test_cancelled_close() -> None:
    """Who does not want to wait cuts off."""
    server = Server()
    connection = server.agrees()
    closing = connection.close()
    closing.cancel()
    with pytest.raises(CancelledError):
        result_of(closing)
    assert server.transport.is_aborted
    server.is_left_alone()


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1006, ""), (999, ""), (1000, "x" * 124), (5000, "")])
def test_what_may_not_be_sent(code: int, reason: str) -> None:
    """It is refused at once, and the connection stays open."""
    connection = Server().agrees()
    with pytest.raises(ValueError):
        connection.close(code, reason)
    assert connection.is_open


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"\xc1\x00", 1002),
        (b"\x83\x00", 1002),
        (b"\x8b\x00", 1002),
        (b"\x80\x01a", 1002),
        (b"\x81\x80abcd", 1002),
        (b"\x89\x7e\x00\x80", 1002),
        (b"\x09\x00", 1002),
        (b"\x88\x01a", 1002),
        (b"\x88\x02\x03\xed", 1002),
        (b"\x88\x03\x03\xe8\xff", 1002),
        (b"\x81\x7e\x00\x05hello", 1002),
        (b"\x01\x01a\x81\x01b", 1002),
        (b"\x81\x02\xc3\x28", 1007),
        (b"\x81\x01\xc3", 1007),
        (server_frame(BINARY, b"x" * 1001), 1009),
        (server_frame(BINARY, b"x" * 600, fin=False) + server_frame(CONTINUATION, b"x" * 600), 1009),
    ],
)
def test_broken_frames(octets: bytes, code: int) -> None:
    """A server that breaks the rules is told so; nothing of it is received, and nothing behind it."""
    server = Server(max_message=1000)
    connection = server.agrees()
    server.sends(server_frame(TEXT, b"good"), octets + server_frame(TEXT, b"behind"))
    (told,) = server.gets()
    assert told.opcode == CLOSE and told.payload[:2] == code.to_bytes(2, "big")
    assert result_of(connection.receive()) == "good"
    with pytest.raises(ConnectionClosed, match=f"{code}"):
        result_of(connection.receive())
    server.sends(server_frame(TEXT, b"ignored"))
    server.clock.advance(5)
    assert server.transport.is_aborted
    server.is_left_alone()


def test_bomb() -> None:
    """A small message that unpacks to a large one is refused before it is unpacked."""
    server = Server(max_message=1000)
    connection = server.agrees(DEFLATE)
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    octets = packing.compress(bytes(10_000_000)) + packing.flush(zlib.Z_SYNC_FLUSH)
    server.sends(server_frame(BINARY, octets[:-4], rsv=4))
    with pytest.raises(ConnectionClosed, match="1009"):
        result_of(connection.receive())
    server.sends(close(1009, mask=None))
    server.ends()
    server.is_left_alone()


def test_corrupt() -> None:
    """What cannot be unpacked is refused."""
    server = Server()
    connection = server.agrees(DEFLATE)
    server.sends(server_frame(BINARY, b"\xff" * 50, rsv=4))
    with pytest.raises(ConnectionClosed, match="1007"):
        result_of(connection.receive())


def test_giving_up_while_closing() -> None:
    """Broken frames after our Close end the wait for the server's."""
    server = Server()
    connection = server.agrees()
    closing = connection.close()
    server.gets()
    server.sends(b"\xc1\x00")
    assert server.gets() == [] and connection.close_code == 1002
    server.ends()
    assert result_of(closing) is None
    server.is_left_alone()


def test_lost_with_messages() -> None:
    """Messages that were there before TCP ended can be had, even those that had to wait."""
    server = Server()
    connection = server.agrees()
    server.sends(b"".join(server_frame(TEXT, b"%d" % number) for number in range(40)))
    server.transport.reset()
    assert [result_of(connection.receive()) for _ in range(40)] == [str(number) for number in range(40)]
    with pytest.raises(ConnectionClosed, match="1006"):
        result_of(connection.receive())
    server.is_left_alone()


def test_calls_from_within() -> None:
    """Who is called with a message may receive, send and close at once."""
    server = Server()
    connection = server.agrees()
    received: list[object] = []

    def next_one(message: object) -> None:
        received.append(message)
        if len(received) == 30:
            connection.close()
        else:
            connection.receive().addCallback(next_one)

    connection.receive().addCallback(next_one)
    server.sends(b"".join(server_frame(TEXT, b"%d" % number) for number in range(40)) + close(1000, mask=None))
    assert received == [str(number) for number in range(30)]
    server.ends()
    server.is_left_alone()


def test_abort_from_within() -> None:
    """The same with abort; the Deferred of an error may call back, too."""
    server = Server()
    connection = server.agrees()
    connection.receive().addCallback(lambda _: connection.abort())
    server.sends(server_frame(TEXT, b"a") + server_frame(TEXT, b"b"))
    with pytest.raises(ConnectionClosed, match="cut off here"):
        result_of(connection.receive())
    server.is_left_alone()


def test_nothing_keeps_the_transport() -> None:
    """A connection that is over holds nothing of the transport, without help of the garbage collector."""
    server = Server()
    connection = server.agrees()
    server.sends(close(1000, mask=None))
    server.ends()
    reference = weakref.ref(server.transport)
    gc.disable()
    try:
        del server
        assert reference() is None
    finally:
        gc.enable()
    assert connection.close_code == 1000


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=40),
    st.lists(st.integers(0, 300), max_size=30),
    st.integers(1, 90),
)
def test_cuts(messages: list[str | bytes], cuts: list[int], fragment: int) -> None:
    """However messages are cut into fragments and segments, each arrives once and in order."""
    server = Server()
    connection = server.agrees()
    octets = b""
    for message in messages:
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        pieces = [payload[index : index + fragment] for index in range(0, len(payload), fragment)] or [b""]
        for index, piece in enumerate(pieces):
            octets += server_frame(opcode if not index else CONTINUATION, piece, fin=index == len(pieces) - 1)
            octets += server_frame(PING, b"between")
    octets += close(1000, mask=None)
    position = 0
    received: list[str | bytes] = []

    async def read() -> None:
        async for message in connection:
            received.append(message)

    for cut in cuts:
        if octets[position : position + cut]:
            server.transport.deliver(octets[position : position + cut])
        position += cut
    reading = Deferred.fromCoroutine(read())
    if octets[position:]:
        server.transport.deliver(octets[position:])
    for _ in range(len(messages) + len(cuts) + 2):
        server.clock.advance(0)
    server.ends()
    assert result_of(reading) is None
    assert received == messages
    server.is_left_alone()
