"""An endpoint for an address, made when the name has been resolved here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from zope.interface import implementer


@implementer(IResolutionReceiver)
class _First:
    """Waits for the first address of a name."""

    def __init__(self) -> None:
        self._resolution: IHostResolution | None = None
        self._address: str | None = None
        self.found: Deferred[str | None] = Deferred(self._cancelled)

    def _cancelled(self, _: object) -> None:
        if self._resolution is not None:
            # Twisted's own cannot be cancelled; nobody listens to it any more.
            with suppress(NotImplementedError):
                self._resolution.cancel()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:
        if self._address is None and isinstance(address, IPv4Address | IPv6Address):
            self._address = address.host

    def resolutionComplete(self) -> None:
        if not self.found.called:
            self.found.callback(self._address)


@implementer(IStreamClientEndpoint)
class ResolvingEndpoint:
    """For proxies that want an address: the name is looked up here, and its first address is asked for."""

    def __init__(
        self, reactor: Any, host: str, only_ipv4: bool, endpoint: Callable[[str], IStreamClientEndpoint]
    ) -> None:
        """
        @param endpoint: makes the endpoint for an address.
        """
        self._reactor = reactor
        self._host = host
        self._types = (IPv4Address,) if only_ipv4 else None
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        first = _First()
        self._reactor.nameResolver.resolveHostName(first, self._host, addressTypes=self._types)

        def connect(address: str | None) -> Deferred[IProtocol]:
            if address is None:
                raise DNSLookupError(f"no address for {self._host}")
            connecting: Deferred[IProtocol] = self._endpoint(address).connect(protocolFactory)
            return connecting

        return first.found.addCallback(connect)
