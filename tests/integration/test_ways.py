"""Listeners and targets of every kind that Twisted has endpoints for."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context
from tests.support.wire import PATIENCE_S, Origin, Wire


def unix_origin(path: Path) -> socket.socket:
    """An origin server on a UNIX socket."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    listening.settimeout(PATIENCE_S)
    return listening


def test_unix_target(start, tmp_path: Path) -> None:
    """http+unix reaches a UNIX socket, whatever the request's path holds."""
    with unix_origin(tmp_path / "o.sock") as listening:
        escaped = str(tmp_path / "o.sock").replace("/", "%2F")
        target = f"http+unix://{escaped}/base"
        proxy = start(rules=[{"name": "u", "pattern": "^/", "target": target, "changeOrigin": True}])
        with proxy.connect() as client:
            client.request("GET", "/x")
            with Wire(listening.accept()[0]) as server:
                request = server.read_message()
                assert request.line == "GET /base/x HTTP/1.1"
                assert request.get("Host") == "localhost"
                server.respond("over a socket")
                assert client.read_message().body == b"over a socket"


def test_endpoint_of_a_rule(start, tmp_path: Path) -> None:
    """Any client endpoint string; host and scheme still come from the target."""
    with unix_origin(tmp_path / "e.sock") as listening:
        proxy = start(
            rules=[{"name": "e", "pattern": "^/", "target": "http://named.test:81", "changeOrigin": True,
                    "endpoint": f"unix:{tmp_path / 'e.sock'}"}]
        )
        with proxy.connect() as client:
            client.request("GET", "/x")
            with Wire(listening.accept()[0]) as server:
                assert server.read_message().get("Host") == "named.test:81"
                server.respond()
            client.read_message()


def test_unix_listener(start, own_origin: Origin, tmp_path: Path) -> None:
    """A listener may be a UNIX socket: its clients have no address."""
    path = tmp_path / "l.sock"
    proxy = start(
        listen=[f"unix:{path}:mode=600"],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
        trustedProxies=["unix"],
    )
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    with Wire(connection) as client:
        client.request("GET", "/", "X-Forwarded-For: 192.0.2.1")
        server = own_origin.accept()
        request = server.read_message()
        assert request.get("X-Forwarded-For") == "192.0.2.1"
        assert request.get("X-Forwarded-Port") is None
        server.respond("hello")
        assert client.read_message().body == b"hello"
    proxy.output.wait_for("192.0.2.1 - - ")


@pytest.mark.parametrize("reactor", [None, "epoll", "poll", "select"])
def test_reactors(start, own_origin: Origin, reactor: str | None) -> None:
    """Any of Twisted's reactors will do."""
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    proxy = start(rules=[rule], reactor=reactor)
    with proxy.connect() as client:
        client.request("POST", "/", body=b"x" * 100000)
        server = own_origin.accept()
        assert server.read_message().body == b"x" * 100000
        server.respond("y" * 100000)
        assert client.read_message().body == b"y" * 100000


def test_ipv6(start) -> None:
    """Listener, target and forwarding fields in IPv6."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        listening.settimeout(PATIENCE_S)
        port = listening.getsockname()[1]
        proxy = start(
            listen=["tcp6:0:interface=\\:\\:1"],
            rules=[{"name": "all", "pattern": "^/", "target": f"http://[::1]:{port}", "changeOrigin": True}],
            forwarded=True,
        )
        with Wire(socket.create_connection(("::1", proxy.port), PATIENCE_S)) as client:
            client.request("GET", "/", host=f"[::1]:{proxy.port}")
            with Wire(listening.accept()[0]) as server:
                request = server.read_message()
                assert request.get("Host") == f"[::1]:{port}"
                assert request.get("X-Forwarded-For") == "::1"
                assert request.get("Forwarded") == f'for="[::1]";host="[::1]:{proxy.port}";proto=http'
                server.respond()
            client.read_message()


def test_haproxy_listener(start, own_origin: Origin) -> None:
    """Behind HAProxy's PROXY protocol the client is whom it names."""
    proxy = start(
        listen=["haproxy:tcp:0:interface=127.0.0.1"],
        trustedProxies=["127.0.0.1"],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
    )
    with proxy.connect() as client:
        client.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 5555 80\r\n")
        client.request("GET", "/")
        server = own_origin.accept()
        assert server.read_message().get("X-Real-IP") == "192.0.2.9"
        server.respond("hello")
        assert client.read_message().body == b"hello"


def test_haproxy_version_2(start, own_origin: Origin, tmp_path: Path) -> None:
    """The binary header, in front of TLS, with IPv6 addresses; what comes in the same segment is the client's."""
    authority = Authority(tmp_path)
    certificate = str(authority.sign("a.test"))
    proxy = start(
        listen=[{"endpoint": "haproxy:tcp:0:interface=127.0.0.1", "tls": {"certificates": [certificate]}}],
        trustedProxies=["127.0.0.0/8"],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
    )
    addresses = socket.inet_pton(socket.AF_INET6, "2001:db8::9") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    with proxy.connect() as plain:
        signature = b"\r\n\r\n\0\r\nQUIT\n"
        plain.send(signature + struct.pack("!BBH", 0x21, 0x21, 36) + addresses + struct.pack("!HH", 5555, 443))
        with plain.over_tls(client_context(authority.file), "a.test") as client:
            client.request("GET", "/")
            server = own_origin.accept()
            request = server.read_message()
            assert (request.get("X-Real-IP"), request.get("X-Forwarded-Proto")) == ("2001:db8::9", "https")
            server.respond("hello")
            assert client.read_message().body == b"hello"


def test_haproxy_from_anybody(start, own_origin: Origin) -> None:
    """Who is not trusted names no client: its connections are closed, and the log says whose, once."""
    rules = [{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}]
    config = {"listen": ["haproxy:tcp:0:interface=127.0.0.1"], "rules": rules, "trustedProxies": ["192.0.2.1"]}
    proxy = start(**config)
    for _ in range(3):
        with proxy.connect() as client, contextlib.suppress(OSError):
            client.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 5555 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_all() == b""
    own_origin.assert_idle()
    proxy.output.wait_for("127.0.0.1 is not among trustedProxies")
    proxy.reload({**config, "trustedProxies": ["127.0.0.1"]})
    with proxy.connect() as client:
        client.send(b"PROXY TCP4 192.0.2.9 192.0.2.1 5555 80\r\n")
        client.request("GET", "/")
        server = own_origin.accept()
        assert server.read_message().get("X-Real-IP") == "192.0.2.9"
        server.respond("hello")
        assert client.read_message().body == b"hello"
    assert proxy.output.text.count("is not among trustedProxies") == 1


def test_haproxy_nonsense(start, own_origin: Origin) -> None:
    """What is no header ends the connection; one that never ends has the time of a head."""
    proxy = start(
        listen=["haproxy:tcp:0:interface=127.0.0.1"], trustedProxies=["127.0.0.1"], timeouts={"header": 0.5}, rules=[]
    )
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for octets in (request, b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200, b"PROXY TCP4"):
        with proxy.connect() as client, contextlib.suppress(OSError):
            client.send(octets)
            assert client.read_all() == b""


def test_hosts(start, own_origin: Origin) -> None:
    """A rule for some hosts leaves the others to the next rule."""
    target = f"http://127.0.0.1:{own_origin.port}"
    proxy = start(
        rules=[
            {"name": "one", "pattern": "^/", "target": target + "/one", "hosts": ["a.test", "*.b.test"]},
            {"name": "two", "pattern": "^/", "target": target + "/two"},
        ]
    )
    with proxy.connect() as client:
        client.request("GET", "/", host="A.test:99")
        server = own_origin.accept()
        seen = []
        for host in ("x.b.test", "b.test", "c.test", None):
            seen.append(server.read_message().line.split()[1])
            server.respond()
            client.read_message()
            if host is not None:
                client.request("GET", "/", host=host)
    assert seen == ["/one/", "/one/", "/two/", "/two/"]


def test_pages_are_changed(start, own_origin: Origin) -> None:
    """A base and relative paths go into pages, as they stream; nothing else is touched."""
    proxy = start(
        rules=[{"name": "all", "pattern": "^/app/(.*)$", "rewrite": "/$1", "base": "/app/", "relativePaths": True,
                "target": f"http://127.0.0.1:{own_origin.port}"}]
    )
    with proxy.connect() as client:
        client.request("GET", "/app/", "Accept-Encoding: gzip")
        server = own_origin.accept()
        assert server.read_message().get("Accept-Encoding") == "identity"
        server.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 33\r\nETag: \"a\"\r\n\r\n"
            b"<html><head>"
        )
        head = client.read_head()
        assert [name for name, _ in head.fields] == ["Content-Type", "Date", "Transfer-Encoding"]
        assert head.get("Content-Type") == "text/html; charset=utf-8"
        page = b'<html><head><base href="/app/">'
        assert client.read(len(page) + 6) == b"%x\r\n%b\r\n" % (len(page), page)
        server.send(b'<a href="/x">link</a>')
        rest = b'<a href="./x">link</a>'
        assert client.read(len(rest) + 11) == b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
        for fields, body in [
            (["Content-Type: text/plain"], '<a href="/x">'),
            (["Content-Type: text/html", "Content-Encoding: gzip"], '<a href="/x">'),
            (["Content-Type: text/html; charset=utf-16le"], '<a href="/x">'),
        ]:
            client.request("GET", "/app/")
            server.read_message()
            server.respond(body, *fields, 'ETag: "a"')
            response = client.read_message()
            assert (response.body.decode(), response.get("ETag")) == (body, '"a"')
    proxy.output.wait_for("encoded a page although it was asked not to")
