"""A client's WebSocket, an origin server's, and what is between them (RFC 6455)."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface.verify import verifyObject

from proxyd.errors import ResponseMalformed
from proxyd.forward.record import Record
from proxyd.http.fields import values
from proxyd.http.response import parse_response
from proxyd.http.upgrade import accept_for
from proxyd.websocket import ends
from proxyd.websocket.relay import CLOSE_S, RelayOptions
from proxyd.websocket.relays import Relays
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close, frame
from tests.support.relaying import KEY, Channel, OriginConnection, Peer, Relayed, Site, switching, upgrade


def from_origin(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as an origin server sends it."""
    return frame(opcode, payload, fin=fin, mask=None)


def close_of_origin(code: int | None = None, reason: bytes = b"") -> bytes:
    """A Close as an origin server sends it."""
    return close(code, reason, mask=None)


def closed(code: int, reason: bytes = b"", *, masked: bool = False) -> Frame:
    """A Close that was read."""
    return Frame(CLOSE, code.to_bytes(2, "big") + reason, True, 0, masked)


# The opening handshake


def test_the_origin_is_asked_with_a_key_of_our_own() -> None:
    """The client's key stays with us; what it offers goes on as it came."""
    offered = b"permessage-deflate; client_max_window_bits, x-unknown"
    switch = upgrade(Relays(Clock()), RelayOptions(), b"Sec-WebSocket-Extensions: " + offered)
    assert values(switch.handshake, b"sec-websocket-key") not in ([], [KEY])
    assert values(switch.handshake, b"sec-websocket-extensions") == [offered]


def test_the_client_is_answered_with_what_the_origin_said() -> None:
    """All end-to-end fields of its 101, and an answer to the client's own key."""
    switch = upgrade(Relays(Clock()), RelayOptions(), b"Sec-WebSocket-Protocol: a, b")
    response = switching(switch, b"Set-Cookie: a=1", b"Set-Cookie: b=\xe9", b"Sec-WebSocket-Protocol: b")
    fields = switch.agreed(parse_response(response, b"GET"))
    assert values(fields, b"sec-websocket-accept") == [accept_for(KEY)]
    assert values(fields, b"set-cookie") == [b"a=1", b"b=\xe9"]
    assert values(fields, b"sec-websocket-protocol") == [b"b"]


REFUSED = [
    (lambda octets: octets.replace(b"Accept: ", b"Accept: x"), "4.1: the wrong Sec-WebSocket-Accept"),
    (lambda octets: octets.replace(b"Upgrade: websocket\r\n", b""), "4.1: no Upgrade"),
    (lambda octets: octets.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: c\r\n\r\n"), "4.1: a stray protocol"),
    (lambda octets: octets.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: x\r\n\r\n"), "4.1: a stray extension"),
]


@pytest.mark.parametrize(("change", "rfc"), REFUSED)
def test_a_101_that_is_none(change: Any, rfc: str) -> None:
    """What does not answer our request is no answer."""
    switch = upgrade(Relays(Clock()), RelayOptions())
    with pytest.raises(ResponseMalformed):
        switch.agreed(parse_response(change(switching(switch)), b"GET"))


def test_octets_behind_both_heads() -> None:
    """What either side sends right behind its head is the first that is relayed."""
    hello, welcome = frame(TEXT, b"hello"), from_origin(TEXT, b"welcome")
    pair = Relayed(client_early=hello, origin_early=welcome)
    assert pair.origin.octets() == hello
    assert pair.client.octets() == welcome


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_transports_get_their_new_protocols(is_wrapped: bool) -> None:
    """A wrapper, such as TLS, takes what it wraps; and the ends provide what they say."""
    relays, site = Relays(Clock()), Site()
    switch = upgrade(relays, RelayOptions())
    transports: list[Any] = [StringTransport(), StringTransport()]
    if is_wrapped:
        wrappers = [ProtocolWrapper(WrappingFactory(None), None) for _ in transports]
        for wrapper, transport in zip(wrappers, transports, strict=True):
            wrapper.transport = transport
        outer: list[Any] = list(wrappers)
    else:
        outer = transports
    switch.agreed(parse_response(switching(switch), b"GET"))
    switch.begin(Channel(site, outer[0], b"", Record(None, "", 0.0)), OriginConnection(outer[1]), b"")
    (relay,) = relays.live
    attribute = "wrappedProtocol" if is_wrapped else "protocol"
    assert [getattr(transport, attribute) for transport in outer] == [relay.client, relay.origin]
    assert [transport.producer for transport in transports] == [relay.client, relay.origin]
    verifyObject(IPushProducer, relay.client)


# Frames


def test_frames_go_both_ways() -> None:
    """As they are: the client's with their masks, the origin server's without."""
    pair = Relayed(high=100_000)
    sent = [
        frame(TEXT, "grüß dich".encode()), frame(BINARY, b"x" * 300, mask=b"abcd"), frame(TEXT, b"a", fin=False),
        frame(PING, b"p"), frame(CONTINUATION, b"b"), frame(PONG, b"q"),
    ]
    back = [from_origin(BINARY, b"y" * 70000), from_origin(PONG, b"p"), from_origin(TEXT, b"")]
    pair.client.sends(*sent)
    pair.origin.sends(*back)
    assert pair.origin.octets() == b"".join(sent)
    assert pair.client.octets() == b"".join(back)


def test_what_is_counted() -> None:
    """The record has the octets each way, and how long it took."""
    pair = Relayed()
    pair.client.sends(frame(TEXT, b"x" * 10))
    pair.origin.sends(from_origin(TEXT, b"y" * 20), from_origin(TEXT, b"z"))
    follower = pair.relay.origin.follower
    assert (follower.messages, follower.octets) == (2, 25)
    pair.advance(3)
    pair.client.transport.reset()
    pair.origin.transport.reset()
    pair.assert_over()
    assert (pair.record.received, pair.record.sent, pair.record.duration) == (16, 25, 3)


AGREED = [
    (b"", False, False),
    (b"permessage-deflate", True, False),
    (b"permessage-deflate; server_no_context_takeover", True, False),
    (b"x-unknown", True, True),
    (b"permessage-deflate, x-unknown", True, True),
]


@pytest.mark.parametrize(("extensions", "rsv1", "opcode3"), AGREED)
def test_extensions(extensions: bytes, rsv1: bool, opcode3: bool) -> None:
    """What was agreed on decides which bits and opcodes may be used, both ways."""
    for message, allowed in ((dict(opcode=TEXT, rsv=4), rsv1), (dict(opcode=3, rsv=0), opcode3)):
        pair = Relayed(extensions=extensions)
        pair.client.sends(frame(payload=b"a", **message))
        assert bool(pair.origin.gets()[0].opcode != CLOSE) is allowed
        pair = Relayed(extensions=extensions)
        pair.origin.sends(frame(payload=b"a", mask=None, **message))
        assert bool(pair.client.gets()[0].opcode != CLOSE) is allowed


# Back-pressure


@pytest.mark.parametrize("slow", ["client", "origin"])
def test_a_slow_reader_stops_the_other_side(slow: str) -> None:
    """At most one buffer is held, whatever is sent; when it is read all goes on."""
    pair = Relayed()
    reader, writer = (pair.client, pair.origin) if slow == "client" else (pair.origin, pair.client)
    message = frame(BINARY, b"x" * 1_000_000, mask=None if slow == "client" else b"abcd")
    for at in range(0, len(message), 10_000):
        writer.sends(message[at : at + 10_000])
    assert writer.transport.is_paused
    assert getattr(pair.relay, slow).is_full
    assert reader.transport.unsent <= 64 * 1024 + 10_000
    read = b""
    while len(read) < len(message):
        assert reader.transport.unsent <= 64 * 1024 + 10_000
        read += reader.octets(50_000)
        pair.advance()
    assert read == message
    assert not writer.transport.is_paused


# The closing handshake

CLOSES = [(None, b""), (1000, b""), (1001, b"going"), (3000, "tschüß".encode()), (4999, b"x" * 123)]


@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_client_closes(code: int | None, reason: bytes) -> None:
    """Code and reason go over and back; then we end the client's TCP, and the origin server its own."""
    pair = Relayed()
    pair.client.sends(close(code, reason))
    assert pair.origin.octets() == close(code, reason)
    assert not pair.client.transport.is_disconnecting
    pair.origin.sends(close_of_origin(code, reason))
    assert pair.client.octets() == close_of_origin(code, reason)
    pair.advance()
    assert pair.client.is_lost and not pair.client.transport.is_aborted
    assert not pair.origin.is_lost and not pair.origin.transport.is_disconnecting
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == ""


def test_the_origin_closes() -> None:
    """Its Close goes over, the client's answer comes back, and both connections end."""
    pair = Relayed()
    pair.origin.sends(from_origin(TEXT, b"last words") + close_of_origin(4000, b"bye"))
    assert pair.client.gets() == [Frame(TEXT, b"last words", True, 0, False), closed(4000, b"bye")]
    pair.client.sends(frame(TEXT, b"mine") + close(4000, b"bye"))
    assert pair.origin.octets() == frame(TEXT, b"mine") + close(4000, b"bye")
    pair.advance()
    assert pair.client.is_lost
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == ""


def test_both_close_at_once() -> None:
    """Each gets the other's Close."""
    pair = Relayed()
    pair.client.sends(close(1000))
    pair.origin.sends(close_of_origin(1001))
    assert pair.origin.gets() == [closed(1000, masked=True)]
    assert pair.client.gets() == [closed(1001)]
    pair.origin.transport.end()
    pair.assert_over()


def test_nothing_after_a_close_is_relayed() -> None:
    """The direction is shut, while the other one still carries what is on its way."""
    pair = Relayed()
    pair.client.sends(close(1000) + frame(TEXT, b"late"), frame(TEXT, b"later"))
    assert pair.origin.gets() == [closed(1000, masked=True)]
    pair.origin.sends(from_origin(TEXT, b"on its way"))
    assert pair.client.gets() == [Frame(TEXT, b"on its way", True, 0, False)]


@pytest.mark.parametrize("first", ["client", "origin"])
def test_a_close_that_is_not_answered(first: str) -> None:
    """After 5 s the silent side is cut off, and the other learns that this was no good end."""
    pair = Relayed()
    closer, silent = (pair.client, pair.origin) if first == "client" else (pair.origin, pair.client)
    closer.sends(close(1000, mask=b"abcd" if first == "client" else None))
    silent.gets()
    pair.advance(CLOSE_S - 0.1)
    assert not silent.transport.is_aborted
    pair.advance(0.1)
    assert silent.transport.is_aborted
    assert [one.payload for one in closer.gets()] == [b"\x03\xf3"]
    closer.transport.end()
    pair.assert_over()
    assert pair.record.failed.endswith("did not answer a Close")


def test_an_origin_that_does_not_end_tcp() -> None:
    """It has as long to end its connection as it had to answer."""
    pair = Relayed()
    pair.client.sends(close(1000))
    pair.advance(4)
    pair.origin.sends(close_of_origin(1000))
    pair.origin.octets()
    pair.client.octets()
    pair.advance(CLOSE_S - 0.1)
    assert pair.client.is_lost and not pair.origin.transport.is_aborted
    pair.advance(0.1)
    assert pair.origin.transport.is_aborted
    pair.assert_over()


def test_a_client_that_never_reads_its_close() -> None:
    """TLS, or a full buffer, may keep a connection from ending: it is cut off."""
    pair = Relayed()
    pair.origin.sends(close_of_origin(1000))
    pair.client.sends(close(1000))
    pair.origin.octets()
    pair.origin.transport.end()
    pair.advance(CLOSE_S)
    assert pair.client.transport.is_aborted
    pair.assert_over()


def test_a_slow_reader_gets_all_before_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 5 s are for answering: they begin anew as long as the client still reads what came before."""
    monkeypatch.setattr(ends, "unsent", lambda transport: transport.unsent)
    pair = Relayed()
    pair.origin.sends(from_origin(BINARY, b"x" * 60_000) + from_origin(BINARY, b"x" * 60_000))
    pair.origin.transport.end()
    pair.advance()
    assert not pair.origin.is_lost
    read = []
    for _ in range(8):
        read += pair.client.gets(20_000)
        pair.advance(CLOSE_S - 0.5)
    assert [len(one.payload) for one in read] == [60_000, 60_000, 2]
    assert read[2] == closed(1011)
    assert not pair.client.transport.is_aborted
    pair.client.sends(close(1011))
    pair.assert_over()


def test_a_close_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is no slow reader: that the Close itself was taken a little later is no reason to wait longer."""
    monkeypatch.setattr(ends, "unsent", lambda transport: transport.unsent)
    pair = Relayed()
    pair.client.sends(close(1000))
    pair.advance(0.25)
    assert pair.origin.gets() == [closed(1000, masked=True)]
    pair.advance(CLOSE_S - 0.5)
    assert not pair.origin.transport.is_aborted
    pair.advance(0.25)
    assert pair.origin.transport.is_aborted


def test_a_close_behind_what_a_slow_reader_holds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A side that is not read because the other is slow cannot be blamed for not answering."""
    monkeypatch.setattr(ends, "unsent", lambda transport: transport.unsent)
    pair = Relayed()
    pair.client.sends(close(1000))
    pair.origin.octets()
    pair.origin.sends(from_origin(BINARY, b"x" * 100_000))
    pair.origin.sends(close_of_origin(1000))
    assert pair.origin.transport.is_waiting
    read = b""
    for _ in range(11):
        pair.advance(CLOSE_S - 0.5)
        read += pair.client.octets(10_000)
    pair.advance()
    read += pair.client.octets()
    assert not pair.origin.transport.is_aborted
    assert read.endswith(close_of_origin(1000))
    pair.advance()
    assert pair.client.is_lost
    pair.origin.transport.end()
    pair.assert_over()


# A side is lost

LOSSES = ["end", "reset"]


@pytest.mark.parametrize("how", LOSSES)
def test_the_client_is_lost(how: str) -> None:
    """Without a Close: the origin server is told so between frames, never that all was well."""
    pair = Relayed()
    pair.client.sends(frame(TEXT, b"a"))
    getattr(pair.client.transport, how)()
    pair.advance()
    assert pair.origin.gets() == [Frame(TEXT, b"a", True, 0, True), closed(1011, masked=True)]
    pair.origin.sends(from_origin(TEXT, b"nobody hears it") + close_of_origin(1011))
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == "client went away without a Close"


@pytest.mark.parametrize("how", LOSSES)
def test_the_origin_is_lost(how: str) -> None:
    """The client gets 1011, answers, and its connection ends."""
    pair = Relayed()
    getattr(pair.origin.transport, how)()
    pair.advance()
    assert pair.client.gets() == [closed(1011)]
    assert not pair.client.transport.is_disconnecting
    pair.client.sends(close(1011))
    pair.assert_over()
    assert pair.record.failed == "origin went away without a Close"


@pytest.mark.parametrize("lost", ["client", "origin"])
def test_a_side_is_lost_within_a_frame(lost: str) -> None:
    """A Close would be taken for octets of that frame: the other side is cut off."""
    pair = Relayed()
    gone, other = (pair.client, pair.origin) if lost == "client" else (pair.origin, pair.client)
    gone.sends(frame(BINARY, b"x" * 1000, mask=b"abcd" if lost == "client" else None)[:500])
    gone.transport.reset()
    assert other.transport.is_aborted
    pair.assert_over()


def test_the_client_is_lost_after_its_close() -> None:
    """The origin server has had its Close already, and answers nobody."""
    pair = Relayed()
    pair.client.sends(close(1000))
    pair.client.transport.end()
    pair.advance()
    pair.origin.sends(from_origin(TEXT, b"for nobody") + close_of_origin(1000))
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == ""


def test_an_origin_that_ends_right_after_its_close() -> None:
    """Many do not wait for the answer: the client's Close handshake is none the worse."""
    pair = Relayed()
    pair.origin.sends(close_of_origin(1000, b"done"))
    pair.origin.transport.end()
    pair.advance()
    assert pair.client.gets() == [closed(1000, b"done")]
    pair.client.sends(close(1000, b"done"))
    pair.assert_over()
    assert pair.record.failed == ""


def test_a_client_that_ends_instead_of_answering() -> None:
    """The origin server, whose Close was not answered, is told that its client was lost."""
    pair = Relayed()
    pair.origin.sends(close_of_origin(1000))
    pair.client.transport.end()
    pair.advance()
    assert pair.origin.gets() == [closed(1011, masked=True)]
    pair.origin.transport.end()
    pair.assert_over()


def test_a_loss_while_the_other_side_is_paused() -> None:
    """What holds a lost side up is gone: the other one is read again, and its end is seen."""
    pair = Relayed()
    for _ in range(20):
        pair.origin.sends(from_origin(BINARY, b"x" * 5_000))
    assert pair.origin.transport.is_paused
    pair.client.transport.reset()
    pair.advance()
    assert not pair.origin.transport.is_paused
    pair.origin.transport.end()
    pair.assert_over()


# The framing is broken


def test_a_client_that_breaks_the_framing() -> None:
    """It gets 1002, what it sends is dropped, and the origin server gets 1011."""
    pair = Relayed()
    pair.client.sends(frame(TEXT, b"good") + frame(TEXT, b"bad", rsv=2) + frame(TEXT, b"late"))
    assert pair.origin.gets() == [Frame(TEXT, b"good", True, 0, True), closed(1011, masked=True)]
    assert pair.client.gets() == [closed(1002)]
    assert pair.client.transport.has_ended and not pair.client.transport.is_aborted
    pair.client.sends(frame(TEXT, b"unread octets would reset the connection"))
    pair.client.transport.end()
    pair.origin.sends(close_of_origin(1011))
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == "client websocket_error: a reserved bit"


def test_an_origin_that_breaks_the_framing() -> None:
    """It gets 1002 under a mask, and the client 1011."""
    pair = Relayed()
    pair.origin.sends(frame(TEXT, b"masked"))
    assert pair.origin.gets() == [closed(1002, masked=True)]
    assert pair.client.gets() == [closed(1011)]
    pair.client.sends(close(1011))
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == "origin websocket_error: a frame with a mask"


def test_a_violation_of_a_slow_reader() -> None:
    """What the other side still sends is read, and dropped: its answer is to be seen."""
    pair = Relayed()
    pair.origin.sends(from_origin(BINARY, b"x" * 100_000))
    pair.origin.sends(from_origin(TEXT, b"too late"), close_of_origin(1011))
    pair.advance()
    assert pair.origin.transport.is_waiting
    pair.client.sends(frame(0x3))
    pair.advance()
    assert not pair.origin.transport.is_waiting
    assert [len(one.payload) for one in pair.client.gets()] == [100_000, 2]
    assert pair.origin.gets() == [closed(1011, masked=True)]
    pair.client.transport.end()
    pair.origin.transport.end()
    pair.assert_over()


def test_a_message_that_is_too_big() -> None:
    """1009, and the origin server is told between frames, though inside a message."""
    pair = Relayed(RelayOptions(max_message=1000))
    pair.client.sends(frame(BINARY, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 600)[:100])
    assert pair.client.gets() == [closed(1009)]
    assert pair.origin.gets() == [Frame(BINARY, b"x" * 600, False, 0, True), closed(1011, masked=True)]


def test_a_violation_while_the_other_direction_is_within_a_frame() -> None:
    """No Close can be put into a frame: that side is cut off; the other one is between frames."""
    pair = Relayed()
    pair.origin.sends(from_origin(BINARY, b"x" * 1000)[:500])
    pair.client.sends(frame(TEXT, b"bad", mask=None))
    assert pair.client.transport.is_aborted
    assert pair.origin.gets() == [closed(1011, masked=True)]
    pair.origin.transport.end()
    pair.assert_over()


def test_a_violation_instead_of_an_answer() -> None:
    """Who has had its Close gets no second one."""
    pair = Relayed()
    pair.origin.sends(close_of_origin(1000))
    pair.client.sends(frame(3, b"?"))
    assert pair.client.gets() == [closed(1000)]
    assert pair.origin.gets() == [closed(1011, masked=True)]
    pair.client.transport.end()
    pair.origin.transport.end()
    pair.assert_over()


def test_a_violation_behind_a_wrapper() -> None:
    """TLS cannot be half closed: it is closed."""
    relays, site = Relays(Clock()), Site()
    switch = upgrade(relays, RelayOptions())
    switch.agreed(parse_response(switching(switch), b"GET"))
    wrapper, inner = ProtocolWrapper(WrappingFactory(None), None), StringTransport()
    wrapper.transport = inner
    origin = Peer(Clock(), 1)
    switch.begin(Channel(site, wrapper, frame(3), Record(None, "", 0.0)), OriginConnection(origin.transport), b"")
    assert inner.value() == close_of_origin(1002)
    assert inner.disconnecting


# Time


def test_idle() -> None:
    """After so many seconds without messages and pongs both sides get 1001, and end."""
    pair = Relayed(RelayOptions(idle=10))
    pair.advance(9)
    pair.client.sends(frame(TEXT, b"a"))
    pair.advance(9)
    pair.origin.sends(from_origin(PONG, b"alive"))
    pair.advance(9)
    pair.client.sends(frame(PING, b"a ping is nothing"), frame(PONG, b"half")[:3])
    assert [one.opcode for one in pair.origin.gets()] == [TEXT, PING]
    pair.client.octets()
    pair.advance(1)
    assert pair.origin.gets() == [closed(1001, masked=True)]
    assert pair.client.gets() == [closed(1001)]
    pair.client.sends(frame(PONG, b"half")[3:] + close(1001))
    pair.origin.sends(close_of_origin(1001))
    assert pair.client.gets() == [] and pair.origin.gets() == []
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == ""


def test_time_passes_while_it_is_told() -> None:
    """A deadline that passes within a look at the clock is late, but not lost."""

    class Ticking(Clock):
        def seconds(self) -> float:
            self.rightNow += 0.001
            return self.rightNow

        def callLater(self, when: float, *arguments: Any, **options: Any) -> Any:
            assert when >= 0, "a reactor refuses this"
            return super().callLater(when, *arguments, **options)

    for late in range(60):
        pair = Relayed(RelayOptions(idle=1), clock=Ticking())
        # After this the first look finds that little is left of the time.
        pair.advance(0.01)
        pair.client.sends(frame(TEXT, b"a"))
        pair.advance(0.95 + late * 0.001)
        for _ in range(10):
            pair.advance(0.2)
        assert pair.client.gets() == [closed(1001)]


def test_idle_within_a_frame() -> None:
    """Who stops within a frame has the time of a closing handshake to go on; then both are cut off."""
    pair = Relayed(RelayOptions(idle=10))
    pair.client.sends(frame(BINARY, b"x" * 1000)[:500])
    pair.advance(10)
    assert pair.client.gets() == [closed(1001)]
    pair.advance(CLOSE_S)
    assert pair.client.transport.is_aborted and pair.origin.transport.is_aborted
    pair.assert_over()


def test_pings_of_our_own() -> None:
    """Both sides are pinged, each pong is swallowed, and all others go on."""
    pair = Relayed(RelayOptions(ping=20))
    for _ in range(3):
        pair.advance(20)
        (to_client,), (to_origin,) = pair.client.gets(), pair.origin.gets()
        assert to_client.opcode == to_origin.opcode == PING
        assert to_origin.masked and not to_client.masked
        pair.client.sends(frame(PONG, to_client.payload), frame(PONG, b"unsolicited"))
        pair.origin.sends(from_origin(PONG, to_origin.payload))
        assert pair.origin.gets() == [Frame(PONG, b"unsolicited", True, 0, True)]
        assert pair.client.gets() == []


def test_pongs_of_our_pings_keep_a_relay_from_being_idle() -> None:
    """A relay whose peers answer pings is not closed, whatever the order of the two times."""
    pair = Relayed(RelayOptions(ping=4, idle=10))
    for _ in range(10):
        pair.advance(4)
        for one in pair.client.gets():
            pair.client.sends(frame(PONG, one.payload))
        for one in pair.origin.gets():
            pair.origin.sends(from_origin(PONG, one.payload))
    assert len(pair.relays.live) == 1


@pytest.mark.parametrize("dead", ["client", "origin"])
def test_a_ping_that_is_not_answered(dead: str) -> None:
    """By the time of the next one that side counts as lost."""
    pair = Relayed(RelayOptions(ping=20))
    other = pair.origin if dead == "client" else pair.client
    pair.advance(20)
    (ping,) = other.gets()
    other.sends(frame(PONG, ping.payload, mask=None if dead == "client" else b"abcd"))
    pair.advance(20)
    assert getattr(pair, dead).transport.is_aborted
    assert other.gets()[-1].payload == b"\x03\xf3"
    other.transport.end()
    pair.assert_over()
    assert pair.record.failed == f"{dead} answered no ping"


def test_a_peer_within_a_long_frame_is_not_dead() -> None:
    """It cannot send a pong before the frame's end; its octets show that it lives."""
    pair = Relayed(RelayOptions(ping=20))
    message = frame(BINARY, b"x" * 1000)
    for at in range(0, len(message), 100):
        pair.client.sends(message[at : at + 100])
        for one in pair.origin.gets():
            if one.opcode == PING:
                pair.origin.sends(from_origin(PONG, one.payload))
        pair.advance(20)
    assert not pair.client.transport.is_aborted


def test_a_ping_waits_for_the_end_of_a_frame() -> None:
    """It is put in there, in front of what comes behind it in the same segment."""
    pair = Relayed(RelayOptions(ping=20))
    first, second = frame(BINARY, b"x" * 1000), frame(TEXT, b"next")
    pair.client.sends(first[:500])
    pair.advance(20)
    assert pair.origin.gets() == []
    pair.client.sends(first[500:] + second)
    assert [one.opcode for one in pair.origin.gets()] == [BINARY, PING, TEXT]


def test_who_cannot_be_heard_is_not_pinged_to_death() -> None:
    """A slow reader gets no pings on top, and a side that is not read cannot be blamed."""
    pair = Relayed(RelayOptions(ping=20))
    for _ in range(20):
        pair.origin.sends(from_origin(BINARY, b"x" * 5_000))
    for _ in range(5):
        pair.advance(20)
    assert not pair.client.transport.is_aborted and not pair.origin.transport.is_aborted
    assert {one.opcode for one in pair.client.gets()} == {BINARY}
    pair.advance(20)
    assert [one.opcode for one in pair.client.gets()][-1] == PING


# The end of the service


def test_drain() -> None:
    """Both sides get 1001 at once, and their answers are not passed on."""
    pair = Relayed()
    pair.relays.drain()
    assert pair.client.octets() == b"\x88\x02\x03\xe9"
    assert pair.origin.gets() == [closed(1001, masked=True)]
    pair.origin.sends(from_origin(TEXT, b"on its way") + close_of_origin(1001))
    pair.client.sends(close(1001))
    assert pair.client.octets() == pair.origin.octets() == b""
    pair.relays.drain()
    pair.origin.transport.end()
    pair.assert_over()
    assert pair.record.failed == ""


def test_drain_of_a_slow_reader() -> None:
    """It gets its Close behind what it was sent; nothing more is sent to it."""
    pair = Relayed()
    pair.origin.sends(from_origin(BINARY, b"x" * 100_000))
    pair.origin.sends(from_origin(TEXT, b"too late"))
    pair.relays.drain()
    pair.advance()
    assert [len(one.payload) for one in pair.client.gets()] == [100_000, 2]
    pair.origin.sends(close_of_origin(1001))
    pair.client.sends(close(1001))
    pair.origin.transport.end()
    pair.origin.octets()
    pair.assert_over()


def test_drain_within_a_frame() -> None:
    """The Close comes when the frame has passed, however long that takes, and nothing comes after it."""
    pair = Relayed()
    message = from_origin(BINARY, b"x" * 1000)
    pair.origin.sends(message[:500])
    pair.relays.drain()
    assert pair.client.gets() == []
    assert pair.origin.gets() == [closed(1001, masked=True)]
    pair.advance(60)
    pair.origin.sends(message[500:] + from_origin(TEXT, b"too late"))
    assert pair.client.gets() == [Frame(BINARY, b"x" * 1000, True, 0, False), closed(1001)]
    pair.origin.sends(close_of_origin(1001))
    pair.client.sends(close(1001))
    pair.origin.transport.end()
    pair.assert_over()


def test_drain_a_relay_that_is_closing() -> None:
    """It gets no second Close."""
    pair = Relayed()
    pair.client.sends(close(1000))
    pair.relays.drain()
    assert pair.origin.gets() == [closed(1000, masked=True)]
    assert pair.client.gets() == []


def test_a_drained_side_is_lost() -> None:
    """Clients often end TCP instead of answering; the other side has had its Close."""
    pair = Relayed()
    pair.relays.drain()
    pair.client.transport.reset()
    assert pair.origin.gets() == [closed(1001, masked=True)]
    pair.origin.sends(close_of_origin(1001))
    pair.origin.transport.end()
    pair.assert_over()


def test_a_drain_that_is_not_answered() -> None:
    """Both are cut off after 5 s."""
    pair = Relayed()
    pair.relays.drain()
    pair.advance(CLOSE_S)
    assert pair.client.transport.is_aborted and pair.origin.transport.is_aborted
    pair.assert_over()


def test_abort() -> None:
    """All is cut off."""
    pair = Relayed(RelayOptions(ping=1, idle=1))
    pair.relays.abort()
    assert pair.client.transport.is_aborted and pair.origin.transport.is_aborted
    pair.assert_over()


def test_abort_when_one_side_is_gone() -> None:
    """The other one is cut off."""
    pair = Relayed()
    pair.client.transport.reset()
    pair.relays.abort()
    assert pair.origin.transport.is_aborted
    pair.assert_over()


# Memory


def test_ended_relays_leave_nothing_behind() -> None:
    """Without a run of the garbage collector, even while somebody still holds their transports."""
    clock = Clock()
    relays = Relays(clock)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    transports = []
    gc.collect()
    gc.disable()
    try:
        for number in range(2000):
            pair = Relayed(RelayOptions(ping=20, idle=60), relays=relays, clock=clock)
            alive.update((pair.relay, pair.relay.client, pair.relay.origin))
            transports += [pair.client.transport, pair.origin.transport]
            pair._begun.clear()
            pair.client.sends(frame(TEXT, b"a"), *([close(1000)] if number % 2 else []))
            pair.origin.sends(*([close_of_origin(1000)] if number % 3 else []))
            pair.client.transport.reset()
            pair.origin.transport.reset()
        clock.advance(0)
        assert len(alive) == 0
    finally:
        gc.enable()
    assert clock.getDelayedCalls() == []
