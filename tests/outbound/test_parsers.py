"""Endpoint strings for targets behind proxies."""

from __future__ import annotations

import pytest
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from proxyd.outbound.parsers import ThroughProxyParser
from proxyd.outbound.route import OriginEndpoint


def test_provides() -> None:
    """It is what Twisted looks for."""
    parser = ThroughProxyParser("connect")
    assert verifyObject(IStreamClientEndpointStringParserWithReactor, parser)
    assert verifyObject(IPlugin, parser)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        (r"connect:host=a:port=80:proxy=http\://127.0.0.1\:3128", 3128),
        (r"connect:a:80:http\://user\:password@127.0.0.1", 80),
        (r"socks:host=a:port=22:proxy=socks5h\://127.0.0.1:timeout=5", 1080),
    ],
)
def test_strings(text: str, port: int) -> None:
    """Twisted finds them among its plugins; they lead to the proxy."""
    reactor = MemoryReactorClock()
    endpoint = clientFromString(reactor, text)
    assert isinstance(endpoint, OriginEndpoint)
    connecting = endpoint.connect(Factory.forProtocol(Protocol))
    assert reactor.tcpClients[0][:2] == ("127.0.0.1", port)
    connecting.addErrback(lambda _: None)
    connecting.cancel()


@pytest.mark.parametrize(
    "text",
    [
        r"connect:host=a:port=80:proxy=socks5\://hidden@b",
        r"socks:host=a:port=80:proxy=http\://hidden@b",
        r"socks:host=a:port=80:proxy=ftp\://hidden@b",
        r"socks:host=a:port=x:proxy=socks5\://hidden@b",
    ],
)
def test_wrong(text: str) -> None:
    """What is wrong is said without credentials."""
    with pytest.raises(ValueError) as caught:
        clientFromString(MemoryReactorClock(), text)
    assert "hidden" not in str(caught.value)
