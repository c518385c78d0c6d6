"""Who the client is, and what the origin server learns of it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.http.fields import Fields, valid_value
from proxyd.http.forwarded import FORWARDING, TrustedProxies, forwarding, via

TRUSTED = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "unix"])
NOBODY = TrustedProxies()


def forward(
    *told: tuple[bytes, bytes],
    peer: str = "10.0.0.1",
    secure: bool = False,
    host: bytes = b"h:8080",
    port: int = 8080,
    trusted: TrustedProxies = TRUSTED,
    forwarded: bool = False,
) -> tuple[str, dict[bytes, bytes]]:
    """The client's address and the fields, by their names in lower case."""
    client, fields = forwarding(
        list(told), peer=peer, secure=secure, host=host, port=port, trusted=trusted, forwarded=forwarded
    )
    found = {name.lower(): value for name, value in fields}
    assert len(found) == len(fields)
    assert found.keys() <= FORWARDING
    return client, found


def test_a_client_that_is_not_trusted() -> None:
    """What it says of its way is not believed, and what we see is said."""
    client, fields = forward(
        (b"X-Forwarded-For", b"10.0.0.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"evil"),
        (b"X-Forwarded-Port", b"1"),
        (b"X-Real-IP", b"10.0.0.1"),
        (b"Forwarded", b"for=10.0.0.1"),
        peer="192.0.2.1",
    )
    assert client == "192.0.2.1"
    assert fields == {
        b"x-forwarded-for": b"192.0.2.1",
        b"x-real-ip": b"192.0.2.1",
        b"x-forwarded-host": b"h:8080",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-port": b"8080",
    }


def test_tls() -> None:
    """The protocol is what the client spoke, https for WebSockets, too."""
    assert forward(secure=True, port=443)[1][b"x-forwarded-proto"] == b"https"


def test_no_host() -> None:
    """A client of HTTP/1.0 may not have named one."""
    fields = forward(host=b"", forwarded=True)[1]
    assert b"x-forwarded-host" not in fields
    assert fields[b"forwarded"] == b"for=10.0.0.1;proto=http"


@pytest.mark.parametrize(
    ("peer", "way", "client", "sent"),
    [
        ("10.0.0.1", [], "10.0.0.1", b"10.0.0.1"),
        ("10.0.0.1", [b"192.0.2.1"], "192.0.2.1", b"192.0.2.1, 10.0.0.1"),
        # The right-most that is not trusted: what is left of it anybody may have written.
        ("10.0.0.1", [b"198.51.100.1, 192.0.2.1"], "192.0.2.1", b"198.51.100.1, 192.0.2.1, 10.0.0.1"),
        ("10.0.0.1", [b"192.0.2.1, 10.0.0.2"], "192.0.2.1", b"192.0.2.1, 10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", [b"192.0.2.1", b"10.0.0.2"], "192.0.2.1", b"192.0.2.1, 10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", [b"10.0.0.3,10.0.0.2"], "10.0.0.3", b"10.0.0.3,10.0.0.2, 10.0.0.1"),
        # Ports and brackets, as some load balancers have them
        ("10.0.0.1", [b"192.0.2.1:4711"], "192.0.2.1", b"192.0.2.1:4711, 10.0.0.1"),
        ("10.0.0.1", [b"[2001:db9::1]:4711"], "2001:db9::1", b"[2001:db9::1]:4711, 10.0.0.1"),
        ("10.0.0.1", [b"2001:DB9::1"], "2001:db9::1", b"2001:DB9::1, 10.0.0.1"),
        ("10.0.0.1", [b"::ffff:192.0.2.1"], "192.0.2.1", b"::ffff:192.0.2.1, 10.0.0.1"),
        # What is no address ends what can be known.
        ("10.0.0.1", [b"192.0.2.1, unknown"], "10.0.0.1", b"192.0.2.1, unknown, 10.0.0.1"),
        ("10.0.0.1", [b"192.0.2.1, x, 10.0.0.2"], "10.0.0.2", b"192.0.2.1, x, 10.0.0.2, 10.0.0.1"),
        ("10.0.0.1", [b"caf\xe9"], "10.0.0.1", b"caf\xe9, 10.0.0.1"),
        ("10.0.0.1", [b"1" * 100], "10.0.0.1", b"1" * 100 + b", 10.0.0.1"),
        # Peers
        ("2001:db8::1", [b"192.0.2.1"], "192.0.2.1", b"192.0.2.1, 2001:db8::1"),
        ("::ffff:10.0.0.1", [b"192.0.2.1"], "192.0.2.1", b"192.0.2.1, 10.0.0.1"),
        ("fe80::1%eth0", [b"192.0.2.1"], "fe80::1", b"fe80::1"),
        ("", [b"192.0.2.1"], "192.0.2.1", b"192.0.2.1"),
        ("192.0.2.9", [b"10.0.0.1"], "192.0.2.9", b"192.0.2.9"),
    ],
)
def test_the_way(peer: str, way: list[bytes], client: str, sent: bytes) -> None:
    """X-Forwarded-For grows by the peer; the client is the last on the way that no trusted proxy is."""
    found, fields = forward((b"Accept", b"*/*"), *[(b"X-Forwarded-For", line) for line in way], peer=peer)
    assert (found, fields[b"x-forwarded-for"], fields[b"x-real-ip"]) == (client, sent, client.encode())


@pytest.mark.parametrize("trusted", [TRUSTED, NOBODY])
def test_unix_sockets(trusted: TrustedProxies) -> None:
    """A peer without an address adds none."""
    client, fields = forward(peer="", trusted=trusted, forwarded=True)
    assert client == ""
    assert b"x-forwarded-for" not in fields
    assert b"x-real-ip" not in fields
    assert fields[b"forwarded"] == b'for=unknown;host="h:8080";proto=http'


@pytest.mark.parametrize(
    ("told", "client"),
    [
        # RFC 7239 section 4
        ((b"Forwarded", b"for=192.0.2.1"), "192.0.2.1"),
        ((b"Forwarded", b'proto=http;For="192.0.2.1:80"; host=x, for=10.0.0.2'), "192.0.2.1"),
        ((b"Forwarded", b'for="[2001:db9::1]:80"'), "2001:db9::1"),
        ((b"Forwarded", b"for=192.0.2.1, for=_hidden"), "10.0.0.1"),
        ((b"Forwarded", b"proto=http"), "10.0.0.1"),
        ((b"X-Real-IP", b"192.0.2.1"), "192.0.2.1"),
    ],
)
def test_a_way_without_x_forwarded_for(told: tuple[bytes, bytes], client: str) -> None:
    """A trusted proxy may have said it in another field."""
    found, fields = forward(told)
    assert found == client
    assert fields[b"x-forwarded-for"] == (b"10.0.0.1" if client == "10.0.0.1" else client.encode() + b", 10.0.0.1")


@pytest.mark.parametrize(
    ("peer", "host", "element"),
    [
        # RFC 7239 section 4 and 6: what is no token is quoted.
        ("192.0.2.1", b"h", b"for=192.0.2.1;host=h;proto=http"),
        ("192.0.2.1", b"h:81", b'for=192.0.2.1;host="h:81";proto=http'),
        ("2001:db9::1", b"[::1]", b'for="[2001:db9::1]";host="[::1]";proto=http'),
    ],
)
def test_forwarded(peer: str, host: bytes, element: bytes) -> None:
    """It is made only when asked for."""
    assert forward(peer=peer, host=host, forwarded=True)[1][b"forwarded"] == element
    assert b"forwarded" not in forward(peer=peer, host=host)[1]


def test_forwarded_grows() -> None:
    """Each hop adds what it saw itself; without an element of ours a trusted proxy's pass."""
    told = [(b"Forwarded", b"for=192.0.2.1"), (b"forwarded", b"for=10.0.0.2"), (b"X-Forwarded-Host", b"public")]
    assert forward(*told, forwarded=True)[1][b"forwarded"] == (
        b'for=192.0.2.1, for=10.0.0.2, for=10.0.0.1;host="h:8080";proto=http'
    )
    assert forward(*told)[1][b"forwarded"] == b"for=192.0.2.1, for=10.0.0.2"


@pytest.mark.parametrize(
    ("told", "host", "proto", "port"),
    [
        ([], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Host", b"public")], b"public", b"http", b"8080"),
        ([(b"X-Forwarded-Host", b"a, b")], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Host", b"a"), (b"X-Forwarded-Host", b"b")], b"h:8080", b"http", b"8080"),
        # Who spoke https did so on a port of his own.
        ([(b"X-Forwarded-Host", b"public"), (b"X-Forwarded-Proto", b"HTTPS")], b"public", b"https", b"443"),
        ([(b"X-Forwarded-Host", b"p:8443"), (b"X-Forwarded-Proto", b"https")], b"p:8443", b"https", b"8443"),
        ([(b"X-Forwarded-Proto", b"http")], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Proto", b"wss")], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Proto", b"https, http")], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Port", b"444")], b"h:8080", b"http", b"444"),
        ([(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Port", b"444")], b"h:8080", b"https", b"444"),
        ([(b"X-Forwarded-Port", b"0")], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Port", b"65536")], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Port", b"1" * 9)], b"h:8080", b"http", b"8080"),
        ([(b"X-Forwarded-Port", b"+80")], b"h:8080", b"http", b"8080"),
    ],
)
def test_what_the_first_proxy_saw(told: list[tuple[bytes, bytes]], host: bytes, proto: bytes, port: bytes) -> None:
    """A trusted proxy's word is kept where it is well-formed."""
    fields = forward(*told)[1]
    assert (fields[b"x-forwarded-host"], fields[b"x-forwarded-proto"], fields[b"x-forwarded-port"]) == (
        host,
        proto,
        port,
    )


@pytest.mark.parametrize(
    ("proxies", "address", "trusted"),
    [
        ([], "10.0.0.1", False),
        ([], "", False),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.0.0.1"], "", False),
        (["10.1.2.3/8"], "10.0.0.2", True),
        (["10.0.0.0/8"], "::ffff:10.0.0.2", True),
        (["::ffff:10.0.0.0/104"], "10.0.0.2", True),
        (["::/0"], "10.0.0.1", False),
        (["0.0.0.0/0"], "::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["::1", "192.0.2.0/24"], "192.0.2.7", True),
        (["unix"], "", True),
        (["unix"], "10.0.0.1", False),
        (["10.0.0.0/8"], "localhost", False),
    ],
)
def test_trusts(proxies: list[str], address: str, trusted: bool) -> None:
    """Addresses and blocks of both families, IPv4-mapped ones included."""
    assert TrustedProxies(proxies).trusts(address) is trusted


@pytest.mark.parametrize("proxy", ["localhost", "10.0.0.0/33", "10.0.0", "", "[::1]"])
def test_proxies_that_are_none(proxy: str) -> None:
    """Names and typing errors are refused."""
    with pytest.raises(ValueError):
        TrustedProxies([proxy])


def test_via() -> None:
    """The version is the one in which the message came (RFC 9110 section 7.6.3)."""
    assert [via(minor) for minor in (0, 1, 2, 9)] == [b"1.%d proxyd" % minor for minor in (0, 1, 2, 9)]


NODES = st.sampled_from([b"10.0.0.2", b"192.0.2.1", b"x", b"", b",", b'"', b"[::1]:80", b"2001:db9::1", b";", b"for="])
TOLD = st.lists(
    st.tuples(st.sampled_from(sorted(FORWARDING)), st.lists(NODES, max_size=6).map(b",".join).filter(valid_value)),
    max_size=5,
)


@given(TOLD, st.sampled_from(["10.0.0.1", "192.0.2.9", "::1", ""]), st.booleans())
def test_whatever_is_told(told: Fields, peer: str, forwarded: bool) -> None:
    """The fields are valid, the client is an address, and without trust what was told changes nothing."""
    client, fields = forward(*told, peer=peer, forwarded=forwarded)
    assert all(valid_value(value) for value in fields.values())
    assert client == peer or ip_address(client)
    if not TRUSTED.trusts(peer):
        assert (client, fields) == forward(peer=peer, forwarded=forwarded)
