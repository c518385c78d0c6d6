"""An origin server's octets, and what the client gets of them."""

from __future__ import annotations

from typing import NamedTuple

from tests.fuzzing.channel import _end
from tests.fuzzing.cutting import nothing_logged, same_for_all
from tests.fuzzing.reference import Fields, Malformed, Message, read_response, read_responses
from tests.support.exchanges import MemoryProxy

HEAD_SIZE = 1024
"""The most octets of an answer's head here."""


class Outcome(NamedTuple):
    """
    What has to be the same for all cuttings.

    @ivar status: 0 when the client got no whole answer of the origin server's.
    """

    status: int
    fields: Fields
    body: bytes
    trailers: Fields


_FAILED = Outcome(0, [], b"", [])


def fuzz(data: bytes) -> None:
    """
    One answer.

    @param data: an octet for the request and for how the connection ends, then what the origin server sends.
    """
    options, stream = data[0] if data else 0, data[1:]
    method = (b"GET", b"HEAD", b"DELETE", b"GET")[options & 3]
    minor = options >> 2 & 1
    is_reset = bool(options & 8)
    expected = _expected(stream, method, not is_reset)

    def outcome(segments: list[bytes]) -> Outcome:
        proxy = MemoryProxy()
        proxy.upstream.response_head_size = HEAD_SIZE
        proxy.client.deliver(b"%b / HTTP/1.%d\r\nHost: a\r\n\r\n" % (method, minor))
        (origin,) = proxy.origins
        origin.take()
        got = b""
        for segment in segments:
            if not origin.is_connected or origin.is_aborted:
                break
            origin.deliver(segment)
            proxy.clock.advance(0)
            got += proxy.client.take()
        if origin.is_connected:
            origin.reset() if is_reset else origin.end()
        for _ in range(3):
            proxy.clock.advance(0)
            got += proxy.client.take()
        one = _received(proxy, got, method)
        if one is not _FAILED:
            _compare(expected, one)
        _end(proxy)
        assert len(proxy.origins) == 1, "nothing is asked twice"
        return one

    with nothing_logged():
        same_for_all(stream, outcome)


def _expected(stream: bytes, method: bytes, ended: bool) -> Message | None:
    """The final answer, when there is a whole one."""
    try:
        while (message := read_response(stream, method, ended)) is not None and message.start[1] < b"200":
            stream = stream[message.size :]
    except Malformed:
        return None
    return message if message is not None and message.is_whole else None


def _received(proxy: MemoryProxy, got: bytes, method: bytes) -> Outcome:
    """What the client got, by a reader that believes nothing that was cut off."""
    client = proxy.client
    closed = client.is_disconnecting or client.has_ended or (not client.is_connected and not client.is_aborted)
    answers = read_responses(got, [method], closed)
    if not answers or not answers[0].is_whole:
        assert client.is_aborted, f"neither whole nor cut off: {got!r}"
        return _FAILED
    (answer,) = answers
    status = int(answer.start[1])
    if answer.values(b"proxy-status"):
        assert not client.is_aborted
        if status in (502, 504) and b"proxyd;" in answer.values(b"proxy-status")[-1]:
            return _FAILED
    # Who sent none gets the time of day, which is not the same for all.
    assert answer.values(b"date")
    fields = [field for field in answer.fields if field[0].lower() != b"date"]
    return Outcome(status, fields, answer.body, answer.trailers)


def _compare(sent: Message | None, got: Outcome) -> None:
    """What looks whole to the client is what the origin server said, whole."""
    assert sent is not None, f"a whole answer out of none: {got}"
    assert (got.status, got.body) == (int(sent.start[1]), sent.body)
    left = iter(sent.fields)
    for name, value in got.fields:
        ours = (b"connection", b"transfer-encoding")
        assert name.lower() in ours or (name, value) in left, f"a field of nobody: {name!r}"
    assert set(got.trailers) <= set(sent.trailers)


SEEDS = [
    b"\x00HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    b"\x04HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\nTE: b\r\n\r\n",
    b"\x04HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"\x00HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"\x08HTTP/1.0 200 OK\r\n\r\nuntil the reset",
    b"\x04HTTP/1.1 200\r\nConnection: close, X-A\r\nX-A: b\r\n\r\nuntil the end",
    b"\x01HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
    b"\x02HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    b"\x00HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"\x00HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Length: 9\r\n\r\n",
    b"\x00HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"\x00HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
    b"\x00HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\x00HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n",
    b"\x00HTTP/1.1 502 Bad\r\nProxy-Status: other; error=dns_error\r\nContent-Length: 0\r\n\r\n",
    b"\x00HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"\x00SSH-2.0-x\r\n",
]

WORDS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 A\r\n\r\n",
    b"HTTP/1.0 ",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: ",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"5;a=b\r\nhello\r\n",
    b"\r\n\r\n",
    b"\n",
]
