"""twisted.web.proxy as a reverse proxy: C{twisted_proxy.py PORT ORIGIN}."""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site


async def main(reactor: object, port: str, origin: str) -> None:
    """Serve until the process is ended."""
    endpoint = TCP4ServerEndpoint(reactor, int(port), 4096, "127.0.0.1")
    await endpoint.listen(Site(ReverseProxyResource("127.0.0.1", int(origin), b"")))
    await Deferred()


react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
