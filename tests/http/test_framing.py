"""Bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.http.fields import Fields
from proxyd.http.framing import (
    MAX_EXTENSIONS,
    MAX_SIZE_LINE,
    MAX_TRAILERS,
    BadChunk,
    BodyReader,
    BodyTruncated,
    ChunkedReader,
    LengthReader,
    UntilCloseReader,
    chunk,
    last_chunk,
    request_body,
    response_body,
)
from proxyd.http.request import parse_request
from proxyd.http.response import parse_response


def read(reader: BodyReader, octets: bytes, cuts: tuple[int, ...] = ()) -> tuple[bytes, bytes, Fields, str]:
    """Feed a reader in pieces: the body, what follows it, the trailers, and how it went."""
    bounds = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    body = rest = b""
    for start, end in zip(bounds, bounds[1:], strict=False):
        piece = octets[start:end]
        if reader.finished:
            rest += piece
            continue
        try:
            body += reader.receive(piece)
        except BadChunk:
            return b"", b"", [], "bad"
        rest += reader.rest
    return body, rest, reader.trailers, "finished" if reader.finished else "open"


def each(octets: bytes) -> tuple[int, ...]:
    """Cuts between any two octets."""
    return tuple(range(len(octets)))


# A body of known length


@pytest.mark.parametrize(
    ("length", "octets", "outcome"),
    [
        # RFC 9112 section 6.2
        (3, b"", (b"", b"", [], "open")),
        (3, b"ab", (b"ab", b"", [], "open")),
        (3, b"abc", (b"abc", b"", [], "finished")),
        (3, b"abcGET", (b"abc", b"GET", [], "finished")),
        (0, b"GET", (b"", b"GET", [], "finished")),
    ],
)
def test_length(length: int, octets: bytes, outcome: tuple[bytes, bytes, Fields, str]) -> None:
    """It ends after so many octets; what follows is the next message's."""
    assert read(LengthReader(length), octets) == outcome
    assert read(LengthReader(length), octets, each(octets)) == outcome


def test_octets_of_known_length_are_not_copied() -> None:
    """What is body as a whole is handed on as it is."""
    data = bytes(100)
    reader = LengthReader(200)
    assert reader.receive(data) is data
    assert reader.receive(data) is data
    assert reader.finished


# Until the end of the connection


def test_until_close() -> None:
    """Only the connection's end is the body's (RFC 9112 section 6.3)."""
    reader = UntilCloseReader()
    assert reader.receive(b"a") == b"a"
    assert not reader.finished
    reader.end_of_input()
    assert reader.finished
    assert reader.rest == b""


@pytest.mark.parametrize("reader", [LengthReader(1), ChunkedReader()])
def test_truncated(reader: BodyReader) -> None:
    """A body that ends early does not look complete (RFC 9112 section 8)."""
    with pytest.raises(BodyTruncated):
        reader.end_of_input()


@pytest.mark.parametrize(
    ("reader", "octets"), [(LengthReader(1), b"a"), (ChunkedReader(), b"0\r\n\r\n"), (UntilCloseReader(), b"")]
)
def test_nothing_comes_after_the_end(reader: BodyReader, octets: bytes) -> None:
    """The end of input is fine then; more octets are not for this reader."""
    reader.receive(octets)
    reader.end_of_input()
    with pytest.raises(RuntimeError):
        reader.receive(b"a")


# Chunks


@pytest.mark.parametrize(
    ("octets", "outcome"),
    [
        # RFC 9112 section 7.1
        (b"0\r\n\r\n", (b"", b"", [], "finished")),
        (b"3\r\nabc\r\n0\r\n\r\nGET", (b"abc", b"GET", [], "finished")),
        (b"A\r\n0123456789\r\n0a\r\nabcdefghij\r\n000\r\n\r\n", (b"0123456789abcdefghij", b"", [], "finished")),
        (b"2\r\n\r\n\r\n0\r\n\r\n", (b"\r\n", b"", [], "finished")),
        (b"3\r\nabc", (b"abc", b"", [], "open")),
        (b"3\r\nabc\r\n", (b"abc", b"", [], "open")),
        (b"3\r\nabc\r\n0\r\n", (b"abc", b"", [], "open")),
        # Extensions are dropped (section 7.1.1).
        (b"1;a\r\nx\r\n0;b=\"c;\xe9\"\r\n\r\n", (b"x", b"", [], "finished")),
        (b"1 ; a = b\r\nx\r\n0\t;\r\n\r\n", (b"x", b"", [], "finished")),
        # Trailers (section 7.1.2)
        (b"0\r\nA: b\r\n\r\nGET", (b"", b"GET", [(b"A", b"b")], "finished")),
        (b"0\r\nA:\r\nb: \tc d \r\n\r\n", (b"", b"", [(b"A", b""), (b"b", b"c d")], "finished")),
    ],
)
def test_chunks(octets: bytes, outcome: tuple[bytes, bytes, Fields, str]) -> None:
    """The data of the chunks is the body; it does not matter where the octets are cut."""
    assert read(ChunkedReader(), octets) == outcome
    assert read(ChunkedReader(), octets, each(octets)) == outcome


@pytest.mark.parametrize(
    "octets",
    [
        # Sizes
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\t\r\na\r\n",
        b"1,\r\n",
        b"1a;\0\r\n",
        b"1 a\r\n",
        b"11111111111111111\r\n",
        b"\xd9\xa1\r\n",
        # Line breaks (RFC 9112 section 2.2)
        b"1\na\r\n0\r\n\r\n",
        b"1\n\r\n",
        b"1\ra\r\n",
        b"1\r\r\n",
        b"1;a\nb\r\n",
        b"1;a\rb\r\n",
        b"0\n\r\n",
        # Data of another length
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na\r0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        # Trailers (RFC 9112 section 5)
        b"0\r\nA\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\n: b\r\n\r\n",
        b"0\r\nA: b\nC: d\r\n\r\n",
        b"0\r\nA: b\rC: d\r\n\r\n",
        b"0\r\nA: \0\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_chunks_that_are_none(octets: bytes) -> None:
    """What one recipient forgives moves the end for the next (RFC 9112 section 11.2)."""
    octets = octets if b"\r\n\r\n" in octets else octets + b"\r\n" * 2
    assert read(ChunkedReader(), octets)[3] == "bad"
    assert read(ChunkedReader(), octets, each(octets))[3] == "bad"


@pytest.mark.parametrize(
    ("octets", "how"),
    [
        (b"1;" + b"a" * (MAX_SIZE_LINE - 2) + b"\r\nx\r\n0\r\n\r\n", "finished"),
        (b"1;" + b"a" * (MAX_SIZE_LINE - 1) + b"\r\nx\r\n0\r\n\r\n", "bad"),
        (b"1;" + b"a" * (MAX_SIZE_LINE - 1), "open"),
        (b"1;" + b"a" * MAX_SIZE_LINE, "bad"),
        (b"0" * (MAX_SIZE_LINE + 2), "bad"),
        (b"1;23456\r\nx\r\n" * (MAX_EXTENSIONS // 6) + b"0\r\n\r\n", "finished"),
        (b"1;23456\r\nx\r\n" * (MAX_EXTENSIONS // 6 + 1) + b"0\r\n\r\n", "bad"),
        (b"0\r\nA:" + b"a" * (MAX_TRAILERS - 4) + b"\r\n\r\n", "finished"),
        (b"0\r\nA:" + b"a" * (MAX_TRAILERS - 1) + b"\r\n\r\n", "bad"),
        (b"0\r\nA:" + b"a" * (MAX_TRAILERS + 4), "bad"),
    ],
)
def test_limits(octets: bytes, how: str) -> None:
    """Size lines, extensions and trailers do not grow without end."""
    assert read(ChunkedReader(), octets)[3] == how
    assert read(ChunkedReader(), octets, tuple(range(0, len(octets), 97)))[3] == how


PIECES = [b"0", b"1", b"a", b";", b" ", b"\r\n", b"\r", b"\n", b"1\r\nx\r\n", b"2;y\r\nzz\r\n", b"A: b\r\n", b"0\r\n"]
CUTS = st.lists(st.integers(0, 60), max_size=5).map(tuple)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), CUTS)
def test_chunking_does_not_matter(octets: bytes, cuts: tuple[int, ...]) -> None:
    """Good or bad, a body reads alike however its octets arrive."""
    whole = read(ChunkedReader(max_line=4, max_trailers=8), octets)
    assert read(ChunkedReader(max_line=4, max_trailers=8), octets, cuts) == whole


@given(st.lists(st.binary(max_size=20)), st.sampled_from([[], [(b"A", b"b"), (b"C", b"")]]), st.binary(), CUTS)
def test_reading_undoes_writing(pieces: list[bytes], trailers: Fields, rest: bytes, cuts: tuple[int, ...]) -> None:
    """What is sent in chunks arrives whole, and nothing that follows is lost."""
    octets = b"".join([*map(chunk, pieces), last_chunk(trailers), rest])
    assert read(ChunkedReader(), octets, cuts) == (b"".join(pieces), rest, trailers, "finished")


def test_an_empty_piece_is_no_chunk() -> None:
    """An empty chunk would be the last one."""
    assert chunk(b"") == b""
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert last_chunk([]) == b"0\r\n\r\n"


# Which reader


@pytest.mark.parametrize(
    ("line", "reader"),
    [
        (b"", None),
        (b"Content-Length: 0\r\n", None),
        (b"Content-Length: 1\r\n", LengthReader),
        (b"Transfer-Encoding: chunked\r\n", ChunkedReader),
    ],
)
def test_request_body(line: bytes, reader: type[BodyReader] | None) -> None:
    """A request without a length has no body (RFC 9112 section 6.3)."""
    found = request_body(parse_request(b"POST / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\n"))
    assert found is None if reader is None else isinstance(found, reader)


@pytest.mark.parametrize(
    ("method", "status", "line", "reader"),
    [
        # RFC 9112 section 6.3
        (b"GET", b"200", b"", UntilCloseReader),
        (b"GET", b"200", b"Content-Length: 0\r\n", None),
        (b"GET", b"200", b"Content-Length: 1\r\n", LengthReader),
        (b"GET", b"500", b"Transfer-Encoding: chunked\r\n", ChunkedReader),
        (b"HEAD", b"200", b"", None),
        (b"HEAD", b"200", b"Content-Length: 1\r\n", None),
        (b"HEAD", b"200", b"Transfer-Encoding: chunked\r\n", None),
        (b"GET", b"103", b"Content-Length: 1\r\n", None),
        (b"GET", b"204", b"Content-Length: 1\r\n", None),
        (b"GET", b"304", b"Transfer-Encoding: chunked\r\n", None),
    ],
)
def test_response_body(method: bytes, status: bytes, line: bytes, reader: type[BodyReader] | None) -> None:
    """Method and status decide before the fields do."""
    found = response_body(parse_response(b"HTTP/1.1 " + status + b" x\r\n" + line + b"\r\n", method))
    assert found is None if reader is None else isinstance(found, reader)
