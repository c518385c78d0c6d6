"""
Listeners behind a load balancer that speaks the PROXY protocol, versions 1 and 2.

Its header names the client; whoever may write it can be anybody.  So only
those are let in who are trusted; Twisted's own wrapper believes everyone.

@see: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()

PREFIX: Final = "haproxy:"
"""What endpoint strings of such listeners begin with."""

MAX_TOLD: Final = 100
"""Addresses that the log names; each once."""


class TrustedPeers(Factory):
    """Lets only those in whose word on the client is believed."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, trusts: Callable[[str], bool]) -> None:
        """
        @param factory: reads the header.
        @param trusts: whether an address, empty on a UNIX socket, is that of such a load balancer.
        """
        self._factory = factory
        self._trusts = trusts
        self._told: set[str] = set()

    def buildProtocol(self, addr: Any) -> Any:
        host = getattr(addr, "host", "")
        if self._trusts(host):
            return self._factory.buildProtocol(addr)
        if host not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(host)
            log.warn(
                "{peer} is not among trustedProxies: its connections to a listener for the PROXY protocol are closed",
                peer=host or "a peer on a UNIX socket",
            )
        return None


@implementer(IStreamServerEndpoint)
class _TrustingEndpoint:
    """Puts L{TrustedPeers} around whatever is listened with."""

    def __init__(self, endpoint: IStreamServerEndpoint, trusts: Callable[[str], bool]) -> None:
        self._endpoint = endpoint
        self._trusts = trusts

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        listening: Deferred[IListeningPort] = self._endpoint.listen(TrustedPeers(protocolFactory, self._trusts))
        return listening


def proxy_protocol(endpoint: IStreamServerEndpoint, trusts: Callable[[str], bool]) -> IStreamServerEndpoint:
    """
    @param trusts: see L{TrustedPeers}.

    @return: an endpoint whose connections are those of the clients that the header names.
    """
    # Nobody else waits for it.
    from twisted.protocols.haproxy import proxyEndpoint

    wrapped: IStreamServerEndpoint = proxyEndpoint(_TrustingEndpoint(endpoint, trusts))
    return wrapped
