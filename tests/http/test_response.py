"""L{proxyd.http.response}: what is read from heads, and what is refused lest two servers read it differently."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import proxyd.http.head
import proxyd.http.response
from proxyd.errors import ResponseMalformed
from proxyd.http.fields import Fields, serialize
from proxyd.http.response import ResponseHead, parse_response


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    """Parse a response of these field lines."""
    return parse_response(b"\r\n".join([start, *lines, b"", b""]), method)


def test_a_response() -> None:
    """Fields keep order, spelling and duplicates; the reason is kept as it is."""
    head = response(
        b"Set-Cookie: a", b"server:x ", b"set-cookie: b", b"Content-Length: 3", start=b"HTTP/1.1 404 Nicht \xe9\tda"
    )
    assert (head.minor, head.status, head.reason) == (1, 404, b"Nicht \xe9\tda")
    assert head.fields == [
        (b"Set-Cookie", b"a"),
        (b"server", b"x"),
        (b"set-cookie", b"b"),
        (b"Content-Length", b"3"),
    ]
    assert (head.connection, head.length, head.chunked, head.keep_alive) == ((), 3, False, True)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"HTTP/1.1 200", b""),
        (b"HTTP/1.1 200 ", b""),
        (b"HTTP/1.1 200  O K ", b" O K "),
        (b"HTTP/1.0 999 x", b"x"),
    ],
)
def test_status_lines(start: bytes, reason: bytes) -> None:
    """A reason may be missing, and with it the space before (RFC 9112 section 4)."""
    assert response(start=start).reason == reason


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/2 200",
        b"RTSP/1.0 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\x1bK",
        b"HTTP/1.1 200 O\nK",
        b"HTTP/1.1 200 O\rK",
        b"SSH-2.0-OpenSSH",
    ],
)
def test_status_lines_that_are_none(start: bytes) -> None:
    """Another protocol, another version, no status, a control in the reason."""
    with pytest.raises(ResponseMalformed):
        response(start=start)


@pytest.mark.parametrize(
    ("version", "lines", "method", "status", "keep_alive"),
    [
        # RFC 9112 section 9.3, and 6.3: what only the end delimits leaves no connection.
        (b"1.1", [], b"GET", b"200", False),
        (b"1.1", [], b"HEAD", b"200", True),
        (b"1.1", [], b"GET", b"204", True),
        (b"1.1", [], b"GET", b"304", True),
        (b"1.1", [], b"GET", b"100", True),
        (b"1.1", [b"Content-Length: 0"], b"GET", b"200", True),
        (b"1.1", [b"Transfer-Encoding: chunked"], b"GET", b"200", True),
        (b"1.1", [b"Content-Length: 1", b"Connection: close"], b"GET", b"200", False),
        (b"1.1", [b"Connection: close"], b"HEAD", b"200", False),
        (b"1.0", [b"Content-Length: 1"], b"GET", b"200", False),
        (b"1.0", [b"Content-Length: 1", b"Connection: Keep-Alive"], b"GET", b"200", True),
        (b"1.0", [b"Connection: keep-alive"], b"GET", b"200", False),
    ],
)
def test_response_persistence(
    version: bytes, lines: list[bytes], method: bytes, status: bytes, keep_alive: bool
) -> None:
    """A connection is used again only when the end of the body is known and both want it."""
    assert response(*lines, start=b"HTTP/" + version + b" " + status, method=method).keep_alive is keep_alive


@pytest.mark.parametrize("status", [b"100", b"101", b"103", b"204"])
def test_a_length_where_no_body_can_be(status: bytes) -> None:
    """It must not be there (RFC 9110 section 8.6) and misleads those who believe it."""
    lines = [b"Connection: upgrade", b"Upgrade: x"]
    head = response(*lines, b"Content-Length: 5", start=b"HTTP/1.1 " + status)
    assert (head.length, [name for name, _ in head.fields]) == (None, [b"Connection", b"Upgrade"])


def test_higher_minor_versions() -> None:
    """They are read as HTTP/1.1, the highest that we know, and told of as they came (RFC 9110 section 2.5)."""
    answer = response(b"Transfer-Encoding: chunked", start=b"HTTP/1.2 200 OK")
    assert (answer.minor, answer.status, answer.reason) == (2, 200, b"OK")
    assert answer.chunked and answer.keep_alive


PLAIN_FIELDS = st.tuples(
    st.sampled_from([b"X-A", b"x-a", b"Set-Cookie", b"Via", b"X-Long-Name_"]),
    st.from_regex(rb"([!-~\x80-\xff]([\t -~\x80-\xff]{0,8}[!-~\x80-\xff])?)?", fullmatch=True),
)


@given(st.lists(PLAIN_FIELDS))
def test_parsing_undoes_serializing(fields: Fields) -> None:
    """What is written reads as what it was."""
    lines = serialize(fields)
    assert parse_response(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", b"GET").fields == fields
    assert parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + lines + b"\r\n", b"GET").lines == (
        b"Content-Length: 1\r\n" + lines
    )


def test_the_length_of_a_body_that_is_not_sent() -> None:
    """With HEAD and 304 it says how long the body would be (RFC 9110 section 8.6)."""
    assert response(b"Content-Length: 5", method=b"HEAD").length == 5
    assert response(b"Content-Length: 5", start=b"HTTP/1.1 304 x").fields == [(b"Content-Length", b"5")]


def test_switching_protocols() -> None:
    """A 101 passes whole; what it switches to, whoever has asked for it finds out."""
    head = response(b"Upgrade: websocket", b"Connection: upgrade", b"Set-Cookie: a", start=b"HTTP/1.1 101 S")
    assert (head.status, len(head.fields), head.connection) == (101, 3, (b"upgrade",))


def test_fields_of_requests_mean_nothing_in_responses() -> None:
    """Two hosts, an expectation, a Proxy: the client may have them."""
    lines = [b"Host: a", b"Host: b", b"Expect: x", b"Proxy: p", b"X_Forwarded_For: 1", b"Upgrade: h2c"]
    assert len(response(*lines).fields) == len(lines)


ODD = [b"X-Odd:"]
"""With such a line a head is llhttp's to read."""

SPLITTING = [
    ("CL.TE", [b"Content-Length: 6", b"Transfer-Encoding: chunked"]),
    ("TE.CL", [b"Transfer-Encoding: chunked", b"Content-Length: 6"]),
    ("CL.CL", [b"Content-Length: 6", b"Content-Length: 7"]),
    ("CL list", [b"Content-Length: 6, 7"]),
    ("CL sign", [b"Content-Length: +6"]),
    ("CL zeros", [b"Content-Length: 006"]),
    ("CL 2^63", [b"Content-Length: 9223372036854775808"]),
    ("TE unknown", [b"Transfer-Encoding: gzip"]),
    ("TE list", [b"Transfer-Encoding: gzip, chunked"]),
    ("TE identity", [b"Transfer-Encoding: identity"]),
    ("TE.TE", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"]),
    ("space before colon", [b"Content-Length : 6"]),
    ("folded", [b"X: y", b" z"]),
    ("bare LF", [b"X: y\nContent-Length: 6"]),
    ("bare CR", [b"X: y\rContent-Length: 6"]),
    ("NUL", [b"X: \0"]),
    ("two heads", [b"", b"HTTP/1.1 200 OK"]),
]


@pytest.mark.parametrize("lines", [pytest.param(lines, id=name) for name, lines in SPLITTING])
def test_response_splitting(lines: list[bytes]) -> None:
    """A response whose end is uncertain is no response, whatever its status."""
    for start in (b"HTTP/1.1 200 OK", b"HTTP/1.1 304 x"):
        for odd in ([], ODD):
            with pytest.raises(ResponseMalformed):
                response(*odd, *lines, start=start)


def test_response_chunks_in_1_0() -> None:
    """Such framing is faulty (RFC 9112 section 6.1)."""
    with pytest.raises(ResponseMalformed):
        response(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")


NAMES = st.sampled_from(
    [b"Content-Length", b"content-length", b"Connection", b"Keep-Alive", b"Date", b"DATE", b"X-A", b"Set-Cookie", b"Te",
     b"Close", b"Proxy-Connection", b"Proxy-Authenticate", b"Upgrade", b"Transfer-Encoding", b"x_a", b"Trailer", b""]
)  # fmt: skip
VALUES = st.sampled_from(
    [b"5", b"0", b"05", b"9" * 18, b"9" * 19, b"5, 5", b"keep-alive", b"Close", b"close, x-a", b"date", b"chunked",
     b"a b", b"a\tb", b"\xe9", b"", b" ", b"a\0b", b"a\rb", b"websocket"]
)  # fmt: skip
LINES = st.tuples(NAMES, st.sampled_from([b": ", b": ", b": ", b":", b":  ", b" : ", b":\t"]), VALUES, st.sampled_from(
    [b"\r\n", b"\r\n", b"\r\n", b" \r\n", b"\n", b"\r\n ", b"\t\r\n"]
)).map(b"".join)  # fmt: skip
STARTS = st.sampled_from(
    [b"HTTP/1.1 200 OK\r\n"] * 3
    + [b"HTTP/1.1 204 \r\n", b"HTTP/1.1 304 N\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 103 E\r\n", b"HTTP/1.1 200\r\n",
       b"HTTP/1.1 600 x\r\n", b"HTTP/1.1 200 a\0\r\n", b"HTTP/1.2 200 OK\r\n", b"HTTP/1.1 200 O\xe9 \tK\r\n"]
)  # fmt: skip


@given(STARTS, st.lists(LINES, max_size=6).map(b"".join), st.sampled_from([b"GET", b"HEAD"]))
@example(b"HTTP/1.1 200 OK\r\n", b"Keep-Alive: a\r\nContent-Length: 5\r\nkeep-alive: b\r\n", b"GET")
@example(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 5\r\nContent-Length: 5\r\n", b"GET")
@example(b"HTTP/1.1 200 OK\r\n", b"Connection: close\r\nDate: x\r\nKeep-Alive: a\r\nContent-Length: 5\r\n", b"GET")
@example(b"HTTP/1.1 200 OK\r\n", b"A-Keep-Alive: a\r\nKeep-Alive: a\r\nContent-Length: 5\r\n", b"GET")
@settings(max_examples=1500)
def test_plain_answers(start: bytes, lines: bytes, method: bytes) -> None:
    """What is read without llhttp reads the same with it."""
    octets = start + lines + b"\r\n"

    def read() -> list[object] | None:
        try:
            head = parse_response(octets, method)
        except ResponseMalformed:
            return None
        names = ("minor", "status", "reason", "bodiless", "connection", "length", "chunked", "dated", "keep_alive")
        return [head.fields, head.lines, *(getattr(head, name) for name in names)]

    plainly = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxyd.http.response, "_PLAIN", re.compile(rb"(?!)"))
        assert read() == plainly
        patch.setattr(proxyd.http.head, "_PLAIN_FIELD", re.compile(rb"(?!)"))
        assert read() == plainly


@pytest.mark.parametrize("name", [b"A", b"C", b"Content-Type", b"D", b"Date", b"K", b"Te-", b"Upgrades", b"Proxy"])
@pytest.mark.parametrize("end", [b"no field\r\n\r\n", b"A: a \r\n\r\n", b"Connection: upgrade\r\n\r\n"])
def test_long_answers_that_are_not_plain(name: bytes, end: bytes) -> None:
    """What is found out only at the end of a long head does not take the time of all ways to read it."""
    lines = (name + b": value\r\n") * 2000
    octets = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + lines + end
    try:
        head = parse_response(octets, b"GET")
    except ResponseMalformed:
        assert end.startswith(b"no field")
    else:
        assert len(head.fields) == 2002
