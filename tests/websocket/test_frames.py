"""Where frames end and what they may be (RFC 6455 section 5)."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.splicing import HEAD
from proxyd.websocket.frames import Follower, Notice, Violation, control_frame, grammar, unmasked
from tests.support.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    frame,
    masked,
    read_frames,
)

MARK = b"a ping of ours"


class Outcome(NamedTuple):
    """
    What a follower made of a stream.

    @ivar octets: what went on.
    @ivar verdict: the code of a violation, "close", or L{None}.
    """

    octets: bytes
    verdict: int | str | None
    messages: int
    swallowed: int


def feed(follower: Follower, *segments: bytes) -> Outcome:
    """Give a follower one segment after the other."""
    octets = b""
    verdict: int | str | None = None
    for segment in segments:
        found = follower.receive(segment)
        if isinstance(found, bytes):
            assert found, "octets of nothing"
            octets += found
            continue
        octets += found.octets
        if found.is_close or found.violation:
            assert verdict is None
            verdict = found.violation.code if found.violation else "close"
    assert len(octets) == follower.octets
    return Outcome(octets, verdict, follower.messages, follower.swallowed)


def from_client(*, deflated: bool = False, extended: bool = False, max_message: int = 0, mark: bytes = b"") -> Follower:
    """A follower of a client's frames."""
    return Follower(grammar(True, deflated, extended, max_message), mark)


def from_server(*, deflated: bool = False, extended: bool = False, max_message: int = 0, mark: bytes = b"") -> Follower:
    """A follower of an origin server's frames."""
    return Follower(grammar(False, deflated, extended, max_message), mark)


FIRST = frame(TEXT, b"ab", fin=False)
LAST = frame(CONTINUATION, b"cd")

GOOD = [
    # what a client sends, RFC 6455
    ([frame(TEXT, b"")], "5.6 an empty message"),
    ([frame(TEXT, b"x" * 125)], "5.2 the longest short length"),
    ([frame(BINARY, b"x" * 126)], "5.2 the shortest of 16 bits"),
    ([frame(BINARY, b"x" * 0xFFFF)], "5.2 the longest of 16 bits"),
    ([frame(BINARY, b"x" * 0x10000)], "5.2 the shortest of 64 bits"),
    ([FIRST, LAST], "5.4 two fragments"),
    ([FIRST, frame(CONTINUATION, b"", fin=False), LAST], "5.4 three, one of them empty"),
    ([FIRST, frame(PING, b"?"), frame(PONG), LAST], "5.4 control frames among fragments"),
    ([frame(PING, b"x" * 125)], "5.5 the longest control frame"),
    ([frame(PONG, b"nobody asked")], "5.5.3 an unsolicited pong"),
    ([frame(TEXT, b"\xff\xfe")], "8.1 is the ends' duty"),
    ([frame(TEXT, b"a", mask=b"\0\0\0\0")], "5.3 any mask"),
]


@pytest.mark.parametrize(("frames", "rfc"), GOOD)
def test_what_may_be(frames: list[bytes], rfc: str) -> None:
    """Frames go on as they are."""
    stream = b"".join(frames)
    outcome = feed(from_client(), stream)
    assert outcome.octets == stream
    assert outcome.verdict is None


BAD = [
    # what a client sends in the end, the code it is failed with, RFC 6455
    (frame(TEXT, b"a", mask=None), 1002, "5.1 clients mask"),
    (frame(PING, b"a", mask=None), 1002, "5.1 clients mask"),
    (frame(TEXT, b"a", rsv=4), 1002, "5.2 RSV1 without an extension"),
    (frame(TEXT, b"a", rsv=2), 1002, "5.2 RSV2"),
    (frame(BINARY, b"a", rsv=1), 1002, "5.2 RSV3"),
    (frame(PING, b"a", rsv=4), 1002, "5.2 RSV1 on a control frame"),
    (frame(CLOSE, b"", rsv=1), 1002, "5.2 RSV3 on a control frame"),
    (frame(0x3, b"a"), 1002, "5.2 opcodes 3 to 7"),
    (frame(0x7, b"a"), 1002, "5.2 opcodes 3 to 7"),
    (frame(0xB, b"a"), 1002, "5.2 opcodes B to F"),
    (frame(0xF, b"a"), 1002, "5.2 opcodes B to F"),
    (frame(TEXT, b"x" * 125, length_size=2), 1002, "5.2 a length that is not minimal"),
    (frame(TEXT, b"x", length_size=8), 1002, "5.2 a length that is not minimal"),
    (frame(TEXT, b"x" * 0xFFFF, length_size=8), 1002, "5.2 a length that is not minimal"),
    (b"\x82\xff\x80" + bytes(7) + MASK, 1002, "5.2 the top bit of a length"),
    (frame(CONTINUATION, b"a"), 1002, "5.4 a continuation of nothing"),
    (frame(CONTINUATION, b"a", fin=False), 1002, "5.4 a continuation of nothing"),
    (FIRST + LAST + LAST, 1002, "5.4 a continuation of nothing"),
    (FIRST + frame(TEXT, b"a"), 1002, "5.4 a message inside another"),
    (FIRST + frame(BINARY, b"a", fin=False), 1002, "5.4 a message inside another"),
    (frame(PING, b"a", fin=False), 1002, "5.5 a control frame in fragments"),
    (frame(CLOSE, b"", fin=False), 1002, "5.5 a control frame in fragments"),
    (frame(PING, b"x" * 126), 1002, "5.5 a control frame over 125 octets"),
    (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002, "5.5 a control frame over 125 octets"),
    (frame(CLOSE, b"\x03"), 1002, "5.5.1 a Close of one octet"),
    (close(1005), 1002, "7.4.1 a code that may not be sent"),
    (close(999), 1002, "7.4.2 a code that may not be sent"),
    (close(1000, b"\xc3\x28"), 1002, "5.5.1 a reason that is not UTF-8"),
]


@pytest.mark.parametrize(("stream", "code", "rfc"), BAD)
def test_what_may_not_be(stream: bytes, code: int, rfc: str) -> None:
    """The peer is failed; what came before goes on, what comes after does not."""
    before = frame(BINARY, b"before") + frame(TEXT, b"")
    outcome = feed(from_client(), before + stream + frame(TEXT, b"after"), frame(TEXT, b"later"))
    assert outcome.verdict == code
    allowed = before + stream.removesuffix(read_last(stream))
    assert outcome.octets == allowed


def read_last(stream: bytes) -> bytes:
    """The frame at fault, which is the last one of a stream."""
    for good in (FIRST + LAST, FIRST):
        stream = stream.removeprefix(good)
    return stream


FROM_SERVER = [
    (frame(TEXT, b"a", mask=None), None, "5.1"),
    (frame(BINARY, b"a" * 70000, mask=None), None, "5.2"),
    (close(1000, b"bye", mask=None), "close", "5.5.1"),
    (frame(TEXT, b"a"), 1002, "5.1 servers do not mask"),
    (frame(PING, b"a"), 1002, "5.1 servers do not mask"),
    (frame(CLOSE, b"\x03", mask=None), 1002, "5.5.1"),
    (frame(TEXT, b"a" * 126, mask=None, length_size=8), 1002, "5.2"),
]


@pytest.mark.parametrize(("stream", "verdict", "rfc"), FROM_SERVER)
def test_frames_of_servers(stream: bytes, verdict: int | str | None, rfc: str) -> None:
    """The same rules hold for an origin server, but for the mask."""
    outcome = feed(from_server(), stream)
    assert outcome.verdict == verdict
    assert outcome.octets == (b"" if verdict == 1002 else stream)


VIOLATIONS = [
    (frame(TEXT, b"a", rsv=4), "a reserved bit"),
    (frame(PING, b"a", rsv=4), "a reserved bit"),
    (frame(0x3, b"a"), "an unknown opcode"),
    (frame(0x3, b"a", rsv=4), "an unknown opcode"),
    (frame(0xB, b"a"), "an unknown opcode"),
    (frame(PING, b"a", fin=False), "a control frame in fragments"),
    (FIRST + FIRST, "a new message inside another"),
    (LAST, "a continuation of nothing"),
    (frame(TEXT, b"a", mask=None), "a frame without a mask"),
]


@pytest.mark.parametrize(("stream", "text"), VIOLATIONS)
def test_what_the_log_says(stream: bytes, text: str) -> None:
    """A violation is named."""
    notice = from_client().receive(stream)
    assert isinstance(notice, Notice)
    assert notice.violation == Violation(1002, text)


DEFLATED = [
    ([frame(TEXT, b"a", rsv=4)], None, "RFC 7692 section 6: RSV1 on a message's first frame"),
    ([frame(BINARY, b"a", rsv=4, fin=False), LAST], None, "RFC 7692 section 6.1"),
    ([frame(TEXT, b"a")], None, "RFC 7692 section 6: a message may be uncompressed"),
    ([frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"a", rsv=4)], 1002, "RFC 7692 section 6.1"),
    ([frame(PING, b"a", rsv=4)], 1002, "RFC 7692 section 6.1"),
    ([frame(CLOSE, b"", rsv=4)], 1002, "RFC 7692 section 6.1"),
    ([frame(TEXT, b"a", rsv=2)], 1002, "RFC 6455 section 5.2"),
    ([frame(TEXT, b"a", rsv=6)], 1002, "RFC 6455 section 5.2"),
]


@pytest.mark.parametrize(("frames", "verdict", "rfc"), DEFLATED)
def test_permessage_deflate(frames: list[bytes], verdict: int | None, rfc: str) -> None:
    """RSV1 is good on the first frame of a message and nowhere else."""
    assert feed(from_client(deflated=True), b"".join(frames)).verdict == verdict


EXTENDED = [
    ([frame(TEXT, b"a", rsv=7)], None),
    ([frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"a", rsv=2)], None),
    ([frame(PING, b"a", rsv=1)], None),
    ([frame(0x3, b"a")], None),
    ([frame(0xF, b"a")], None),
    ([frame(0x3, b"a", fin=False), LAST], None),
    ([FIRST, frame(0x3, b"a"), LAST], None),
    ([FIRST, frame(0x3, b"a", fin=False), LAST], None),
    ([frame(0x3, b"a"), LAST], 1002),
    ([LAST], 1002),
    ([FIRST, FIRST], 1002),
    ([frame(0xB, b"a", fin=False)], 1002),
    ([frame(0xB, b"a" * 126)], 1002),
    ([frame(TEXT, b"a", rsv=4, mask=None)], 1002),
    ([frame(TEXT, b"a", rsv=4, length_size=2)], 1002),
    ([frame(CLOSE, b"\x03", rsv=2)], "close"),
    ([frame(CLOSE, b"\x03")], 1002),
]


@pytest.mark.parametrize(("frames", "verdict"), EXTENDED)
def test_an_unknown_extension(frames: list[bytes], verdict: int | str | None) -> None:
    """Bits and opcodes are its business (RFC 6455 section 9); masks, lengths and fragments are not."""
    assert feed(from_client(extended=True), b"".join(frames)).verdict == verdict


BIG = [
    ([frame(BINARY, b"x" * 200)], None, 1),
    ([frame(BINARY, b"x" * 201)], 1009, 0),
    ([frame(BINARY, b"x" * 100, fin=False), frame(CONTINUATION, b"x" * 100)], None, 1),
    ([frame(BINARY, b"x" * 100, fin=False), frame(CONTINUATION, b"x" * 101)], 1009, 0),
    ([frame(BINARY, b"x" * 100, fin=False), frame(PING, b"x" * 125), frame(CONTINUATION, b"x" * 100)], None, 1),
    ([frame(BINARY, b"x" * 150), frame(BINARY, b"x" * 150)], None, 2),
]


@pytest.mark.parametrize(("frames", "verdict", "messages"), BIG)
def test_max_message(frames: list[bytes], verdict: int | None, messages: int) -> None:
    """A message's octets on the wire are counted over all its fragments; the frame over the limit is held back."""
    outcome = feed(from_client(max_message=200), b"".join(frames))
    assert (outcome.verdict, outcome.messages) == (verdict, messages)
    assert outcome.octets == b"".join(frames if verdict is None else frames[:-1])


def test_a_max_message_below_125() -> None:
    """A limit that a short frame may exceed holds for short frames, too."""
    assert feed(from_client(max_message=10), frame(TEXT, b"x" * 10), frame(TEXT, b"x" * 11)).verdict == 1009


def test_a_frame_over_the_limit_is_judged_by_its_header() -> None:
    """Nobody waits for the octets of a message that is too big."""
    header = frame(BINARY, b"x" * 300)[:4]
    assert feed(from_client(max_message=200), header).verdict == 1009


def test_nothing_is_copied() -> None:
    """Segments of whole frames, and within a frame, are forwarded as the very same object."""
    follower = from_client()
    for segment in (
        frame(TEXT, b"short"),
        frame(BINARY, b"x" * 1000),
        frame(TEXT, b"a") + frame(TEXT, b"b" * 200) + frame(PING),
        FIRST,
        LAST + frame(BINARY, b"x" * 100000)[:70000],
        b"x" * 20000,
    ):
        assert follower.receive(segment) is segment


def test_boundaries() -> None:
    """Whether another frame may be inserted depends on what was forwarded, not on what came."""
    follower = from_client()
    assert follower.is_between_frames
    whole = frame(BINARY, b"x" * 200)
    assert follower.receive(whole[:2]) == Notice()
    assert follower.is_between_frames
    assert follower.receive(whole[2:5]) == whole[:5]
    assert not follower.is_between_frames
    follower.receive(whole[5:] + frame(PING, b"half")[:4])
    assert follower.is_between_frames


def test_halt_at_the_end_of_a_frame() -> None:
    """What waits for the end of a frame gets in there, and the rest comes after."""
    follower = from_client()
    whole, after = frame(BINARY, b"x" * 200), FIRST + frame(PING)
    follower.receive(whole[:50])
    follower.halt()
    assert follower.receive(whole[50:100]) == whole[50:100]
    assert follower.receive(whole[100:] + after) == Notice(whole[100:], True, is_boundary=True, rest=after)
    assert follower.receive(after) is after
    assert follower.messages == 1


def test_halt_with_nothing_behind() -> None:
    """After the halt short messages take the short way again."""
    follower = from_client()
    whole = frame(BINARY, b"x" * 200)
    follower.receive(whole[:50])
    follower.halt()
    assert follower.receive(whole[50:]) == Notice(whole[50:], True, is_boundary=True)
    short = frame(TEXT, b"a")
    assert follower.receive(short) is short


LONG = frame(BINARY, b"x" * 65536)

MEASURED = [
    (LONG, 65550, "the shortest"),
    (frame(TEXT, b"x" * 100_000), 100_014, "a longer one"),
    (LONG[:10], 65550, "before its mask has come"),
    (LONG[:9], 0, "before its length has come whole"),
    (b"", 0, "nothing"),
    (frame(BINARY, b"x" * 65535), 0, "one octet less"),
    (frame(TEXT, b"a") + LONG, 0, "a short one before it"),
    (frame(BINARY, b"x" * 65536, fin=False), 0, "the first of some"),
    (frame(CONTINUATION, b"x" * 65536), 0, "a continuation of nothing"),
    (frame(BINARY, b"x" * 65536, mask=None), 0, "no mask"),
    (frame(BINARY, b"x" * 65536, rsv=4), 0, "a reserved bit"),
    (frame(PING, b"x" * 65536), 0, "a long ping"),
    (frame(3, b"x" * 65536), 0, "an unknown opcode"),
    (frame(BINARY, b"x" * 200, length_size=8), 0, "a length that is not minimal"),
    (b"\x82\xff" + b"\xff" * 8, 0, "a length over 63 bits"),
    (frame(BINARY, b"x" * 100_001), 0, "over the limit"),
]


@pytest.mark.parametrize(("stream", "size", "what"), MEASURED)
def test_measured(stream: bytes, size: int, what: str) -> None:
    """Who moves octets without us is told how long a whole long message is, and nothing of whatever else may come."""
    follower = from_client(max_message=100_000)
    before = feed(from_client(max_message=100_000), stream) if stream else None
    assert follower.measure(stream[:HEAD]) == size
    assert (follower.messages, follower.is_between_frames) == ((1, False) if size else (0, True))
    if before is not None and not size:
        assert feed(follower, stream) == before


def test_measured_within_a_message() -> None:
    """What begins a message is none of another's fragments."""
    follower = from_client()
    follower.receive(FIRST)
    assert follower.measure(LONG[:HEAD]) == 0
    assert follower.receive(LONG) == Notice(violation=Violation(1002, "a new message inside another"))


def test_rest_of_what_was_measured() -> None:
    """It may come the common way as well, whatever it looks like."""
    follower = from_client()
    short = frame(TEXT, b"a")
    follower.receive(short)
    follower.skip(follower.measure(LONG[:HEAD]) - len(short))
    assert follower.receive(short) is short
    assert follower.is_between_frames
    assert follower.messages == 2


def test_halt_of_what_goes_another_way() -> None:
    """Who moves the end of the frame is told that somebody waits for it, once."""
    follower = from_client()
    follower.receive(LONG[:100])
    follower.halt()
    assert not follower.skip(65449)
    assert follower.measure(LONG[:HEAD]) == 0
    assert follower.skip(1)
    assert not follower.skip(follower.measure(LONG[:HEAD]))
    assert follower.octets == 2 * len(LONG)


def test_shut() -> None:
    """After the other side has had a Close nothing goes on, but the peer's own Close is still seen."""
    follower = from_client()
    whole = frame(BINARY, b"x" * 200)
    sent = whole[:50]
    follower.receive(sent)
    follower.halt()
    follower.shut()
    assert follower.receive(whole[50:100]) == Notice(is_active=True)
    assert follower.receive(whole[100:]) == Notice(is_active=True)
    assert follower.receive(frame(TEXT, b"short")) == Notice(is_active=True)
    assert follower.receive(close(1000)) == Notice(is_close=True)
    assert follower.octets == len(sent)


def test_nothing_after_a_close() -> None:
    """Nothing after a Close is relayed (RFC 6455 section 5.5.1), were it in the same segment."""
    stream = frame(TEXT, b"a") + close(4000, b"enough")
    outcome = feed(from_client(), stream + frame(TEXT, b"late"), frame(TEXT, b"later"))
    assert outcome == Outcome(stream, "close", 1, 0)


def test_messages_are_counted() -> None:
    """Each by its last frame; control frames are none."""
    stream = frame(TEXT, b"a") + FIRST + frame(PING) + LAST + frame(BINARY, b"x" * 70000)
    assert feed(from_client(), frame(TEXT, b"1"), stream).messages == 4


@pytest.mark.parametrize("follow", [from_client, from_server])
def test_pongs_of_our_pings_are_swallowed(follow: type) -> None:
    """They are known by their payload, whole or in pieces; all other pongs go on."""
    mask = MASK if follow is from_client else None
    ours, theirs = frame(PONG, MARK, mask=mask), frame(PONG, MARK[::-1], mask=mask)
    message = frame(TEXT, b"a", mask=mask)
    assert follow(mark=MARK).receive(ours) == Notice(is_active=True)
    assert follow(mark=MARK).receive(theirs) is theirs
    assert follow(mark=MARK).receive(frame(PONG, b"?", mask=mask)) == frame(PONG, b"?", mask=mask)
    assert follow().receive(ours) is ours
    stream = message + ours + theirs + ours + message
    assert feed(follow(mark=MARK), stream).octets == message + theirs + message
    assert feed(follow(mark=MARK), *(bytes((octet,)) for octet in stream)) == Outcome(
        message + theirs + message, None, 2, 2
    )


ACTIVITY = [
    (frame(TEXT, b"a" * 200)[:10], True),
    (frame(PING, b"a"), False),
    (frame(PING, b"a")[:3], False),
    (frame(PONG, b"a"), True),
    (frame(PING, b"a") + frame(TEXT), True),
    (close(1000), False),
]


@pytest.mark.parametrize(("segment", "active"), ACTIVITY)
def test_what_is_activity(segment: bytes, active: bool) -> None:
    """Parts of messages and pongs are; pings are answered by programs that have nothing to say."""
    found = from_client().receive(segment)
    assert (isinstance(found, bytes) or found.is_active) is active


def test_control_frames_of_our_own() -> None:
    """They are masked towards origin servers, with a mask of their own each."""
    assert control_frame(CLOSE, b"\x03\xe9", None) == b"\x88\x02\x03\xe9"
    assert control_frame(PING, MARK, MASK) == frame(PING, MARK)
    assert read_frames(control_frame(PING, b"", MASK)) == [Frame(PING, b"", True, 0, True)]


@given(st.binary(max_size=125), st.binary(min_size=4, max_size=4))
def test_masks(payload: bytes, mask: bytes) -> None:
    """Masking is what section 5.3 says, octet by octet."""
    assert unmasked(payload, mask) == masked(payload, mask)


# Cutting a stream anywhere changes nothing

PIECES = st.one_of(
    st.builds(
        frame,
        st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG]),
        st.one_of(st.binary(max_size=4), st.sampled_from([MARK, b"x" * 125, b"x" * 126, b"x" * 200])),
        mask=st.just(MASK),
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 4]),
    ),
    st.sampled_from([stream for stream, _, _ in BAD] + [b"".join(frames) for frames, _ in GOOD if len(frames) > 1]),
    st.sampled_from([close(), close(1000, b"bye"), close(1006), FIRST, LAST]),
    st.binary(max_size=12),
)
STREAMS = st.lists(PIECES, max_size=8).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)
FOLLOWERS = st.builds(
    lambda deflated, extended, limit, mark: {
        "deflated": deflated, "extended": extended, "max_message": limit, "mark": mark
    },
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0, 3, 150]),
    st.sampled_from([b"", MARK]),
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """A stream in pieces, none of them empty."""
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(places) if begin < end]


@given(STREAMS, CUTS, FOLLOWERS)
def test_cutting_changes_nothing(stream: bytes, cuts: list[int], options: dict[str, object]) -> None:
    """The same octets come out, with the same verdict, however a stream is cut."""
    whole = feed(from_client(**options), stream) if stream else Outcome(b"", None, 0, 0)  # type: ignore[arg-type]
    assert feed(from_client(**options), *pieces(stream, cuts)) == whole  # type: ignore[arg-type]
    assert feed(from_client(**options), *(bytes((octet,)) for octet in stream)) == whole  # type: ignore[arg-type]


LONG_ONES = st.tuples(
    st.sampled_from([CONTINUATION, TEXT, BINARY]), st.sampled_from([65535, 65536, 70000]), st.booleans()
)
"""The opcode, the size and whether it is the last of its message."""


@given(
    st.lists(st.one_of(PIECES, LONG_ONES), max_size=8),
    st.lists(st.one_of(st.integers(1, 20), st.integers(1000, 200_000)), max_size=6),
    st.integers(0, 3),
    FOLLOWERS,
)
def test_moving_changes_nothing(
    parts: list[bytes | tuple[int, int, bool]], portions: list[int], ahead: int, options: dict[str, object]
) -> None:
    """What is measured, however far ahead, and goes another way is followed as what is received is."""
    stream = b"".join(
        part if isinstance(part, bytes) else frame(part[0], b"x" * part[1], fin=part[2]) for part in parts
    )
    whole = feed(from_client(**options), stream) if stream else Outcome(b"", None, 0, 0)  # type: ignore[arg-type]
    follower = from_client(**options)  # type: ignore[arg-type]
    moved = b""
    verdict: int | str | None = None
    for portion in itertools.cycle([*portions, 65536]):
        if not stream or verdict is not None:
            break
        if follower.left or follower.measure(stream[:HEAD]):
            for _ in range(ahead):
                follower.measure(stream[follower.left :][:HEAD])
            count = min(follower.left, portion, len(stream))
            assert not follower.skip(count)
            moved += stream[:count]
        else:
            count = portion
            found = follower.receive(stream[:count])
            if isinstance(found, bytes):
                moved += found
            else:
                moved += found.octets
                verdict = found.violation.code if found.violation else "close" if found.is_close else None
        stream = stream[count:]
    assert Outcome(moved, verdict, follower.messages, follower.swallowed) == whole
    assert follower.octets == len(moved)


@given(STREAMS, CUTS)
def test_what_goes_on_is_what_came(stream: bytes, cuts: list[int]) -> None:
    """With nothing swallowed it is the stream itself, up to some place; what is held back is bounded."""
    outcome = feed(from_client(), *pieces(stream, cuts))
    assert stream.startswith(outcome.octets)
    if outcome.verdict is None:
        assert len(stream) - len(outcome.octets) <= 130
