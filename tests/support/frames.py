"""WebSocket frames of any kind, the forbidden ones included."""

from __future__ import annotations

from typing import NamedTuple

MASK = b"\x21\x8a\xf3\x07"
"""Any four octets: what tests mask with."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """Apply a mask, octet by octet as RFC 6455 section 5.3 says it."""
    return bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    mask: bytes | None = MASK,
    fin: bool = True,
    rsv: int = 0,
    length_size: int | None = None,
) -> bytes:
    """
    One frame.

    @param mask: L{None} as servers send them.
    @param rsv: the reserved bits, 4 for RSV1.
    @param length_size: 0, 2 or 8 octets of extended length; by itself the fewest.
    """
    size = len(payload)
    if length_size is None:
        length_size = 0 if size < 126 else 2 if size < 0x10000 else 8
    length = {0: size, 2: 126, 8: 127}[length_size]
    head = bytes((fin << 7 | rsv << 4 | opcode, (0x80 if mask else 0) | length))
    head += size.to_bytes(length_size, "big") if length_size else b""
    return head + (mask + masked(payload, mask) if mask else payload)


def close(code: int | None = None, reason: bytes = b"", *, mask: bytes | None = MASK) -> bytes:
    """A Close frame."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, mask=mask)


class Frame(NamedTuple):
    """
    A frame that was read.

    @ivar payload: unmasked.
    """

    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    masked: bool


def read_frame(data: bytes) -> tuple[Frame, int] | None:
    """
    @return: the first frame and its octets, or L{None} when it is not whole.
    """
    if len(data) < 2:
        return None
    length, at = data[1] & 0x7F, 2
    if length > 125:
        at = 4 if length == 126 else 10
        length = int.from_bytes(data[2:at], "big")
    is_masked = data[1] > 0x7F
    end = at + 4 * is_masked + length
    if len(data) < end:
        return None
    payload = masked(data[at + 4 : end], data[at : at + 4]) if is_masked else data[at:end]
    return Frame(data[0] & 0xF, payload, data[0] > 0x7F, data[0] >> 4 & 7, is_masked), end


def read_frames(data: bytes) -> list[Frame]:
    """All frames of something that holds whole ones only."""
    frames = []
    while data:
        found = read_frame(data)
        assert found is not None, f"{data!r} is no whole frame"
        frames.append(found[0])
        data = data[found[1] :]
    return frames
