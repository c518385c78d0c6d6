"""proxyd connect, as users run it: in pipes and in a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, server_context
from tests.support.peers import Peer, node
from tests.support.proxies import free_port
from tests.support.websocket import switching
from tests.support.wire import Origin, Wire

COMMAND = [sys.executable, "-W", "error", "-c", "import sys; from proxyd.cli import main; sys.exit(main())", "connect"]
CLEAN = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
PATIENCE_S = 20


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that gives messages back."""
    peers: list[Peer] = []

    def start(*arguments: Any, **options: Any) -> Peer:
        peers.append(Peer(*arguments, **options))
        return peers[-1]

    yield f"ws://127.0.0.1:{node(start, 'ws-server.js', 'deflate').listens()}/"
    for peer in peers:
        peer.stop()


def run(*arguments: str, sent: bytes = b"", **environment: str) -> tuple[int, bytes, str]:
    """Run the command; return its status and what it printed."""
    done = subprocess.run(
        [*COMMAND, *arguments], input=sent, capture_output=True, timeout=PATIENCE_S, env={**CLEAN, **environment}
    )
    text = done.stderr.decode()
    assert "Traceback" not in text and "Unhandled" not in text, text
    return done.returncode, done.stdout, text


def test_lines(server: str) -> None:
    """Lines go out and come back, the last one without its end, too."""
    assert run(server, sent=b"hi\n") == (0, b"hi\n", "")
    lines = b"".join(b"%d\n" % number for number in range(20_000))
    assert run(server, sent=lines) == (0, lines, "")
    assert run(server, sent=b"one\n\xc3\xbc") == (0, "one\nü\n".encode(), "")
    assert run(server) == (0, b"", "")
    status, out, text = run(server, "--protocol", "one", "--protocol", "two", sent=b"x\n")
    assert (status, out, text) == (0, b"x\n", "proxyd connect: the subprotocol is two\n")


def test_binary(server: str) -> None:
    """Octets go out and come back as they are."""
    octets = os.urandom(3_000_000)
    assert run(server, "--binary", sent=octets) == (0, octets, "")


def test_reader_that_goes_away(server: str) -> None:
    """C{proxyd connect | head}: nobody reads any more, and the command ends."""
    line = "seq 20000 | " + '"$@"' + " | head -n 1"
    command = ["sh", "-c", line, "sh", *COMMAND, server]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, env=CLEAN)
    assert done.stdout == b"1\n" and b"Traceback" not in done.stderr


def test_closed_by_the_server(server: str) -> None:
    """Another code than 1000 is an error; --wait leaves the server time."""
    status, out, text = run(server, "--wait", "10", sent=b"close 4003 oops\n")
    assert (status, out, text) == (1, b"", "proxyd connect: the connection was closed: 4003 oops\n")
    assert run(server, "--wait", "10", sent=b"a\nclose 1000 fine\n") == (0, b"a\n", "")


def answering(origin: Origin, answer: bytes) -> threading.Thread:
    """An origin server that answers one request."""

    def serve() -> None:
        wire = origin.accept()
        wire.read_head()
        wire.send(answer)
        wire.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_statuses(own_origin: Origin) -> None:
    """Each kind of error has its own."""
    dead = free_port()
    target, proxied = f"ws://127.0.0.1:{own_origin.port}", ("ws://target.test", "--proxy")
    assert run(f"ws://127.0.0.1:{dead}")[0] == 10
    assert run(*proxied, f"http://hidden:hidden@127.0.0.1:{dead}")[0] == 35
    assert run("ws://target.test", http_proxy=f"127.0.0.1:{dead}")[0] == 35
    for answer, status, arguments in (
        (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nwhy", 12, (target,)),
        (b"nonsense\r\n\r\n", 12, (target,)),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 33, (*proxied, f"http://127.0.0.1:{own_origin.port}")),
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", 34, (*proxied, f"http://127.0.0.1:{own_origin.port}")),
        (b"nonsense\r\n\r\n", 36, (*proxied, f"http://127.0.0.1:{own_origin.port}")),
    ):
        thread = answering(own_origin, answer)
        found, out, text = run(*arguments)
        thread.join()
        assert (found, out) == (status, b""), text
        assert ("why" in text) == (b"why" in answer)


@pytest.mark.parametrize(
    "arguments",
    [("x://a",), ("ws://a", "--proxy", "ftp://hidden@a"), ("ws://a", "--header", "hidden"), (), ("ws://a", "--bogus")],
)
def test_usage(arguments: tuple[str, ...]) -> None:
    """A call that makes no sense is 2."""
    status, out, text = run(*arguments)
    assert (status, out) == (2, b"") and text and "hidden" not in text


def test_tls(own_origin: Origin, tmp_path: Path) -> None:
    """A server that the system does not trust: refused, trusted by a file, or not verified."""
    authority = Authority(tmp_path / "ca")
    context = server_context(authority.sign("localhost"))
    seen: list[Any] = []

    def serve() -> None:
        for _ in range(3):
            with contextlib.suppress(ssl.SSLError, OSError):
                wire: Wire = own_origin.accept().over_tls(context)
                request = wire.read_head()
                seen.append(request.get("X-A"))
                wire.send(switching(request) + b"\x81\x05hello\x88\x02\x03\xe8")
                wire.read(8)
                wire.close()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"wss://localhost:{own_origin.port}"
    status, _, text = run(url)
    assert status == 11 and "certificate" in text
    assert run(url, "--cacert", str(authority.file), "--header", "X-A: b")[:2] == (0, b"hello\n")
    assert run(url, "--insecure")[:2] == (0, b"hello\n")
    thread.join()
    assert seen == ["b", None]


def test_terminal(server: str) -> None:
    """In a terminal lines are answered one by one; Ctrl-D ends, and the terminal is as it was."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, server], stdin=theirs, stdout=theirs, stderr=theirs, env=CLEAN)
    try:
        for line in (b"first", b"second"):
            os.write(ours, line + b"\n")
            seen = b""
            while seen.count(line) < 2:  # the terminal's echo, and the server's
                seen += os.read(ours, 1000)
        os.write(ours, b"\x04")
        assert process.wait(PATIENCE_S) == 0
        assert os.get_blocking(theirs)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_interrupted(server: str) -> None:
    """Ctrl-C closes the connection and is 130, before it is open as well."""
    process = subprocess.Popen([*COMMAND, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=CLEAN)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"hi\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"hi\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    process.stdin.close()
    process.stdout.close()


def test_interrupted_early(own_origin: Origin) -> None:
    """The same while the server has not answered."""
    process = subprocess.Popen([*COMMAND, f"ws://127.0.0.1:{own_origin.port}"], stdin=subprocess.DEVNULL, env=CLEAN)
    wire = own_origin.accept()
    wire.read_head()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    wire.close()
