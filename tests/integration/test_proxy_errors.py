"""Proxies that refuse, fall silent or talk nonsense: what clients and logs are told, and that no secret is."""

from __future__ import annotations

import json

import pytest

from tests.support.proxies import free_port
from tests.support.wire import Origin, Wire

SECRET = "http://user:hidden%20secret@127.0.0.1:{}"


@pytest.fixture
def ask(start, own_origin: Origin):
    """Ask through the test's own proxy for a target; say what the proxy does, and what the client must get."""
    started = []

    def ask(reply, status: int, proxy_status: str, *, scheme: str = "http", rule: dict | None = None) -> str:
        way = SECRET.format(own_origin.port) if scheme == "http" else f"{scheme}://user:hidden@127.0.0.1:{own_origin.port}"
        proxy = start(
            rules=[{"name": "p", "pattern": "^/", "target": "http://target.test:81", "proxy": way, **(rule or {})}],
            timeouts={"connect": 0.5},
        )
        started.append(proxy)
        with proxy.connect() as client:
            client.request("GET", "/")
            if reply is not None:
                wire = own_origin.accept()
                reply(wire)
            response = client.read_message()
        assert (response.status, response.get("Proxy-Status")) == (status, proxy_status)
        assert response.all("Proxy-Authenticate") == []
        assert "target.test" not in json.dumps(response.fields) + response.body.decode()
        proxy.output.wait_for('"GET / HTTP/1.1" 50')
        text = proxy.stop()
        for secret in ("hidden", "aGlkZGVu", "dXNlcjpoaWRkZW4"):
            assert secret not in text + response.body.decode()
        return text

    return ask


def replies(octets: bytes, *, ends: bool = False):
    """A proxy that reads the request and says this."""

    def reply(wire: Wire) -> None:
        request = wire.read_head()
        assert request.line == "CONNECT target.test:81 HTTP/1.1"
        assert request.get("Host") == "target.test:81"
        assert request.get("Proxy-Authorization") == "Basic dXNlcjpoaWRkZW4gc2VjcmV0"
        wire.send(octets)
        if ends:
            wire.close()

    return reply


@pytest.mark.parametrize(
    ("octets", "name", "error_type", "status"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nnever", "proxy_connect_failed", "connection_refused", 502),
        (b"HTTP/1.1 302 Go\r\nLocation: http://a\r\n\r\n", "proxy_connect_failed", "connection_refused", 502),
        (
            b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=a\r\nContent-Length: 0\r\n\r\n",
            *("proxy_authentication_required", "proxy_configuration_error", 502),
        ),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 17000, "proxy_tunnel_failed", "proxy_internal_response", 502),
        (b"220 mail.test ESMTP\r\n\r\n", "proxy_tunnel_failed", "proxy_internal_response", 502),
        (b"HTTP/1.1 102 Wait\r\n\r\n" * 1000, "proxy_tunnel_failed", "proxy_internal_response", 502),
        (b"HTTP/1.1 200 OK\r\n", "proxy_tunnel_failed", "connection_timeout", 504),
        (b"", "proxy_tunnel_failed", "connection_timeout", 504),
    ],
)
def test_http_proxies(ask, octets: bytes, name: str, error_type: str, status: int) -> None:
    """Each failure has its name and its registered type; the client never gets the proxy's own answer."""
    text = ask(replies(octets), status, f'proxyd; error={error_type}; details="{name}"')
    assert f"failed=\"proxy {error_type}: " in text


def test_proxy_that_hangs_up(ask) -> None:
    """A proxy that ends the connection before its reply."""
    ask(replies(b"HTTP/1.1 ", ends=True), 502, 'proxyd; error=connection_terminated; details="proxy_tunnel_failed"')


def test_refusal_without_end(ask) -> None:
    """A refusal counts even when its explanation does not come."""
    octets = b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nhalf"
    ask(replies(octets), 502, 'proxyd; error=connection_refused; details="proxy_connect_failed"')


def test_proxy_away(start) -> None:
    """A proxy that cannot be reached."""
    rule = {"name": "p", "pattern": "^/", "target": "http://target.test", "proxy": SECRET.format(free_port())}
    proxy = start(rules=[rule])
    with proxy.connect() as client:
        client.request("GET", "/")
        response = client.read_message()
    assert response.get("Proxy-Status") == 'proxyd; error=connection_refused; details="proxy_connection_refused"'
    assert "hidden" not in proxy.stop()


@pytest.mark.parametrize(
    ("octets", "name", "error_type"),
    [
        (b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", "proxy_connect_failed", "connection_refused"),
        (b"\x05\x00\x05\x02", "proxy_connect_failed", "connection_refused"),
        (b"\x05\xff", "proxy_authentication_required", "proxy_configuration_error"),
        (b"\x05\x02\x01\x01", "proxy_authentication_required", "proxy_configuration_error"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "proxy_tunnel_failed", "proxy_internal_response"),
    ],
)
def test_socks_proxies(ask, octets: bytes, name: str, error_type: str) -> None:
    """SOCKS replies and refused passwords, likewise."""

    def reply(wire: Wire) -> None:
        assert wire.read(4) == b"\x05\x02\x00\x02"
        wire.send(octets)

    ask(reply, 502, f'proxyd; error={error_type}; details="{name}"', scheme="socks5h")


def test_target_speaks_first(start, own_origin: Origin) -> None:
    """Octets behind the proxy's 200 are the target's; what the proxy claims of their length is nothing."""
    rule = {"name": "p", "pattern": "^/", "target": "http://target.test", "proxy": f"http://127.0.0.1:{own_origin.port}"}
    proxy = start(rules=[rule])
    with proxy.connect() as client:
        client.request("GET", "/")
        wire = own_origin.accept()
        assert wire.read_head().line == "CONNECT target.test:80 HTTP/1.1"
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Yes\r\nContent-Length: 99\r\n\r\n")
        assert wire.read_head().line == "GET / HTTP/1.1"
        wire.respond("hello")
        assert client.read_message().body == b"hello"
        client.request("GET", "/again")
        assert wire.read_head().line == "GET /again HTTP/1.1"


@pytest.mark.parametrize(
    ("environment", "reached"),
    [
        ({"http_proxy": "http://127.0.0.1:{proxy}"}, "proxy"),
        ({"HTTP_PROXY": "127.0.0.1:{proxy}"}, "proxy"),
        ({"ALL_PROXY": "http://127.0.0.1:{proxy}"}, "proxy"),
        ({"http_proxy": "http://127.0.0.1:{proxy}", "no_proxy": "localhost"}, "target"),
        ({"http_proxy": "http://127.0.0.1:{proxy}", "NO_PROXY": "localhost:{target}"}, "target"),
        ({"http_proxy": "", "all_proxy": "http://127.0.0.1:{proxy}"}, "target"),
        ({"https_proxy": "http://127.0.0.1:{proxy}"}, "target"),
        ({"HTTP_PROXY": "http://127.0.0.1:{proxy}", "REQUEST_METHOD": "GET"}, "target"),
        ({}, "target"),
        ({"http_proxy": "nonsense://hidden"}, "nobody"),
    ],
)
def test_environment(start, own_origin: Origin, environment: dict[str, str], reached: str) -> None:
    """The service's way may be the environment's; a value that is no proxy is never silently none."""
    via = Origin()
    ports = {"proxy": via.port, "target": own_origin.port}
    blank = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "no_proxy"), None)
    unset = {name for lower in blank for name in (lower, lower.upper())}
    proxy = start(
        outbound={"proxy": "env"},
        rules=[{"name": "p", "pattern": "^/", "target": f"http://localhost:{own_origin.port}"}],
        environment={name: value.format(**ports) for name, value in environment.items()},
        unset=unset,
    )
    with proxy.connect() as client:
        client.request("GET", "/")
        if reached == "nobody":
            assert client.read_message().status == 502
            proxy.output.wait_for("the variable http_proxy has the scheme 'nonsense'")
            assert "hidden" not in proxy.output.text
        else:
            line = (via if reached == "proxy" else own_origin).accept().read_head().line
            assert line.startswith("CONNECT localhost:" if reached == "proxy" else "GET / ")
    via.close()


def test_explicit_proxy_beats_the_environment(start, own_origin: Origin) -> None:
    """A rule's proxy is used whatever NO_PROXY says; its own noProxy exempts, and direct is direct."""
    port = own_origin.port
    proxy = start(
        rules=[
            {"name": "a", "pattern": "^/a", "target": "http://a.test", "proxy": f"http://127.0.0.1:{port}"},
            {
                **{"name": "b", "pattern": "^/b", "target": f"http://127.0.0.1:{port}"},
                "proxy": {"url": "http://127.0.0.1:1", "noProxy": ["127.0.0.0/8"]},
            },
            {"name": "c", "pattern": "^/c", "target": f"http://127.0.0.1:{port}", "proxy": "direct"},
        ],
        outbound={"proxy": "http://127.0.0.1:1"},
        environment={"NO_PROXY": "*"},
    )
    for path, line in (("/a", "CONNECT a.test:80 "), ("/b", "GET /b "), ("/c", "GET /c ")):
        with proxy.connect() as client:
            client.request("GET", path)
            assert own_origin.accept().read_head().line.startswith(line)
