"""
WebSocket frames as a relay sees them: where each ends, and whether it may be.

A L{Follower} is given the octets of one direction as they come and says which
of them go on.  It looks at headers and at control frames; the payload of
messages goes on untouched, masked as it came, and uncopied: what is forwarded
is the very object that was received whenever nothing is to be left out.

@see: RFC 6455 section 5; UTF-8 of messages and decompression are the ends' own duty
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from proxyd.websocket.closing import PROTOCOL_ERROR, TOO_BIG, problem_of

CLOSE = 0x8
PING = 0x9
PONG = 0xA

MAX_CONTROL = 125
"""The most octets of a control frame's payload (section 5.5)."""

_FIN = 0x80
_MASKED = 0x80
_RSV1 = 0x40
_RSV = 0x70
_OPCODE = 0x0F
_EVERY_RSV = range(0, _RSV + 1, 0x10)

_LONG = struct.Struct("!HQ").unpack_from
"""The first two octets of a frame, and the length that they say takes eight more."""


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """Apply a mask, or take it off again (section 5.3); for short payloads."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def control_frame(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    """
    One control frame.

    @param mask: four octets that nobody can foretell, when it goes to a server.
    """
    if mask is None:
        return bytes((_FIN | opcode, len(payload))) + payload
    return bytes((_FIN | opcode, _MASKED | len(payload))) + mask + unmasked(payload, mask)


class Violation(NamedTuple):
    """
    A peer broke the framing.

    @ivar code: the close code that it is failed with.
    @ivar text: what it did.
    """

    code: int
    text: str


class Notice(NamedTuple):
    """
    What was received is more than octets of messages.

    @ivar octets: what goes on.
    @ivar is_active: there was something of a message, or a pong.
    @ivar is_close: the last frame in C{octets} is a Close; nothing that follows is looked at.
    @ivar violation: the peer broke the framing behind C{octets}; nothing that follows is looked at.
    @ivar is_boundary: C{octets} ends with the frame that L{Follower.halt} waited for.
    @ivar rest: what came behind that frame and is to be given to L{Follower.receive} again.
    """

    octets: bytes = b""
    is_active: bool = False
    is_close: bool = False
    violation: Violation | None = None
    is_boundary: bool = False
    rest: bytes = b""


def _first_octets(fins: Iterable[int], rsvs: Iterable[int], opcodes: Iterable[int]) -> frozenset[int]:
    return frozenset(fin | rsv | opcode for fin in fins for rsv in rsvs for opcode in opcodes)


class Grammar:
    """
    What one direction may consist of; shared by all connections with the same agreement.

    @ivar mask_bit: the top bit of each frame's second octet.
    @ivar mask_size: octets between a frame's length and its payload.
    @ivar sizes: the octets of a whole short frame, by its second octet.
    @ivar starts: first octets of frames that begin a message.
    @ivar continuations: first octets of frames of data inside a message.
    @ivar controls: first octets of control frames.
    @ivar longest: the first two octets of frames that are a whole message and whose length takes eight more.
    @ivar wholes: first octets of frames that are a whole message, if a short one cannot be too big.
    @ivar is_extended: an extension that we do not know was agreed on: bits and opcodes are its business.
    @ivar most: the most octets of a message.
    @ivar overhead: octets of a frame whose length takes eight, besides its payload.
    """

    __slots__ = (
        "continuations",
        "controls",
        "is_extended",
        "longest",
        "mask_bit",
        "mask_size",
        "most",
        "overhead",
        "sizes",
        "starts",
        "wholes",
    )

    def __init__(self, masked: bool, deflated: bool, extended: bool, max_message: int) -> None:
        self.mask_bit = _MASKED if masked else 0
        self.mask_size = 4 if masked else 0
        self.sizes = tuple(
            2 + self.mask_size + (second & 0x7F)
            if second & _MASKED == self.mask_bit and second & 0x7F <= MAX_CONTROL
            else -1
            for second in range(256)
        )
        fins = (0, _FIN)
        rsvs: Iterable[int] = _EVERY_RSV if extended else (0,)
        first_rsvs: Iterable[int] = _EVERY_RSV if extended else (0, _RSV1) if deflated else (0,)
        reserved = range(0x3, 0x8) if extended else ()
        self.starts = _first_octets(fins, first_rsvs, (0x1, 0x2, *reserved))
        self.continuations = _first_octets(fins, rsvs, (0x0, *reserved))
        self.controls = _first_octets((_FIN,), rsvs, range(CLOSE, 0x10) if extended else (CLOSE, PING, PONG))
        self.is_extended = extended
        self.most = max_message or (1 << 63) - 1
        wholes = [first for first in self.starts if first & _FIN]
        self.wholes = frozenset(wholes if self.most >= MAX_CONTROL else ())
        self.longest = frozenset(first << 8 | self.mask_bit | 127 for first in wholes)
        self.overhead = 10 + self.mask_size


@lru_cache(maxsize=64)
def grammar(masked: bool, deflated: bool, extended: bool, max_message: int) -> Grammar:
    """The L{Grammar} of a direction: frames from clients are masked, those from servers are not."""
    return Grammar(masked, deflated, extended, max_message)


_NONE: frozenset[int] = frozenset()

_UNMASKED = Violation(PROTOCOL_ERROR, "a frame without a mask")
_WRONGLY_MASKED = Violation(PROTOCOL_ERROR, "a frame with a mask")
_NOT_MINIMAL = Violation(PROTOCOL_ERROR, "a length that is not minimal")
_TOP_BIT = Violation(PROTOCOL_ERROR, "a length over 63 bits")
_LONG_CONTROL = Violation(PROTOCOL_ERROR, f"a control frame over {MAX_CONTROL} octets")


class Follower:
    """
    Follows the frames of one direction.

    A header that has not come whole is kept (at most 9 octets), and so is a
    control frame (at most 130): it is judged before it goes on.

    @ivar is_shut: nothing is forwarded any more.
    @ivar left: octets still to come of the frame that is on its way, and of those behind it that were measured.
    @ivar length: octets of the last one's whole payload, if they are more than a few.
    @ivar octets: how many have been forwarded.
    @ivar messages: how many messages' last frames have been seen.
    @ivar others: how many other frames: fragments and control frames.
    @ivar swallowed: how many pongs were answers to our own pings.
    """

    __slots__ = (
        "_expected",
        "_grammar",
        "_held",
        "_is_halting",
        "_is_over",
        "_mark",
        "_message_size",
        "_sizes",
        "_wholes",
        "is_shut",
        "left",
        "length",
        "messages",
        "octets",
        "others",
        "swallowed",
    )

    def __init__(self, grammar: Grammar, mark: bytes = b"") -> None:
        """
        @param mark: pongs with this payload go no further.
        """
        self._grammar = grammar
        self._mark = mark
        self._sizes = grammar.sizes
        self._wholes = grammar.wholes
        self._expected = grammar.starts
        self.left = self.length = 0
        self._held = b""
        self._message_size = 0
        self._is_halting = self.is_shut = self._is_over = False
        self.octets = self.messages = self.others = self.swallowed = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether what has been forwarded ends with a frame."""
        return not self.left

    @property
    def frames(self) -> int:
        """How many frames have been seen, proxyd's own pongs left out."""
        return self.messages + self.others

    def halt(self) -> None:
        """Stop at the end of the last frame that is on its way; there must be one."""
        self._is_halting = True

    def shut(self) -> None:
        """Forward nothing more; frames are still followed, up to a Close."""
        self.is_shut = True
        self._is_halting = False
        self._wholes = _NONE

    def measure(self, head: bytes) -> int:
        """
        Look at what comes next, behind the frames on their way.

        @param head: the first octets of it.

        @return: the size of the frame that begins there if it is the whole of a message of 64 KiB or more and may pass,
            which then is on its way; else 0.  What nothing was said of is for L{receive} in the end.
        """
        grammar = self._grammar
        if len(head) < 10 or self._expected is not grammar.starts or self._is_halting:
            return 0
        start, length = _LONG(head)
        if start not in grammar.longest or not 0x10000 <= length <= grammar.most:
            return 0
        self.messages += 1
        self._wholes = _NONE
        self.length = length
        size: int = grammar.overhead + length
        self.left += size
        return size

    def skip(self, count: int) -> bool:
        """
        So many octets of the frames on their way have been forwarded by another way.

        @return: whether they end with the frame that L{halt} waited for.
        """
        self.octets += count
        self.left = left = self.left - count
        if left or not self._is_halting:
            return False
        self._is_halting = False
        return True

    def receive(self, data: bytes) -> bytes | Notice:
        """
        Follow more octets.

        @return: those that go on, all of them of messages; or a L{Notice} when there is more to say.
        """
        # The common case: a segment that is one short message.
        size = len(data)
        if size > 1 and data[0] in self._wholes and self._sizes[data[1]] == size:
            self.octets += size
            self.messages += 1
            return data
        return self._follow(data)

    def _follow(self, data: bytes) -> bytes | Notice:
        size = len(data)
        if self._is_over:
            return Notice()
        if self.left > size:
            self.left -= size
            return self._passed(data) or Notice(is_active=True)
        at, self.left = self.left, 0
        if self._is_halting:
            self._is_halting = False
            self._choose_way()
            return Notice(self._passed(data[:at]), True, is_boundary=True, rest=data[at:])
        if self._held:
            data = self._held + data
            size = len(data)
            self._held = b""
        grammar, sizes = self._grammar, self._sizes
        wholes = grammar.wholes if self._expected is grammar.starts else _NONE
        is_active = at > 0
        is_close = False
        violation: Violation | None = None
        kept = b""
        length = start = 0
        while at < size:
            if size - at < 2:
                self._held = data[at:]
                break
            first = data[at]
            second = data[at + 1]
            if first in wholes and sizes[second] > 0:
                # A short message, as all are in a flood of small ones: in half the time of what follows.
                self.messages += 1
                is_active = True
                at += sizes[second]
                length = 0
                continue
            length = second & 0x7F
            payload = at + 2
            if second & _MASKED != grammar.mask_bit:
                violation = _UNMASKED if grammar.mask_bit else _WRONGLY_MASKED
                break
            if first in self._expected:
                if length > MAX_CONTROL:
                    payload += 2 if length == 126 else 8
                    if payload > size:
                        self._held = data[at:]
                        break
                    length = int.from_bytes(data[at + 2 : payload], "big")
                    if length < (126 if payload - at == 4 else 0x10000):
                        violation = _NOT_MINIMAL
                        break
                    if length >> 63:
                        violation = _TOP_BIT
                        break
                self._message_size += length
                if self._message_size > grammar.most:
                    violation = Violation(TOO_BIG, f"a message over {grammar.most} octets")
                    break
                if not first & _FIN:
                    self._expected = grammar.continuations
                    wholes = _NONE
                    self.others += 1
                elif first & _OPCODE < 0x3 or self._expected is grammar.starts:
                    # What an extension puts inside a message does not end it.
                    self._expected = grammar.starts
                    wholes = grammar.wholes
                    self._message_size = 0
                    self.messages += 1
                else:
                    self.others += 1
                is_active = True
                at = payload + grammar.mask_size + length
            elif first in grammar.controls:
                if length > MAX_CONTROL:
                    violation = _LONG_CONTROL
                    break
                end = payload + grammar.mask_size + length
                if end > size:
                    self._held = data[at:]
                    break
                self.others += not self.is_shut
                if first & _OPCODE == PONG:
                    is_active = True
                    if self._mark and length == len(self._mark) and self._payload(data, payload, end) == self._mark:
                        self.swallowed += 1
                        self.others -= not self.is_shut
                        kept += data[start:at]
                        start = end
                elif first & _OPCODE == CLOSE:
                    # With reserved bits the payload may be an extension's.
                    problem = "" if first & _RSV else problem_of(self._payload(data, payload, end))
                    if problem:
                        violation = Violation(PROTOCOL_ERROR, problem)
                        break
                    is_close = True
                    size = end
                at = end
            else:
                violation = self._explain(first)
                break
        if at > size:
            self.left = at - size
            self.length = length
            at = size
        octets = self._passed(kept + data[start:at] if kept else data[start:at])
        self._is_over = is_close or violation is not None
        self._choose_way()
        if self._is_over or not is_active or not octets:
            return Notice(octets, is_active, is_close, violation)
        return octets

    def _payload(self, data: bytes, begin: int, end: int) -> bytes:
        if not self._grammar.mask_size:
            return data[begin:end]
        return unmasked(data[begin + 4 : end], data[begin : begin + 4])

    def _explain(self, first: int) -> Violation:
        if first & _RSV and not self._grammar.is_extended and first & ~_RSV in self._expected | self._grammar.controls:
            text = "a reserved bit"
        elif first & _OPCODE >= CLOSE:
            text = "an unknown opcode" if first & _OPCODE > PONG else "a control frame in fragments"
        elif first & _OPCODE > 0x2:
            text = "an unknown opcode"
        elif first & _OPCODE:
            text = "a new message inside another"
        else:
            text = "a continuation of nothing"
        return Violation(PROTOCOL_ERROR, text)

    def _passed(self, octets: bytes) -> bytes:
        if self.is_shut:
            return b""
        self.octets += len(octets)
        return octets

    def _choose_way(self) -> None:
        """Whether the next segment may be a whole short message."""
        if self.left or self._held or self._is_over or self.is_shut or self._expected is not self._grammar.starts:
            self._wholes = _NONE
        else:
            self._wholes = self._grammar.wholes
