"""Clients and servers that others wrote, each through a real twistd: curl, nginx, node, ws, websockets, Chromium."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_by_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from tests.support.certificates import Authority, client_context
from tests.support.peers import Peer, nginx, node
from tests.support.proxy import PATIENCE_S, Proxy

LARGE = bytes(range(256)) * 4 * 10240
"""Ten megabytes."""

SIZES = [0, 1, 125, 126, 65535, 65536, 1_000_000]
HUGE = 20_000_000


class PythonServer:
    """
    A WebSocket server of Python's: gives messages back in the fragments in which they came.

    @ivar ended: close codes and reasons of the clients that have gone.
    """

    def __init__(self, compression: str | None) -> None:
        self.ended: list[tuple[int | None, str | None]] = []
        self._changed = threading.Condition()
        self._server: Server = serve(
            self._echo, "127.0.0.1", 0, compression=compression, max_size=None, subprotocols=[Subprotocol("two")],
            select_subprotocol=lambda _, offered: Subprotocol("two") if "two" in offered else None,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _echo(self, connection: ServerConnection) -> None:
        try:
            while True:
                fragments = list(connection.recv_streaming())
                if fragments[0] == "close 4003 server":
                    connection.close(4003, "server")
                elif len(fragments) == 1:
                    connection.send(fragments[0])
                else:
                    connection.send(fragments)
        except ConnectionClosed:
            with self._changed:
                self.ended.append((connection.close_code, connection.close_reason))
                self._changed.notify_all()

    def wait_for(self, ended: int) -> tuple[int | None, str | None]:
        """How the so-many-th client has gone."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ended) >= ended, PATIENCE_S)
            return self.ended[ended - 1]

    def close(self) -> None:
        """Serve nobody any more."""
        self._server.shutdown()
        self._thread.join()


class Peers:
    """
    One proxy, on HTTP and HTTPS, in front of all servers.

    @ivar authority: who signed its certificate.
    @ivar http: node's HTTP server, at C{/node/}.
    @ivar sockets: the WebSocket servers that node and Python run, each with and without compression.
    """

    def __init__(self, folder: Path, start: Callable[..., Peer]) -> None:
        root = folder / "root"
        root.mkdir()
        (root / "small.txt").write_text("small\n")
        (root / "large.bin").write_bytes(LARGE)
        (root / "page.html").write_bytes((Path(__file__).parent.parent / "peers" / "page.html").read_bytes())
        self.authority = Authority(folder / "ca")
        self.http = node(start, "http-server.js")
        self.sockets: dict[tuple[str, bool], Peer | PythonServer] = {
            ("node", True): node(start, "ws-server.js", "deflate"),
            ("node", False): node(start, "ws-server.js", "plain"),
            ("python", True): PythonServer("deflate"),
            ("python", False): PythonServer(None),
        }
        targets = {"files": nginx(start, folder / "nginx", root), "node": self.http.listens()}
        for (kind, deflates), server in self.sockets.items():
            port = server.listens() if isinstance(server, Peer) else server.port
            targets[self.name(kind, deflates)] = port
        rules = [
            {"name": name, "pattern": f"^/{name}(/.*)$", "rewrite": "$1", "target": f"http://127.0.0.1:{port}"}
            for name, port in targets.items()
        ]
        certificate = str(self.authority.sign("localhost", "127.0.0.1"))
        listen: list[Any] = [
            "tcp:0:interface=127.0.0.1",
            {"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [certificate]}},
        ]
        self.proxy = Proxy(folder / "proxy", {"listen": listen, "rules": rules})

    @staticmethod
    def name(kind: str, deflates: bool) -> str:
        """The first segment of the paths that go to a WebSocket server."""
        return f"{kind}-{'deflate' if deflates else 'plain'}"

    def url(self, path: str, scheme: str = "http") -> str:
        """A URL of the proxy."""
        return f"{scheme}://localhost:{self.proxy.ports[scheme in ('https', 'wss')]}{path}"

    def curl(self, *arguments: str | Path, check: bool = True) -> bytes:
        """
        Run curl.

        @return: what it wrote to standard output.
        """
        command = ["curl", "-sS", "--max-time", "30", "--cacert", self.authority.file, *arguments]
        ended = subprocess.run(command, capture_output=True, timeout=60)
        assert ended.returncode == 0 or not check, ended.stderr.decode()
        return ended.stdout

    def close(self) -> None:
        """End all but the processes."""
        text = self.proxy.stop()
        for server in self.sockets.values():
            if isinstance(server, PythonServer):
                server.close()
        assert "Traceback" not in text, text


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """The proxy and the servers behind it."""
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Peer:
            peer = Peer(*arguments, **options)
            stack.callback(peer.stop)
            return peer

        one = Peers(tmp_path_factory.mktemp("peers"), start)
        stack.callback(one.close)
        yield one


# curl, in front of node and nginx

SCHEMES = ["http", "https"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_file(peers: Peers, scheme: str) -> None:
    """A file of nginx's, small or large, and what is said of it."""
    head, _, body = peers.curl("-i", peers.url("/files/small.txt", scheme)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nServer: nginx/")
    assert b"Content-Length: 6\r\n" in head
    assert b"ETag: " in head
    assert body == b"small\n"
    assert peers.curl(peers.url("/files/large.bin", scheme)) == LARGE


def test_http_1_0(peers: Peers) -> None:
    """A client of HTTP/1.0 gets no chunks: the connection's end is the body's."""
    head, _, body = peers.curl("-0", "-i", peers.url("/node/trailers")).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close" in head
    assert len(body) == sum(4**power for power in range(9))
    assert peers.curl("-0", peers.url("/files/small.txt")) == b"small\n"


def test_trailers(peers: Peers) -> None:
    """node's chunks and trailers reach curl."""
    written = peers.curl("-i", "--raw", peers.url("/node/trailers"))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in written
    assert written.endswith(b"\r\n0\r\nX-Sum: 21845+65536\r\n\r\n")


def test_early_hints(peers: Peers) -> None:
    """103 and 102 come before the answer, in order."""
    written = peers.curl("-i", peers.url("/node/hints"))
    assert written.startswith(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload, </b.css>; rel=preload\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n"
    )
    assert written.endswith(b"after the hints")
    assert peers.curl("-0", "-i", peers.url("/node/hints")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("coding", ["", "chunked"])
def test_an_upload(peers: Peers, tmp_path: Path, scheme: str, coding: str) -> None:
    """curl -T sends a file with its length, or in chunks; the body comes back while it is still being sent."""
    file = tmp_path / "up.bin"
    file.write_bytes(LARGE)
    chunked = ["-H", "Transfer-Encoding: chunked"] if coding else []
    head, _, body = peers.curl("-i", "-T", file, *chunked, "-H", "Expect:", peers.url("/node/echo", scheme)).partition(
        b"\r\n\r\n"
    )
    assert body == LARGE
    assert b"X-Method: PUT\r\n" in head
    assert b"X-Length: %b\r\n" % (b"" if coding else b"%d" % len(LARGE)) in head
    assert b"X-Coding: %b\r\n" % coding.encode() in head
    assert b"X-Proto: %b\r\n" % scheme.encode() in head


def test_expect_continue(peers: Peers, tmp_path: Path) -> None:
    """curl sends its body when node says 100, and keeps it when node refuses."""
    file = tmp_path / "up.bin"
    file.write_bytes(LARGE)
    expect = ("-i", "-T", file, "-H", "Expect: 100-continue", "--expect100-timeout", "20")
    written = peers.curl(*expect, peers.url("/node/echo"))
    assert written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert written.endswith(LARGE)
    written = peers.curl(*expect, "-w", "\n%{size_upload}", peers.url("/node/refuses"))
    assert written.startswith(b"HTTP/1.1 413 ")
    assert written.endswith(b"too much\n0")


def test_head(peers: Peers) -> None:
    """HEAD has the fields of GET, and no body."""
    url = peers.url("/files/large.bin")
    written = peers.curl("-I", url, "--next", "-sS", "-I", url, "-w", "%{num_connects}")
    assert written.count(b"HTTP/1.1 200 OK") == 2
    assert written.count(b"Content-Length: %d\r\n" % len(LARGE)) == 2
    assert written.endswith(b"\r\n\r\n0")


def test_ranges(peers: Peers) -> None:
    """Parts of a file: one, several, none."""
    url = peers.url("/files/large.bin")
    head, _, body = peers.curl("-i", "-r", "1000-1999", url).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert b"\r\nContent-Range: bytes 1000-1999/%d" % len(LARGE) in head
    assert body == LARGE[1000:2000]
    assert peers.curl("-r", "0-0,5-6", url).count(b"Content-Range") == 2
    assert peers.curl("-i", "-r", "99999999-", url).startswith(b"HTTP/1.1 416 ")


def test_conditional_requests(peers: Peers, tmp_path: Path) -> None:
    """What has not changed is not sent again."""
    url, tag = peers.url("/files/small.txt"), tmp_path / "tag"
    peers.curl("--etag-save", tag, url)
    assert peers.curl("--etag-compare", tag, "-w", "%{http_code}", url) == b"304"


def test_packed_answers(peers: Peers) -> None:
    """What nginx packs and sends in chunks comes as it is; curl unpacks it."""
    url = peers.url("/files/packed/small.txt")
    head, _, body = peers.curl("-i", "-H", "Accept-Encoding: gzip", url).partition(b"\r\n\r\n")
    assert b"\r\nContent-Encoding: gzip" in head
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert gzip.decompress(body) == b"small\n"
    assert peers.curl("--compressed", url) == b"small\n"


def test_connections_are_kept(peers: Peers) -> None:
    """curl's is used for all its requests; so is the one to nginx, unless nginx says otherwise."""
    url = peers.url("/files/small.txt")
    each = ("-D", "-", "-o", os.devnull, "-w", "connects=%{num_connects}\n", url)
    written = peers.curl(*each, *(("--next", "-sS", *each) * 2)).decode()
    connects = [line.partition("=")[2] for line in written.splitlines() if line.startswith("connects=")]
    assert connects == ["1", "0", "0"]
    served = [int(line.split()[1]) for line in written.splitlines() if line.startswith("X-Requests: ")]
    assert served == [served[0], served[0] + 1, served[0] + 2]
    written = peers.curl(*(("-sS", "-i", peers.url("/files/one/small.txt"), "--next") * 2), url).decode()
    assert written.count("small\n") == 3


def test_an_origin_that_hangs_up(peers: Peers) -> None:
    """nginx's 444 is an end without an answer: 502."""
    written = peers.curl("-i", peers.url("/files/nothing/"))
    assert written.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"Proxy-Status: proxyd; error=connection_terminated\r\n" in written


def test_many_at_once(peers: Peers, tmp_path: Path) -> None:
    """A dozen transfers at a time, each whole."""
    names = [tmp_path / f"{number}.bin" for number in range(12)]
    arguments: list[str | Path] = ["--parallel", "--parallel-immediate"]
    for number, name in enumerate(names):
        arguments += ["-o", name, peers.url("/files/large.bin", SCHEMES[number % 2])]
    peers.curl(*arguments)
    assert all(name.read_bytes() == LARGE for name in names)


# WebSockets


def message(size: int) -> bytes:
    """A message of so many octets of ASCII that is worth compressing, and not just one octet."""
    return (b"The quick brown fox jumps over the lazy dog. %d " % size * (size // 46 + 1))[:size]


SERVERS = [("node", True), ("node", False), ("python", True), ("python", False)]


def _ids(value: object) -> str:
    return {True: "deflate", False: "plain"}.get(value, str(value)) if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("deflates", [True, False], ids=_ids)
@pytest.mark.parametrize(("kind", "server_deflates"), SERVERS, ids=_ids)
def test_node_client(peers: Peers, kind: str, server_deflates: bool, deflates: bool) -> None:
    """
    node's ws sends messages of every size, a ping and fragments, and all comes
    back; what the two agreed on, its close code and the reason cross.
    """
    server = peers.sockets[kind, server_deflates]
    ended = len(server.ended) if isinstance(server, PythonServer) else server.output.text.count("closed 4001 good")
    # What is compressed is slow at both ends: the largest message goes once each way by each pair of peers.
    sizes = [*SIZES, HUGE] if deflates is server_deflates else SIZES
    command = [
        "node", Path(__file__).parent.parent / "peers" / "ws-client.js",
        peers.url(f"/{peers.name(kind, server_deflates)}/node-client", "wss"), "deflate" if deflates else "plain",
        json.dumps(sizes), peers.authority.file,
    ]
    ran = subprocess.run(command, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr.decode()
    result = json.loads(ran.stdout)
    assert (result.pop("extensions") != "") is (deflates and server_deflates)
    assert result == {"code": 4001, "reason": "good \u20ac", "received": 2 * len(sizes), "pongs": 1, "protocol": "two"}
    if isinstance(server, PythonServer):
        assert server.wait_for(ended + 1) == (4001, "good \u20ac")
    else:
        server.output.wait_for("closed 4001 good \u20ac", ended + 1)


def python_client(peers: Peers, path: str, deflates: bool, **options: Any) -> ClientConnection:
    """Open a WebSocket with Python's websockets."""
    return connect(
        peers.url(path, "ws"), compression="deflate" if deflates else None, max_size=None,
        subprotocols=[Subprotocol("one"), Subprotocol("two")], proxy=None, **options,
    )


@pytest.mark.parametrize("deflates", [True, False], ids=_ids)
@pytest.mark.parametrize(("kind", "server_deflates"), SERVERS, ids=_ids)
def test_python_client(peers: Peers, kind: str, server_deflates: bool, deflates: bool) -> None:
    """Python's websockets does the same, and hears of a Close that the server sends."""
    path = f"/{peers.name(kind, server_deflates)}/python-client"
    with python_client(peers, path, deflates) as client:
        assert client.subprotocol == "two"
        assert client.response is not None
        assert ("Sec-WebSocket-Extensions" in client.response.headers) is (deflates and server_deflates)
        for size in [*SIZES, HUGE] if deflates is server_deflates else SIZES:
            octets = message(size)
            client.send(octets)
            assert client.recv() == octets
            client.send(octets.decode())
            assert client.recv() == octets.decode()
        assert client.ping("there?").wait(PATIENCE_S)
        client.send("close 4003 server")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason, closed.value.rcvd_then_sent) == (4003, "server", True)


@pytest.mark.parametrize("deflates", [True, False], ids=_ids)
def test_fragments(peers: Peers, deflates: bool) -> None:
    """A message in fragments arrives in these fragments, compressed or not; a ping may come between them."""
    with python_client(peers, f"/{peers.name('python', deflates)}/", deflates) as client:
        parts = ["one ", "", "two ", "x" * 70000]

        def fragments() -> Iterator[str]:
            for part in parts:
                assert client.ping().wait(PATIENCE_S)
                yield part

        client.send(fragments())
        # websockets ends a message of fragments with an empty one.
        assert [part for part in client.recv_streaming() if part] == [part for part in parts if part]


def test_both_directions_at_once(peers: Peers) -> None:
    """Hundreds of messages each way, without waiting for one another, in order."""
    with python_client(peers, "/node-deflate/", True) as client:
        texts = [message(number * 37 % 5000).decode() for number in range(500)]
        sending = threading.Thread(target=lambda: [client.send(text) for text in texts])
        sending.start()
        assert [client.recv() for _ in texts] == texts
        sending.join()


def test_over_tls(peers: Peers) -> None:
    """Python's websockets by wss, in one thread: the ssl module of older Pythons bears no second one."""

    async def there_and_back(octets: bytes) -> bytes | str:
        url = peers.url("/python-deflate/", "wss")
        context = client_context(peers.authority.file)
        async with connect_by_asyncio(url, ssl=context, max_size=None, proxy=None) as client:
            await client.send(octets)
            return await client.recv()

    assert asyncio.run(there_and_back(message(HUGE))) == message(HUGE)


def test_many_clients(peers: Peers) -> None:
    """A hundred WebSockets at once."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(python_client(peers, f"/{peers.name(*SERVERS[number % 4])}/", True))
            for number in range(100)
        ]
        for number, client in enumerate(clients):
            client.send(f"hello {number}")
        assert [client.recv() for client in clients] == [f"hello {number}" for number in range(100)]


def test_a_refusal(peers: Peers) -> None:
    """Who asks a server of files for a WebSocket learns what that says to it."""
    with pytest.raises(InvalidStatus) as refused:
        python_client(peers, "/files/small.txt", True)
    assert (refused.value.response.status_code, refused.value.response.body) == (200, b"small\n")


# A browser


@pytest.mark.parametrize("scheme", SCHEMES)
def test_chromium(peers: Peers, tmp_path: Path, scheme: str) -> None:
    """
    Chromium's EventSource gets each event before the next one is sent, and goes
    on where a stream ended; its WebSockets get what was agreed on, messages,
    clean ends with code and reason, and 1006 for a refusal.
    """
    before = peers.http.output.text.count("\nresult ")
    browser = Peer([
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--ignore-certificate-errors", "--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'chromium'}"),
        peers.url("/files/page.html", scheme),
    ])
    try:
        result = peers.http.output.wait_for(r"\nresult ([^\n]*)\n", before + 1)[-1][1]
    finally:
        browser.stop()
    events, by_page, by_server, plain, refused = json.loads(result)
    assert events == [f"{number} event {number}" for number in range(1, 6)]
    assert "events after 3" in peers.http.output.text
    assert by_page == ["two", "permessage-deflate", "", "text \u20ac", True, True, 4002, "page"]
    assert by_server == ["two", "permessage-deflate", "", "text \u20ac", True, True, 4003, "server"]
    assert plain == ["two", "", "", "text \u20ac", True, True, 4002, "page"]
    assert refused == [False, 1006]
