"""
Who the client is, and what the origin server learns of it.

Each proxy on the way adds the address it was asked from.  Of such a chain only
the part is certain that trusted proxies have written: the right-most address
that is not one of theirs is the client's.

@see: RFC 7239 (Forwarded), RFC 9110 section 7.6.3 (Via).  The C{X-Forwarded}
    fields have no specification; they are as nginx and Caddy have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from proxyd.http import authority
from proxyd.http.fields import Fields

FORWARDING = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-real-ip",
    )
)
"""The lower-case names of the fields that L{forwarding} makes: what a client sent under them is removed."""

_MAPPED = IPv6Network("::ffff:0:0/96")
_MAX_ADDRESS = 64
"""The most characters of an address: 45 of an IPv6 one that ends in an IPv4 one, and a zone's."""
_MAX_HOST = 255
"""The most octets of a C{Host} that is remembered: what names of hosts may have."""

_VIAS = tuple(b"1.%d proxyd" % minor for minor in range(10))
_DEFAULT_PORTS = {b"http": 80, b"https": 443}

# An address as X-Forwarded-For has it, or a node as Forwarded has it: perhaps quoted, in brackets, with a port.
# What has more than one colon outside of brackets is IPv6 without a port, and left alone.
_NODE = re.compile(r'^"?(?:\[([^\]]*)\]|([^:"]*))(?::[^:"]*)?"?$')
_FOR = re.compile(rb'(?:^|[;,])[ \t]*for=("[^"]*"|[^;,]*)', re.IGNORECASE)

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_Told = dict[bytes, list[bytes]]


def _to_address(text: str) -> _Address | None:
    """An address, an IPv4-mapped one as IPv4, without zone; C{None} if it is none."""
    # What is too long must not fill the cache.
    return _read_address(text) if len(text) <= _MAX_ADDRESS else None


# The same few proxies are asked about with every request: 0.07 instead of 1.5 us.
@lru_cache(maxsize=1024)
def _read_address(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _to_network(text: str) -> _Network:
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


class TrustedProxies:
    """The proxies whose word on a request's way is believed."""

    __slots__ = ("_any", "_networks", "_unix")

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        """
        @param proxies: addresses, CIDR blocks, and C{unix} for all peers on UNIX sockets.

        @raise ValueError: one is something else.
        """
        listed = tuple(proxies)
        self._unix = "unix" in listed
        self._networks = tuple(_to_network(text) for text in listed if text != "unix")
        self._any = bool(listed)

    def trusts(self, address: str) -> bool:
        """
        Whether this is one of them.

        @param address: an IP address, or empty for a peer on a UNIX socket.
        """
        if not self._any:
            return False
        if not address:
            return self._unix
        parsed = _to_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def via(minor: int) -> bytes:
    """
    The member of C{Via} for a message that came in this minor version of HTTP/1.

    @see: RFC 9110 section 7.6.3
    """
    return _VIAS[minor]


def forwarding(
    head_fields: Fields,
    *,
    peer: str,
    secure: bool,
    host: bytes,
    port: int,
    trusted: TrustedProxies,
    forwarded: bool,
) -> tuple[str, Fields]:
    """
    The client's address, and the fields that tell the origin server of this hop and those before.

    They replace whatever the request has under the names in L{FORWARDING}.

    @param head_fields: of the request.
    @param peer: the address that the connection comes from, empty on a UNIX
        socket, which has none: it adds nothing to C{X-Forwarded-For}.
    @param secure: whether it comes over TLS.
    @param host: the request's C{Host}, or empty.
    @param port: the one that the client connected to, 0 on a UNIX socket.
    @param forwarded: whether to add to C{Forwarded}.
    """
    if ":" in peer:
        peer = str(_to_address(peer) or peer)
    proto = b"https" if secure else b"http"
    if not trusted.trusts(peer):
        # What is too long must not fill the cache.
        first_hop = _first_hop if len(host) <= _MAX_HOST else _first_hop.__wrapped__
        return peer, first_hop(peer, proto, host, port, forwarded)
    # Forwarded says what each hop saw, the X-Forwarded fields what the first one did.
    element = _element(peer, host, proto) if forwarded else b""
    told = _told(head_fields)
    elements = told[b"forwarded"]
    way = told[b"x-forwarded-for"]
    client = _client(way or _nodes(elements) or told[b"x-real-ip"], peer, trusted)
    if not way and client != peer:
        way = [client.encode("ascii")]
    host, proto, port = _as_told(told, host, proto, port)
    if peer:
        way.append(peer.encode("ascii"))
    if element:
        elements.append(element)
    return client, _fields(way, client, host, proto, port, elements)


# Who opens a connection for each request, or several at once, has the same address and the same Host.
@lru_cache(maxsize=1024)
def _first_hop(peer: str, proto: bytes, host: bytes, port: int, forwarded: bool) -> Fields:
    """The fields where nobody is believed: they are not to be changed."""
    way = [peer.encode("ascii")] if peer else []
    return _fields(way, peer, host, proto, port, [_element(peer, host, proto)] if forwarded else [])


def _fields(
    way: list[bytes], client: str, host: bytes, proto: bytes, port: int, elements: list[bytes]
) -> Fields:
    fields: Fields = []
    if way:
        fields.append((b"X-Forwarded-For", b", ".join(way)))
    if client:
        fields.append((b"X-Real-IP", client.encode("ascii")))
    if host:
        fields.append((b"X-Forwarded-Host", host))
    fields.append((b"X-Forwarded-Proto", proto))
    if port:
        fields.append((b"X-Forwarded-Port", b"%d" % port))
    if elements:
        fields.append((b"Forwarded", b", ".join(elements)))
    return fields


def _element(peer: str, host: bytes, proto: bytes) -> bytes:
    """This hop in C{Forwarded}: what is no token, as IPv6 and ports are not, is quoted (RFC 7239 section 4)."""
    node = peer.encode("ascii") or b"unknown"
    element = (b'for="[%b]"' if b":" in node else b"for=%b") % node
    if host:
        element += (b';host="%b"' if b":" in host else b";host=%b") % host
    return b"%b;proto=%b" % (element, proto)


def _nodes(elements: list[bytes]) -> list[bytes]:
    """Whom each hop in C{Forwarded} was asked by (RFC 7239 section 5.2)."""
    return _FOR.findall(b",".join(elements))


def _client(way: list[bytes], peer: str, trusted: TrustedProxies) -> str:
    """The right-most address on the way that is not trusted; what is no address ends what can be known."""
    client = peer
    for node in reversed(b",".join(way).decode("latin-1").split(",")):
        address = _to_address(_NODE.sub(r"\1\2", node.strip(), count=1))
        if address is None:
            break
        client = str(address)
        if not trusted.trusts(client):
            break
    return client


def _told(fields: Fields) -> _Told:
    """The lines under each name in L{FORWARDING} that say anything, found in one pass."""
    told: _Told = {name: [] for name in FORWARDING}
    for name, value in fields:
        key = name.lower()
        if value and key in told:
            told[key].append(value)
    return told


def _as_told(told: _Told, host: bytes, proto: bytes, port: int) -> tuple[bytes, bytes, int]:
    """What the first proxy saw, as far as a trusted one told it once and well-formed; the rest as we see it."""
    value = _only(told[b"x-forwarded-host"])
    if _port(value) is not None:
        host = value
    value = _only(told[b"x-forwarded-proto"]).lower()
    if value in _DEFAULT_PORTS:
        proto = value
        # Our own port is not the one that this protocol was spoken on.
        port = _port(host) or _DEFAULT_PORTS[proto]
    value = _only(told[b"x-forwarded-port"])
    if value.isdigit() and len(value) <= 5 and 0 < int(value) <= 65535:
        port = int(value)
    return host, proto, port


def _only(lines: list[bytes]) -> bytes:
    return lines[0] if len(lines) == 1 else b""


def _port(host: bytes) -> int | None:
    """The port in a C{Host}, 0 if there is none, C{None} if it is no C{Host}."""
    try:
        return authority.parse(host).port or 0
    except ValueError:
        return None
