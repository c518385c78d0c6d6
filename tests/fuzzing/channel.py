"""
A client's octets, and what an origin server gets of them.

The strict reader of L{reference} is asked three times: what the origin server
got is exactly one request at a time; it is the request that the client sent;
and what the client gets are answers, one for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fuzzing.cutting import nothing_logged, same_for_all
from tests.fuzzing.reference import Message, read_request, read_requests, read_responses
from tests.support.exchanges import LIMITS, TIMEOUTS, MemoryProxy

_OURS = (b"host", b"via", b"content-length", b"transfer-encoding", b"te", b"connection")
"""Fields that an origin server may get without, or other than, the client's."""

@dataclass
class Outcome:
    """
    @ivar requests: what the origin server got, whole ones.
    @ivar answers: the statuses that the client got; 4 for any that says that the request is wrong.
    """

    requests: list[Message] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


def _serve(segments: list[bytes]) -> Outcome:
    """A client sends all it has; then the origin server answers one request after the other."""
    proxy, outcome = MemoryProxy(), Outcome()
    got = b""
    for segment in segments:
        if not proxy.client.is_connected:
            break
        proxy.client.deliver(segment)
        proxy.clock.advance(0)
        got += proxy.client.take()
        assert len(proxy.channel._buffer) <= LIMITS.header + len(segment)
    unread = [b""] * 1000
    answered = True
    while answered:
        answered = False
        for number, origin in enumerate(proxy.origins):
            unread[number] += origin.take()
            request = read_request(unread[number])
            if request is None or not request.is_whole or not origin.is_connected or origin.is_aborted:
                continue
            assert len(unread[number]) == request.size, "more than one request at once"
            outcome.requests.append(request)
            unread[number] = b""
            origin.deliver(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            answered = True
        for _ in range(3):
            proxy.clock.advance(0)
            got += proxy.client.take()
    # Who has sent a part of a request waits for an answer in vain, unless it was refused before it was whole.
    proxy.clock.advance(TIMEOUTS.body)
    got += proxy.client.take()
    # A head that could not be read is answered as any is that is not HEAD.
    methods = [b"" if record.head is None else record.head.method for record in proxy.records]
    closed = proxy.client.has_ended or proxy.client.is_disconnecting or not proxy.client.is_connected
    answers = read_responses(got, methods, closed)
    assert all(answer.is_whole for answer in answers), "an answer that is not whole"
    for answer in answers:
        status = int(answer.start[1])
        outcome.answers.append(4 if status in (400, 405, 408, 413, 414, 431, 501, 505) else status)
    assert 4 not in outcome.answers[:-1], "a request was served after one that is wrong"
    _end(proxy)
    return outcome


def _end(proxy: MemoryProxy) -> None:
    """The client goes away, and nothing is left of it."""
    if proxy.client.is_connected:
        proxy.client.reset()
    proxy.upstream.retire()
    for _ in range(3):
        for origin in proxy.origins:
            origin.take()
        proxy.clock.advance(100)
    assert not any(origin.is_connected for origin in proxy.origins)
    assert proxy.clock.getDelayedCalls() == []
    assert proxy.site.open == proxy.upstream.open == 0 and not proxy.site.channels


def _compare(sent: Message, got: Message) -> None:
    """What the origin server got is what the client sent."""
    assert (got.start[0], got.body) == (sent.start[0], sent.body)
    assert got.start[2] == b"HTTP/1.1" and len(got.values(b"host")) == 1 and got.values(b"via")
    target = sent.start[1]
    if target.startswith(b"/") and b"." not in target and b"%" not in target:
        # What is sent on here is the path alone.
        assert got.start[1] == target.partition(b"?")[0]
    assert got.start[1].startswith(b"/")
    left = iter(sent.fields)
    for name, value in got.fields:
        # "in" reads on: that is, in this order.
        assert name.lower() in _OURS or (name, value) in left, f"a field of nobody: {name!r}"
    assert set(got.trailers) <= set(sent.trailers)


def fuzz(data: bytes) -> None:
    """
    A connection.

    @param data: what the client sends.
    """
    with nothing_logged():
        outcome = same_for_all(data, _serve)
    sent = read_requests(data)
    assert len(outcome.requests) <= len(sent), "a request that the client never sent"
    for one, got in zip(sent, outcome.requests, strict=False):
        _compare(one, got)
    assert len(outcome.answers) <= len(outcome.requests) + 1


SEEDS = [
    b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n\r\n" * 3,
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nTE: trailers\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD http://b.test:80/%41/../c HTTP/1.1\r\nHost: a\r\nConnection: close, X-A\r\nX-A: b\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"\r\n\r\nDELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x80abcd",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabGET / HTTP/1.1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]

WORDS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\n",
    b"Content-Length: ",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: ",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\n",
    b"Host: b\r\n",
    b" HTTP/1.0\r\n",
    b"0\r\n\r\n",
    b"5;a=b\r\nhello\r\n",
    b"keep-alive",
    b"\r\n",
    b"\n",
    b"\t",
    b"%2e%2e/",
    b"http://b",
]
