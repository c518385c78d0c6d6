"""L{proxyd.outbound.socks}: conversations with SOCKS servers, octet by octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import ProxyAuthenticationRequired, ProxyConnectFailed, ProxyError, ProxyTunnelFailed
from proxyd.outbound.socks import Socks4Handshake, Socks5Handshake

DONE = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def five(host: str = "target.test", user: bytes | None = None, password: bytes = b"") -> Socks5Handshake:
    """A SOCKS5 handshake."""
    return Socks5Handshake(host, 443, user, password)


def converse(handshake: Socks5Handshake | Socks4Handshake, octets: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """All that is sent, and the target's octets, however the server's arrive."""
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    sent, rest = handshake.begin(), b""
    for start, end in zip(edges, edges[1:], strict=False):
        piece = octets[start:end]
        if handshake.established:
            rest += piece
        else:
            more, behind = handshake.receive(piece)
            sent += more
            rest += behind
    return sent, rest


CUTS = st.lists(st.integers(0, 60), max_size=8)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("target.test", b"\x03\x0btarget.test"),
        ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
def test_socks5_request(host: str, address: bytes) -> None:
    """A name is the server's to resolve; addresses are octets (RFC 1928 sections 4 and 5)."""
    sent, rest = converse(five(host), b"\x05\x00" + DONE, [])
    assert sent == b"\x05\x01\x00" + b"\x05\x01\x00" + address + b"\x01\xbb"
    assert rest == b""


@pytest.mark.parametrize("bound", [b"\x01\0\0\0\0", b"\x03\x04name", b"\x04" + bytes(16), b"\x03\x00"])
def test_socks5_reply(bound: bytes) -> None:
    """Whatever address the server binds, what follows it is the target's."""
    sent, rest = converse(five(), b"\x05\x00" + b"\x05\x00\x00" + bound + b"\x00\x50" + b"hello", [])
    assert rest == b"hello"


def test_socks5_password() -> None:
    """User and password, when the server asks for them (RFC 1929)."""
    sent, _ = converse(five(user=b"me", password=b"secret"), b"\x05\x02\x01\x00" + DONE, [])
    assert sent.startswith(b"\x05\x02\x00\x02" + b"\x01\x02me\x06secret" + b"\x05\x01\x00")
    sent, _ = converse(five(user=b"me", password=b"secret"), b"\x05\x00" + DONE, [])
    assert b"secret" not in sent


@pytest.mark.parametrize(
    ("octets", "error", "text"),
    [
        (b"\x05\xff", ProxyAuthenticationRequired, "none of our ways"),
        (b"\x05\x01", ProxyAuthenticationRequired, "none of our ways"),
        (b"\x05\x02\x01\x01", ProxyAuthenticationRequired, "refused user and password"),
        (b"\x05\x02\x05\x00", ProxyTunnelFailed, "no answer to user and password"),
        (b"\x04\x00", ProxyTunnelFailed, "no SOCKS5"),
        (b"HTTP/1.1 400", ProxyTunnelFailed, "no SOCKS5"),
        (b"\x05\x00\x04", ProxyTunnelFailed, "no SOCKS5"),
        (b"\x05\x00\x05\x00\x00\x05\x00", ProxyTunnelFailed, "an address of an unknown type"),
        *(
            (b"\x05\x00\x05" + bytes((code,)), ProxyConnectFailed, text)
            for code, text in [(1, "general"), (2, "rules"), (4, "host unr"), (8, "address type"), (77, "unknown")]
        ),
    ],
)
def test_socks5_failures(octets: bytes, error: type[ProxyError], text: str) -> None:
    """A refusal is one, however little follows it; nonsense is another failure; no secret is told."""
    with pytest.raises(error, match=text) as caught:
        converse(five(user=b"me", password=b"hidden"), octets, [])
    assert "hidden" not in str(caught.value) + repr(caught.value)


def test_socks5_password_not_offered() -> None:
    """A server that wants a password which we do not have refuses us."""
    with pytest.raises(ProxyAuthenticationRequired):
        converse(five(), b"\x05\x02", [])


def test_too_long_a_name() -> None:
    """SOCKS5 has one octet for a name's length."""
    with pytest.raises(ValueError, match="too long"):
        five("a" * 256)


@pytest.mark.parametrize(
    ("host", "request_"),
    [
        ("192.0.2.1", b"\x04\x01\x01\xbb\xc0\x00\x02\x01me\x00"),
        ("target.test", b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00target.test\x00"),
    ],
)
def test_socks4(host: str, request_: bytes) -> None:
    """An address, or (4A) an address that is none and the name behind it."""
    sent, rest = converse(Socks4Handshake(host, 443, b"me"), b"\x00\x5a" + bytes(6) + b"hello", [])
    assert (sent, rest) == (request_, b"hello")


@pytest.mark.parametrize(
    ("octets", "error", "text"),
    [
        (b"\x00\x5b", ProxyConnectFailed, "rejected"),
        (b"\x00\x5d" + bytes(6), ProxyConnectFailed, "another user"),
        (b"\x00\x00", ProxyConnectFailed, "unknown"),
        (b"\x05\x00", ProxyTunnelFailed, "no SOCKS4"),
    ],
)
def test_socks4_failures(octets: bytes, error: type[ProxyError], text: str) -> None:
    """Refusals and nonsense."""
    with pytest.raises(error, match=text):
        converse(Socks4Handshake("192.0.2.1", 443, None), octets, [])


def test_socks4_knows_no_ipv6() -> None:
    """An IPv6 address cannot be asked for."""
    with pytest.raises(ValueError, match="use socks5"):
        Socks4Handshake("2001:db8::1", 443, None)


@given(CUTS, st.binary(max_size=10))
def test_cutting_does_not_matter(cuts: list[int], tail: bytes) -> None:
    """However the server's octets arrive, the same is sent and the same is left."""
    for octets, make in [
        (b"\x05\x02\x01\x00" + DONE + tail, lambda: five(user=b"me", password=b"pw")),
        (b"\x00\x5a" + bytes(6) + tail, lambda: Socks4Handshake("target.test", 443, None)),
    ]:
        assert converse(make(), octets, cuts) == converse(make(), octets, [])
        assert converse(make(), octets, cuts)[1] == tail


@given(st.binary(max_size=30))
def test_whatever_comes(octets: bytes) -> None:
    """Nothing that a server sends is an error of another kind."""
    for handshake in (five(user=b"me"), Socks4Handshake("target.test", 443, None)):
        try:
            handshake.receive(octets)
        except ProxyError as error:
            assert error.stage
