"""Channel, exchange and origin connection together, in memory: whatever the network does to octets."""

from __future__ import annotations

import gc
import re
import time
import weakref
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxyd.http.framing import ChunkedReader
from tests.support.exchanges import LIMITS, TIMEOUTS, MemoryProxy
from tests.support.transports import HIGH

SEGMENT = 64 * 1024
"""The most octets that a transport delivers at once."""

REQUESTS = [
    (b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    (b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (
        b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        b"abcde",
    ),
    (b"PUT /%d HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n", b""),
    (b"\r\nHEAD /%d HTTP/1.1\r\nHost: a\r\n\r\n", b""),
]

ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld", b"world"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwor\r\n2\r\nld\r\n0\r\nX-End: 1\r\n\r\n", b"world"),
    (b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld", b"world"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
]

NOTHING = b"HTTP/1.1 204 No Content\r\nDate: a\r\n\r\n"
"""An answer that reaches the client octet for octet."""

CUTS = st.lists(st.integers(0, 700), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream, cut at these places."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    return [stream[start:end] for start, end in zip(edges, edges[1:], strict=False) if start < end]


def body_of(message: bytes) -> tuple[bytes, bytes]:
    """The body of the first message, and what follows it."""
    head, _, rest = message.partition(b"\r\n\r\n")
    if b" 103 " in head:
        return body_of(rest)
    if b"Transfer-Encoding: chunked" in head:
        reader = ChunkedReader()
        return reader.receive(rest), reader.rest
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
    return rest[:length], rest[length:]


@given(st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=5), CUTS)
def test_cutting_requests_does_not_matter(kinds: list[int], cuts: list[int]) -> None:
    """However a client's requests arrive, the origin server gets the same ones, whole and in order."""
    proxy = MemoryProxy()
    stream = b"".join(REQUESTS[kind][0] % number for number, kind in enumerate(kinds))
    for piece in pieces(stream, cuts):
        proxy.client.deliver(piece)
        proxy.clock.advance(0)
    for number, kind in enumerate(kinds):
        request = proxy.origins[0].take()
        method = REQUESTS[kind][0].split()[0]
        assert request.startswith(method + b" /%d HTTP/1.1\r\nHost: a\r\n" % number)
        assert body_of(request) == (REQUESTS[kind][1], b"")
        assert request.count(b"HTTP/1.1\r\n") == 1
        answer = b"HTTP/1.1 200 OK\r\nX-N: %d\r\nDate: a\r\nContent-Length: 0\r\n\r\n" % number
        proxy.origins[0].deliver(answer)
        assert proxy.client.take() == answer
        proxy.clock.advance(0)
    assert [record.status for record in proxy.records] == [200] * len(kinds)
    assert len(proxy.origins) == 1


@given(st.lists(st.integers(0, len(ANSWERS) - 1), min_size=1, max_size=4), CUTS)
def test_cutting_answers_does_not_matter(kinds: list[int], cuts: list[int]) -> None:
    """However an origin server's answer arrives, the client gets the same one."""
    proxy = MemoryProxy()
    for kind in kinds:
        answer, body = ANSWERS[kind]
        proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for piece in pieces(answer, cuts):
            proxy.origins[0].deliver(piece)
            proxy.clock.advance(0)
        assert body_of(proxy.client.take()) == (body, b"")
    assert len(proxy.origins) == 1


@pytest.mark.parametrize("answer", [answer for answer, _ in ANSWERS])
def test_every_place_to_break_off(answer: bytes) -> None:
    """Wherever an origin server breaks off, the client never has what looks like a whole answer."""
    for size in range(len(answer)):
        proxy = MemoryProxy()
        proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        if size:
            proxy.origins[0].deliver(answer[:size])
        proxy.origins[0].end()
        before = proxy.client.take()
        proxy.clock.advance(0)
        after = proxy.client.take()
        if b"HTTP/1.1 502 Bad Gateway\r\n" not in before + after:
            assert proxy.client.is_aborted, (answer[:size], before, after)


def close_all(proxy: MemoryProxy) -> None:
    """The client goes away, and time passes."""
    if proxy.client.is_connected:
        proxy.client.reset()
    proxy.clock.advance(0)
    proxy.upstream.retire()
    for _ in range(4):
        for origin in proxy.origins:
            origin.take()
        proxy.clock.advance(120)


@pytest.mark.parametrize("moment", range(7))
def test_nothing_is_left(moment: int) -> None:
    """Whenever the client goes away, no delayed call stays, no connection, and nothing for the garbage collector."""
    gc.disable()
    try:
        proxy = MemoryProxy()
        steps = [
            lambda: proxy.client.deliver(b"POST / HTTP/1.1\r\nHost: a\r\nContent-"),
            lambda: proxy.client.deliver(b"Length: 5\r\n\r\nhe"),
            lambda: proxy.client.deliver(b"llo"),
            lambda: proxy.origins[0].deliver(b"HTTP/1.1 200 OK\r\nContent-"),
            lambda: proxy.origins[0].deliver(b"Length: 5\r\n\r\nwo"),
            lambda: proxy.origins[0].deliver(b"rld"),
        ]
        for step in steps[:moment]:
            step()
        channel = weakref.ref(proxy.channel)
        close_all(proxy)
        assert proxy.clock.getDelayedCalls() == []
        assert not any(origin.is_connected for origin in proxy.origins)
        assert proxy.site.open == 0 and not proxy.site.channels and proxy.upstream.open == 0
        del proxy.channel
        assert channel() is None
    finally:
        gc.enable()


class Streaming(RuleBasedStateMachine):
    """A large upload and a large answer at once, with peers that read when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.proxy = MemoryProxy()
        self.sent = self.answered = 0
        self.uploaded = self.downloaded = b""
        self.proxy.client.deliver(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.origin = self.proxy.origins[0]
        self.uploaded_head = self.origin.take()
        self.origin.deliver(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.downloaded_head = self.proxy.client.take()

    @rule(size=st.integers(1, SEGMENT))
    def upload(self, size: int) -> None:
        """The client sends, as far as its own buffers go."""
        if not self.proxy.client.is_waiting:
            self.proxy.client.deliver(b"%x\r\n" % size + b"u" * size + b"\r\n")
            self.sent += size

    @rule(size=st.integers(1, SEGMENT))
    def answer(self, size: int) -> None:
        """The origin server sends."""
        if not self.origin.is_waiting:
            self.origin.deliver(b"%x\r\n" % size + b"d" * size + b"\r\n")
            self.answered += size

    @rule(size=st.one_of(st.none(), st.integers(1, SEGMENT)))
    def client_reads(self, size: int | None) -> None:
        """The client takes some, or all."""
        self.downloaded += self.proxy.client.take(size)

    @rule(size=st.one_of(st.none(), st.integers(1, SEGMENT)))
    def origin_reads(self, size: int | None) -> None:
        """The origin server takes some, or all."""
        self.uploaded += self.origin.take(size)

    @rule()
    def loop(self) -> None:
        """The reactor goes on."""
        self.proxy.clock.advance(0)

    @rule()
    def nobody_is_held_up(self) -> None:
        """Who reads everything is sent everything."""
        for _ in range(12):
            self.client_reads(None)
            self.origin_reads(None)
            self.proxy.clock.advance(0)
        assert not self.proxy.client.is_paused and not self.origin.is_paused

    @invariant()
    def memory_is_bounded(self) -> None:
        """Neither side is read faster than the other takes."""
        assert self.proxy.client.unsent <= HIGH + SEGMENT + 64
        assert self.origin.unsent <= HIGH + SEGMENT + 64
        assert self.proxy.client.is_connected and self.origin.is_connected

    def teardown(self) -> None:
        """In the end all that was sent has arrived, in order and once."""
        for _ in range(12):
            self.downloaded += self.proxy.client.take()
            self.uploaded += self.origin.take()
            self.proxy.clock.advance(0)
        reader = ChunkedReader()
        assert reader.receive(self.uploaded + b"0\r\n\r\n") == b"u" * self.sent
        reader = ChunkedReader()
        assert reader.receive(self.downloaded + b"0\r\n\r\n") == b"d" * self.answered


Streaming.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
StreamingTests = Streaming.TestCase


def test_sending_ahead_is_bounded() -> None:
    """What a client sends ahead is kept up to a limit, and read again in its turn."""
    proxy = MemoryProxy()
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    proxy.client.deliver(request)
    sent = 1
    while not proxy.client.is_paused:
        proxy.client.deliver(request)
        sent += 1
    assert sent * len(request) < LIMITS.header + 3 * len(request)
    proxy.client.deliver(request)
    for _ in range(sent + 1):
        assert proxy.origins[0].take().startswith(b"GET / HTTP/1.1")
        proxy.origins[0].deliver(NOTHING)
        proxy.clock.advance(0)
    assert proxy.client.take() == NOTHING * (sent + 1)


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"OPTIONS * HTTP/1.1"])
def test_sending_ahead_stays_bounded(request_line: bytes) -> None:
    """It is, however many requests are answered meanwhile, by the origin server or by ourselves."""
    proxy = MemoryProxy()
    request = request_line + b"\r\nHost: a\r\n\r\n"
    answers = 0
    for _ in range(100):
        proxy.client.deliver(request * (LIMITS.header // len(request)))
        while proxy.origins and proxy.origins[0].take():
            proxy.origins[0].deliver(b"HTTP/1.1 204 No Content\r\n\r\n")
            answers += 1
            if answers % 10 == 0:
                break
        proxy.clock.advance(0)
        proxy.client.take()
        assert len(proxy.channel._buffer) <= 2 * LIMITS.header


def test_sending_ahead_and_taking_nothing_is_bounded() -> None:
    """So it is between two requests, while the client has not taken the answer to the first."""
    proxy = MemoryProxy()
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nDate: a\r\nContent-Length: %d\r\n\r\n" % (2 * HIGH) + b"x" * 2 * HIGH
    proxy.client.deliver(request)
    proxy.origins[0].deliver(answer)
    sent = 0
    while not proxy.client.is_paused and sent < 1000:
        proxy.client.deliver(request)
        sent += 1
    assert sent * len(request) < LIMITS.header + 2 * len(request)
    proxy.client.deliver(request)
    assert proxy.client.take() == answer
    for _ in range(sent + 1):
        proxy.clock.advance(0)
        proxy.origins[0].deliver(NOTHING)
    assert proxy.client.take() == NOTHING * (sent + 1)
    assert not proxy.client.is_paused


def test_slow_client_keeps_its_last_answer() -> None:
    """A client that is told to close has time to take what is on its way, as long as it takes anything."""
    proxy = MemoryProxy()
    proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    proxy.origins[0].deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    proxy.clock.advance(1)
    assert proxy.client.take().endswith(b"x" * 1000)
    proxy.clock.advance(0)
    assert not proxy.client.is_connected and not proxy.client.is_aborted


@pytest.mark.parametrize(
    ("sent", "seconds", "status"),
    [
        (b"", TIMEOUTS.header, 0),
        (b"G", TIMEOUTS.header, 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", TIMEOUTS.body, 408),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", TIMEOUTS.response, 504),
    ],
)
def test_deadlines(sent: bytes, seconds: float, status: int) -> None:
    """Each deadline is kept to the moment, and the connection's end leaves nothing scheduled."""
    proxy = MemoryProxy()
    if sent:
        proxy.client.deliver(sent)
    proxy.clock.advance(seconds - 0.01)
    assert proxy.client.take() == b"" and proxy.client.is_connected
    proxy.clock.advance(0.02)
    answer = proxy.client.take()
    assert answer.startswith(b"HTTP/1.1 %d " % status if status else b"")
    assert bool(answer) is bool(status)
    close_all(proxy)
    assert proxy.clock.getDelayedCalls() == []


def test_an_answer_without_a_date() -> None:
    """It gets ours (RFC 9110 section 6.6.1), the same for a whole second; one that has a Date keeps it alone."""
    proxy = MemoryProxy()
    date = rb"Date: (\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT)\r\n"
    ours = re.compile(rb"HTTP/1.1 204 No Content\r\n(?:X-A: 1\r\n)?" + date + rb"\r\n")
    for fields, is_dated in [
        (b"", False),
        (b"X-A: 1\r\n", False),
        (b"DATE: yesterday\r\nX-A: 1\r\n", True),
        (b"Date:\r\n", True),
        # What ends here does not count.
        (b"Connection: Date\r\nDate: yesterday\r\nX-A: 1\r\n", False),
    ]:
        proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        proxy.origins[0].deliver(b"HTTP/1.1 204 No Content\r\n" + fields + b"\r\n")
        proxy.clock.advance(0)
        answer = proxy.client.take()
        if is_dated:
            assert answer == b"HTTP/1.1 204 No Content\r\n%b\r\n" % fields.replace(b"Date:\r", b"Date: \r")
        else:
            found = ours.fullmatch(answer)
            assert found is not None and abs(parsedate_to_datetime(found[1].decode()).timestamp() - time.time()) < 60
    proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.origins[0].deliver(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
    assert proxy.client.take() == b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"


def test_our_own_answers_are_dated() -> None:
    """Errors, too."""
    proxy = MemoryProxy()
    proxy.client.deliver(b"GET /\r\n\r\n")
    head = proxy.client.take().partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 400 ") and head.count(b"\r\nDate: ") == 1


@pytest.mark.parametrize(
    ("status", "fields", "told"),
    [
        (426, b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        (426, b"Upgrade: h2c, WebSocket\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        # What is not served here is not asked for.
        (426, b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b""),
        (426, b"", b""),
        (200, b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b""),
    ],
)
def test_an_answer_that_asks_for_an_upgrade(status: int, fields: bytes, told: bytes) -> None:
    """A 426 must say to what (RFC 9110 section 15.5.22); Upgrade goes no further else."""
    proxy = MemoryProxy()
    proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.origins[0].deliver(b"HTTP/1.1 %d X\r\nDate: a\r\n%bContent-Length: 0\r\n\r\n" % (status, fields))
    assert proxy.client.take() == b"HTTP/1.1 %d X\r\nDate: a\r\nContent-Length: 0\r\n%b\r\n" % (status, told)


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 5", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")],
)
def test_body_that_comes_between_two_connections(framing: bytes, body: bytes) -> None:
    """What a client sends while its request waits to be sent again belongs to it all the same."""
    proxy = MemoryProxy(waits=True)
    proxy.client.deliver(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.endpoint.accept()
    proxy.origins[0].deliver(NOTHING)
    proxy.client.deliver(b"PUT / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
    proxy.origins[0].end()
    proxy.clock.advance(0)
    proxy.client.deliver(body)
    proxy.endpoint.accept()
    assert body_of(proxy.origins[1].take()) == (b"hello", b"")
    proxy.origins[1].deliver(NOTHING)
    assert proxy.client.take() == 2 * NOTHING
    assert [record.received for record in proxy.records] == [0, 5]
