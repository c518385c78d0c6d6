"""
Endpoint strings for targets that are reached through a proxy::

    connect:host=target.example:port=443:proxy=http\\://proxy.example\\:3128
    socks:host=target.example:port=22:proxy=socks5h\\://user\\:password@proxy.example

Every program of Twisted's that knows endpoint strings reads this module:
nothing heavy is imported before a string is used.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ThroughProxyParser:
    """
    Reads the strings of one prefix.

    @ivar prefix: C{connect} for proxies that speak HTTP, C{socks} for the others.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """
        Make an endpoint; TLS to the target, if any, is for whoever uses it.

        @raise ValueError: an argument is wrong; no credential is said.
        """
        return self._parse(reactor, *args, **kwargs)

    def _parse(self, reactor: Any, host: str, port: str, proxy: str, timeout: str = "30") -> IStreamClientEndpoint:
        from proxyd.outbound.route import OriginEndpoint, Route
        from proxyd.rules.proxy import parse_proxy_url

        settings = parse_proxy_url(proxy)
        if settings.is_socks != (self.prefix == "socks"):
            raise ValueError(f"a proxy of the scheme {settings.scheme} cannot be used with {self.prefix}:")
        return OriginEndpoint(reactor, Route(host, int(port), proxy=settings), float(timeout))
