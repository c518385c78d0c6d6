"""Ordered header fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.http.fields import (
    HOP_BY_HOP,
    Fields,
    canonical,
    end_to_end,
    gathered,
    serialize,
    tokens,
    trailers_to_forward,
    valid_name,
    valid_value,
    values,
)

NAMES = st.sampled_from(
    [b"Host", b"TE", b"Keep-Alive", b"Upgrade", b"connection", b"X-A", b"x-a", b"Via", b"Cookie", b"Content-Length"]
)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=5)))
CONNECTION = st.lists(st.sampled_from([b"close", b"keep-alive", b"x-a", b"host", b"content-length", b"te"])).map(tuple)


def test_values_of_one_field_come_line_by_line() -> None:
    """Whatever the case of the name, in the order of the lines."""
    fields = [(b"Via", b"1"), (b"Host", b"h"), (b"VIA", b"2, 3")]
    assert values(fields, b"via") == [b"1", b"2, 3"]
    assert values(fields, b"te") == []


@given(FIELDS)
def test_values_of_several_fields_at_once(fields: Fields) -> None:
    """What is gathered in one pass are the values of each, and nothing of those that are not there."""
    names = {b"via", b"te", b"x-a"}
    found = gathered(fields, names)
    assert found == {name: lines for name in names if (lines := values(fields, name))}


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        ([], []),
        ([b""], []),
        ([b"Close"], [b"close"]),
        ([b"keep-alive, Upgrade"], [b"keep-alive", b"upgrade"]),
        ([b" a\t,, ,b ,"], [b"a", b"b"]),
        ([b"a", b"b,c"], [b"a", b"b", b"c"]),
    ],
)
def test_tokens(lines: list[bytes], members: list[bytes]) -> None:
    """Lists have empty members and white space that count for nothing (RFC 9110 section 5.6.1.2)."""
    assert tokens(lines) == members


@pytest.mark.parametrize(
    ("connection", "given_names", "kept"),
    [
        # RFC 9110 section 7.6.1
        ((), b"Connection Keep-Alive Proxy-Connection TE Transfer-Encoding Upgrade X", b"X"),
        ((), b"Proxy-Authenticate Proxy-Authorization Via", b"Via"),
        ((b"keep-alive",), b"X Y", b"X Y"),
        ((b"x",), b"X Y x", b"Y"),
        ((b"close", b"x"), b"Close X Y", b"Y"),
        # A client cannot strip routing and framing.
        ((b"host", b"content-length", b"x"), b"Host Content-Length X", b"Host Content-Length"),
        # RFC 9110 section 16.3.1: Close is reserved.
        ((b"close",), b"Close X", b"X"),
        # Trailer is end-to-end (RFC 9110 section 6.6.2).
        ((), b"Trailer", b"Trailer"),
    ],
)
def test_end_to_end(connection: tuple[bytes, ...], given_names: bytes, kept: bytes) -> None:
    """Hop-by-hop fields and those that Connection names go no further."""
    fields = [(name, b"1") for name in given_names.split()]
    assert [name for name, _ in end_to_end(fields, connection)] == kept.split()


@given(FIELDS, CONNECTION)
def test_removal_is_idempotent_and_keeps_the_order(fields: Fields, connection: tuple[bytes, ...]) -> None:
    """A second removal removes nothing, and what stays is every end-to-end field, in its order."""
    kept = end_to_end(fields, connection)
    assert end_to_end(kept, connection) == kept
    gone = (HOP_BY_HOP | {*connection, b"close"}) - {b"host", b"content-length"}
    assert kept == [field for field in fields if field[0].lower() not in gone]


@pytest.mark.parametrize(
    ("name", "goes_on"),
    [
        (b"Grpc-Status", True),
        (b"Server-Timing", True),
        (b"Digest", True),
        (b"Content-Length", False),
        (b"Transfer-Encoding", False),
        (b"Trailer", False),
        (b"HOST", False),
        (b"X-Forwarded-For", False),
        (b"Authorization", False),
        (b"WWW-Authenticate", False),
        (b"Set-Cookie", False),
        (b"TE", False),
        (b"X-Named", False),
    ],
)
def test_trailers(name: bytes, goes_on: bool) -> None:
    """Framing, routing, authentication, cookies and what Connection names stay behind (RFC 9110 section 6.5.1)."""
    assert trailers_to_forward([(name, b"1")], (b"x-named",)) == [(name, b"1")] * goes_on


def test_serialize() -> None:
    """Names keep their spelling; no fields are no octets."""
    assert serialize([(b"Host", b"h"), (b"x-EMPTY", b"")]) == b"Host: h\r\nx-EMPTY: \r\n"
    assert serialize([]) == b""


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        (b"X-A", True),
        (b"!#$%&'*+-.^_`|~09az", True),
        (b"", False),
        (b"a b", False),
        (b"a:", False),
        (b"a\n", False),
        (b"\xe9", False),
    ],
)
def test_valid_name(name: bytes, valid: bool) -> None:
    """A field's name is a token (RFC 9110 section 5.1)."""
    assert valid_name(name) is valid


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"", True),
        (b"a", True),
        (b"a \t b", True),
        (b"caf\xe9", True),
        (b" a", False),
        (b"a\t", False),
        (b"a\r\nb", False),
        (b"a\n", False),
        (b"a\0b", False),
        (b"\x7f", False),
    ],
)
def test_valid_value(value: bytes, valid: bool) -> None:
    """A field's value has no controls and no white space around it (RFC 9110 section 5.5)."""
    assert valid_value(value) is valid


PIECES = [b"a", b"-", b":", b" ", b"\t", b"\r", b"\n", b"\0", b"\x85"]
OCTETS = st.lists(st.sampled_from(PIECES), max_size=4).map(b"".join)


@given(st.lists(st.tuples(OCTETS, OCTETS)))
def test_valid_fields_make_no_line_breaks(fields: Fields) -> None:
    """The lines are as many as the fields, and no NUL, CR or LF is in them that is not ours."""
    fields = [(name, value) for name, value in fields if valid_name(name) and valid_value(value)]
    lines = serialize(fields).split(b"\r\n")
    assert len(lines) == len(fields) + 1
    assert not any(octet in line for line in lines for octet in (b"\r", b"\n", b"\0"))


@pytest.mark.parametrize("name", [b"X-User1", b"x-user1", b"X_USER1", b"x.user1", b"X~User1"])
def test_canonical(name: bytes) -> None:
    """What a CGI application cannot tell apart is the same."""
    assert canonical(name) == b"x-user1"
    assert canonical(b"xuser1") != canonical(name)
