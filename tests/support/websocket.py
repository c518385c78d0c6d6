"""The two peers of a relayed WebSocket, octet by octet: what each sends, and what must come."""

from __future__ import annotations

from typing import NamedTuple

from proxyd.http.upgrade import accept_for
from tests.support.frames import CLOSE, MASK, Frame, close, frame, read_frame
from tests.support.wire import Message, Wire

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""A client's key: that of RFC 6455 section 1.3."""

UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
"""The lines that make a request an upgrade."""


def switching(request: Message, *fields: str, status: str = "101 Switching Protocols") -> bytes:
    """What an origin server says that agrees."""
    accept = accept_for("".join(request.all("Sec-WebSocket-Key")[:1]).encode()).decode()
    lines = [f"HTTP/1.1 {status}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    return "\r\n".join([*lines, *fields, "", ""]).encode("latin-1")


class WebSocket:
    """
    A peer.

    @ivar mask: what it masks its frames with; L{None} for an origin server.
    """

    def __init__(self, wire: Wire, mask: bytes | None) -> None:
        self.wire = wire
        self.mask = mask

    def sends(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        """It sends a frame."""
        self.wire.send(self.frame(opcode, payload, fin=fin, rsv=rsv))

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        """A frame as it would send it."""
        return frame(opcode, payload, fin=fin, rsv=rsv, mask=self.mask)

    def closes(self, code: int | None = None, reason: bytes = b"") -> None:
        """It sends a Close."""
        self.wire.send(close(code, reason, mask=self.mask))

    def reads(self) -> Frame:
        """The next frame, which has a mask if it is from the other kind of peer."""
        octets = self.wire.read(2)
        length = octets[1] & 0x7F
        octets += self.wire.read(2 if length == 126 else 8 if length == 127 else 0)
        if length > 125:
            length = int.from_bytes(octets[2:], "big")
        octets += self.wire.read(length + (4 if octets[1] & 0x80 else 0))
        found = read_frame(octets)
        assert found is not None
        assert found[0].masked is (self.mask is None)
        return found[0]

    def gets(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        """The next frame is this one."""
        assert self.reads() == Frame(opcode, payload, fin, rsv, self.mask is None)

    def gets_close(self, code: int | None = None, reason: bytes = b"") -> None:
        """The next frame is this Close."""
        self.gets(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)

    def is_closed(self, code: int) -> None:
        """It gets a Close, answers it, and ends its connection as its kind does."""
        self.gets_close(code)
        self.closes(code)
        self.is_over()

    def is_over(self) -> None:
        """Both Close frames have crossed: the server's side ends TCP (RFC 6455 section 7.1.1)."""
        if self.mask is not None:
            self.wire.assert_ended()
        self.wire.close()


class Pair(NamedTuple):
    """The two peers of a relay."""

    client: WebSocket
    origin: WebSocket

    def seen_from(self, side: str) -> tuple[WebSocket, WebSocket]:
        """
        @return: the peer of this name, and the other one.
        """
        return (self.client, self.origin) if side == "client" else (self.origin, self.client)

    def close(self) -> None:
        """The client closes, and all ends well."""
        self.client.closes(1000)
        self.origin.gets_close(1000)
        self.origin.closes(1000)
        self.client.gets_close(1000)
        self.client.is_over()
        self.origin.is_over()


def pair(client: Wire, origin: Wire) -> Pair:
    """The two peers, once both have their 101."""
    return Pair(WebSocket(client, MASK), WebSocket(origin, None))
