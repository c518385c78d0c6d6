"""Proxy auto-config through twistd: which way requests go, and that none goes where the script did not say."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.support.certificates import Authority, server_context
from tests.support.proxies import free_port
from tests.support.proxy import Proxy
from tests.support.wire import PATIENCE_S, Origin, Wire

RULE = {"name": "p", "pattern": "^/", "target": "http://target.test"}


@pytest.fixture
def script(start, tmp_path: Path):
    """Start a proxy with a script that says this, or is this."""

    def start_with(result: str, *, whole: bool = False, rule: dict | None = None, **config) -> Proxy:
        file = tmp_path / "way.pac"
        file.write_text(result if whole else f"function FindProxyForURL(url, host) {{ return {result!r}; }}")
        return start(rules=[{**RULE, "proxy": {"pac": "../way.pac"}, **(rule or {})}], **config)

    return start_with


def serve_tunnel(wire: Wire, target: str = "target.test:80") -> None:
    """A proxy with the target behind it."""
    assert wire.read_head().line == f"CONNECT {target} HTTP/1.1"
    wire.send("HTTP/1.1 200 OK\r\n\r\n")
    assert wire.read_message().line == "GET / HTTP/1.1"
    wire.respond("hello")


def workers(proxy: Proxy) -> list[psutil.Process]:
    """The processes that evaluate scripts."""
    found = []
    for child in psutil.Process(proxy.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "pac_worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_gone(process: psutil.Process) -> None:
    """Wait for the end of a process that need not be our child."""
    deadline = time.monotonic() + PATIENCE_S
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)


def test_proxy(script, own_origin: Origin) -> None:
    """PROXY is a CONNECT tunnel; there is one worker, which ends with proxyd."""
    proxy = script(f"PROXY 127.0.0.1:{own_origin.port}")
    assert workers(proxy) == []
    with proxy.connect() as client:
        client.request("GET", "/")
        serve_tunnel(own_origin.accept())
        assert client.read_message().body == b"hello"
    (worker,) = workers(proxy)
    proxy.terminate()
    proxy.process.wait(PATIENCE_S)
    wait_gone(worker)


def test_killed(script, own_origin: Origin) -> None:
    """The worker ends even when proxyd cannot tell it to."""
    proxy = script(f"PROXY 127.0.0.1:{own_origin.port}")
    with proxy.connect() as client:
        client.request("GET", "/")
        serve_tunnel(own_origin.accept())
        client.read_message()
    (worker,) = workers(proxy)
    proxy.process.send_signal(signal.SIGKILL)
    wait_gone(worker)


def test_reload(script, own_origin: Origin) -> None:
    """A reload leaves no worker of the old configuration."""
    proxy = script(f"PROXY 127.0.0.1:{own_origin.port}")
    with proxy.connect() as client:
        client.request("GET", "/")
        serve_tunnel(own_origin.accept())
        client.read_message()
    (worker,) = workers(proxy)
    proxy.reload({"rules": [RULE]})
    wait_gone(worker)


def test_no_connection_is_kept(script, own_origin: Origin) -> None:
    """Each request goes the way that the script says: none over a connection that was made on another's."""
    proxy = script(f"PROXY 127.0.0.1:{own_origin.port}")
    with proxy.connect() as client:
        for _ in range(2):
            client.request("GET", "/")
            with own_origin.accept() as wire:
                serve_tunnel(wire)
                assert client.read_message().body == b"hello"
                wire.assert_ended()


def test_direct(script, own_origin: Origin) -> None:
    """DIRECT is a connection to the target."""
    proxy = script("DIRECT", rule={"target": f"http://127.0.0.1:{own_origin.port}"})
    with proxy.connect() as client:
        client.request("GET", "/")
        assert own_origin.accept().read_message().line == "GET / HTTP/1.1"


@pytest.mark.parametrize("dead", ["PROXY", "HTTPS", "SOCKS", "SOCKS4"])
def test_failover(script, own_origin: Origin, dead: str) -> None:
    """A proxy that cannot be reached is passed over."""
    proxy = script(f"{dead} 127.0.0.1:{free_port()}; PROXY 127.0.0.1:{own_origin.port}")
    with proxy.connect() as client:
        client.request("GET", "/")
        serve_tunnel(own_origin.accept())
        assert client.read_message().body == b"hello"
    proxy.output.wait_for("could not be reached: .*; the next way is tried")


def test_failover_from_direct(script, own_origin: Origin) -> None:
    """So is a target that cannot be reached directly."""
    port = free_port()
    proxy = script(
        f"DIRECT; PROXY 127.0.0.1:{own_origin.port}", rule={"target": f"http://127.0.0.1:{port}"}
    )
    with proxy.connect() as client:
        client.request("GET", "/")
        serve_tunnel(own_origin.accept(), f"127.0.0.1:{port}")
        assert client.read_message().body == b"hello"


@pytest.mark.parametrize("reply", [b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b""])
def test_no_failover(script, own_origin: Origin, reply: bytes) -> None:
    """A proxy that was reached decides, whatever it says."""
    target = Origin()
    proxy = script(
        f"PROXY 127.0.0.1:{own_origin.port}; DIRECT", rule={"target": f"http://127.0.0.1:{target.port}"}
    )
    with proxy.connect() as client:
        client.request("GET", "/")
        wire = own_origin.accept()
        wire.read_head()
        wire.send(reply)
        wire.close()
        assert client.read_message().status == 502
    target.assert_idle()
    target.close()


def test_all_dead(script) -> None:
    """When nothing can be reached, the last failure is told."""
    proxy = script(f"PROXY 127.0.0.1:{free_port()}; SOCKS 127.0.0.1:{free_port()}")
    with proxy.connect() as client:
        client.request("GET", "/")
        response = client.read_message()
    assert response.get("Proxy-Status") == 'proxyd; error=connection_refused; details="proxy_connection_refused"'


def test_https(script, own_origin: Origin, tmp_path: Path) -> None:
    """HTTPS is TLS to the proxy, with the service's settings."""
    authority = Authority(tmp_path / "ca")
    context = server_context(authority.sign("127.0.0.1"))
    proxy = script(f"HTTPS 127.0.0.1:{own_origin.port}", outbound={"tls": {"ca": str(authority.file)}})
    with proxy.connect() as client:
        client.request("GET", "/")
        with own_origin.accept().over_tls(context) as wire:
            serve_tunnel(wire)
            assert client.read_message().body == b"hello"


def test_socks5(script, own_origin: Origin) -> None:
    """SOCKS5 leaves the name to the proxy."""
    proxy = script(f"SOCKS5 127.0.0.1:{own_origin.port}")
    with proxy.connect() as client:
        client.request("GET", "/")
        wire = own_origin.accept()
        assert wire.read(3) == b"\x05\x01\x00"
        wire.send(b"\x05\x00")
        assert wire.read(18) == b"\x05\x01\x00\x03\x0btarget.test\x00\x50"
        wire.send(b"\x05\x00\x00\x01\0\0\0\0\0\0")
        assert wire.read_message().line == "GET / HTTP/1.1"
        wire.respond("hello")
        assert client.read_message().body == b"hello"


def test_url(start, own_origin: Origin) -> None:
    """A script from a URL, for all rules; it is fetched once."""
    server = Origin()
    proxy = start(outbound={"proxy": {"pac": f"http://127.0.0.1:{server.port}/a.pac?x"}}, rules=[RULE])
    for first in (True, False):
        with proxy.connect() as client:
            client.request("GET", "/")
            if first:
                wire = server.accept()
                assert wire.read_message().line == "GET /a.pac?x HTTP/1.1"
                wire.respond(f"function FindProxyForURL() {{ return 'PROXY 127.0.0.1:{own_origin.port}'; }}")
                wire.close()
            tunnel = own_origin.accept()
            serve_tunnel(tunnel)
            assert client.read_message().body == b"hello"
            tunnel.close()
    server.assert_idle()
    server.close()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        ("404 Not Found", "function FindProxyForURL() { return 'DIRECT'; }", "the server said 404"),
        ("200 OK", "x" * (1024 * 1024 + 1), "it is longer than 1048576 octets"),
    ],
)
def test_bad_url(start, own_origin: Origin, status: str, body: str, reason: str) -> None:
    """A script that cannot be had is no leave to go directly."""
    server = Origin()
    proxy = start(
        rules=[
            {
                **RULE,
                "target": f"http://127.0.0.1:{own_origin.port}",
                "proxy": {"pac": f"http://127.0.0.1:{server.port}/"},
            }
        ]
    )
    with proxy.connect() as client:
        client.request("GET", "/")
        wire = server.accept()
        wire.read_message()
        wire.respond(body, status=status)
        assert client.read_message().status == 502
    proxy.output.wait_for(re.escape(reason))
    own_origin.assert_idle()
    server.close()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("function FindProxyForURL() { throw 'no luck'; }", "no luck"),
        ("function FindProxyForURL() { return ''; }", "names no proxy"),
        ("function FindProxyForURL() { while (true) {} }", "longer than the 0.5 s"),
        ("function (", "SyntaxError"),
    ],
)
def test_errors(script, own_origin: Origin, text: str, reason: str) -> None:
    """A script without an answer is 502 with the reason in the log, and never a direct connection."""
    config = {"timeouts": {"connect": 0.5}} if "while" in text else {}
    proxy = script(text, whole=True, rule={"target": f"http://127.0.0.1:{own_origin.port}"}, **config)
    with proxy.connect() as client:
        client.request("GET", "/")
        response = client.read_message()
    assert response.status == 502
    assert (
        response.get("Proxy-Status")
        == 'proxyd; error=proxy_configuration_error; details="proxy_connection_refused"'
    )
    proxy.output.wait_for(f"proxy_configuration_error: the proxy auto-config .*way.pac.*{reason}")
    own_origin.assert_idle()
    found = workers(proxy)
    proxy.terminate()
    proxy.process.wait(PATIENCE_S)
    for worker in found:
        wait_gone(worker)


CLIENT = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from proxyd import connect_websocket
from proxyd.errors import UpstreamError

async def main(reactor):
    try:
        await connect_websocket("ws://target.test/", proxy={"pac": sys.argv[1]})
    except UpstreamError as error:
        print(error.name, error)

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


@pytest.mark.parametrize(
    ("result", "told"),
    [("", "proxy_connection_refused the proxy auto-config "), ("PROXY 127.0.0.1:{}", "proxy_connect_failed ")],
)
def test_client(tmp_path: Path, own_origin: Origin, result: str, told: str) -> None:
    """connect_websocket() knows scripts too."""
    file = tmp_path / "way.pac"
    file.write_text(f"function FindProxyForURL() {{ return {result.format(own_origin.port)!r}; }}")
    command = [sys.executable, "-c", CLIENT, "way.pac"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        if result:
            wire = own_origin.accept()
            assert wire.read_head().line == "CONNECT target.test:80 HTTP/1.1"
            wire.respond(status="403 No")
        assert process.communicate(timeout=PATIENCE_S)[0].startswith(told)
    assert process.returncode == 0
