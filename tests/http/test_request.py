"""L{proxyd.http.request}: what is read from heads, and what is refused lest two servers read it differently."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import proxyd.http.head
import proxyd.http.request
from proxyd.errors import BadTarget, RequestError
from proxyd.http.authority import Authority
from proxyd.http.fields import Fields, serialize
from proxyd.http.head import MAX_LENGTH
from proxyd.http.request import METHODS, RequestHead, parse_request


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bool = True) -> RequestHead:
    """Parse a request of these field lines, after a Host unless it shall have none."""
    return parse_request(b"\r\n".join([start, *[b"Host: h"] * host, *lines, b"", b""]))


def test_a_request() -> None:
    """Fields keep order, spelling and duplicates; the white space around values goes."""
    head = parse_request(
        b"GET /a/../b?c HTTP/1.1\r\nhost: Example.com:8080\r\nX-A: 1\r\nx-a:2 \t\r\nX_B:\r\nX-C: \t \xe9 \x85\r\n\r\n"
    )
    assert (head.method, head.raw_target, head.minor) == (b"GET", b"/a/../b?c", 1)
    assert (head.target.path, head.target.query) == (b"/b", b"?c")
    assert head.fields == [
        (b"host", b"Example.com:8080"),
        (b"X-A", b"1"),
        (b"x-a", b"2"),
        (b"X_B", b""),
        (b"X-C", b"\xe9 \x85"),
    ]
    assert (head.host, head.host_value) == (Authority("Example.com", 8080), b"Example.com:8080")
    assert (head.connection, head.upgrade) == ((), ())
    assert (head.length, head.chunked, head.has_body) == (None, False, False)
    assert head.keep_alive
    assert not head.expects_continue


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods(method: bytes) -> None:
    """Every method that is said to be known is known to the parser, too."""
    assert request(start=method + b" / HTTP/1.1").method == method


@pytest.mark.parametrize(
    ("lines", "length", "chunked", "has_body"),
    [
        # RFC 9112 section 6.3
        ([], None, False, False),
        ([b"Content-Length: 0"], 0, False, False),
        ([b"Content-Length: 7 "], 7, False, True),
        ([b"content-length:%d" % MAX_LENGTH], MAX_LENGTH, False, True),
        ([b"Transfer-Encoding: chunked"], None, True, True),
        ([b"transfer-encoding: \tCHUNKED "], None, True, True),
    ],
)
def test_framing(lines: list[bytes], length: int | None, chunked: bool, has_body: bool) -> None:
    """A body is announced in one way or not there."""
    head = request(*lines, start=b"POST / HTTP/1.1")
    assert (head.length, head.chunked, head.has_body) == (length, chunked, has_body)


@pytest.mark.parametrize(
    ("version", "lines", "connection", "keep_alive"),
    [
        # RFC 9112 section 9.3
        (b"1.1", [], (), True),
        (b"1.1", [b"Connection: keep-alive"], (b"keep-alive",), True),
        (b"1.1", [b"Connection: Close"], (b"close",), False),
        (b"1.1", [b"Connection: X-A", b"Connection: , close"], (b"x-a", b"close"), False),
        (b"1.0", [], (), False),
        (b"1.0", [b"Connection: Keep-Alive"], (b"keep-alive",), True),
        (b"1.0", [b"Connection: keep-alive, close"], (b"keep-alive", b"close"), False),
    ],
)
def test_persistence(version: bytes, lines: list[bytes], connection: tuple[bytes, ...], keep_alive: bool) -> None:
    """The version decides unless Connection does."""
    head = request(*lines, start=b"GET / HTTP/" + version)
    assert (head.connection, head.keep_alive) == (connection, keep_alive)


@pytest.mark.parametrize(
    ("version", "value", "expects"),
    [
        # RFC 9110 section 10.1.1
        (b"1.1", b"100-continue", True),
        (b"1.1", b"100-Continue", True),
        (b"1.1", b"200-ok", False),
        (b"1.0", b"100-continue", False),
    ],
)
def test_expect(version: bytes, value: bytes, expects: bool) -> None:
    """Only a client of 1.1 can wait for a 100."""
    assert request(b"Expect: " + value, start=b"PUT / HTTP/" + version).expects_continue is expects


def test_upgrade() -> None:
    """The parser stops at any Upgrade; all lines of it count."""
    head = request(b"Connection: keep-alive, Upgrade", b"Upgrade: h2c, WebSocket", b"Upgrade: x/1", b"X-Last: 1")
    assert (head.connection, head.upgrade) == ((b"keep-alive", b"upgrade"), (b"h2c", b"websocket", b"x/1"))
    assert head.fields[-1] == (b"X-Last", b"1")


@pytest.mark.parametrize(
    ("octets", "host", "host_value"),
    [
        # RFC 9112 section 3.2.2: the target's host counts, whatever Host says.
        (b"GET http://a:81/x HTTP/1.1\r\nX: 1\r\nHost: b\r\n\r\n", Authority("a", 81), b"a:81"),
        (b"GET http://a/x HTTP/1.0\r\nX: 1\r\n\r\n", Authority("a"), b"a"),
    ],
)
def test_absolute_form_replaces_host(octets: bytes, host: Authority, host_value: bytes) -> None:
    """There is one Host, and it is the host of the target."""
    head = parse_request(octets)
    assert (head.host, head.host_value) == (host, host_value)
    assert head.fields == [(b"Host", host_value), (b"X", b"1")]


def test_a_client_of_1_0_may_name_no_host() -> None:
    """Host came with HTTP/1.1."""
    head = request(start=b"GET / HTTP/1.0", host=False)
    assert (head.host, head.host_value, head.fields) == (None, b"", [])


def test_fields_that_only_attack() -> None:
    """Proxy and look-alikes of the fields that proxyd decides on are gone (httpoxy; CGI reads _ for -)."""
    head = request(
        b"PROXY: evil", b"X_Forwarded_For: 1", b"Content_Length: 5", b"transfer-encoding_: chunked", b"X_Mine: _"
    )
    assert head.fields == [(b"Host", b"h"), (b"transfer-encoding_", b"chunked"), (b"X_Mine", b"_")]
    assert not head.has_body


ODD = [b"X-Odd:"]
"""With such a line a head is llhttp's to read."""

SMUGGLING = [
    # Two framings (RFC 9112 section 6.1 and 6.3)
    ("CL.TE", [b"Content-Length: 6", b"Transfer-Encoding: chunked"]),
    ("TE.CL", [b"Transfer-Encoding: chunked", b"Content-Length: 6"]),
    ("CL.CL", [b"Content-Length: 6", b"Content-Length: 7"]),
    ("CL.CL alike", [b"Content-Length: 6", b"content-length: 6"]),
    ("CL list", [b"Content-Length: 6, 6"]),
    ("TE.TE", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"]),
    ("TE.TE before", [b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"]),
    ("TE.TE alike", [b"Transfer-Encoding: chunked", b"transfer-encoding: chunked"]),
    ("TE.TE gzip", [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"]),
    # Lengths that are read as several numbers (RFC 9110 section 8.6)
    ("CL sign", [b"Content-Length: +6"]),
    ("CL minus", [b"Content-Length: -6"]),
    ("CL zeros", [b"Content-Length: 006"]),
    ("CL hex", [b"Content-Length: 0x6"]),
    ("CL underscore", [b"Content-Length: 1_0"]),
    ("CL space", [b"Content-Length: 1 0"]),
    ("CL fraction", [b"Content-Length: 6.0"]),
    ("CL empty", [b"Content-Length:"]),
    ("CL junk", [b"Content-Length: 6x"]),
    ("CL other digits", [b"Content-Length: \xd9\xa6"]),
    ("CL 2^63", [b"Content-Length: 9223372036854775808"]),
    ("CL 2^64 + 6", [b"Content-Length: 18446744073709551622"]),
    ("CL 20 digits", [b"Content-Length: 10000000000000000000"]),
    # Codings that are chunked to some (RFC 9112 section 7)
    ("TE prefix", [b"Transfer-Encoding: xchunked"]),
    ("TE suffix", [b"Transfer-Encoding: chunkedx"]),
    ("TE quoted", [b'Transfer-Encoding: "chunked"']),
    ("TE list", [b"Transfer-Encoding: gzip, chunked"]),
    ("TE list, chunked first", [b"Transfer-Encoding: chunked, gzip"]),
    ("TE list, twice", [b"Transfer-Encoding: chunked, chunked"]),
    ("TE comma before", [b"Transfer-Encoding: ,chunked"]),
    ("TE comma after", [b"Transfer-Encoding: chunked,"]),
    ("TE parameter", [b"Transfer-Encoding: chunked;q=1"]),
    ("TE identity", [b"Transfer-Encoding: identity"]),
    ("TE empty", [b"Transfer-Encoding:"]),
    ("TE vertical tab", [b"Transfer-Encoding: \x0bchunked"]),
    ("TE NUL", [b"Transfer-Encoding: chunked\0"]),
    ("TE latin-1 space", [b"Transfer-Encoding: \xa0chunked"]),
    # Names (RFC 9112 section 5.1)
    ("name space before colon", [b"Transfer-Encoding : chunked"]),
    ("name tab before colon", [b"Transfer-Encoding\t: chunked"]),
    ("name after space", [b"X: y", b" Transfer-Encoding: chunked"]),
    ("name empty", [b": x"]),
    ("name without colon", [b"Transfer-Encoding"]),
    ("name with controls", [b"Trans\x0bfer-Encoding: chunked"]),
    ("name not ASCII", [b"Transfer-Encod\xefng: chunked"]),
    ("name in brackets", [b"(x): y"]),
    # Lines (RFC 9112 sections 2.2 and 5.2)
    ("folded", [b"X: y", b"\tz"]),
    ("folded TE", [b"Transfer-Encoding:", b" chunked"]),
    ("first line folded", [b" X: y"]),
    ("bare LF", [b"X: y\nTransfer-Encoding: chunked"]),
    ("bare CR", [b"X: y\rTransfer-Encoding: chunked"]),
    ("CR CR LF", [b"X: y\r"]),
    ("LF LF", [b"X: y\n\nGET /evil HTTP/1.1"]),
    ("NUL", [b"X: y\0z"]),
    ("DEL", [b"X: y\x7f"]),
    ("escape", [b"X: \x1b[2J"]),
    # A second head
    ("two heads", [b"", b"GET /evil HTTP/1.1", b"Host: h"]),
    ("two heads after an upgrade", [b"Connection: upgrade", b"Upgrade: x", b"", b"GET /evil HTTP/1.1", b"Host: h"]),
    # Host (RFC 9112 section 3.2)
    ("two hosts", [b"Host: evil"]),
    ("two hosts alike", [b"Host: h"]),
]


@pytest.mark.parametrize("lines", [pytest.param(lines, id=name) for name, lines in SMUGGLING])
def test_smuggling(lines: list[bytes]) -> None:
    """What moves the end of a request for somebody on the way is 400."""
    for start in (b"POST / HTTP/1.1", b"GET http://h/ HTTP/1.1"):
        for odd in ([], ODD):
            with pytest.raises(RequestError) as caught:
                request(*odd, *lines, start=start)
            assert caught.value.status == 400


@pytest.mark.parametrize("host", [b"", b"a b", b"a,b", b"u@a", b"a/b", b"a:b", b"a:99999", b"[::1", b"a\\b", b"\xe9"])
def test_hosts_that_are_none(host: bytes) -> None:
    """Host is one host[:port] (RFC 9110 section 7.2), in HTTP/1.0, too."""
    for version in (b"1.1", b"1.0"):
        with pytest.raises(RequestError) as caught:
            request(b"Host: " + host, start=b"GET / HTTP/" + version, host=False)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("start", "status"),
    [
        # RFC 9112 section 3
        (b"GET /", 400),
        (b"GET", 400),
        (b"", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /  HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET\t/\tHTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / HTTP/ 1.1", 400),
        (b"SETUP / RTSP/1.0", 400),
        (b"SOURCE / ICE/1.0", 400),
        (b"G\x00T / HTTP/1.1", 400),
        (b"G(T / HTTP/1.1", 400),
        # RFC 9110 section 15.6.6
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        # RFC 9110 section 15.6.2; methods are case-sensitive (section 9.1)
        (b"get / HTTP/1.1", 501),
        (b"BREW / HTTP/1.1", 501),
        (b"SOURCE / HTTP/1.1", 501),
        (b"PRI * HTTP/1.1", 501),
    ],
)
def test_request_lines_that_are_refused(start: bytes, status: int) -> None:
    """Malformed ones, other versions, other methods."""
    with pytest.raises(RequestError) as caught:
        request(start=start)
    assert caught.value.status == status


def test_higher_minor_versions() -> None:
    """They are read as HTTP/1.1, the highest that we know, and told of as they came (RFC 9110 section 2.5)."""
    head = request(b"Transfer-Encoding: chunked", b"Expect: 100-continue", start=b"POST / HTTP/1.2")
    assert (head.minor, head.chunked, head.keep_alive, head.expects_continue) == (2, True, True, True)
    with pytest.raises(RequestError, match="no Host"):
        request(start=b"GET / HTTP/1.9", host=False)


def test_no_tunnels() -> None:
    """CONNECT is 405, and Allow says what is served (RFC 9110 section 15.5.6)."""
    with pytest.raises(RequestError) as caught:
        request(start=b"CONNECT h:443 HTTP/1.1")
    assert caught.value.status == 405
    ((name, value),) = caught.value.fields
    assert name == b"Allow"
    assert b"GET" in value.split(b", ")
    assert b"CONNECT" not in value


@pytest.mark.parametrize("line", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"])
def test_chunks_in_1_0(line: bytes) -> None:
    """HTTP/1.0 has no transfer codings: who sends one is not understood by all (RFC 9112 section 6.1)."""
    with pytest.raises(RequestError) as caught:
        request(line, start=b"POST / HTTP/1.0")
    assert caught.value.status == 400


def test_no_host() -> None:
    """HTTP/1.1 needs one, even where the target has it (RFC 9112 section 3.2)."""
    for start in (b"GET / HTTP/1.1", b"GET http://h/ HTTP/1.1"):
        with pytest.raises(RequestError):
            request(start=start, host=False)


def test_bad_targets() -> None:
    """They are refused as such."""
    with pytest.raises(BadTarget):
        request(start=b"GET /a#b HTTP/1.1")


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n\r\n", b"\r\n\r\nGET"])
def test_exactly_one_head(end: bytes) -> None:
    """More or less than a head is none."""
    with pytest.raises(RequestError):
        parse_request(b"GET / HTTP/1.1\r\nHost: h" + end)


NAMES = st.sampled_from([b"X-A", b"x-a", b"Cookie", b"Via", b"X-Long-Name_"])
VALUES = st.from_regex(rb"([!-~\x80-\xff]([\t -~\x80-\xff]{0,8}[!-~\x80-\xff])?)?", fullmatch=True)


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_parsing_undoes_serializing(fields: Fields) -> None:
    """What is written reads as what it was."""
    lines = serialize(fields)
    assert parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n").fields == [(b"Host", b"h"), *fields]


PIECES = [b"\r", b"\n", b"\r\n", b":", b" ", b"\t", b"\0", b"\x85", b"\x0b", b"a", b",", b"Host: h", b"Content-Length"]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map(b"".join))
def test_nothing_that_breaks_a_line_gets_through(lines: bytes) -> None:
    """What is read can be written: the same fields come out again, and no more lines than fields."""
    try:
        head = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\nX:" + lines + b"\r\n\r\n")
    except RequestError:
        return
    written = serialize(head.fields)
    assert written.count(b"\r") == written.count(b"\n") == len(head.fields)
    assert parse_request(b"GET / HTTP/1.1\r\n" + written + b"\r\n").fields == head.fields


REPEATS = [
    (b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /b?c HTTP/1.1\r\nHost: a\r\n\r\n", True),
    (b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n", False),
    (b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", False),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", False),
    (b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", False),
]


@pytest.mark.parametrize(("first", "second", "repeats"), REPEATS)
def test_fields_that_repeat(first: bytes, second: bytes, repeats: bool) -> None:
    """Fields that are the same to the octet are not read again; whatever is read is what it would be alone."""
    previous = parse_request(first)
    previous.memo = object()
    head, alone = parse_request(second, previous), parse_request(second)
    assert (head.fields is previous.fields) is repeats
    assert (head.memo is previous.memo) is repeats
    for name in set(RequestHead.__slots__) - {"memo", "target"}:
        assert getattr(head, name) == getattr(alone, name)
    assert head.target.path == alone.target.path


@pytest.mark.parametrize("start", [b"GET /a", b"POST /a?b", b"GET http://b/", b"OPTIONS *"])
def test_requests_that_repeat(start: bytes) -> None:
    """A request that is the same to the octet is not read again; one octet more, and it is."""
    octets = start + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    previous = parse_request(octets)
    assert parse_request(octets, previous) is previous
    assert parse_request(octets[:-2] + b"X: y\r\n\r\n", previous) is not previous


WORDS = st.sampled_from(
    [b"GET", b"POST", b"get", b"CONNECT", b"FOO", b"/", b"a", b".", b"%2e", b"%41", b"%", b"?", b"#", b";", b"\\", b"*",
     b"http://a", b" ", b"\t", b"\xe9", b"\r", b"HTTP/1.1", b"HTTP/1.0"]
)  # fmt: skip
ENDS = st.sampled_from([b" HTTP/1.1"] * 4 + [b" HTTP/1.0", b" HTTP/2.0", b" HTTP/1.1 ", b""])


@given(st.sampled_from([b"GET /"] * 3 + [b"FOO /", b"OPTIONS ", b""]), st.lists(WORDS, max_size=6).map(b"".join), ENDS)
@settings(max_examples=1500)
def test_plain_requests(start: bytes, middle: bytes, end: bytes) -> None:
    """A request line that is read in one go reads the same piece by piece."""
    octets = start + middle + end + b"\r\nHost: a\r\n\r\n"

    def read() -> object:
        try:
            head = parse_request(octets)
        except RequestError as error:
            return error.status, str(error)
        names = ("path", "normal_path", "query", "form", "authority", "scheme")
        target = [getattr(head.target, name) for name in names]
        return head.method, head.raw_target, head.minor, head.section, head.fields, target

    plainly = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxyd.http.request, "_PLAIN_LINE", re.compile(rb"(?!)"))
        assert read() == plainly


LINES = st.tuples(
    st.sampled_from([b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect",
                     b"Host", b"Proxy", b"X-A", b"x_a", b"Content_Length", b"Cookie", b"(", b""]),
    st.sampled_from([b": "] * 3 + [b":", b":  ", b" : ", b":\t"]),
    st.sampled_from([b"5", b"0", b"05", b"5, 5", b"chunked", b"Chunked", b"gzip", b"close", b"upgrade", b"websocket",
                     b"100-continue", b"a b", b"a\tb", b"\xe9", b"", b" ", b"a\0b", b"a\rb", b"a: b", b"\x7f"]),
    st.sampled_from([b"\r\n"] * 4 + [b" \r\n", b"\t\r\n", b"\n", b"\r\n ", b"\r\r\n", b"\r\n\r\n"]),
).map(b"".join)  # fmt: skip
STARTS = st.sampled_from(
    [b"POST / HTTP/1.1"] * 3
    + [b"POST /a/../b?%41 HTTP/1.1", b"GET http://b/c HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET ws://[::1]:80 HTTP/1.0",
       b"PUT /~ HTTP/1.0", b"GET /%zz HTTP/1.1", b"LOCK /?a?/:@\"<> HTTP/1.2", b"SEARCH http://u@h/ HTTP/1.1"]
)  # fmt: skip


@given(STARTS, st.booleans(), st.lists(LINES, max_size=5).map(b"".join))
@settings(max_examples=1500)
def test_plain_fields(start: bytes, host: bool, lines: bytes) -> None:
    """Fields that are read without llhttp read the same with it, and what it refuses is refused without it."""
    octets = start + b"\r\n" + b"Host: a\r\n" * host + lines + b"\r\n"

    def read() -> object:
        try:
            head = parse_request(octets)
        except RequestError as error:
            return error.status
        return [getattr(head, name) for name in RequestHead.__slots__ if name not in ("memo", "logged", "target")]

    plainly = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxyd.http.head, "_PLAIN_FIELD", re.compile(rb"(?!)"))
        assert read() == plainly


def test_a_long_head_that_is_not_plain() -> None:
    """What is found out only at the end of a head does not take the time of all ways to read it."""
    lines = b"X-A: a" + b" a" * 20 + b"\r\n"
    assert len(parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines * 2000 + b"X: b \r\n\r\n").fields) == 2002
