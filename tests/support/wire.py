"""Both ends of connections, octet by octet, for tests that say what is sent and what must come."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from types import TracebackType
from typing import NamedTuple

PATIENCE_S = 10.0
"""Seconds after which what was waited for will not come."""


class Message(NamedTuple):
    """
    A request or a response.

    @ivar line: the request line or the status line.
    @ivar fields: names as they came, and values.
    @ivar trailers: those behind a chunked body.
    """

    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.line.split()[1])

    def all(self, name: str) -> list[str]:
        """The values of one field."""
        return [value for given, value in self.fields if given.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that comes at most once."""
        found = self.all(name)
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None


class Wire:
    """One connection, of whichever side."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._kept = b""

    @classmethod
    def to(cls, port: int) -> Wire:
        """Connect to a port of this machine."""
        return cls(socket.create_connection(("127.0.0.1", port), PATIENCE_S))

    def over_tls(self, context: ssl.SSLContext, name: str | None = None) -> Wire:
        """
        The same connection with TLS on it.

        @param name: of the server; without it we are the server.
        """
        return Wire(
            # The end of TCP alone is none in good order.
            context.wrap_socket(
                self.socket, server_side=name is None, server_hostname=name, suppress_ragged_eofs=False
            )
        )

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection in good order."""
        self.socket.close()

    def reset(self) -> None:
        """End the connection with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def end_output(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, octets: bytes | str) -> None:
        """Send octets."""
        self.socket.sendall(octets.encode("latin-1") if isinstance(octets, str) else octets)

    def request(self, method: str, target: str, *fields: str, host: str = "example.test", body: bytes = b"") -> None:
        """Send a request of HTTP/1.1."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def respond(self, body: bytes | str = b"", *fields: str, status: str = "200 OK") -> None:
        """Send a response whose length is known."""
        octets = body.encode("latin-1") if isinstance(body, str) else body
        lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(octets)}"]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + octets)

    def read_some(self) -> bytes:
        """What has come; nothing at the connection's end."""
        if self._kept:
            kept, self._kept = self._kept, b""
            return kept
        return self.socket.recv(65536)

    def read(self, size: int) -> bytes:
        """So many octets."""
        data = bytearray()
        while len(data) < size:
            more = self.read_some()
            assert more, f"the connection ended after {bytes(data)!r}"
            data += more
        self._kept = bytes(data[size:]) + self._kept
        return bytes(data[:size])

    def read_to(self, mark: bytes) -> bytes:
        """All up to a mark, and the mark."""
        data = b""
        while mark not in data:
            more = self.read_some()
            assert more, f"the connection ended after {data!r}"
            data += more
        end = data.index(mark) + len(mark)
        self._kept = data[end:]
        return data[:end]

    def read_all(self) -> bytes:
        """All up to the connection's end, which must be in good order."""
        data = bytearray()
        while more := self.read_some():
            data += more
        return bytes(data)

    def read_head(self) -> Message:
        """The head of a message."""
        line, *rest = self.read_to(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        return Message(line, [_field(one) for one in rest])

    def read_message(self, *, bodiless: bool = False) -> Message:
        """
        A whole message, as one more implementation of HTTP/1.1 would read it.

        @param bodiless: it answers C{HEAD}.
        """
        head = self.read_head()
        is_response = head.line.startswith("HTTP/")
        if bodiless or (is_response and (head.status < 200 or head.status in (204, 304))):
            return head
        length = head.get("Content-Length")
        if head.get("Transfer-Encoding") == "chunked":
            assert length is None
            return self._read_chunks(head)
        if length is not None:
            return head._replace(body=self.read(int(length)))
        return head._replace(body=self.read_all()) if is_response else head

    def _read_chunks(self, head: Message) -> Message:
        body = b""
        while size := int(self.read_to(b"\r\n"), 16):
            body += self.read(size)
            assert self.read(2) == b"\r\n"
        trailers = []
        while (line := self.read_to(b"\r\n")[:-2].decode("latin-1")) != "":
            trailers.append(_field(line))
        return head._replace(body=body, trailers=tuple(trailers))

    def assert_ended(self) -> None:
        """The other side has ended the connection in good order, and sent nothing more."""
        assert self.read_some() == b""

    def assert_cut(self) -> bytes:
        """
        The other side has cut the connection off: what came before cannot be taken for the whole.

        @return: what came before.
        """
        data = self._kept
        try:
            while more := self.socket.recv(65536):
                data += more
        except (ConnectionResetError, ssl.SSLEOFError):
            return data
        raise AssertionError(f"the connection ended in good order after {data!r}")

    def assert_silent(self) -> None:
        """Nothing has come so far."""
        self.socket.setblocking(False)
        try:
            data = self._kept or self.socket.recv(1)
        except BlockingIOError:
            return
        finally:
            self.socket.settimeout(PATIENCE_S)
        raise AssertionError(f"{data!r} came")


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(": ")
    assert colon, f"{line!r} is no field"
    return name, value


def wait_until_refused(port: int) -> None:
    """Wait until nobody listens on a port any more."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            Wire.to(port).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue
    raise AssertionError(f"port {port} still accepts connections")


class Origin:
    """
    An origin server that does what the test says.

    @ivar prefix: the first segment of the paths that are forwarded here.
    @ivar port: where it listens.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listening.settimeout(PATIENCE_S)
        self.port: int = self._listening.getsockname()[1]
        self._accepted: list[Wire] = []

    def accept(self) -> Wire:
        """The next connection."""
        wire = Wire(self._listening.accept()[0])
        self._accepted.append(wire)
        return wire

    def assert_idle(self) -> None:
        """Nobody has connected that was not accepted."""
        self._listening.setblocking(False)
        try:
            self._listening.accept()
        except BlockingIOError:
            return
        finally:
            self._listening.settimeout(PATIENCE_S)
        raise AssertionError("a further connection came")

    def drop_pending(self) -> None:
        """End the connections that nobody has accepted."""
        self._listening.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listening.accept()[0].close()
        self._listening.settimeout(PATIENCE_S)

    def end_all(self) -> None:
        """End the connections that were accepted so far."""
        for wire in self._accepted:
            wire.close()
        self._accepted.clear()

    def answer_all(self) -> None:
        """Answer C{ok} to all requests on all connections from now on."""

        def serve(wire: Wire) -> None:
            with contextlib.suppress(OSError, AssertionError):
                while True:
                    wire.read_message()
                    wire.respond("ok")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(self.accept(),), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and end those that there are."""
        # A thread within accept() keeps the socket alive, but not after this.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.end_all()
