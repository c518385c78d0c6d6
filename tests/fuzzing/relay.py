"""Two peers of a WebSocket relay do what they like, in any order, at any speed."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxyd.websocket import ends
from proxyd.websocket.relay import CLOSE_S, RelayOptions
from tests.fuzzing.cutting import ErrorsLogged
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.support.relaying import Peer, Relayed

HIGH = 2000
"""Octets over which a transport is full."""

SEGMENT = 4000
"""The most octets that arrive at once."""

LIMIT = 4000
"""The most octets of a message, where there is a limit."""

PAYLOADS = [b"", b"a", b"x" * 125, b"x" * 126, b"x" * 3000, b"x" * 70000]

CODES = [None, 1000, 1003, 1008, 3000, 4999]
"""Those that proxyd itself never closes with."""

OURS = {1001, 1002, 1009, 1011}
"""Those that it does."""

BROKEN = ["opcode", "reserved bit", "mask", "length", "fragment", "close"]


def _broken(kind: str, mask: bytes | None) -> bytes:
    """A frame that no peer may send."""
    return {
        "opcode": frame(5, b"?", mask=mask),
        "reserved bit": frame(PING, b"?", rsv=4, mask=mask),
        "mask": frame(TEXT, b"?", mask=None if mask else b"mask"),
        "length": frame(PING, b"x" * 126, mask=mask),
        "fragment": frame(PONG, b"?", fin=False, mask=mask),
        "close": frame(CLOSE, b"\x03\xed", mask=mask),
    }[kind]


class Side:
    """
    What the machine knows of one peer.

    @ivar sent: the frames it sent whole, up to its Close.
    @ivar got: the frames of the other peer that it got.
    @ivar unsent: what is left of the frames that it has begun to send.
    """

    def __init__(self, peer: Peer, mask: bytes | None) -> None:
        self.peer = peer
        self.mask = mask
        self.sent: list[tuple[int, bytes, bool]] = []
        self.got: list[tuple[int, bytes, bool]] = []
        self.unsent = b""
        self.in_message = False
        self.message_size = 0
        self.has_closed = False
        self.has_left = False
        self.closes_got = 0

    @property
    def may_send(self) -> bool:
        return self.peer.transport.is_connected and not self.has_closed and not self.has_left

    def send(self, opcode: int, payload: bytes, fin: bool) -> None:
        self.sent.append((opcode, payload, fin))
        self.unsent += frame(opcode, payload, fin=fin, mask=self.mask)

    def deliver(self, size: int) -> None:
        piece, self.unsent = self.unsent[:size], self.unsent[size:]
        if piece and self.peer.transport.is_connected and not self.has_left:
            self.peer.sends(piece)

    def read(self, size: int | None) -> None:
        for one in self.peer.gets(size):
            assert not self.closes_got, "something comes behind a Close"
            assert one.masked is (self.mask is None)
            if one.opcode == CLOSE:
                self.closes_got += 1
                if int.from_bytes(one.payload[:2], "big") in OURS:
                    continue
            elif one.opcode == PING and one.payload == ends.MARK:
                continue
            self.got.append((one.opcode, one.payload, one.fin))
        assert not (self.closes_got and self.peer.is_within_frame), "something comes behind a Close"


class Machine(RuleBasedStateMachine):
    """Whatever happens, frames arrive once, in order and as they were."""

    @initialize(
        ping=st.sampled_from([0, 7]),
        idle=st.sampled_from([0, 11]),
        limit=st.sampled_from([0, LIMIT]),
        client_early=st.sampled_from([b"", b"early", b"x" * 200]),
        origin_early=st.sampled_from([b"", b"early", b"x" * 200]),
        cut=st.sampled_from([1, 5, 100, 1000]),
    )
    def begin(
        self, ping: float, idle: float, limit: int, client_early: bytes, origin_early: bytes, cut: int
    ) -> None:
        """Both have sent something with their handshakes, perhaps a part of a frame."""
        self.errors = ErrorsLogged()
        sent = {mask: frame(TEXT, early, mask=mask) if early else b"" for mask, early in
                ((b"abcd", client_early), (None, origin_early))}  # fmt: skip
        self.pair = Relayed(
            RelayOptions(ping=ping, idle=idle, max_message=limit),
            high=HIGH,
            client_early=sent[b"abcd"][:cut],
            origin_early=sent[None][:cut],
        )
        self.limit = limit
        self.followers = self.pair.relay.client.follower, self.pair.relay.origin.follower
        self.client = Side(self.pair.client, b"abcd")
        self.origin = Side(self.pair.origin, None)
        for side, early in ((self.client, client_early), (self.origin, origin_early)):
            if early:
                side.sent.append((TEXT, early, True))
                side.unsent = sent[side.mask][cut:]
        self.sides = {True: self.client, False: self.origin}
        self.is_undisturbed = True

    @rule(first=st.booleans(), payload=st.sampled_from(PAYLOADS), fin=st.booleans(), binary=st.booleans())
    def message(self, first: bool, payload: bytes, fin: bool, binary: bool) -> None:
        """A whole message, or a fragment of one."""
        side = self.sides[first]
        if not side.may_send:
            return
        size = len(payload) + (side.message_size if side.in_message else 0)
        if self.limit and size > self.limit:
            # No part of this frame goes on, nor does anything behind it.
            self.is_undisturbed = False
            side.unsent += frame(CONTINUATION if side.in_message else BINARY, payload, mask=side.mask)
            side.has_closed = True
            return
        opcode = CONTINUATION if side.in_message else BINARY if binary else TEXT
        side.in_message = not fin
        side.message_size = size
        side.send(opcode, payload, fin)

    @rule(first=st.booleans(), payload=st.sampled_from([b"", b"ping", b"x" * 125]), ping=st.booleans())
    def control(self, first: bool, payload: bytes, ping: bool) -> None:
        side = self.sides[first]
        if side.may_send:
            side.send(PING if ping else PONG, payload, True)

    @rule(first=st.booleans())
    def answer_ping(self, first: bool) -> None:
        """A pong as it would answer a ping of proxyd's own, which goes no further if there are such."""
        side = self.sides[first]
        if side.may_send and self.pair.relay._options.ping:
            side.unsent += frame(PONG, ends.MARK, mask=side.mask)

    @rule(first=st.booleans(), code=st.sampled_from(CODES), reason=st.sampled_from([b"", b"why", "ü".encode() * 61]))
    def close(self, first: bool, code: int | None, reason: bytes) -> None:
        side = self.sides[first]
        if side.may_send:
            side.send(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, True)
            side.has_closed = True

    @rule(first=st.booleans(), size=st.sampled_from([1, 2, 3, 7, 130, 1500, SEGMENT]))
    def deliver(self, first: bool, size: int) -> None:
        side = self.sides[first]
        # What is not read yet is in the network, which has no room for more.
        if not side.peer.transport.is_waiting:
            side.deliver(size)

    @rule(first=st.booleans(), size=st.sampled_from([1, 100, 2500, None]))
    def read(self, first: bool, size: int | None) -> None:
        self.sides[first].read(size)
        self.pair.advance()

    @rule(first=st.booleans(), reset=st.booleans())
    def lose(self, first: bool, reset: bool) -> None:
        side = self.sides[first]
        self.is_undisturbed = False
        side.has_left = True
        if side.peer.transport.is_connected:
            side.peer.transport.reset() if reset else side.peer.transport.end()

    @rule(first=st.booleans(), kind=st.sampled_from(BROKEN))
    def break_framing(self, first: bool, kind: str) -> None:
        side = self.sides[first]
        if side.may_send:
            self.is_undisturbed = False
            side.unsent += _broken(kind, side.mask)
            side.has_closed = True

    @rule(seconds=st.sampled_from([0.0, 0.0, 1.0, 4.0, 8.0]))
    def wait(self, seconds: float) -> None:
        if seconds:
            self.is_undisturbed = False
        self.pair.advance(seconds)

    @rule()
    def drain(self) -> None:
        self.is_undisturbed = False
        self.pair.relays.drain()

    @rule()
    def abort(self) -> None:
        self.is_undisturbed = False
        self.pair.relays.abort()

    @precondition(lambda self: self.is_undisturbed)
    @rule()
    def settle(self) -> None:
        """While nothing but frames was sent, all of them arrive."""
        while self.client.unsent or self.origin.unsent:
            self.exchange()
        for _ in range(8):
            self.exchange()
        assert self.origin.got == self.client.sent
        assert self.client.got == self.origin.sent

    def exchange(self) -> None:
        """Both send and read."""
        for side in (self.client, self.origin):
            if not side.peer.transport.is_connected or not side.peer.transport.is_waiting:
                side.deliver(SEGMENT)
            side.read(None)
        self.pair.advance()

    @invariant()
    def arrives_once_and_in_order(self) -> None:
        if not hasattr(self, "pair"):
            return
        for side, other in ((self.client, self.origin), (self.origin, self.client)):
            assert side.got == other.sent[: len(side.got)]
            assert side.peer.transport.unsent <= HIGH + SEGMENT + 2 * 131 + 200
        for follower in self.followers:
            assert len(follower._held) <= 130

    def teardown(self) -> None:
        """In the end both are lost, and nothing is left."""
        if not hasattr(self, "pair"):
            return
        self.pair.relays.drain()
        for _ in range(8):
            self.exchange()
            self.pair.advance(CLOSE_S)
        self.pair.relays.abort()
        for side in (self.client, self.origin):
            side.read(None)
        self.arrives_once_and_in_order()
        self.errors.check()
        self.pair.assert_over()
