"""
nginx, HAProxy and proxyd side by side, before one origin server that writes down what reaches it.

Each is asked alone, in the same octets, and its L{Outcome} is a line of text: the request that the origin server
saw, and the answer that the client got.  Left out is what differs for no reason of HTTP's: the order of fields with
different names and the case of the names, C{Via}, C{X-Forwarded-For} and the like, fields of one connection, and a
proxy's own pages.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from proxyd.http.upgrade import accept_for
from tests.support.peers import Peer, nginx_with
from tests.support.proxy import Proxy

PATIENCE_S = 10.0
"""Seconds after which what was waited for will not come."""

LEFT_OUT = frozenset(
    (
        "connection",
        "date",
        "host",
        "keep-alive",
        "sec-websocket-key",
        "sec-websocket-version",
        "server",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
    )
)
"""Fields that a line shows only if the case asks for them."""

# As their documentation has them for a reverse proxy before WebSockets.  Nothing is buffered: proxyd streams.
_NGINX = """
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_next_upstream off;
        }}
    }}
"""

_HAPROXY = """
global
    maxconn 100
defaults
    mode http
    retries 0
    timeout connect 10s
    timeout client 10s
    timeout server 10s
frontend all
    bind fd@{descriptor}
    default_backend origin
backend origin
    http-reuse never
    server origin 127.0.0.1:{origin}
"""

_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]*)\r\n", re.IGNORECASE)


class Outcome(NamedTuple):
    """
    What came of a case.

    @ivar request: what the origin server saw; empty if no whole request reached it.
    @ivar answer: what the client got.
    """

    request: str
    answer: str

    def __str__(self) -> str:
        return f"{self.request} → {self.answer}" if self.request else self.answer


class Script(NamedTuple):
    """
    One case, as far as it is sent.

    @ivar request: the client's octets.
    @ivar answer: the origin server's; C{ACCEPT} in them is the right answer to the key that it was sent.
    @ivar end: the origin server ends its output behind them.
    @ivar shows: names of fields that are not left out.
    """

    request: bytes
    answer: bytes
    end: bool
    shows: tuple[str, ...]


class _Read(NamedTuple):
    """
    A message, by a reader that takes whatever three proxies may write.

    @ivar body: L{None} when nothing says that there is one.
    @ivar framing: how its end was found.
    """

    line: str
    fields: list[tuple[str, str]]
    body: bytes | None = None
    framing: str = ""
    trailers: tuple[tuple[str, str], ...] = ()
    size: int = 0


def _fields(lines: Iterable[bytes]) -> list[tuple[str, str]]:
    split = (line.decode("latin-1").partition(":") for line in lines)
    return [(name.lower(), value.strip(" \t")) for name, _, value in split]


def _read(data: bytes, *, ended: bool = False, bodiless: bool = False) -> _Read | None:
    """
    @param ended: nothing follows.
    @param bodiless: it answers HEAD.

    @return: the first message, L{None} when it is not whole.
    """
    head_size = data.find(b"\r\n\r\n") + 4
    if head_size < 4:
        return None
    line, *lines = data[: head_size - 4].split(b"\r\n")
    read = _Read(line.decode("latin-1"), _fields(lines), size=head_size)
    fields = dict(read.fields)
    is_answer = line.startswith(b"HTTP/")
    if bodiless or (is_answer and (line[9:10] == b"1" or line[9:12] in (b"204", b"304"))):
        return read
    if "chunked" in fields.get("transfer-encoding", "").lower():
        return _read_chunks(read, data)
    if "content-length" in fields:
        size = head_size + int(fields["content-length"])
        return read._replace(body=data[head_size:size], framing="length", size=size) if len(data) >= size else None
    if is_answer:
        return read._replace(body=data[head_size:], framing="until the end", size=len(data)) if ended else None
    return read


def _read_chunks(read: _Read, data: bytes) -> _Read | None:
    at, body = read.size, b""
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end].partition(b";")[0], 16)
        at = end + 2
        if not size:
            break
        body += data[at : at + size]
        at += size + 2
    else:
        return None
    end = data.find(b"\r\n\r\n", at - 2)
    if end < 0:
        return None
    trailers = tuple(_fields(data[at:end].split(b"\r\n"))) if end > at else ()
    return read._replace(body=body, framing="in chunks", trailers=trailers, size=end + 4)


def _shown(text: str) -> str:
    """A value, with long runs of one letter made short, and octets that are not ASCII as escapes."""
    text = re.sub(r"(.)\1{19,}", lambda run: f"{run[1]}{{{len(run[0])}}}", text)
    return repr(text.encode("latin-1"))[2:-1].replace("\\'", "'")


def _describe(read: _Read, first: str, shows: Iterable[str], host: str = "") -> str:
    """A message in one line."""
    left_out = LEFT_OUT.difference(name.lower() for name in shows)
    if read.framing:
        left_out |= {"content-length", "transfer-encoding"}
    # Fields with one name stay in their order.
    fields = sorted((field for field in read.fields if field[0] not in left_out), key=lambda field: field[0])
    parts = [first]
    for (name, value), repeated in itertools.groupby(fields):
        count = len(list(repeated))
        if name == "connection":
            # Whether it goes on is told elsewhere.
            value = ", ".join(sorted(set(re.split(r"[ \t]*,[ \t]*", value.lower())) - {"close", "keep-alive"}))
        if value or name != "connection":
            parts.append(f"{name}: {_shown(value)}".rstrip() + (f" ({count} times)" if count > 4 else ""))
            parts += parts[-1:] * (count - 1 if count < 5 else 0)
    if host and host != "a" and "host" in left_out:
        parts.insert(1, f"host: {host}")
    if read.body is not None and (read.framing, read.body) != ("length", b"ok"):
        body = f'"{_shown(read.body.decode("latin-1"))}"'
        parts.append(body if read.framing == "length" else f"{body} {read.framing}")
    parts += [f"trailer {name}: {value}" for name, value in sorted(read.trailers)]
    return "; ".join(parts)


class Origin:
    """
    Answers each request as the case of the moment says.

    @ivar seen: the requests that became whole.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[_Read, bytes]] = []
        self.script: Script | None = None
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and end those that there are."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            continued = False
            while more := connection.recv(65536):
                data += more
                head = data[: data.find(b"\r\n\r\n") + 4].lower()
                if not continued and b"\r\nexpect: 100-continue" in head:
                    continued = True
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                read = _read(data)
                if read is None:
                    continue
                key = _KEY.search(data[: read.size])
                self.seen.append((read, key[1] if key else b""))
                data, continued = data[read.size :], False
                script = self.script
                assert script is not None
                connection.sendall(script.answer.replace(b"ACCEPT", accept_for(key[1]) if key else b""))
                if script.end:
                    connection.shutdown(socket.SHUT_WR)
        self._open.discard(connection)


class Stand:
    """The three of them, and the origin server behind."""

    def __init__(self, folder: Path) -> None:
        self.origin = Origin()
        self._started: list[Peer] = []

        def start(*arguments: Any, **options: Any) -> Peer:
            self._started.append(Peer(*arguments, **options))
            return self._started[-1]

        rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{self.origin.port}"}
        self._proxy = Proxy(folder / "proxyd", {"rules": [rule], "log": {"access": None}})
        try:
            self.ports = {
                "proxyd": self._proxy.port,
                "nginx": nginx_with(start, folder / "nginx", _NGINX, origin=self.origin.port),
                "haproxy": _haproxy(start, folder, self.origin.port),
            }
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End them all."""
        for peer in self._started:
            peer.stop()
        text = self._proxy.stop()
        self.origin.close()
        assert "Traceback" not in text, text

    def run(self, who: str, script: Script) -> Outcome:
        """What comes of a case with one of them."""
        self.origin.script = script
        self.origin.seen.clear()
        with socket.create_connection(("127.0.0.1", self.ports[who]), PATIENCE_S) as client:
            client.sendall(script.request)
            answer = self._answer(client, script)
        seen = list(self.origin.seen)
        assert len(seen) < 2, f"one request became {len(seen)}"
        if not seen:
            return Outcome("", answer)
        read, key = seen[0]
        line = read.line.removesuffix(" HTTP/1.1")
        host = dict(read.fields).get("host", "(none)").replace(f"127.0.0.1:{self.origin.port}", "the target's")
        shown = _describe(read, _shown(line), script.shows, host)
        if "sec-websocket-key" in script.shows:
            sent = _KEY.search(script.request)
            shown = shown.replace(key.decode(), "as sent" if sent and sent[1] == key else "another")
        return Outcome(shown, answer)

    def _answer(self, client: socket.socket, script: Script) -> str:
        """What the client gets, up to the final answer's end."""
        data, ended = b"", False
        shown = []
        bodiless = script.request.startswith(b"HEAD ")
        while True:
            read = _read(data, ended=ended, bodiless=bodiless)
            if read is None:
                if ended:
                    shown.append("an end" if not data else "a part of an answer")
                    break
                try:
                    more = client.recv(65536)
                except ConnectionResetError:
                    shown.append("a part of an answer")
                    break
                data, ended = data + more, not more
                continue
            data = data[read.size :]
            shown.append(self._describe_answer(read, script))
            if not read.line[9:].startswith("1") or read.line[9:12] == "101":
                break
        return ", ".join(shown)

    def _describe_answer(self, read: _Read, script: Script) -> str:
        version, _, rest = read.line.partition(" ")
        status, _, reason = rest.partition(" ")
        if not re.search(rb"HTTP/\S+ " + status.encode(), script.answer) and status != "100":
            return status  # its own: nobody compares error pages
        first = status if reason == "OK" else f"{status} {_shown(reason)}".rstrip()
        key = _KEY.search(script.request)
        right = accept_for(key[1]).decode() if key else ""
        fields = []
        for name, value in read.fields:
            is_theirs = value.encode("latin-1") in script.answer
            if name == "sec-websocket-accept":
                value = "right" if right and value == right else "wrong"
            elif name == "date" and not is_theirs:
                assert parsedate_to_datetime(value).year >= 2025
                value = "now"
            elif name == "server" and not is_theirs:
                value = "its own"
            fields.append((name, value))
        connection = dict(fields).get("connection", "").lower()
        shown = _describe(read._replace(fields=fields), first, script.shows)
        is_last = "close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection)
        return f"{shown}; the end" if is_last and not status.startswith("1") else shown


def _haproxy(start: Callable[..., Peer], folder: Path, origin: int) -> int:
    """@return: the port of a HAProxy that was started."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert program is not None, "HAProxy is not installed"
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        file = folder / "haproxy.cfg"
        file.write_text(_HAPROXY.format(descriptor=listening.fileno(), origin=origin))
        start([program, "-db", "-f", file], descriptors=[listening.fileno()])
        return int(listening.getsockname()[1])
