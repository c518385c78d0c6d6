"""
RFC 6455, section by section, through a real proxyd and from both sides.

tests/integration/test_websocket.py has one case of each kind; here are the whole ranges: every opcode with every
reserved bit, every length in every form, close codes up to each border, cuts at every octet.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, close, frame
from tests.support.proxy import Proxy
from tests.support.websocket import UPGRADE, Pair, WebSocket, pair, switching
from tests.support.wire import Origin, Wire

SIDES = ["client", "origin"]
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


class Site:
    """A proxy and an origin server."""

    def __init__(self, folder: Path) -> None:
        self.origin = Origin()
        target = f"http://127.0.0.1:{self.origin.port}"
        self.proxy = Proxy(
            folder, {"rules": [{"name": "all", "pattern": "^/", "target": target}], "log": {"access": None}}
        )
        self._wires: list[Wire] = []

    def close(self) -> None:
        text = self.proxy.stop()
        self.origin.close()
        assert "Traceback" not in text, text

    def end(self) -> None:
        for wire in self._wires:
            wire.close()
        self._wires.clear()
        self.origin.end_all()

    def catch_up(self) -> None:
        """Wait until proxyd has read all that was sent so far: who came later is served."""
        with self.proxy.connect() as other:
            other.request("OPTIONS", "*")
            other.read_message()

    def open(self, *fields: str) -> Pair:
        """
        Open a WebSocket.

        @param fields: of extensions, which the origin server agrees to.
        """
        client = self.proxy.connect()
        self._wires.append(client)
        client.request("GET", "/", *UPGRADE, *fields)
        server = self.origin.accept()
        server.send(switching(server.read_head(), *fields))
        assert client.read_head().status == 101
        return pair(client, server)


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The one proxy of this module."""
    site = Site(tmp_path_factory.mktemp("frames"))
    yield site
    site.close()


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The same; connections end with the test."""
    yield shared_site
    shared_site.end()


class Bad(NamedTuple):
    """
    What a peer must not send.

    @ivar before: what it sends before, and the other side gets.
    @ivar bad: a frame, of arguments for L{frame} without a mask.
    @ivar wrong_mask: masked by a server, or not by a client.
    """

    section: str
    name: str
    bad: dict[str, object]
    before: tuple[dict[str, object], ...] = ()
    wrong_mask: bool = False
    deflated: bool = False


def _bad() -> Iterator[Bad]:
    opened = ({"opcode": TEXT, "payload": b"a", "fin": False},)
    for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        for rsv in range(1, 8):
            before = opened if opcode == CONTINUATION else ()
            yield Bad("5.2", f"opcode {opcode} with reserved bits {rsv}", {"opcode": opcode, "rsv": rsv}, before)
        if opcode != CONTINUATION:
            for payload in (b"", b"a"):
                bad = {"opcode": opcode, "payload": payload if opcode != CLOSE or not payload else b"\x03\xe8"}
                yield Bad("5.1", f"opcode {opcode} masked wrongly, {len(payload)} octets", bad, wrong_mask=True)
    yield Bad("5.1", "a continuation masked wrongly", {"opcode": CONTINUATION}, opened, True)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for fin in (True, False):
            yield Bad("5.2", f"opcode {opcode}, fin {fin}", {"opcode": opcode, "fin": fin})
            yield Bad("5.2", f"opcode {opcode} inside a message, fin {fin}", {"opcode": opcode, "fin": fin}, opened)
    for size, form in [
        *((size, 2) for size in (0, 1, 2, 64, 124, 125)),
        *((size, 8) for size in (0, 1, 125, 126, 127, 256, 65534, 65535)),
    ]:
        for opcode in (TEXT, BINARY):
            yield Bad(
                "5.2",
                f"opcode {opcode}: {size} in {form} octets",
                {"opcode": opcode, "payload": b"a" * size, "length_size": form},
            )
    for opcode in (CLOSE, PING, PONG):
        for before in ((), opened):
            where = "inside a message" if before else "between messages"
            yield Bad("5.4", f"control frame {opcode} in fragments {where}", {"opcode": opcode, "fin": False}, before)
            for size, form in ((126, 2), (65535, 2), (65536, 8), (0, 2), (125, 2), (125, 8), (0, 8)):
                yield Bad(
                    "5.5",
                    f"control frame {opcode}: {size} in {form} octets {where}",
                    {
                        "opcode": opcode,
                        "payload": b"\x03\xe8" + b"a" * (size - 2) if size else b"",
                        "length_size": form,
                    },
                    before,
                )
    for fin in (True, False):
        bad = {"opcode": CONTINUATION, "payload": b"a", "fin": fin}
        yield Bad("5.4", f"a continuation of nothing, fin {fin}", bad)
        yield Bad("5.4", f"a continuation behind a message, fin {fin}", bad, ({"opcode": TEXT, "payload": b"a"},))
        yield Bad(
            "5.4",
            f"a continuation behind fragments, fin {fin}",
            bad,
            (*opened, {"opcode": CONTINUATION, "payload": b"b"}),
        )
        yield Bad("5.4", f"a continuation behind a ping, fin {fin}", bad, ({"opcode": PING, "payload": b"a"},))
        for opcode in (TEXT, BINARY):
            bad_start = {"opcode": opcode, "payload": b"b", "fin": fin}
            yield Bad("5.4", f"opcode {opcode} inside a message, fin {fin}", bad_start, opened)
            yield Bad(
                "5.4",
                f"opcode {opcode} behind an empty fragment, fin {fin}",
                bad_start,
                ({"opcode": BINARY, "fin": False},),
            )
    for code in (0, 1, 100, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1100, 1999, 2000, 2999, 5000, 9999, 32768, 65535):
        yield Bad("7.4", f"close code {code}", {"opcode": CLOSE, "payload": code.to_bytes(2, "big")})
        yield Bad(
            "7.4", f"close code {code} with a reason", {"opcode": CLOSE, "payload": code.to_bytes(2, "big") + b"a"}
        )
    for octet in (b"\x00", b"\x03", b"\xff"):
        yield Bad("5.5.1", f"a Close of the octet {octet!r}", {"opcode": CLOSE, "payload": octet})
    for name, reason in [
        ("a lone continuation", b"\x80"),
        ("overlong slash", b"\xc0\xaf"),
        ("overlong NUL", b"\xc0\x80"),
        ("overlong of three", b"\xe0\x80\xaf"),
        ("overlong of four", b"\xf0\x80\x80\xaf"),
        ("a low surrogate", b"\xed\xb0\x80"),
        ("a high surrogate", b"\xed\xa0\x80"),
        ("over U+10FFFF", b"\xf4\x90\x80\x80"),
        ("five octets", b"\xf8\x88\x80\x80\x80"),
        ("0xff", b"\xff"),
        ("0xfe", b"\xfe"),
        ("truncated two", b"a\xc3"),
        ("truncated three", b"a\xe2\x82"),
        ("truncated four", b"a\xf0\x9f\x98"),
        ("Latin-1", b"\xe9t\xe9"),
        ("bad at the end", b"a" * 122 + b"\xff"),
    ]:
        yield Bad("8.1", f"a reason with {name}", {"opcode": CLOSE, "payload": b"\x03\xe8" + reason})
    for opcode, rsv in [
        (CONTINUATION, 4),
        (PING, 4),
        (PONG, 4),
        (CLOSE, 4),
        (TEXT, 2),
        (TEXT, 1),
        (TEXT, 3),
        (TEXT, 5),
        (BINARY, 6),
        (BINARY, 7),
    ]:
        yield Bad(
            "9.1",
            f"deflate: opcode {opcode} with reserved bits {rsv}",
            {"opcode": opcode, "rsv": rsv},
            opened if opcode == CONTINUATION else (),
            deflated=True,
        )


BAD = list(_bad())


def _octets(peer: WebSocket, arguments: dict[str, object], wrong_mask: bool = False) -> bytes:
    mask = peer.mask
    if wrong_mask:
        mask = MASK if mask is None else None
    return frame(**arguments, mask=mask)  # type: ignore[arg-type]


def _fails(site: Site, side: str, bad: Bad, *, octet_by_octet: bool) -> None:
    one, other = site.open(*((DEFLATE,) if bad.deflated else ())).seen_from(side)
    before = b"".join(_octets(one, arguments) for arguments in bad.before)
    octets = before + _octets(one, bad.bad, bad.wrong_mask)
    behind = one.frame(TEXT, b"never")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if octet_by_octet:
            for octet in octets:
                one.wire.send(bytes((octet,)))
                site.catch_up()
        else:
            one.wire.send(octets + behind)
    # What came before it has gone on, octet for octet; then comes the Close, and nothing else.
    assert other.wire.read(len(before)) == before
    other.gets_close(1011)
    one.gets_close(1002)
    other.closes(1011)
    if other.mask is not None:
        other.wire.assert_ended()
    with contextlib.suppress(ConnectionResetError):
        one.wire.assert_ended()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.section} {bad.name}")
def test_violation(site: Site, side: str, bad: Bad) -> None:
    """Who breaks the framing is failed with 1002 (section 7.1.7), the other side told 1011; nothing of it passes."""
    _fails(site, side, bad, octet_by_octet=False)


@pytest.mark.soak
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "bad",
    [bad for bad in BAD if len(bytes(bad.bad.get("payload", b""))) < 200],  # type: ignore[arg-type, call-overload]
    ids=lambda bad: f"{bad.section} {bad.name}",
)
def test_violation_octet_by_octet(site: Site, side: str, bad: Bad) -> None:
    """The same when every octet comes alone: as soon as a frame is wrong, or when it is whole."""
    _fails(site, side, bad, octet_by_octet=True)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, (1 << 63) + 5])
def test_top_bit(site: Site, side: str, size: int) -> None:
    """The most significant bit of a length must be 0 (section 5.2); the header is enough."""
    one, other = site.open().seen_from(side)
    bit = 0x80 if one.mask else 0
    one.wire.send(bytes((0x80 | BINARY, bit | 127)) + size.to_bytes(8, "big") + (one.mask or b""))
    one.gets_close(1002)
    other.gets_close(1011)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [(1 << 63) - 1, 1 << 32, (1 << 32) - 1, 1 << 31])
def test_large_lengths(site: Site, side: str, size: int) -> None:
    """Every length of 63 bits may be said (section 5.2), and its frame goes on as it comes: nothing is kept."""
    one, other = site.open().seen_from(side)
    bit = 0x80 if one.mask else 0
    octets = bytes((0x80 | BINARY, bit | 127)) + size.to_bytes(8, "big") + (one.mask or b"") + b"begin"
    one.wire.send(octets)
    assert other.wire.read(len(octets)) == octets


def _good(peer: WebSocket) -> list[tuple[str, bytes]]:
    """Streams that are in order, with the sections that allow them."""
    made = peer.frame
    whole = [
        made(opcode, b"a" * size)
        for opcode in (TEXT, BINARY)
        for size in (0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65535, 65536)
    ]
    controls = [made(opcode, b"p" * size) for opcode in (PING, PONG) for size in (0, 1, 124, 125)]
    fragments = []
    for opcode in (TEXT, BINARY):
        for pieces in (
            (b"a", b"b"),
            (b"", b""),
            (b"a", b"", b"b"),
            (b"", b"a"),
            (b"a" * 126, b"b" * 65536, b"c"),
            (b"\xe2", b"\x82", b"\xac"),
        ):
            for number, piece in enumerate(pieces):
                last = number == len(pieces) - 1
                fragments.append(made(CONTINUATION if number else opcode, piece, fin=last))
                if not last:
                    fragments += [made(PING, b"between"), made(PONG, b"")]
    masks = [frame(TEXT, b"hello", mask=mask) for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1", b"\r\n\r\n")]
    return [
        ("5.2, 5.6: every form of length", b"".join(whole)),
        ("5.5.2, 5.5.3: pings and pongs, asked for or not", b"".join(controls)),
        ("5.4: fragments with control frames between", b"".join(fragments)),
        ("5.3: any mask", b"".join(masks) if peer.mask else b""),
        (
            "8.1: UTF-8 is the ends' own",
            made(TEXT, b"\xff\xfe") + made(TEXT, b"\xed\xa0\x80", fin=False) + made(CONTINUATION),
        ),
        (
            "10.8: octets that look like HTTP",
            made(TEXT, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") + made(BINARY, b"HTTP/1.1 200 OK\r\n\r\n"),
        ),
    ]


@pytest.mark.parametrize("side", SIDES)
def test_good_streams(site: Site, side: str) -> None:
    """What RFC 6455 allows goes over octet for octet: nothing merged, split, re-masked, answered or lost."""
    one, other = site.open().seen_from(side)
    for name, octets in _good(one):
        one.wire.send(octets)
        assert other.wire.read(len(octets)) == octets, name
    one.wire.assert_silent()


@pytest.mark.parametrize("side", SIDES)
def test_good_streams_cut_anywhere(site: Site, side: str) -> None:
    """A stream that is cut at any octet is the same stream."""
    one, other = site.open().seen_from(side)
    octets = (
        one.frame(TEXT, b"hello")
        + one.frame(PING, b"x")
        + one.frame(BINARY, b"a", fin=False)
        + one.frame(PONG)
        + one.frame(CONTINUATION, b"b" * 130)
    )
    for place in range(1, len(octets)):
        one.wire.send(octets[:place])
        site.catch_up()
        one.wire.send(octets[place:])
        assert other.wire.read(len(octets)) == octets


@pytest.mark.parametrize("side", SIDES)
def test_control_frames_wait_until_they_are_whole(site: Site, side: str) -> None:
    """A Close is judged before it goes on: half of one, or one that turns out bad, never reaches the other side."""
    one, other = site.open().seen_from(side)
    octets = close(1000, b"bye", mask=one.mask)
    for octet in octets[:-1]:
        one.wire.send(bytes((octet,)))
        site.catch_up()
        other.wire.assert_silent()
    one.wire.send(octets[-1:])
    other.gets_close(1000, b"bye")


@pytest.mark.parametrize("side", SIDES)
def test_pings_are_for_the_other_end(site: Site, side: str) -> None:
    """Proxyd does not answer them itself: a pong says that the other end is there (section 5.5.2)."""
    one, other = site.open().seen_from(side)
    for payload in (b"", b"1", b"2" * 125):
        one.sends(PING, payload)
        other.gets(PING, payload)
        site.catch_up()
        one.wire.assert_silent()
        other.sends(PONG, payload)
        one.gets(PONG, payload)


VALID_CODES = [
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    1014,
    3000,
    3001,
    3500,
    3999,
    4000,
    4500,
    4999,
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("code", VALID_CODES)
def test_close_codes(site: Site, side: str, code: int) -> None:
    """Each code that may be sent arrives, with any reason that is UTF-8 (sections 5.5.1, 7.4), and ends both sides."""
    for reason in (
        b"",
        b"a" * 123,
        "\u20ac\U0001f600".encode(),
        b"\0",
        b"\xef\xbb\xbf",
        "\U0010ffff".encode(),
        b"\x7f",
    ):
        peers = site.open()
        one, other = peers.seen_from(side)
        one.closes(code, reason)
        other.gets_close(code, reason)
        other.closes(code)
        one.gets_close(code)
        peers.client.is_over()
        peers.origin.is_over()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", [CONTINUATION, TEXT, BINARY, PING, PONG, CLOSE, 0x3])
def test_nothing_after_a_close(site: Site, side: str, kind: int) -> None:
    """No frame behind a Close goes on, whatever it is (section 5.5.1), and none is held against its sender."""
    one, other = site.open().seen_from(side)
    one.wire.send(close(1000, mask=one.mask) + one.frame(kind, b"\x03\xe8"))
    other.gets_close(1000)
    one.sends(kind, b"\x03\xe8")
    site.catch_up()
    other.wire.assert_silent()
    other.closes(1000)
    one.gets_close(1000)


@pytest.mark.parametrize("side", SIDES)
def test_close_within_a_message(site: Site, side: str) -> None:
    """A Close may come between the fragments of a message (section 5.4)."""
    one, other = site.open().seen_from(side)
    one.sends(TEXT, b"a", fin=False)
    one.closes(1001)
    other.gets(TEXT, b"a", fin=False)
    other.gets_close(1001)


def test_masks_of_our_own(site: Site) -> None:
    """Frames that proxyd makes are masked to origin servers, never to clients, each with a new mask (section 5.3)."""
    masks = set()
    for _ in range(8):
        peers = site.open()
        peers.client.sends(0x3)
        head = peers.origin.wire.read(8)
        assert head[:2] == b"\x88\x82"
        masks.add(head[2:6])
        assert bytes(octet ^ mask for octet, mask in zip(head[6:], head[2:4], strict=True)) == b"\x03\xf3"
        assert peers.client.wire.read(4) == b"\x88\x02\x03\xea"
    assert len(masks) == 8 and b"\0\0\0\0" not in masks


@pytest.mark.parametrize("side", SIDES)
def test_loss_at_every_octet(site: Site, side: str) -> None:
    """A peer that is lost never looks like one that has closed (section 7.1.5: 1006), wherever its stream ends."""
    sample = pair(Wire.__new__(Wire), Wire.__new__(Wire)).seen_from(side)[0]
    parts = [
        sample.frame(TEXT, b"hello"),
        sample.frame(BINARY, b"x" * 5, fin=False),
        sample.frame(PING, b"p"),
        sample.frame(CONTINUATION, b"y" * 5),
    ]
    octets = b"".join(parts)
    ends = {0, *itertools.accumulate(len(part) for part in parts)}
    ping = range(len(parts[0] + parts[1]), len(parts[0] + parts[1] + parts[2]))
    starts = [0, len(parts[0]), len(parts[0] + parts[1] + parts[2])]
    for size in range(len(octets) + 1):
        one, other = site.open().seen_from(side)
        one.wire.send(octets[:size])
        one.wire.close()
        data = b""
        was_cut = False
        try:
            while not data.endswith(b"\x03\xf3") and len(data) <= size + 8 and (more := other.wire.read_some()):
                data += more
                if other.mask is None and len(data) > 7 and data[-8:-6] == b"\x88\x82":
                    break
        except ConnectionResetError:
            was_cut = True
        begun = any(start < size < start + 2 for start in starts)
        if size in ends or size in ping or begun:
            gone = max(end for end in ends if end <= size)
            assert data[:gone] == octets[:gone] and data[gone : gone + 1] == b"\x88" and not was_cut, (size, data)
        else:
            assert was_cut and octets.startswith(data), (size, data)
        other.wire.close()


def test_table() -> None:
    """There are many cases, and each has a name of its own."""
    assert len(BAD) >= 200
    assert len({(bad.section, bad.name) for bad in BAD}) == len(BAD)
