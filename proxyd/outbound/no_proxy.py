"""
Which hosts are reached without the proxy: the value of C{NO_PROXY}, and a rule's C{noProxy}.

There is no standard; curl, Go, Python and Bun differ.  Here a name covers its
subdomains, whether it begins with a dot or not, and C{*.} covers only those; a
number is never the end of another number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import idna

_SEPARATORS = re.compile(r"[,\s]+")
_BRACKETED = re.compile(r"\[([^\]]*)\](/[0-9]+)?(?::([0-9]+))?")
_NAME = re.compile(r"(\*?\.)?([^:*/\[\]]+)(?::([0-9]+))?")
_LABELS = re.compile(r"(?!-)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_MAPPED = IPv6Network("::ffff:0:0/96")

_Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address


def normal_host(host: str) -> str:
    """
    A host as it is compared: in lower case, as A-labels, without brackets and a last dot.

    @raise ValueError: it is no host name.
    """
    host = host.strip("[]").removesuffix(".")
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{host!r} is no host name: {error}") from error
    return host.lower()


def _address(host: str) -> _Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> _Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((mapped, network.prefixlen - 96), strict=False)
    return network


class NoProxy:
    """
    The hosts that are exempted.

    @ivar malformed: the entries that mean nothing; they are ignored.
    """

    __slots__ = ("_all", "_names", "_networks", "malformed")

    def __init__(self, entries: Iterable[str]) -> None:
        self._all = False
        # (name, the name itself counts, port or 0)
        self._names: list[tuple[str, bool, int]] = []
        self._networks: list[tuple[_Network, int]] = []
        self.malformed: tuple[str, ...] = tuple(entry for entry in entries if not self._add(entry))

    @classmethod
    def parse(cls, text: str) -> NoProxy:
        """Read a list that is separated by commas, spaces or tabs."""
        return cls(filter(None, _SEPARATORS.split(text)))

    def exempts(self, host: str, port: int) -> bool:
        """
        Whether a host is reached without the proxy.

        @param host: a name or an address, in any spelling.
        """
        if self._all:
            return True
        address = _address(host.strip("[]"))
        if address is not None:
            return any(address in network and wanted in (0, port) for network, wanted in self._networks)
        try:
            name = normal_host(host)
        except ValueError:
            return False
        return any(
            wanted in (0, port) and ((itself and name == exempted) or name.endswith("." + exempted))
            for exempted, itself, wanted in self._names
        )

    def _add(self, entry: str) -> bool:
        """
        @return: whether the entry means something.
        """
        if entry == "*":
            self._all = True
            return True
        network = _network(entry)
        port = 0
        if network is None:
            network, port = self._read_address_with_port(entry)
        if network is not None:
            if 0 <= port <= 65535:
                self._networks.append((network, port))
                return True
            return False
        return self._add_name(entry)

    def _read_address_with_port(self, entry: str) -> tuple[_Network | None, int]:
        found = _BRACKETED.fullmatch(entry)
        if found is not None:
            return _network(found[1] + (found[2] or "")), int(found[3] or 0)
        address, colon, port = entry.rpartition(":")
        if colon and port.isdigit() and ":" not in address:
            return _network(address), int(port)
        return None, 0

    def _add_name(self, entry: str) -> bool:
        found = _NAME.fullmatch(entry)
        if found is None:
            return False
        try:
            name = normal_host(found[2])
        except ValueError:
            return False
        port = int(found[3] or 0)
        last = name.rpartition(".")[2]
        # Half an address, such as 1.2.3, is no name: it would be the end of 9.1.2.3.
        if _LABELS.fullmatch(name) is None or last.isdigit() or port > 65535:
            return False
        self._names.append((name, found[1] != "*.", port))
        return True
