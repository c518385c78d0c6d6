"""The frame follower against a plain reader of whole streams."""

from __future__ import annotations

from functools import partial

from proxyd.splicing import HEAD
from proxyd.websocket.frames import Follower, grammar
from tests.fuzzing import reference
from tests.fuzzing.cutting import same_for_all
from tests.fuzzing.reference import Followed
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame

MARK = b"ours"

HELD = 130
"""The most octets that are held back: a control frame but for its last octet."""


def fuzz(data: bytes) -> None:
    """
    The frames of one direction.

    @param data: an octet that says what was agreed on, then the stream.
    """
    options, stream = data[0] if data else 0, data[1:]
    masked, deflated, extended = (bool(options & bit) for bit in (1, 2, 4))
    limit = (0, 0, 3, 150)[options >> 3 & 3]
    mark = MARK if options & 32 else b""

    def outcome(segments: list[bytes], moving: bool = False) -> Followed:
        follower = Follower(grammar(masked, deflated, extended, limit), mark)
        one = Followed()
        received = 0
        for segment in segments:
            received += len(segment)
            while moving and segment and follower.left:
                # The rest of a frame goes another way, and so does what can be measured behind it.
                if len(segment) > follower.left:
                    follower.measure(segment[follower.left :][:HEAD])
                count = min(follower.left, len(segment))
                assert not follower.skip(count), "nobody waits"
                one.octets += segment[:count]
                segment = segment[count:]
            if not segment:
                continue
            found = follower.receive(segment)
            if isinstance(found, bytes):
                assert found, "octets of nothing"
                one.octets += found
            else:
                one.octets += found.octets
                if found.is_close or found.violation:
                    assert one.verdict is None, "two verdicts"
                    one.verdict = found.violation.code if found.violation else "close"
            assert len(one.octets) == follower.octets
            if one.verdict is None and not mark:
                assert stream.startswith(one.octets) and received - len(one.octets) <= HELD
        one.messages, one.swallowed = follower.messages, follower.swallowed
        return one

    expected = reference.follow(stream, masked, deflated, extended, limit, mark)
    assert same_for_all(stream, outcome) == expected, f"{expected} was expected"
    moved = same_for_all(stream, partial(outcome, moving=True))
    assert moved == expected, f"{expected} was expected, and {moved} came when octets were moved"


_STREAMS = [
    [(TEXT, b"hello"), (BINARY, b"x" * 126), (PING, b"?"), (CLOSE, b"\x03\xe8bye")],
    [(BINARY, b"x" * 300), (PONG, MARK), (TEXT, b"")],
    [(CONTINUATION, b"of nothing")],
    [(3, b"reserved")],
    [(CLOSE, b"\x03\xed")],
]

SEEDS = [
    bytes((options,)) + b"".join(frame(*one, mask=b"abcd" if options & 1 else None) for one in stream)
    for options in (0, 1, 5, 33, 24)
    for stream in _STREAMS
] + [
    b"\x03" + frame(TEXT, b"a", rsv=4, fin=False) + frame(PING) + frame(CONTINUATION, b"b") + close(1000),
    b"\x01" + frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    b"\x00" + frame(BINARY, b"x" * 200, mask=None, length_size=8),
    b"\x01" + frame(BINARY, b"x" * 300) + frame(BINARY, b"x" * 65536)[:40],
    b"\x01" + frame(BINARY, b"x" * 300) + frame(BINARY, b"x" * 65536, fin=False)[:40],
    b"\x00" + frame(TEXT, b"x" * 300, mask=None) + b"\x82\x7f" + b"\xff" * 8,
]

WORDS = [b"\x81\x80abcd", b"\x89\x00", b"\x8a\x04ours", b"\x88\x02\x03\xe8", b"\x7e\x00\x7e", b"\x7f" + bytes(5)]
