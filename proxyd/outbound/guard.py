"""
Where rules that change at run time must not lead.

Whoever may write such a rule could else make proxyd ask itself, as it comes
from inside, or the metadata service that clouds have on a link-local address.
What counts is the address that is connected to, whatever name it was found by:
a name that resolves to something else the next time opens nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from twisted.internet import address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from proxyd.errors import ConnectFailed


class Guard:
    """Knows the addresses that are not to be reached."""

    def __init__(self, listeners: Callable[[], Iterable[IAddress]]) -> None:
        """
        @param listeners: the addresses that proxyd itself listens on now.
        """
        self._listeners = listeners

    def check_host(self, host: str, port: int) -> None:
        """
        @raise ConnectFailed: this is an address, not a name, and is not to be reached.
        """
        target = literal(host, port)
        if target is not None:
            self.check(target)

    def check(self, peer: IAddress) -> None:
        """
        @raise ConnectFailed: this address is not to be reached.
        """
        if isinstance(peer, address.UNIXAddress):
            refused = "proxyd's own listener" if peer in self._listeners() else ""
        elif isinstance(peer, address.IPv4Address | address.IPv6Address):
            refused = self._refused(_read(peer.host), peer.port)
        else:
            refused = ""
        if refused:
            raise ConnectFailed(
                f"a rule that was made at run time must not lead to {refused}", error_type="destination_ip_prohibited"
            )

    def _refused(self, ip: IPv4Address | IPv6Address, port: int) -> str:
        if ip.is_link_local:
            return f"the link-local address {ip}"
        for own in self._listeners():
            if isinstance(own, address.IPv4Address | address.IPv6Address) and own.port == port:
                bound = _read(own.host)
                if bound == ip or ((bound.is_unspecified or ip.is_unspecified) and _is_local(ip)):
                    return "proxyd's own listener"
        return ""


@implementer(IStreamClientEndpoint)
class GuardedEndpoint:
    """
    An endpoint that leads to no forbidden address.

    An address that is known beforehand is not even tried; the one that a name
    was resolved to is looked at when it is connected to, before an octet is sent.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, guard: Guard, target: tuple[str, int] | None = None) -> None:
        """
        @param target: the host and port that are to be reached in the end.
        """
        self._endpoint = endpoint
        self._guard = guard
        self._target = target

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        try:
            if self._target is not None:
                self._guard.check_host(*self._target)
        except ConnectFailed as error:
            return fail(error)
        connecting: Deferred[IProtocol] = self._endpoint.connect(_GuardedFactory(protocolFactory, self._guard))
        return connecting


class _GuardedFactory(Factory):
    """Asked for a protocol with the address that was connected to."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, guard: Guard) -> None:
        self._factory = factory
        self._guard = guard

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]
        # What is raised here is what the endpoint fails with, and the connection is closed.
        self._guard.check(addr)
        return self._factory.buildProtocol(addr)


def literal(host: str, port: int) -> IAddress | None:
    """
    @return: the address that a host is, where it is no name.
    """
    if isIPAddress(host):
        return address.IPv4Address("TCP", host, port)
    return address.IPv6Address("TCP", host, port) if isIPv6Address(host) else None


def _read(host: str) -> IPv4Address | IPv6Address:
    ip = ip_address(host.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_local(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of this machine's: only those can be bound to."""
    with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_STREAM) as one:
        try:
            one.bind((str(ip), 0))
        except OSError:
            return False
    return True
