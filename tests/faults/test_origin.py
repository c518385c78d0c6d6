"""
Origin servers that refuse, break off, stall, lie and talk nonsense, at every octet of their answers.

Whatever they do: a client gets an answer that is whole and right, an error of proxyd's, or a connection that is cut
off; the log gets one line that says what happened; and the next request is served.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conformance.recorder import Message, read_message
from tests.support.certificates import Authority, server_context
from tests.support.frames import TEXT, close, frame
from tests.support.proxy import Proxy
from tests.support.websocket import UPGRADE, switching
from tests.support.wire import PATIENCE_S, Origin, Wire

AT_ONCE = 24
"""Clients that ask at the same time: most of the time is spent waiting for time-outs."""

KEPT = 8
"""Connections to the origin server that are kept after answers that were whole."""

WAIT_S = 0.5
"""Seconds that proxyd waits for an origin server that stalls."""

RESET, CLOSE, STALL, STAY = "reset", "close", "stall", "stay"
"""What an origin server does when it has sent what it sends: the last one waits for the next request."""


class Case(NamedTuple):
    """
    One origin server.

    @ivar octets: what it answers; of a 101 what follows that.
    @ivar status: of the client's answer; 0 where its connection is cut off.
    @ivar said: what the log has of it, an expression; empty where nothing went wrong.
    @ivar is_socket: it is asked for a WebSocket.
    @ivar head: it sends so much of the head of its 101; L{None} is all.
    @ivar is_late: its body comes when proxyd has read its head.
    """

    octets: bytes
    end: str
    status: int
    said: str
    body: bytes = b""
    is_socket: bool = False
    head: int | None = None
    is_late: bool = False


GOOD = b"HTTP/1.1 200 OK\r\n"

ANSWERS = {
    "length": GOOD + b"Content-Length: 5\r\n\r\nhello",
    "chunks": GOOD + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: u\r\n\r\n",
    "none": b"HTTP/1.1 204 No Content\r\n\r\n",
}

IN_HEAD = {
    RESET: (502, r"origin connection_terminated: the origin broke off the connection (before|within the head of) its "),
    CLOSE: (502, r"origin connection_terminated: the origin closed the connection (before|within the head of) its "),
    STALL: (504, rf"origin http_response_timeout: the origin did not (finish the head of its )?answer in {WAIT_S} s"),
}

IN_BODY = {
    RESET: (0, "origin http_response_incomplete: the origin broke off the connection within the body"),
    CLOSE: (0, "origin http_response_incomplete: the origin closed the connection within the body"),
    STALL: (0, f"origin connection_read_timeout: the origin paused for {WAIT_S} s within the body"),
}


def at_every_octet(end: str) -> dict[str, Case]:
    """An origin server for each place at which an answer can end."""
    cases = {}
    for name, octets in ANSWERS.items():
        body = octets.index(b"\r\n\r\n") + 4
        for size in range(len(octets)):
            cases[f"{end}-{name}-{size}"] = Case(octets[:size], end, *(IN_HEAD if size < body else IN_BODY)[end])
        whole = b"" if name == "none" else b"hello"
        status = 204 if name == "none" else 200
        cases[f"{end}-{name}-{len(octets)}"] = Case(octets, STAY if end == STALL else end, status, "", whole)
    return cases


HELLO, LARGE = frame(TEXT, b"hello", mask=None), frame(TEXT, b"l" * 126, mask=None)

SWITCHING = len(switching(Message("", (("Sec-WebSocket-Key", "k"),))))
"""Octets of the head of a 101."""


def sockets_at_every_octet(end: str) -> dict[str, Case]:
    """The same of an answer to an upgrade, and of the frames that follow it."""
    cases = {f"{end}-101-{size}": Case(b"", end, *IN_HEAD[end], b"", True, size) for size in range(SWITCHING)}
    if end != STALL:  # A WebSocket may be silent for as long as it likes.
        octets = HELLO + LARGE
        for size in range(len(octets) + 1):
            cases[f"{end}-frames-{size}"] = Case(octets[:size], end, 101, "origin went away without a Close", b"", True)
    return cases


def bad(octets: bytes, text: str, kind: str = "http_protocol_error") -> Case:
    """An answer that cannot be trusted."""
    return Case(octets, STALL, 502, f"origin {kind}: .*{text}")


def late(case: Case) -> Case:
    """The same, which turns out when its head has gone on: the client can only be cut off."""
    return case._replace(status=0, is_late=True)


CHUNKED = GOOD + b"Transfer-Encoding: chunked\r\n\r\n"

CHUNKS = {
    "chunk-too-long": bad(CHUNKED + b"3\r\nhello\r\n0\r\n\r\n", "the answer's chunks are malformed"),
    "chunk-too-short": bad(CHUNKED + b"9\r\nhello\r\n0\r\n\r\n", "the answer's chunks are malformed"),
    "chunk-size-of-words": bad(CHUNKED + b"five\r\nhello\r\n", "the answer's chunks are malformed"),
    "chunk-size-too-large": bad(CHUNKED + b"f" * 17 + b"\r\n", "the answer's chunks are malformed"),
    "trailers-of-words": bad(CHUNKED + b"0\r\nno trailer\r\n\r\n", "the answer's chunks are malformed"),
}

LIES = {
    "two-lengths": bad(GOOD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "Content-Length"),
    "length-and-chunks": bad(
        GOOD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "Content-Length"
    ),
    "negative-length": bad(GOOD + b"Content-Length: -5\r\n\r\nhello", "Content-Length"),
    "length-of-words": bad(GOOD + b"Content-Length: five\r\n\r\nhello", "Content-Length"),
    "less-than-said": Case(GOOD + b"Content-Length: 9\r\n\r\nhello", CLOSE, *IN_BODY[CLOSE]),
    **CHUNKS,
    **{f"{name}-late": late(case) for name, case in CHUNKS.items()},
}

GARBAGE = {
    "no-http": bad(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ""),
    "lone-line-feeds": bad(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", ""),
    "status": bad(b"HTTP/1.1 2OO OK\r\n\r\n", ""),
    "version": bad(b"HTTP/2.0 200 OK\r\n\r\n", ""),
    "field": bad(GOOD + b"no field\r\n\r\n", ""),
    "control-octets": bad(GOOD + b"X-A: \x00\x1b[2J\r\n\r\n", ""),
    "endless-head": bad(GOOD + b"X-A: " + b"a" * 70_000, "", "http_response_header_section_size"),
    "unasked-101": bad(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: upgrade\r\n\r\n", ""),
    "frames": Case(HELLO + b"\xff\xff\xff\xff", STALL, 101, "origin websocket_error: ", b"", True),
    "frames-at-once": Case(b"\xff\xff\xff\xff", STALL, 101, "origin websocket_error: ", b"", True),
    "no-101": Case(b"\x16\x03\x01\x02\x00\r\n\r\n", STALL, 502, "origin http_protocol_error: ", b"", True, 0),
}

MORE = {
    "more-than-said": Case(GOOD + b"Content-Length: 5\r\n\r\nhello!", STAY, 200, "", b"hello"),
    "more-chunks": Case(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n5\r\nthere\r\n", STAY, 200, "", b"hello"),
    "body-of-204": Case(b"HTTP/1.1 204 No Content\r\n\r\nhello", STAY, 204, ""),
    "another-answer": Case(ANSWERS["length"] + GOOD + b"Content-Length: 4\r\n\r\nevil", STAY, 200, "", b"hello"),
}

GROUPS: Mapping[str, Mapping[str, Case]] = {
    **{f"{end} at every octet": at_every_octet(end) for end in (RESET, CLOSE, STALL)},
    **{f"{end} at every octet of a WebSocket": sockets_at_every_octet(end) for end in (RESET, CLOSE, STALL)},
    "lies about lengths": LIES,
    "garbage": GARBAGE,
}

CASES = {name: case for group in (*GROUPS.values(), MORE) for name, case in group.items()}


class Scripted:
    """An origin server that does what the first segment of the path says."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self.catch_up: Callable[[], None] = lambda: None
        self._tls = tls
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listening.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # Whatever is wrong here shows in what the client gets.
        with Wire(connection) as wire, contextlib.suppress(OSError, AssertionError):
            while True:
                request = wire.read_message()
                name = request.line.split()[1].split("/")[1]
                if name not in CASES:
                    wire.respond("ok")
                    continue
                case = CASES[name]
                if case.is_socket:
                    wire.send(switching(request)[: case.head])
                head = case.octets.find(b"\r\n\r\n") + 4 if case.is_late else 0
                if head:
                    wire.send(case.octets[:head])
                    self.catch_up()
                wire.send(case.octets[head:])
                if case.end == STAY:
                    continue
                if case.end == RESET:
                    # A reset destroys what has not been read.
                    self.catch_up()
                    wire.reset()
                elif case.end == STALL:
                    wire.read_all()
                return

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def rule(name: str, said: str, **options: object) -> dict[str, object]:
    """The rule of a case; where a time-out is what is to happen it is short, and else no case has to do with one."""
    seconds = WAIT_S if str(WAIT_S) in said else PATIENCE_S
    timeouts = {"connect": seconds, "response": seconds, "body": seconds}
    return {"name": name, "id": name, "pattern": f"^/{name}/", "timeouts": timeouts, **options}


class Site:
    """A proxy with a rule for each case, and their origin server."""

    def __init__(self, folder: Path) -> None:
        self.origin = Scripted()
        target = f"http://127.0.0.1:{self.origin.port}"
        self.proxy = Proxy(
            folder,
            {
                "rules": [
                    *(rule(name, case.said, target=target) for name, case in CASES.items()),
                    {"name": "all", "pattern": "^/", "target": target},
                ],
                "log": {"access": None},
            },
        )
        self.origin.catch_up = self.catch_up
        self.is_served()
        self.descriptors = self.proxy.descriptors()

    def close(self) -> None:
        text = self.proxy.stop()
        self.origin.close()
        assert "Traceback" not in text, text
        # None came late.
        assert {len(found) for found in lines(self, list(CASES)).values()} <= {0, 1}

    def catch_up(self) -> None:
        """Wait until proxyd has read all that was sent so far: who came later is served."""
        with self.proxy.connect() as other:
            other.request("OPTIONS", "*")
            other.read_message()

    def is_served(self) -> None:
        """An ordinary request is."""
        with self.proxy.connect() as other:
            other.request("GET", "/ordinary")
            assert other.read_message().body == b"ok"

    def has_recovered(self) -> None:
        """As many descriptors are open as before, but for connections to the origin server that are kept."""
        for _ in range(10_000):
            self.is_served()
            if self.proxy.descriptors() <= self.descriptors + KEPT:
                return
        raise AssertionError(f"{self.proxy.descriptors()} descriptors are open, not {self.descriptors}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The one proxy of this module."""
    one = Site(tmp_path_factory.mktemp("origin"))
    yield one
    one.close()


LOST = close(1011, mask=None)
"""What a client of a WebSocket is sent when the origin server is lost, if it can be sent anything."""


def read_answer(data: bytes) -> Message | None:
    """
    @return: an answer, L{None} when it is not whole.
    """
    found = read_message(data, bodiless=b" 204 " in data[:13])
    return None if found is None else found[0]


def hear(client: Wire) -> tuple[bytes, bool]:
    """
    All that comes to a client until it has a whole answer or its connection ends.

    @return: the octets, and whether the connection was reset.
    """
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.read_some():
            data += more
            if data.startswith(b"HTTP/1.1 101 "):
                if data.endswith(LOST):
                    client.send(close(1011))
            elif read_answer(data) is not None:
                break
        return data, False
    return data, True


def check(site: Site, name: str) -> None:
    """A client asks for one case: what it gets is what it may get."""
    case = CASES[name]
    with site.proxy.connect() as client:
        client.request("GET", f"/{name}/", *(UPGRADE if case.is_socket else ()))
        data, was_reset = hear(client)
    if case.status == 101:
        check_frames(name, data, was_reset)
        return
    answer = read_answer(data)
    if not case.status:
        assert answer is None and was_reset, (name, data)
        return
    assert answer is not None and answer.status == case.status, (name, data)
    if case.said:
        kind = case.said.split()[1].rstrip(":")
        assert answer.all("Proxy-Status") == [f"proxyd; error={kind}"], (name, data)
    else:
        assert answer.body == case.body and not answer.all("Proxy-Status"), (name, data)


def check_frames(name: str, data: bytes, was_reset: bool) -> None:
    """The frames that came are the origin server's, and what follows them is no good end."""
    head, _, data = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), name
    assert data.endswith(LOST) is not was_reset, (name, data)
    data = data.removesuffix(LOST)
    assert (HELLO + LARGE).startswith(data), (name, data)
    assert was_reset or data in (b"", HELLO, HELLO + LARGE), (name, data)


def lines(site: Site, names: Sequence[str]) -> dict[str, list[str]]:
    """The lines of the log by the rule that they name."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for line in site.proxy.output.text.splitlines():
        rule, _, rest = line.partition(" rule ")[2].partition(", ")
        if rule in found:
            found[rule].append(rest)
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_group(site: Site, group: str) -> None:
    """Never anything that looks whole and is not; one line each; then all is as before."""
    cases = GROUPS[group]
    with ThreadPoolExecutor(AT_ONCE) as clients:
        list(clients.map(lambda name: check(site, name), cases))
    site.has_recovered()
    failing = [name for name, case in cases.items() if case.said]
    for name in failing:
        site.proxy.output.wait_for(rf" rule {name}, ")
    for name, found in lines(site, list(cases)).items():
        said = cases[name].said
        assert len(found) == (1 if said else 0), (name, found)
        if said:
            assert_line(found[0], site.origin.port, said)


def assert_line(line: str, port: int, said: str) -> None:
    """It names the origin server, what happened, and how long that took."""
    pattern = rf"127\.0\.0\.1:{port}: {said}.* \((?P<after>\d+\.\d+) s after the request\)"
    found = re.fullmatch(pattern, line)
    assert found, (line, pattern)
    assert float(found["after"]) < PATIENCE_S


def test_more_than_said(site: Site) -> None:
    """What comes behind an answer is nobody's: the answer is good, and the connection is not used again."""
    before = site.proxy.output.text.count("sent octets behind its answer")
    for name in MORE:
        check(site, name)
    site.has_recovered()
    said = rf"127\.0\.0\.1:{site.origin.port} sent octets behind its answer: the connection is not used again"
    site.proxy.output.wait_for(said, before + len(MORE))
    assert len(re.findall(said, site.proxy.output.text)) == before + len(MORE)


# Nothing to connect to


class Away(NamedTuple):
    """
    An origin server that cannot be reached.

    @ivar target: of the rule; C{PORT} and C{FOLDER} are of the test.
    """

    target: str
    status: int
    kind: str
    text: str


AWAY = {
    "refused": Away("http://127.0.0.1:PORT", 502, "connection_refused", "Connection was refused by other side: 111"),
    "no-socket": Away("unix:FOLDER/none", 502, "destination_unavailable", "No such file or directory"),
    "no-way": Away("http://127.255.255.255:PORT", 502, "destination_ip_unroutable", "Network is unreachable"),
    "silent": Away("http://127.0.0.1:FULL", 504, "connection_timeout", f"could not be reached in (time|{WAIT_S} s)"),
}


@contextlib.contextmanager
def full() -> Iterator[int]:
    """
    A listener that accepts nobody, and whose queue is full: the system drops what comes then.

    @return: its port.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listening.getsockname()[1]
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port


def test_no_connection(start, tmp_path: Path) -> None:
    """Nobody listens, or nobody accepts: an error of the right kind, and one line that says which."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        free = one.getsockname()[1]
    with full() as port:
        targets = {
            name: away.target.replace("PORT", str(free)).replace("FULL", str(port)).replace("FOLDER", str(tmp_path))
            for name, away in AWAY.items()
        }
        proxy = start(
            rules=[
                {"name": name, "id": name, "pattern": f"^/{name}/", "target": "http://localhost", "endpoint": target}
                if target.startswith("unix:")
                else {"name": name, "id": name, "pattern": f"^/{name}/", "target": target}
                for name, target in targets.items()
            ],
            timeouts={"connect": WAIT_S},
            log={"access": None},
        )
        for method in ("GET", "POST"):
            for name, away in AWAY.items():
                with proxy.connect() as client:
                    client.request(method, f"/{name}/")
                    answer = client.read_message()
                    assert (answer.status, answer.get("Proxy-Status")) == (away.status, f"proxyd; error={away.kind}")
        for name, away in AWAY.items():
            pattern = rf" rule {name}, \S+: origin {away.kind}: .*{away.text}.* \(\d\.\d+ s after the request\)"
            proxy.output.wait_for(pattern, 2)
            assert proxy.output.text.count(f" rule {name}, ") == 2


# Connections that are kept


@pytest.mark.parametrize("end", [RESET, CLOSE])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("when", ["before", "as it is used"])
def test_kept_connection_ends(start, own_origin: Origin, when: str, method: str, end: str) -> None:
    """
    An origin server ends a connection that is kept: whoever comes later never knows.

    When it does so just as the connection is used again, a safe request is sent once more, and another one is not.
    """
    rule = {"name": "all", "id": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    proxy = start(rules=[rule], log={"access": None})
    descriptors = proxy.descriptors()
    with proxy.connect() as client:
        client.request("GET", "/1")
        first = own_origin.accept()
        first.read_message()
        first.respond("1")
        assert client.read_message().body == b"1"
        if when == "before":
            first.reset() if end == RESET else first.close()
            for _ in range(10_000):
                if proxy.descriptors() <= descriptors + 1:
                    break
            client.request(method, "/2")
        else:
            client.request(method, "/2")
            first.read_message()
            first.reset() if end == RESET else first.close()
        is_served = when == "before" or method == "GET"
        if is_served:
            second = own_origin.accept()
            assert second.read_message().line == f"{method} /2 HTTP/1.1"
            second.respond("2")
        answer = client.read_message()
        assert (answer.status, answer.body) == (200, b"2") if is_served else answer.status == 502
        own_origin.assert_idle()
    ended = "broke off" if end == RESET else "closed"
    said = rf" rule all, 127\.0\.0\.1:\d+: origin connection_terminated: the origin {ended} the connection before its "
    if not is_served:
        proxy.output.wait_for(said)
    assert len(re.findall(" rule all, ", proxy.output.text)) == (0 if is_served else 1)


# Over TLS


def flight(wire: Wire, context: ssl.SSLContext) -> bytes:
    """What a server says to the hello that has come."""
    come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(come, go, server_side=True)
    while not go.pending:
        come.write(wire.read_some())
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.do_handshake()
    return go.read()


def during_handshake(size: float, end: str) -> Callable[[Wire, ssl.SSLContext], None]:
    """Send so much of what a server says first."""

    def run(wire: Wire, context: ssl.SSLContext) -> None:
        octets = flight(wire, context)
        wire.send(octets[: int(size * len(octets))])
        finish(wire, end)

    return run


def after_handshake(octets: bytes, end: str) -> Callable[[Wire, ssl.SSLContext], None]:
    """Read the request, and send so much of an answer."""

    def run(wire: Wire, context: ssl.SSLContext) -> None:
        server = wire.over_tls(context)
        server.read_message()
        if octets:
            server.send(octets)
        finish(server, end)

    return run


def plain(wire: Wire, context: ssl.SSLContext) -> None:
    """Speak no TLS."""
    wire.read_some()
    wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    wire.close()


def finish(wire: Wire, end: str) -> None:
    """What an origin server does when it has sent what it sends; to close it takes TCP's end alone."""
    if end == RESET:
        wire.reset()
    elif end == CLOSE:
        wire.close()
    else:
        with contextlib.suppress(OSError):
            wire.read_all()
        wire.close()


class Secure(NamedTuple):
    """An origin server that speaks TLS, or begins to; see L{Case}."""

    run: Callable[[Wire, ssl.SSLContext], None]
    status: int
    said: str


FAILED = "origin tls_protocol_error: TLS to localhost:.* failed: "
ENDED = FAILED + "the connection ended during the handshake"

SECURE = {
    "reset-at-0": Secure(during_handshake(0, RESET), 502, ENDED),
    "close-at-0": Secure(during_handshake(0, CLOSE), 502, ENDED),
    "reset-at-0.5": Secure(during_handshake(0.5, RESET), 502, ENDED),
    "close-at-0.5": Secure(during_handshake(0.5, CLOSE), 502, ENDED),
    "stall-at-0": Secure(during_handshake(0, STALL), 504, f"origin connection_timeout: .* in (time|{WAIT_S} s)"),
    "stall-at-0.5": Secure(during_handshake(0.5, STALL), 504, f"origin connection_timeout: .* in (time|{WAIT_S} s)"),
    "plain": Secure(plain, 502, FAILED + "wrong version number"),
    "reset-before": Secure(after_handshake(b"", RESET), 502, IN_HEAD[RESET][1]),
    "close-before": Secure(after_handshake(b"", CLOSE), 502, IN_HEAD[RESET][1]),
    "close-in-head": Secure(after_handshake(GOOD, CLOSE), 502, IN_HEAD[RESET][1]),
    "stall-in-head": Secure(after_handshake(GOOD, STALL), *IN_HEAD[STALL]),
    "close-in-body": Secure(after_handshake(ANSWERS["length"][:-1], CLOSE), *IN_BODY[RESET]),
    "close-without-length": Secure(after_handshake(GOOD + b"\r\nhello", CLOSE), *IN_BODY[RESET]),
    "reset-in-body": Secure(after_handshake(ANSWERS["length"][:-1], RESET), *IN_BODY[RESET]),
    "stall-in-body": Secure(after_handshake(ANSWERS["length"][:-1], STALL), *IN_BODY[STALL]),
}


def test_over_tls(start, own_origin: Origin, tmp_path: Path) -> None:
    """The same of an origin server that speaks TLS: the end of TCP is no end in good order."""
    authority = Authority(tmp_path / "ca")
    context = server_context(authority.sign("localhost"))
    options = {"target": f"https://localhost:{own_origin.port}", "tls": {"ca": str(authority.file)}}
    proxy = start(
        rules=[
            *(rule(name, case.said, **options) for name, case in SECURE.items()),
            rule("ordinary", "", **options),
        ],
        log={"access": None},
    )

    def serve(run: Callable[[Wire, ssl.SSLContext], None]) -> None:
        run(own_origin.accept(), context)

    def ask(name: str, run: Callable[[Wire, ssl.SSLContext], None]) -> tuple[bytes, bool]:
        serving = threading.Thread(target=serve, args=(run,))
        serving.start()
        with proxy.connect() as client:
            client.request("GET", f"/{name}/")
            heard = hear(client)
        serving.join()
        return heard

    descriptors = proxy.descriptors()
    for name, case in SECURE.items():
        data, was_reset = ask(name, case.run)
        answer = read_answer(data)
        if case.status:
            kind = case.said.split()[1].rstrip(":")
            assert answer is not None and answer.status == case.status, (name, data)
            assert answer.all("Proxy-Status") == [f"proxyd; error={kind}"], (name, data)
        else:
            assert answer is None and was_reset, (name, data)
        proxy.output.wait_for(rf" rule {name}, localhost:{own_origin.port}: {case.said}.* s after the request\)")
        assert proxy.output.text.count(f" rule {name}, ") == 1
    data, _ = ask("ordinary", after_handshake(ANSWERS["length"], CLOSE))
    assert data.endswith(b"\r\n\r\nhello")
    for _ in range(10_000):
        if proxy.descriptors() <= descriptors + 2:
            return
    raise AssertionError(f"{proxy.descriptors()} descriptors are open, not {descriptors}")
