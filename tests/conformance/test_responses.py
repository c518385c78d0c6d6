"""What a hostile or broken origin server may send: what a strict client sees of it, and what becomes of the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conformance.recorder import Malformed, Message, read_head, read_message
from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire

GOOD = b"HTTP/1.1 200 OK\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
"""An answer that nobody asked for."""

CLOSE, RESET, STAY = "close", "reset", "stay"


class Site:
    """A proxy and an origin server that does what the test says."""

    def __init__(self, folder: Path) -> None:
        self.origin = Origin()
        target = f"http://127.0.0.1:{self.origin.port}"
        self.proxy = Proxy(
            folder,
            {
                "rules": [{"name": "all", "pattern": "^/", "target": target}],
                "limits": {"responseHeader": 8192},
                "log": {"access": None},
            },
        )

    def close(self) -> None:
        text = self.proxy.stop()
        self.origin.close()
        assert "Traceback" not in text, text

    def ask(self, method: str, version: str = "1.1") -> tuple[Wire, Wire]:
        """
        A client asks.

        @return: both sides' connections; the origin's is new.
        """
        client = self.proxy.connect()
        client.send(f"{method} /asked HTTP/{version}\r\nHost: a\r\n\r\n")
        server = self.origin.accept()
        assert server.read_message().line == f"{method} /asked HTTP/1.1"
        return client, server

    def catch_up(self) -> None:
        """Wait until proxyd has read all that was sent so far: who came later is served."""
        with self.proxy.connect() as other:
            other.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
            other.read_message()

    def next_is_served(self, server: Wire, reused: bool) -> None:
        """
        Another client gets its own answer.

        @param server: the connection of the request before.
        @param reused: whether that may be used again.
        """
        if not reused and server.socket.fileno() >= 0:
            # Proxyd ends it of its own accord; nobody has closed it here.
            with contextlib.suppress(ConnectionResetError):
                server.assert_ended()
        with self.proxy.connect() as other:
            other.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            if not reused:
                server = self.origin.accept()
            assert server.read_message().line == "GET /next HTTP/1.1"
            server.respond("its own", "Connection: close")
            answer = other.read_message()
            assert (answer.status, answer.body) == (200, b"its own")
        with contextlib.suppress(ConnectionResetError):
            server.assert_ended()
        self.origin.end_all()
        self.origin.assert_idle()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The one proxy of this module."""
    one = Site(tmp_path_factory.mktemp("responses"))
    yield one
    one.close()


class Heard(NamedTuple):
    """
    What came to a client until it knew enough.

    @ivar interim: the status codes of 1xx answers.
    @ivar answer: the final one if it is whole.
    @ivar head: its head, when that is there.
    @ivar rest: octets behind what could be read.
    """

    interim: tuple[int, ...]
    answer: Message | None
    head: Message | None
    rest: bytes


def hear(data: bytes, method: str) -> Heard:
    """
    Read what has come as a strict client does.

    @raise Malformed: that cannot be read.
    """
    interim: list[int] = []
    while (found := read_head(data)) is not None and found[0].status < 200:
        interim.append(found[0].status)
        data = data[found[1] :]
    if found is None:
        return Heard(tuple(interim), None, None, data)
    bodiless = method == "HEAD" or found[0].status in (204, 304)
    whole = read_message(data, bodiless=bodiless)
    if whole is None:
        return Heard(tuple(interim), None, found[0], data[found[1] :])
    return Heard(tuple(interim), whole[0], found[0], data[whole[1] :])


def listen(client: Wire, method: str) -> tuple[Heard, bool]:
    """
    @return: what came, and whether the connection goes on: it does when the answer is whole and does not say
        otherwise.
    """
    data = b""
    while True:
        heard = hear(data, method)
        if heard.answer is not None and heard.answer.all("Connection") != ["close"]:
            return heard, True
        try:
            more = client.read_some()
        except ConnectionResetError:
            more = b""
        if not more:
            return heard, False
        data += more


class Case(NamedTuple):
    """
    An origin server's answer.

    @ivar end: what it does then.
    @ivar status: what a client's whole answer is; 0 if it gets none.
    @ivar body: of that answer, if it is the origin's.
    @ivar reused: whether the connection serves another request.
    """

    name: str
    octets: bytes
    status: int
    body: bytes | None = None
    end: str = STAY
    method: str = "GET"
    reused: bool = False
    interim: tuple[int, ...] = ()


def bad(name: str, octets: bytes, end: str = STAY, method: str = "GET", interim: tuple[int, ...] = ()) -> Case:
    """An answer that cannot be trusted: 502."""
    return Case(name, octets, 502, None, end, method, interim=interim)


def cut(name: str, octets: bytes, end: str = STAY, method: str = "GET") -> Case:
    """What turns out wrong when its head has gone on: the client is cut off, or gets 502 if all came at once."""
    return Case(name, octets, 0, None, end, method)


def good(name: str, octets: bytes, body: bytes, **options: object) -> Case:
    """An answer that is one."""
    return Case(name, octets, int(options.pop("status", 200)), body, **options)  # type: ignore[call-overload, arg-type]


def _line(line: bytes) -> bytes:
    return line + b"\r\nContent-Length: 0\r\n\r\n"


def _field(field: bytes) -> bytes:
    return GOOD + field + b"\r\nContent-Length: 0\r\n\r\n"


def _length(value: bytes) -> bytes:
    return GOOD + b"Content-Length: " + value + b"\r\n\r\nhello"


def _coding(value: bytes) -> bytes:
    return GOOD + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def _chunks(body: bytes) -> bytes:
    return GOOD + b"Transfer-Encoding: chunked\r\n\r\n" + body


STATUS_LINES = [
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 +20 OK",
    b"HTTP/1.1 0x8 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1 000 OK",
    b"HTTP/1.1\t200 OK",
    b"HTTP/1.1 200\tOK",
    b"HTTP/2.0 200 OK",
    b"HTTP/2 200 OK",
    b"HTTP/0.9 200 OK",
    b"HTTP/1.10 200 OK",
    b"http/1.1 200 OK",
    b"HTTP/1.1 2 0 OK",
    b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1 200 O\rK",
    b"HTTP/1.1 200 O\nK",
    b"HTTP/1.1 200 O\x7fK",
    b" HTTP/1.1 200 OK",
    b"ICY 200 OK",
    b"HTTP/1.1",
    b"HTTP/1.1 ",
    b"200 OK",
    b"HTTP/1.1 \xb2\xb0\xb0 OK",
    b"GET / HTTP/1.1",
    b"\xef\xbb\xbfHTTP/1.1 200 OK",
    b"",
    b"\r\n\r\nHTTP/1.1 200 OK",
    b"HTTP/1.1 -20 OK",
    b"HTTP/1.1 2.0 OK",
    b"HTTP/1.1:200 OK",
    b"\x00HTTP/1.1 200 OK",
]

FIELDS = [
    b"X : 1",
    b" X: 1",
    b"\tX: 1",
    b"X: 1\r\n 2",
    b"X: 1\r\n\t2",
    b"X",
    b": 1",
    b"X: 1\nY: 2",
    b"X: 1\rSet-Cookie: evil",
    b"X: \x00",
    b"X: \x01",
    b"X: \x7f",
    b"X\xe9: 1",
    b"X\x00: 1",
    b"X Y: 1",
    b"X: 1\n",
    b"X: 1\r",
    b"(X): 1",
    b"X: 1\n\r\nHTTP/1.1 200 OK",
    b"\x0bX: 1",
    b"X\t: 1",
    b"X: \x0b",
    b"\r",
    b"X: 1\x0c2",
]

LENGTHS = [
    b"+5",
    b"-5",
    b"0x5",
    b"5,5",
    b"5, 5",
    b"005",
    b"5.0",
    b"",
    b" ",
    b"5 5",
    b"5;",
    b"9223372036854775808",
    b"18446744073709551621",
    b"5\x0b",
    b"abc",
    b"5\r\nContent-Length: 5",
    b"5\r\nContent-Length: 6",
    b"5\r\nTransfer-Encoding: chunked",
    b"0\r\nContent-Length: 5",
    b"\xb5",
]

CODINGS = [
    b"xchunked",
    b"gzip",
    b"gzip, chunked",
    b"chunked, gzip",
    b"identity",
    b"chunked, chunked",
    b"chunked;a=b",
    b"\x0bchunked",
    b"chunked\x0b",
    b'"chunked"',
    b"",
    b"chunked\r\nTransfer-Encoding: identity",
    b"chunked\r\nContent-Length: 5",
    b"chunked\r\nTransfer-Encoding: chunked",
    b"chunked,",
    b"chunk",
]

BAD_CHUNKS = [
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n",
    b"-1\r\nhello\r\n0\r\n\r\n",
    b"11111111111111111\r\nhello",
    b"5;\nx\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"a" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: \x00\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: 1\nY: 2\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
    b"g\r\n",
    b"5\r\nhello\r\n0\r\n" + EVIL,
    b"1;aaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 1000,
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r\n0 \r\n\r\n",
]

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

CASES = [
    *(bad(f"status line {line!r}", _line(line)) for line in STATUS_LINES),
    *(bad(f"field {field!r}", _field(field)) for field in FIELDS),
    *(bad(f"length {value!r}", _length(value)) for value in LENGTHS),
    *(bad(f"coding {value!r}", _coding(value)) for value in CODINGS),
    *(cut(f"chunks {body[:40]!r}", _chunks(body)) for body in BAD_CHUNKS),
    bad("LF only", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    bad("no octet", b"", CLOSE),
    bad("a reset", b"", RESET),
    bad("half a head", b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE),
    bad("half a head, reset", b"HTTP/1.1 200 OK\r\nX: 1\r\n", RESET),
    bad("garbage", bytes(range(256)) * 8 + b"\r\n\r\n"),
    bad("garbage, then the end", b"\x00\xff" * 100, CLOSE),
    bad("TLS", b"\x15\x03\x01\x00\x02\x02\x0a\r\n\r\n"),
    bad("HTTP/0.9", b"<html>hello</html>", CLOSE),
    bad("endless head", GOOD + b"X: a\r\n" * 2000),
    bad("endless field", GOOD + b"X: " + b"a" * 20000),
    bad("endless line", b"HTTP/1.1 200 " + b"a" * 20000),
    bad("interim, then the end", HINTS, CLOSE, interim=(103,)),
    bad("interim, then garbage", HINTS + b"garbage\r\n\r\n", interim=(103,)),
    bad("many interim", HINTS * 10 + b"x\r\n\r\n", interim=(103,) * 10),
    bad(
        "101 that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + EVIL,
    ),
    bad("101 without Upgrade", b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + EVIL),
    bad("101 to h2c", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + EVIL),
    bad("101 behind hints", HINTS + b"HTTP/1.1 101 A\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", interim=(103,)),
    bad(
        "101 for HEAD",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        method="HEAD",
    ),
    # Lengths that lie
    cut("short", GOOD + b"Content-Length: 10\r\n\r\nhello", CLOSE),
    cut("short, reset", GOOD + b"Content-Length: 10\r\n\r\nhello", RESET),
    cut("nothing of it", GOOD + b"Content-Length: 10\r\n\r\n", CLOSE),
    cut("huge", GOOD + b"Content-Length: 9223372036854775807\r\n\r\nhello", CLOSE),
    cut("no last chunk", _chunks(b"5\r\nhello\r\n"), CLOSE),
    cut("no chunk", _chunks(b""), CLOSE),
    cut("half a chunk", _chunks(b"5\r\nhel"), RESET),
    cut("no end of trailers", _chunks(b"5\r\nhello\r\n0\r\nX: 1\r\n"), CLOSE),
    cut("until a reset", GOOD + b"\r\nhello", RESET),
    cut("huge chunk", _chunks(b"ffffffffffffffff\r\nhello"), CLOSE),
    good("long", GOOD + b"Content-Length: 5\r\n\r\nhello" + EVIL, b"hello"),
    good("long by one", GOOD + b"Content-Length: 4\r\n\r\nhello", b"hell"),
    good("two answers", GOOD + b"Content-Length: 0\r\n\r\n" + EVIL, b""),
    good("octets behind the chunks", _chunks(b"5\r\nhello\r\n0\r\n\r\n") + EVIL, b"hello"),
    good("a line break behind", GOOD + b"Content-Length: 5\r\n\r\nhello\r\n", b"hello"),
    good("interim behind", GOOD + b"Content-Length: 5\r\n\r\nhello" + HINTS, b"hello"),
    # Bodies where there is none
    good("HEAD with a body", GOOD + b"Content-Length: 4\r\n\r\nevil", b"", method="HEAD"),
    good("HEAD in chunks", _chunks(b"4\r\nevil\r\n0\r\n\r\n"), b"", method="HEAD"),
    good("HEAD and an answer", GOOD + b"Content-Length: 4\r\n\r\n" + EVIL, b"", method="HEAD"),
    good("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", b"", status=204),
    good(
        "204 in chunks",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        b"",
        status=204,
    ),
    good("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", b"", status=304),
    good(
        "304 in chunks",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        b"",
        status=304,
    ),
    good("304 and an answer", b"HTTP/1.1 304 Not Modified\r\n\r\n" + EVIL, b"", status=304),
    good("HEAD of a length", GOOD + b"Content-Length: 4\r\n\r\n", b"", method="HEAD", reused=True),
    good("304 of a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", b"", status=304, reused=True),
    good("204", b"HTTP/1.1 204 No Content\r\n\r\n", b"", status=204, reused=True),
    good("HEAD without a length", GOOD + b"\r\n", b"", method="HEAD", reused=True),
    good(
        "205 with a body",
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 4\r\n\r\nevil",
        b"evil",
        status=205,
        reused=True,
    ),
    # Answers that are in order
    good("length", GOOD + b"Content-Length: 5\r\n\r\nhello", b"hello", reused=True),
    good("chunks", _chunks(b"5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n"), b"hello", reused=True),
    good("chunks with a last extension", _chunks(b"5\r\nhello\r\n000;a\r\n\r\n"), b"hello", reused=True),
    good("until the end", GOOD + b"\r\nhello", b"hello", end=CLOSE),
    good("until the end, like an answer", GOOD + b"\r\n" + EVIL, EVIL, end=CLOSE),
    good("closed", GOOD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    good("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    good(
        "HTTP/1.0 kept",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        reused=True,
    ),
    good("interim", HINTS * 3 + GOOD + b"Content-Length: 5\r\n\r\nhello", b"hello", reused=True, interim=(103,) * 3),
    good(
        "100 that nobody asked for",
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD + b"Content-Length: 5\r\n\r\nhello",
        b"hello",
        reused=True,
        interim=(100,),
    ),
    good(
        "interim with a length",
        b"HTTP/1.1 102 Processing\r\nContent-Length: 4\r\n\r\n" + GOOD + b"Content-Length: 5\r\n\r\nhello",
        b"hello",
        reused=True,
        interim=(102,),
    ),
    good("no reason", b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", b"hello", reused=True),
    good("nothing for a reason", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello", reused=True),
    good("status over 599", b"HTTP/1.1 799 X\r\nContent-Length: 5\r\n\r\nhello", b"hello", status=799, reused=True),
    good("high octets", GOOD + b"X: \xe9\r\nContent-Length: 5\r\n\r\nhello", b"hello", reused=True),
    good(
        "length named by Connection",
        GOOD + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        reused=True,
    ),
    good(
        "chunks named by Connection",
        GOOD + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
        reused=True,
    ),
    good("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", reused=True),
    bad("HTTP/1.0 in chunks", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
]


def test_cases() -> None:
    """There are many, and each has a name of its own."""
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


def end(server: Wire, how: str) -> None:
    """What an origin server does when it has sent all."""
    with contextlib.suppress(OSError):
        if how == CLOSE:
            server.end_output()
        elif how == RESET:
            server.reset()


def check(heard: Heard, goes_on: bool, case: Case) -> None:
    """A strict client got one whole answer that is right, or one that it cannot take for whole."""
    assert heard.interim == case.interim
    assert heard.answer is None or heard.rest == b"", f"octets behind an answer: {heard}"
    if case.body is not None:
        assert heard.answer is not None, f"no whole answer: {heard}"
        assert (heard.answer.status, heard.answer.body) == (case.status, case.body)
    elif case.status or heard.answer is not None:
        # When all came at once, nothing of it need have gone on.
        assert heard.answer is not None and heard.answer.status == 502, f"no 502: {heard}"
        assert heard.answer.all("Proxy-Status")[0].startswith("proxyd; error=")
        assert b"evil" not in heard.answer.body
    else:
        assert not goes_on


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(site: Site, case: Case) -> None:
    """One answer that is right or none, never two; and the next request is served, on a good connection."""
    client, server = site.ask(case.method)
    with client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.send(case.octets)
        end(server, case.end)
        check(*listen(client, case.method), case)
        site.next_is_served(server, case.reused)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_in_two(site: Site, case: Case) -> None:
    """The same when proxyd has read the head before the rest comes: a bad body is never made to look whole."""
    client, server = site.ask(case.method)
    with client:
        head = case.octets.find(b"\r\n\r\n") + 4
        if head < 4:
            head = len(case.octets) // 2
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.send(case.octets[:head])
            site.catch_up()
            server.send(case.octets[head:])
            site.catch_up()
        end(server, case.end)
        heard, goes_on = listen(client, case.method)
        # Octets that come later find the connection unused, and end it; the answer before them is good.
        check(heard, goes_on, case)
        site.next_is_served(server, case.reused)


ANSWERS = {
    "length": GOOD + b"X-A: b\r\nContent-Length: 10\r\n\r\n0123456789",
    "chunks": GOOD + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\n01234\r\n5\r\n56789\r\n0\r\nX-T: u\r\n\r\n",
    "interim": HINTS + GOOD + b"Content-Length: 10\r\n\r\n0123456789",
    "none": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
}


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", ANSWERS)
def test_ends_at_every_octet(site: Site, name: str, version: str, how: str) -> None:
    """Wherever an answer breaks off: 502 within the head, and behind that nothing that could be taken for whole."""
    octets = ANSWERS[name]
    for size in range(len(octets)):
        client, server = site.ask("GET", version)
        with client:
            server.send(octets[:size])
            if how == RESET:
                # A reset destroys what has not been read.
                site.catch_up()
            end(server, how)
            data = b""
            was_reset = False
            try:
                while more := client.read_some():
                    data += more
                    if version == "1.1" and hear(data, "GET").answer is not None:
                        break
            except ConnectionResetError:
                was_reset = True
            head_size = octets.index(b"\r\n\r\n", len(HINTS) if name == "interim" else 0) + 4
            if size < head_size:
                heard = hear(data, "GET")
                assert heard.answer is not None and heard.answer.status == 502, (size, data)
            elif version == "1.1" or name == "length" or name == "interim":
                heard = hear(data, "GET")
                assert heard.answer is None or heard.answer.status == 502, (size, data)
            else:
                # To HTTP/1.0 a body ends with its connection: only a reset says that it has not.
                assert was_reset or b" 502 " in data, (size, data)
        server.close()
    site.origin.end_all()


@pytest.mark.parametrize("name", ANSWERS)
def test_whole_answers(site: Site, name: str) -> None:
    """Not broken off they are whole, however they are cut: the loop above has something to find."""
    octets = ANSWERS[name]
    for size in range(1, len(octets)):
        client, server = site.ask("GET")
        with client:
            server.send(octets[:size])
            site.catch_up()
            server.send(octets[size:])
            heard, goes_on = listen(client, "GET")
            assert goes_on and heard.answer is not None
            assert heard.answer.body == (b"" if name == "none" else b"0123456789")
            assert heard.answer.trailers == ((("X-T", "u"),) if name == "chunks" else ())
        server.close()
        site.catch_up()
    site.origin.end_all()


def test_octets_on_an_unused_connection(site: Site) -> None:
    """An answer that comes before its request is nobody's: the connection is not used again (RFC 9112 section 9.2)."""
    client, server = site.ask("GET")
    with client:
        server.respond("mine")
        assert client.read_message().body == b"mine"
        server.send(EVIL)
        with contextlib.suppress(ConnectionResetError):
            server.assert_ended()
        site.next_is_served(server, reused=False)


def test_endless_interim_answers(site: Site) -> None:
    """They count towards limits.responseHeader: an origin server that never comes to the point is 502."""
    client, server = site.ask("GET")
    with client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100000):
                server.send(HINTS)
        heard, _ = listen(client, "GET")
        assert heard.answer is not None and heard.answer.status == 502
        assert set(heard.interim) == {103} and len(heard.interim) * len(HINTS) <= 8192
        site.next_is_served(server, reused=False)


def test_listener_is_strict() -> None:
    """What this module listens with finds the answers that a client must never get."""
    assert hear(EVIL + EVIL, "GET").rest == EVIL
    assert hear(EVIL[:-1], "GET").answer is None
    assert hear(_chunks(b"5\r\nhello\r\n0\r\n"), "GET").answer is None
    for octets in (b"HTTP/1.1 200 OK\n\n", _length(b"5, 5"), _coding(b"gzip"), _chunks(b"5;a\r\nhello\r\n0\r\n\r\n")):
        with pytest.raises(Malformed):
            assert hear(octets + b"\r\n\r\n", "GET").answer is None
