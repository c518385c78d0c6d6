"""What connect_websocket() takes: everything that is wrong is said at once, and no credential with it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock

import proxyd
from proxyd import connect_websocket


def head(url: str, **options: Any) -> tuple[list[str], Any]:
    """The lines of the request that is sent, and where it is sent to."""
    reactor = MemoryReactorClock()
    connecting = connect_websocket(url, reactor=reactor, environment={}, **options)
    host, port, factory, *_ = reactor.tcpClients[0]
    protocol = factory.buildProtocol(None)
    written: list[bytes] = []

    class Transport:
        def write(self, octets: bytes) -> None:
            written.append(octets)

        def abortConnection(self) -> None:
            written.append(b"aborted")

    protocol.makeConnection(Transport())
    connecting.addErrback(lambda failure: failure.trap(CancelledError))
    connecting.cancel()
    assert written[-1] == b"aborted"
    assert not reactor.getDelayedCalls()
    return written[0].decode("latin-1").split("\r\n"), (host, port)


@pytest.mark.parametrize(
    ("url", "line", "host", "port"),
    [
        ("ws://127.0.0.1", "GET / HTTP/1.1", "127.0.0.1", 80),
        ("WS://127.0.0.1:80/a?b=c&d", "GET /a?b=c&d HTTP/1.1", "127.0.0.1", 80),
        ("http://127.0.0.1:81?", "GET /? HTTP/1.1", "127.0.0.1:81", 81),
        ("ws://[::1]:81/a%2Fb/ü?ß", "GET /a%2Fb/%C3%BC?%C3%9F HTTP/1.1", "[::1]:81", 81),
    ],
)
def test_urls(url: str, line: str, host: str, port: int) -> None:
    """What the server is asked for."""
    lines, (where, asked) = head(url)
    assert lines[:2] == [line, f"Host: {host}"]
    assert (asked, where) == (port, "::1" if "[" in host else "127.0.0.1")


def test_headers() -> None:
    """They come in their order, behind Host unless they hold it; credentials of the URL are not said twice."""
    assert head("ws://u:p@127.0.0.1", headers={"X": "ä", "Host": "h"})[0][1:4] == [
        "X: ä", "Host: h", "Authorization: Basic dTpw"
    ]  # fmt: skip
    lines = head("ws://u:p@127.0.0.1", headers=[("Authorization", "mine")])[0]
    assert [line for line in lines if "Auth" in line] == ["Authorization: mine"]


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({"url": url}, "URL") for url in (
        "a", "ftp://a", "ws://", "ws:///x", "ws://a b", "ws://a/\r\nX: y", "ws://a/#x", "ws://a:0", "ws://a:99999",
        "ws://a:x", "ws://[::1", "ws://a\\b", "ws://a%00b", "ws://hidden:hidden@", b"ws://a",
    )),
    *(({"proxy": proxy}, "proxy") for proxy in (
        "a:3128", "ftp://hidden@a", "http://hidden:hid%xen@a", "http://a:0", 5, {}, {"url": 5}, {"url": "a"},
        {"url": "http://a", "verify": False}, {"url": "http://a", "tls": {"serverName": "a"}},
        {"url": "http://a", "headers": ["hidden"]}, {"url": "http://a", "headers": {"X": 5}},
        {"url": "http://a", "headers": {"X": "hidden\r\n"}}, {"url": "http://a", "headers": {"Host": "hidden"}},
    )),
    *(({"headers": headers}, "header|Host") for headers in (
        {"X": "hidden\r\nY: z"}, {"X": "hidden\0"}, {"X ": "y"}, {"": "y"}, {"X": "hidden\u20ac"}, {"X": 5},
        {"Upgrade": "y"}, {"connection": "y"}, {"Sec-WebSocket-Key": "y"}, {"sec-websocket-x": "y"},
        {"Content-Length": "5"}, {"Transfer-Encoding": "y"}, {"Proxy-Authorization": "hidden"},
        [("Host", "a"), ("host", "a")],
    )),
    *(({"tls": tls}, "tls|TLS") for tls in (
        {"rejectUnauthorized": False}, {"verify": 0}, {"ca": 5}, {"key": "a.pem"}, "x", {"ca": "/nonexistent"},
    )),
    *(({"protocols": protocols}, "protocols") for protocols in (["a", "a"], ["a b"], "ä", [""], "a?")),
    ({"no_proxy": "1.2.3"}, "no_proxy"),
    ({"open_timeout": -1}, "limit"),
    ({"environment": {"https_proxy": "ftp://hidden@a"}}, "the variable https_proxy"),
    ({"environment": {"ALL_PROXY": "http://hidden@a:x"}}, "the variable ALL_PROXY"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "text"), WRONG, ids=lambda value: str(value).encode("ascii", "replace").decode())
def test_wrong(options: dict[str, Any], text: str) -> None:
    """Each is a C{ValueError} at once, and nothing is connected to."""
    reactor = MemoryReactorClock()
    with pytest.raises(ValueError, match=text) as caught:
        connect_websocket(**{"url": "wss://a.example", "reactor": reactor, "environment": {}, **options})
    assert "hidden" not in str(caught.value)
    assert caught.value.__context__ is None or isinstance(caught.value.__cause__, OSError)
    assert not reactor.tcpClients and not reactor.getDelayedCalls()


def test_import_is_light() -> None:
    """The package imports neither Twisted nor Autobahn; the client does not import the reactor."""
    program = (
        "import sys, proxyd; assert 'twisted' not in sys.modules and 'autobahn' not in sys.modules\n"
        "proxyd.connect_websocket; assert 'twisted.internet.reactor' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_names() -> None:
    """There is nothing else that is imported late."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        proxyd.nothing  # type: ignore[attr-defined]  # noqa: B018
