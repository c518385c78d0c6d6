"""The SOCKS client against a plain reader of whole conversations."""

from __future__ import annotations

from proxyd.errors import ProxyError
from proxyd.outbound.tunnel import SocksEndpoint
from tests.fuzzing.cutting import same_for_all
from tests.fuzzing.tunnels import Outcome, converse

USER, PASSWORD, HOST, PORT = b"me", b"secret", "target.test", 443

_ADDRESS = b"\x03\x0btarget.test\x01\xbb"


def _expected(version: int, user: bytes | None, stream: bytes) -> Outcome:
    """What RFC 1928, RFC 1929 and the memo on SOCKS 4A say."""
    if version == 4:
        request = b"\x04\x01\x01\xbb\0\0\0\x01" + (user or b"") + b"\0" + HOST.encode() + b"\0"
        good = stream[:1] in (b"", b"\0") and stream[1:2] in (b"", b"\x5a") and len(stream) >= 8
        return Outcome(request, good, stream[8:] if good else b"")
    sent = b"\x05\x01\0" if user is None else b"\x05\x02\0\x02"
    method, stream = stream[:2], stream[2:]
    if method == b"\x05\x02" and user is not None:
        sent += b"\x01" + bytes((len(user),)) + user + bytes((len(PASSWORD),)) + PASSWORD
        status, stream = stream[:2], stream[2:]
        if status != b"\x01\0":
            return Outcome(sent, False, b"")
    elif method != b"\x05\0":
        return Outcome(sent, False, b"")
    sent += b"\x05\x01\0" + _ADDRESS
    if len(stream) < 5 or stream[:2] != b"\x05\0" or stream[3] not in (1, 3, 4):
        return Outcome(sent, False, b"")
    size = 6 + {1: 4, 3: 1 + stream[4], 4: 16}[stream[3]]
    good = len(stream) >= size
    return Outcome(sent, good, stream[size:] if good else b"")


def fuzz(data: bytes) -> None:
    """
    A conversation.

    @param data: an octet for version and user, then what the server says.
    """
    options, stream = data[0] if data else 0, data[1:]
    version, user = 4 if options & 1 else 5, USER if options & 2 else None

    def outcome(segments: list[bytes]) -> Outcome:
        found = converse(
            lambda proxy: SocksEndpoint(proxy, HOST, PORT, version=version, user=user, password=PASSWORD), segments
        )
        if found.error is not None:
            assert isinstance(found.error, ProxyError) and found.error.stage and found.error.status in (502, 504)
            # What is still to be sent when the conversation fails need not be sent any more.
            assert expected.sent.startswith(found.sent)
            return Outcome(expected.sent, False, b"")
        return Outcome(found.sent, True, found.rest)

    expected = _expected(version, user, stream)
    assert same_for_all(stream, outcome) == expected, f"{expected} was expected"


_REPLY = b"\x05\0\0\x01\0\0\0\0\0\0"

SEEDS = [
    b"\x00\x05\0" + _REPLY + b"hello",
    b"\x02\x05\x02\x01\0" + _REPLY,
    b"\x02\x05\x02\x01\x01",
    b"\x00\x05\xff",
    b"\x00\x05\0\x05\0\0\x03\x04name\0\x50rest",
    b"\x00\x05\0\x05\0\0\x04" + bytes(18) + b"rest",
    b"\x00\x05\0\x05\x05",
    b"\x00HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x01\0\x5a" + bytes(6) + b"hello",
    b"\x03\0\x5b" + bytes(6),
    b"\x01\x05\0",
]

WORDS = [b"\x05\0", b"\x05\x02", b"\x01\0", b"\x05\0\0\x01", b"\x05\0\0\x03", b"\x05\0\0\x04", b"\0\x5a"]
