"""host[:port]."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.http.authority import MAX_HOST, Authority, parse


@pytest.mark.parametrize(
    ("octets", "host", "port"),
    [
        # RFC 3986 section 3.2
        (b"example.com", "example.com", None),
        (b"Example.COM:8080", "Example.COM", 8080),
        (b"example.com.", "example.com.", None),
        (b"h:", "h", None),
        (b"h:0", "h", 0),
        (b"h:65535", "h", 65535),
        (b"h:00080", "h", 80),
        (b"a_b-c~d", "a_b-c~d", None),
        (b"127.0.0.1:80", "127.0.0.1", 80),
        (b"[::1]", "::1", None),
        (b"[2001:DB8::1]:443", "2001:DB8::1", 443),
        (b"[::ffff:192.0.2.1]", "::ffff:192.0.2.1", None),
        (b"x" * MAX_HOST, "x" * MAX_HOST, None),
    ],
)
def test_parse(octets: bytes, host: str, port: int | None) -> None:
    """Names and addresses, with and without a port."""
    assert parse(octets) == Authority(host, port)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b":80",
        b"h:65536",
        b"h:123456",
        b"h:-1",
        b"h:+1",
        b"h: 1",
        b"h:8o",
        b"h:80:80",
        b"a b",
        b"a,b",
        b"a/b",
        b"a\\b",
        b"a?b",
        b"a#b",
        b"a@b",
        b"u:p@b",
        b"a%2eb",
        b'a"b',
        b"h\n",
        b"h\0",
        b"h\xc3\xa9",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[:::]",
        b"[1.2.3.4]",
        b"[fe80::1%25eth0]",
        b"[fe80::1%eth0]",
        b"[v1.a]",
        b"[::1]x",
        b"x" * (MAX_HOST + 1),
    ],
)
def test_what_is_no_authority(octets: bytes) -> None:
    """User information, lists, zones and whatever else Host may not be is refused."""
    with pytest.raises(ValueError):
        parse(octets)


@pytest.mark.parametrize(
    ("authority", "default_port", "octets"),
    [
        (Authority("h"), None, b"h"),
        (Authority("h", 80), None, b"h:80"),
        (Authority("h", 80), 80, b"h"),
        (Authority("h", 0), 80, b"h:0"),
        (Authority("h"), 80, b"h"),
        (Authority("::1", 443), 443, b"[::1]"),
        (Authority("::1", 443), 80, b"[::1]:443"),
    ],
)
def test_to_bytes(authority: Authority, default_port: int | None, octets: bytes) -> None:
    """IPv6 gets its brackets, a default port is left out."""
    assert authority.to_bytes(default_port) == octets


HOSTS = st.from_regex(r"[A-Za-z0-9._~-]{1,40}", fullmatch=True) | st.ip_addresses(v=6).map(
    lambda address: str(IPv6Address(int(address)))
)


@given(HOSTS, st.none() | st.integers(0, 65535))
def test_parsing_undoes_serializing(host: str, port: int | None) -> None:
    """What is written reads as what it was."""
    authority = Authority(host, port)
    assert parse(authority.to_bytes()) == authority


@given(st.binary(max_size=12))
def test_nothing_that_breaks_a_line_gets_through(octets: bytes) -> None:
    """Whatever is accepted is visible ASCII without delimiters."""
    try:
        written = parse(octets).to_bytes()
    except ValueError:
        return
    assert not set(written) - set(range(0x21, 0x7F))
    assert not set(written) & set(b"/?#@\\,;\"'% ")
