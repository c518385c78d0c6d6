"""
Readers of HTTP/1 messages and of WebSocket frames that share no line with proxyd's.

They are told all octets at once, forgive nothing, and care for nothing but
what the RFCs say: what proxyd makes of the same octets must agree.

@see: RFC 9112 for messages, RFC 6455 section 5 for frames
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace

Fields = list[tuple[bytes, bytes]]

_TOKEN = frozenset((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())
_DIGITS = frozenset(b"0123456789")
# Whatever minor version comes (RFC 9110 section 2.5).
_VERSIONS = frozenset(b"HTTP/1.%d" % minor for minor in range(10))
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Malformed(AssertionError):
    """This is no message."""


@dataclass
class Message:
    """
    As much of a message as there is.

    @ivar start: the three parts of its first line.
    @ivar is_whole: it has ended.
    @ivar size: its octets, once it has ended.
    """

    start: tuple[bytes, bytes, bytes]
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    is_whole: bool = False
    size: int = field(default=0, compare=False)

    def values(self, name: bytes) -> list[bytes]:
        return [value for given, value in self.fields if given.lower() == name]


def _check(condition: object, text: str) -> None:
    if not condition:
        raise Malformed(text)


def _section(octets: bytes) -> Fields:
    """Fields, each in a line of its own."""
    fields = []
    for line in octets.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        _check(colon and name and _TOKEN.issuperset(name), f"a field {line!r}")
        _check(not any((octet < 0x20 and octet != 9) or octet == 0x7F for octet in value), f"a value {value!r}")
        fields.append((name, value.strip(b" \t")))
    return fields


def _chunks(message: Message, octets: bytes) -> int:
    """The body in chunks: where it ends, or -1."""
    at = 0
    while True:
        end = octets.find(b"\r\n", at)
        if end < 0:
            _check(b"\n" not in octets[at:], "a line of a chunk without CR")
            return -1
        digits, semicolon, extension = octets[at:end].partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")
        _check(digits and _HEX.issuperset(digits), f"a chunk's size {digits!r}")
        _check(not any((octet < 0x20 and octet != 9) or octet == 0x7F for octet in extension), "a chunk's extension")
        size = int(digits, 16)
        at = end + 2
        if not size:
            break
        message.body += octets[at : at + size]
        rest = octets[at + size : at + size + 2]
        _check(b"\r\n".startswith(rest), "a chunk's end")
        if len(rest) < 2:
            return -1
        at += size + 2
    if octets[at : at + 2] == b"\r\n":
        return at + 2
    end = octets.find(b"\r\n\r\n", at)
    if end < 0:
        return -1
    message.trailers = _section(octets[at : end + 2])
    return end + 4


def _read(octets: bytes, has_body: bool | None, ended: bool | None) -> Message | None:
    """
    @param has_body: L{None} when that depends on the fields alone.
    @param ended: whether the connection has, well; L{None} when that ends no message.
    """
    end = octets.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, _, section = octets[: end + 2].partition(b"\r\n")
    parts = line.split(b" ", 2)
    _check(len(parts) == 3 and b"\r" not in line and b"\n" not in line, f"a start line {line!r}")
    message = Message((parts[0], parts[1], parts[2]), _section(section))
    after = octets[end + 4 :]
    codings, lengths = message.values(b"transfer-encoding"), message.values(b"content-length")
    _check(len(codings) + len(lengths) < 2, "two lengths")
    if has_body is False:
        length = 0
    elif codings:
        _check(codings[0].lower() == b"chunked", "a coding")
        length = _chunks(message, after)
    elif lengths:
        _check(lengths[0] and _DIGITS.issuperset(lengths[0]), f"a length {lengths[0]!r}")
        wanted = int(lengths[0])
        message.body = after[:wanted]
        length = wanted if len(after) >= wanted else -1
    elif ended is None:
        length = 0
    else:
        message.body = after
        length = len(after) if ended else -1
    message.is_whole = length >= 0
    message.size = end + 4 + length
    return message


def read_request(octets: bytes) -> Message | None:
    """
    @return: the first request, or as much of it as there is; L{None} before its head has ended.
    """
    message = _read(octets, None, None)
    if message is not None:
        method, target, version = message.start
        _check(method and _TOKEN.issuperset(method), f"a method {method!r}")
        _check(target and all(0x20 < octet < 0x7F for octet in target), f"a target {target!r}")
        _check(version in _VERSIONS, f"a version {version!r}")
        _check(len(message.values(b"host")) < 2, "two hosts")
    return message


def read_requests(octets: bytes) -> list[Message]:
    """The whole requests of a client, up to the first thing that is none."""
    requests = []
    while True:
        # One empty line in front is to be ignored (RFC 9112 section 2.2), old clients send two.
        octets = octets.removeprefix(b"\r\n").removeprefix(b"\r\n")
        try:
            message = read_request(octets)
        except Malformed:
            return requests
        if message is None or not message.is_whole:
            return requests
        requests.append(message)
        octets = octets[message.size :]


def read_response(octets: bytes, method: bytes, ended: bool) -> Message | None:
    """
    @param method: of the request that this answers.
    @param ended: the connection has ended well.

    @return: the first response, an interim one perhaps; L{None} before its head has ended.
    """
    # The reason may be missing, and the space in front of it.
    line, end, rest = octets.partition(b"\r\n")
    left_out = bool(end) and line.count(b" ") == 1
    if left_out:
        line += b" "
    head = _read(line + end + rest, False, None)
    if head is None:
        return None
    version, status, _ = head.start
    _check(version in _VERSIONS, f"a version {version!r}")
    _check(len(status) == 3 and _DIGITS.issuperset(status) and status >= b"100", f"a status {status!r}")
    bodiless = status < b"200" or status in (b"204", b"304") or method == b"HEAD"
    message = _read(line + end + rest, False if bodiless else None, ended)
    return message if message is None else replace(message, size=message.size - left_out)


def read_responses(octets: bytes, methods: list[bytes], ended: bool) -> list[Message]:
    """
    What a client gets, interim answers left out; the last may be a part of one.

    @param methods: of its requests.
    """
    responses = []
    for method in methods:
        while (message := read_response(octets, method, ended)) is not None:
            if message.start[1] >= b"200":
                break
            octets = octets[message.size :]
        if message is None:
            _check(b"HTTP/1.1 ".startswith(octets[:9]), f"no answer: {octets[:80]!r}")
            return responses
        responses.append(message)
        if not message.is_whole:
            return responses
        octets = octets[message.size :]
    _check(not octets, f"more than the answers: {octets[:80]!r}")
    return responses


@dataclass
class Followed:
    """
    What of one direction may go on.

    @ivar verdict: the code that its sender is failed with, C{"close"} after a Close, or L{None}.
    """

    octets: bytes = b""
    verdict: int | str | None = None
    messages: int = 0
    swallowed: int = 0


def follow(octets: bytes, masked: bool, deflated: bool, extended: bool, limit: int, mark: bytes) -> Followed:
    """Frames of one direction, read one after the other."""
    one = Followed()
    inside = False
    message_size = 0
    while one.verdict is None and len(octets) > 1:
        fin, rsv, opcode = octets[0] >> 7, octets[0] >> 4 & 7, octets[0] & 0xF
        is_masked, length = octets[1] >> 7, octets[1] & 0x7F
        is_control = opcode >= 8
        is_start = opcode in (1, 2) or (extended and 3 <= opcode <= 7 and not inside)
        bits_allowed = range(8) if extended else (0, 4) if deflated and is_start and not is_control else (0,)
        known = range(16) if extended else (0, 1, 2, 8, 9, 10)
        if (
            is_masked != masked
            or rsv not in bits_allowed
            or opcode not in known
            or (is_control and (not fin or length > 125))
            or (opcode == 0 and not inside)
            or (opcode in (1, 2) and inside)
        ):
            one.verdict = 1002
            break
        head = 2 + {126: 2, 127: 8}.get(length, 0)
        if len(octets) < head:
            break
        if head > 2:
            length = int.from_bytes(octets[2:head], "big")
            if length < {4: 126, 10: 0x10000}[head] or length >= 2**63:
                one.verdict = 1002
                break
        payload = head + 4 * masked
        if is_control:
            if len(octets) < payload + length:
                break
            plain = octets[payload : payload + length]
            if masked:
                mask = octets[head:payload]
                plain = bytes(octet ^ mask[index % 4] for index, octet in enumerate(plain))
            if opcode == 8 and not rsv and not _is_close(plain):
                one.verdict = 1002
                break
            if opcode == 8:
                one.verdict = "close"
            if opcode == 10 and mark and plain == mark:
                one.swallowed += 1
                octets = octets[payload + length :]
                continue
        else:
            message_size += length
            if limit and message_size > limit:
                one.verdict = 1009
                break
            # Inside a message, an extension's own frames do not end it.
            if not fin:
                inside = True
            elif not inside or opcode == 0:
                inside = False
                message_size = 0
                one.messages += 1
        one.octets += octets[: payload + length]
        octets = octets[payload + length :]
    return one


def _is_close(payload: bytes) -> bool:
    """Whether a Close may hold this (sections 5.5.1 and 7.4; IANA for 1012 to 1014)."""
    if not payload:
        return True
    code = int.from_bytes(payload[:2], "big")
    good = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code < 5000
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return False
    return len(payload) > 1 and good
