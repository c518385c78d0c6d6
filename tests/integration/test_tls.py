"""TLS on both sides: whom proxyd believes, and who believes it."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.certificates import Authority, client_context, server_context
from tests.support.wire import Origin, Wire

PEERS = Path(__file__).parent.parent / "peers" / "node_modules" / ".bin"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority that nobody knows."""
    return Authority(tmp_path / "ca")


def tls_rule(origin: Origin, **options: object) -> dict[str, object]:
    """A rule for a target that speaks TLS."""
    return {"name": "all", "pattern": "^/", "target": f"https://localhost:{origin.port}", **options}


def answer(origin: Origin, context, body: str = "over TLS") -> threading.Thread:
    """Answer one request over TLS; a client that does not like us is fine."""

    def run() -> None:
        wire = origin.accept()
        try:
            server = wire.over_tls(context)
        except OSError:
            wire.close()
            return
        try:
            answered = server.read_message()
            server.respond(body, f"X-Seen: {answered.line}")
        except (OSError, AssertionError):
            pass
        server.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def ask(proxy, status: int) -> bytes:
    """Ask for something."""
    with proxy.connect() as client:
        client.request("GET", "/x")
        response = client.read_message()
        assert response.status == status, response
        return response.body if status == 200 else (response.get("Proxy-Status") or "").encode()


def test_private_authority(start, own_origin: Origin, authority: Authority) -> None:
    """A target whose certificate comes from the rule's own CA is believed."""
    proxy = start(rules=[tls_rule(own_origin, tls={"ca": str(authority.file)})])
    thread = answer(own_origin, server_context(authority.sign("localhost")))
    assert ask(proxy, 200) == b"over TLS"
    thread.join()


@pytest.mark.parametrize(
    ("names", "trusted"),
    [(("other.test",), True), (("localhost",), False), (("127.0.0.1",), True)],
    ids=["another name", "an unknown authority", "an address"],
)
def test_verified_by_default(start, own_origin: Origin, authority: Authority, names, trusted: bool) -> None:
    """A certificate for somebody else, or from nobody we know, is 502, and the request is never sent."""
    proxy = start(rules=[tls_rule(own_origin, **({"tls": {"ca": str(authority.file)}} if trusted else {}))])
    thread = answer(own_origin, server_context(authority.sign(*names)))
    assert ask(proxy, 502) == b"proxyd; error=tls_certificate_error"
    thread.join()


def test_not_verified(start, own_origin: Origin, authority: Authority) -> None:
    """With secure: false anybody is believed, and is told the name that is asked for all the same."""
    asked: list[str | None] = []
    context = server_context(authority.sign("other.test"))
    context.sni_callback = lambda connection, name, _: asked.append(name)
    proxy = start(rules=[tls_rule(own_origin, secure=False)])
    thread = answer(own_origin, context)
    assert ask(proxy, 200) == b"over TLS"
    thread.join()
    assert asked == ["localhost"]


def test_server_name(start, own_origin: Origin, authority: Authority) -> None:
    """The rule may name another server than the target's host."""
    proxy = start(rules=[tls_rule(own_origin, tls={"ca": str(authority.file), "serverName": "other.test"})])
    thread = answer(own_origin, server_context(authority.sign("other.test")))
    assert ask(proxy, 200) == b"over TLS"
    thread.join()


def test_address(start, own_origin: Origin, authority: Authority) -> None:
    """A target that is an address is found among the certificate's addresses."""
    rule = tls_rule(own_origin, target=f"https://127.0.0.1:{own_origin.port}", tls={"ca": str(authority.file)})
    proxy = start(rules=[rule])
    thread = answer(own_origin, server_context(authority.sign("127.0.0.1")))
    assert ask(proxy, 200) == b"over TLS"
    thread.join()


@pytest.mark.parametrize("shown", [True, False])
def test_client_certificate(start, own_origin: Origin, authority: Authority, shown: bool) -> None:
    """A target that wants to know who we are is shown our certificate; its refusal is a failure of TLS."""
    tls = {"ca": str(authority.file)}
    if shown:
        tls["certificate"] = str(authority.sign("proxyd.test"))
    proxy = start(rules=[tls_rule(own_origin, tls=tls)])
    thread = answer(own_origin, server_context(authority.sign("localhost"), authority.file))
    if shown:
        assert ask(proxy, 200) == b"over TLS"
    else:
        assert ask(proxy, 502) == b"proxyd; error=tls_protocol_error"
    thread.join()


def test_no_tls(start, own_origin: Origin) -> None:
    """A target that speaks no TLS at all is 502."""
    proxy = start(rules=[tls_rule(own_origin)])

    def run() -> None:
        wire = own_origin.accept()
        wire.read(5)
        wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=run)
    thread.start()
    assert ask(proxy, 502) == b"proxyd; error=tls_protocol_error"
    thread.join()


@pytest.mark.parametrize("clean", [True, False])
def test_end_over_tls(start, own_origin: Origin, authority: Authority, clean: bool) -> None:
    """A body that ends with the connection needs close_notify to be whole (RFC 9112 section 9.8)."""
    proxy = start(rules=[tls_rule(own_origin, tls={"ca": str(authority.file)})])
    context = server_context(authority.sign("localhost"))

    def run() -> None:
        wire = own_origin.accept()
        server = wire.over_tls(context)
        server.read_message()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nthe whole")
        if clean:
            server.socket.unwrap()
        server.socket.close()

    thread = threading.Thread(target=run)
    thread.start()
    with proxy.connect() as client:
        client.request("GET", "/")
        if clean:
            assert client.read_message().body == b"the whole"
        else:
            assert not client.assert_cut().endswith(b"0\r\n\r\n")
    thread.join()


@pytest.fixture
def tls_site(start, own_origin: Origin, authority: Authority):
    """A proxy with two certificates and a listener of Twisted's own kind."""
    first, second = authority.sign("localhost", "first.test"), authority.sign("*.second.test")
    return start(
        listen=[
            {"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(first), str(second)]}},
            f"ssl:0:interface=127.0.0.1:privateKey={first}:certKey={first}",
        ],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
    )


@pytest.mark.parametrize("name", ["localhost", "first.test", "any.second.test"])
def test_certificate_by_name(tls_site, own_origin: Origin, authority: Authority, name: str) -> None:
    """Each name gets its certificate."""
    with Wire.to(tls_site.port).over_tls(client_context(authority.file), name) as client:
        client.request("GET", "/", "Connection: close")
        server = own_origin.accept()
        request = server.read_message()
        assert request.get("X-Forwarded-Proto") == "https"
        server.respond("hello")
        assert client.read_message().body == b"hello"
        client.assert_ended()


def test_large_answer_over_tls(tls_site, own_origin: Origin, authority: Authority) -> None:
    """All of a large answer arrives before the connection ends."""
    with Wire.to(tls_site.port).over_tls(client_context(authority.file), "localhost") as client:
        client.request("GET", "/", "Connection: close")
        server = own_origin.accept()
        server.read_message()
        body = bytes(range(256)) * 40000
        threading.Thread(target=server.respond, args=(body,)).start()
        assert client.read_message().body == body
        client.assert_ended()


CLIENTS = {
    "curl": ["curl", "-sS", "--cacert", "{ca}", "{url}"],
    "node": [
        *("node", "-e"),
        "require('https').get(process.argv[1], {ca: require('fs').readFileSync(process.argv[2]),"
        " ALPNProtocols: ['h2', 'http/1.1']}, r => r.pipe(process.stdout))",
        *("{url}", "{ca}"),
    ],
    "bun": [
        *(str(PEERS / "bun"), "-e"),
        "const {argv} = process; const tls = {ca: Bun.file(argv.at(-1))};"
        " process.stdout.write(await (await fetch(argv.at(-2), {tls})).text())",
        *("{url}", "{ca}"),
    ],
    "chromium": [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--ignore-certificate-errors", "--user-data-dir={folder}", "--dump-dom", "{url}"),
    ],
}
"""Clients that offer protocols by ALPN."""


@pytest.mark.parametrize("listener", [0, 1], ids=["own TLS", "ssl endpoint"])
@pytest.mark.parametrize("name", CLIENTS)
def test_clients(tls_site, own_origin: Origin, authority: Authority, tmp_path: Path, name: str, listener: int) -> None:
    """They are answered, on listeners with TLS of ours and on Twisted's own ssl: endpoints."""

    def run() -> None:
        server = own_origin.accept()
        server.read_message()
        server.respond(f"<!DOCTYPE html><title>t</title><p>hello {name}", "Content-Type: text/html")

    thread = threading.Thread(target=run)
    thread.start()
    url = f"https://localhost:{tls_site.ports[listener]}/"
    values = {"url": url, "ca": authority.file, "folder": tmp_path / "home"}
    command = [re.sub(r"\{(url|ca|folder)\}", lambda found: str(values[found[1]]), part) for part in CLIENTS[name]]
    shown = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    assert f"hello {name}".encode() in shown
    thread.join()


@pytest.mark.parametrize("reactor", [None, "epoll"])
def test_broken_off_over_tls(start, own_origin: Origin, authority: Authority, reactor: str | None) -> None:
    """An answer that only the connection's end delimits must not end with close_notify when it is not whole."""
    certificate = str(authority.sign("localhost"))
    proxy = start(
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [certificate]}}],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
        reactor=reactor,
    )
    with Wire.to(proxy.port).over_tls(client_context(authority.file), "localhost") as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        server = own_origin.accept()
        server.read_head()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        client.read_to(b"half")
        server.reset()
        client.assert_cut()


@pytest.mark.parametrize("listener", [0, 1])
def test_old_versions_are_refused(tls_site, authority: Authority, listener: int) -> None:
    """TLS 1.2 and 1.3 are spoken, and nothing older (RFC 8996)."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(authority.file)
        context.minimum_version = context.maximum_version = version
        with Wire.to(tls_site.ports[listener]).over_tls(context, "localhost") as client:
            assert client.socket.version() == version.name.replace("_", ".")
            # With a key of this connection alone.
            assert version is ssl.TLSVersion.TLSv1_3 or client.socket.cipher()[0].startswith("ECDHE-")
    context = client_context(authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Wire.to(tls_site.ports[listener]) as wire, pytest.raises(ssl.SSLError, match="(?i)version"):
        wire.over_tls(context, "localhost")


def test_client_must_show_a_certificate(start, own_origin: Origin, authority: Authority) -> None:
    """A listener with clientCA serves only those whom that authority knows."""
    tls = {"certificates": [str(authority.sign("localhost"))], "clientCA": str(authority.file)}
    proxy = start(
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "tls": tls}],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
    )
    known = client_context(authority.file, authority.sign("client.test"))
    with Wire.to(proxy.port).over_tls(known, "localhost") as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("known")
        assert client.read_message().body == b"known"
    with Wire.to(proxy.port).over_tls(client_context(authority.file), "localhost") as stranger:
        stranger.request("GET", "/")
        with pytest.raises(ssl.SSLError, match="(?i)certificate"):
            stranger.read_some()


def test_new_certificate_on_reload(start, own_origin: Origin, authority: Authority) -> None:
    """SIGHUP reads certificates again; a file that holds none changes nothing and is named in the log."""
    file = authority.sign("localhost")
    proxy = start(
        listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(file)]}}],
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
    )

    def serial() -> int:
        with Wire.to(proxy.port).over_tls(client_context(authority.file), "localhost") as client:
            return int(client.socket.getpeercert()["serialNumber"], 16)

    before = serial()
    file.write_bytes(authority.sign("localhost").read_bytes())
    assert serial() == before
    proxy.process.send_signal(signal.SIGHUP)
    proxy.output.wait_for("configuration was reloaded")
    after = serial()
    assert after != before
    file.write_bytes(b"no certificate")
    proxy.process.send_signal(signal.SIGHUP)
    proxy.output.wait_for(rf"not reloaded(.|\n)*{re.escape(file.name)} is no PEM file")
    assert serial() == after
