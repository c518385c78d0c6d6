"""An origin server that writes down every octet that reaches it, and a strict reader of HTTP/1.1 of its own."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
from typing import NamedTuple

from proxyd.http.upgrade import accept_for

PATIENCE_S = 10.0
"""Seconds after which what was waited for will not come."""

PARTIAL = b"/part"
"""How the paths of those requests begin that may reach the origin server in part."""

_REQUEST_LINE = re.compile(rb"[A-Z]+ /[!-~]* HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-9][0-9][0-9] [\t -~\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)")
_CHUNK_SIZE = re.compile(rb"0|[1-9a-f][0-9a-f]{0,7}")

Field = tuple[str, str]


class Malformed(Exception):
    """This is no message as RFC 9112 has them, in its one plain spelling."""


class Message(NamedTuple):
    """
    A request or an answer.

    @ivar connection: the number of the origin's connection that it came on; -1 for an answer.
    """

    line: str
    fields: tuple[Field, ...]
    body: bytes = b""
    trailers: tuple[Field, ...] = ()
    connection: int = -1

    def all(self, name: str) -> list[str]:
        """The values of one field."""
        return [value for given, value in self.fields if given.lower() == name.lower()]

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.line.split(" ")[1])


def read_head(data: bytes) -> tuple[Message, int] | None:
    """
    @return: the head of a message and its octets, L{None} when it is not whole.

    @raise Malformed: it is none.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, *rest = data[:end].split(b"\r\n")
    if not (_STATUS_LINE if line.startswith(b"HTTP/") else _REQUEST_LINE).fullmatch(line):
        raise Malformed(f"first line {line!r}")
    head = Message(line.decode("ascii", "replace"), _fields(rest))
    for name in ("Host", "Content-Length", "Transfer-Encoding"):
        if len(head.all(name)) > 1:
            raise Malformed(f"more than one {name}")
    return head, end + 4


def _fields(lines: list[bytes]) -> tuple[Field, ...]:
    fields = []
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise Malformed(f"field {line!r}")
        fields.append((found[1].decode("ascii"), found[2].decode("latin-1")))
    return tuple(fields)


def read_message(data: bytes, *, bodiless: bool = False) -> tuple[Message, int] | None:
    """
    @param bodiless: whatever its fields say.

    @return: the first message and its octets, L{None} when it is not whole.

    @raise Malformed: it is none.
    """
    found = read_head(data)
    if found is None:
        return None
    head, at = found
    lengths, codings = head.all("Content-Length"), head.all("Transfer-Encoding")
    if lengths and codings:
        raise Malformed("Content-Length and Transfer-Encoding")
    if codings not in ([], ["chunked"]) or (lengths and not re.fullmatch("0|[1-9][0-9]{0,18}", lengths[0])):
        raise Malformed(f"framing {lengths + codings}")
    if bodiless:
        return head, at
    if codings:
        return _read_chunks(head, data, at)
    if not lengths and head.line.startswith("HTTP/"):
        raise Malformed("an answer that only its end delimits")
    end = at + int(lengths[0] if lengths else "0")
    return (head._replace(body=data[at:end]), end) if len(data) >= end else None


def _read_chunks(head: Message, data: bytes, at: int) -> tuple[Message, int] | None:
    body = b""
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        if not _CHUNK_SIZE.fullmatch(data, at, line_end):
            raise Malformed(f"chunk size {data[at:line_end]!r}")
        size = int(data[at:line_end], 16)
        if not size:
            break
        at = line_end + 2 + size
        if len(data) < at + 2:
            return None
        if data[at : at + 2] != b"\r\n":
            raise Malformed("a chunk is not as long as it says")
        body += data[line_end + 2 : at]
        at += 2
    end = data.find(b"\r\n\r\n", line_end)
    if end < 0:
        return None
    lines = data[line_end + 2 : end].split(b"\r\n") if end > line_end else []
    return head._replace(body=body, trailers=_fields(lines)), end + 4


def answer_text(serial: int, line: str) -> bytes:
    """What the recorder answers to its request with this number."""
    return f"answer {serial} to {line}".encode("ascii")


class Recorder:
    """
    Answers every request that it can read, each with its own text, and keeps them all.

    It never forgives: what its reader does not take is among L{problems}, and so is any octet that came after a
    request's end before that was answered, for proxyd sends no requests ahead.

    @ivar requests: in the order in which they became whole.
    @ivar problems: what must never have come.
    """

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.problems: list[str] = []
        self.accepted = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._listening.getsockname()[1]
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
            for number in itertools.count():
                connection = self._listening.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.accepted += 1
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(number, connection), daemon=True).start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            rest = b""
            try:
                rest = self._converse(number, connection)
            except Malformed as error:
                self.problems.append(str(error))
            if rest and rest.split(b" ")[1][:5] != PARTIAL:
                self.problems.append(f"half a request: {rest!r}")
        self._open.discard(connection)

    def _converse(self, number: int, connection: socket.socket) -> bytes:
        """
        Answer one request after the other.

        @return: what is left when the connection ends.
        """
        data = b""
        head_seen = False
        while True:
            try:
                more = connection.recv(65536)
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more
            if not head_seen and (found := read_head(data)) is not None:
                head_seen = True
                if found[0].line.split(" ")[1].startswith("/part/early"):
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nearly")
                    return data
                if found[0].all("Expect") == ["100-continue"]:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            message = read_message(data)
            if message is None:
                continue
            request, end = message
            if len(data) > end:
                self.problems.append(f"octets after a request's end: {data[end:]!r}")
            data = data[end:]
            head_seen = False
            with self._lock:
                serial = len(self.requests)
                self.requests.append(request._replace(connection=number))
            if request.all("Upgrade") and self._switched(request, connection):
                return b""
            method = request.line.split(" ")[0]
            if request.line.startswith("GET /large/"):
                self._answer_large(connection, int(request.line.split("/")[2].split(" ")[0]))
                continue
            text = answer_text(serial, request.line)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
            connection.sendall(answer + (b"" if method == "HEAD" else text))

    def _answer_large(self, connection: socket.socket, size: int) -> None:
        """Answer with so many zeros, as fast as they are taken."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = bytes(65536)
        for left in range(size, 0, -len(piece)):
            connection.sendall(piece[:left])

    def _switched(self, request: Message, connection: socket.socket) -> bool:
        """Answer an upgrade; to agree is to be lost for HTTP."""
        if request.all("Sec-WebSocket-Version") != ["13"]:
            connection.sendall(
                b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
            )
            return True
        if "/agree" not in request.line:
            return False
        accept = accept_for(request.all("Sec-WebSocket-Key")[0].encode())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        frames = connection.recv(65536)
        # Frames of ours are masked and known; anything else has come out of the tunnel.
        if frames and (frames[0] != 0x88 or frames[1] < 0x80):
            self.problems.append(f"octets in a tunnel: {frames!r}")
        return True
