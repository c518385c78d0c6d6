"""L{proxyd.http.connect}: a tunnel is asked for, and the reply read, octet by octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.http.authority import Authority
from proxyd.http.connect import MAX_REFUSAL_BODY, MAX_REPLY_HEAD, ConnectHandshake, Malformed, State
from proxyd.http.fields import Fields


def handshake(fields: Fields | None = None) -> ConnectHandshake:
    """A handshake for some target."""
    return ConnectHandshake(Authority("target.test", 443), fields or [])


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        (Authority("target.test", 443), b"target.test:443"),
        (Authority("target.test", 80), b"target.test:80"),
        (Authority("192.0.2.1", 8080), b"192.0.2.1:8080"),
        (Authority("2001:db8::1", 443), b"[2001:db8::1]:443"),
    ],
)
def test_request(authority: Authority, target: bytes) -> None:
    """Host and port, an IPv6 address in brackets, in both places (RFC 9112 section 3.2.3)."""
    one = ConnectHandshake(authority, [(b"Proxy-Authorization", b"Basic eA==")])
    assert one.request() == (
        b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    )


@pytest.mark.parametrize("field", [(b"A\r\nB", b"c"), (b"A", b"b\r\nC: d"), (b"A", b"\0"), (b"", b"a"), (b"A", b" b")])
def test_injection(field: tuple[bytes, bytes]) -> None:
    """No field can begin another line."""
    with pytest.raises(ValueError, match="for the proxy is malformed"):
        handshake([field])


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nVia: a\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 299 Fine\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n220 hello", b"220 hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\x16\x03", b"\x16\x03"),
    ],
)
def test_established(reply: bytes, rest: bytes) -> None:
    """Any 2xx opens the tunnel, interim replies are skipped, and what follows is the target's."""
    one = handshake()
    assert one.receive(reply) == rest
    assert one.state is State.ESTABLISHED
    one = handshake()
    received = b""
    for octet in reply:
        received += bytes((octet,)) if one.state is State.ESTABLISHED else one.receive(bytes((octet,)))
    assert (one.state, received) == (State.ESTABLISHED, rest)


def test_refused() -> None:
    """A refusal's status, reason, challenges and the beginning of its body are kept."""
    one = handshake()
    assert one.receive(
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a\"\r\n"
        b"no colon\r\nproxy-authenticate:\tNegotiate \r\n\r\nfirst "
    ) == b""
    assert (one.state, one.status, one.reason) == (State.REFUSED, 407, b"Proxy Authentication Required")
    assert one.challenges() == ['Basic realm="a"', "Negotiate"]
    assert one.receive(b"second") == b""
    assert one.body == b"first second"
    one.receive(b"x" * 2 * MAX_REFUSAL_BODY)
    assert len(one.body) == MAX_REFUSAL_BODY


def test_challenges_are_one_line() -> None:
    """What a proxy says is shown to people, in logs too: a value with a control in it is left out."""
    one = handshake()
    one.receive(
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: a\nb\r\n"
        b"Proxy-Authenticate: \x1b[1m\r\nproxy-authenticate:\tBasic \r\n\r\n"
    )
    assert one.challenges() == ["Basic"]


@pytest.mark.parametrize(
    "reply",
    [
        b"220 mail.test ESMTP\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 200 a\rb\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"\x05\x00\r\n\r\n",
        b"x" * (MAX_REPLY_HEAD + 1),
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_REPLY_HEAD + b"\r\n\r\n",
        b"HTTP/1.1 102 Wait\r\n\r\n" * 1000,
    ],
)
def test_no_reply(reply: bytes) -> None:
    """What is no reply, or has no end, fails the handshake for good."""
    one = handshake()
    with pytest.raises(Malformed):
        one.receive(reply)
    assert one.state is State.FAILED
    with pytest.raises(RuntimeError):
        one.receive(b"")


def test_not_after_the_end() -> None:
    """A tunnel that is established has no more replies."""
    one = handshake()
    one.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises(RuntimeError):
        one.receive(b"x")


@given(st.binary(max_size=40), st.lists(st.integers(0, 120), max_size=6))
def test_cutting_does_not_matter(tail: bytes, cuts: list[int]) -> None:
    """However the reply arrives, the same rest comes out."""
    stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nVia: 1.1 p\r\n\r\n" + tail
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    one, rest = handshake(), b""
    for start, end in zip(edges, edges[1:], strict=False):
        piece = stream[start:end]
        rest += piece if one.state is State.ESTABLISHED else one.receive(piece)
    assert rest == tail


@given(st.binary(max_size=60))
def test_whatever_comes(octets: bytes) -> None:
    """Nothing that a proxy sends is an error of another kind."""
    try:
        handshake().receive(octets)
    except Malformed:
        pass
