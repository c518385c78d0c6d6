"""
What the heads of requests and responses have in common.

Lines as nearly everybody writes them are read in one go, all others by llhttp;
everything that it lets pass and two servers could read differently is refused.
One parser sees exactly one head: it has no offset at a message's end, and
bodies are the business of L{proxyd.http.framing}.

@see: RFC 9112 sections 2 to 6
"""

from __future__ import annotations

import re
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from proxyd.http.fields import Fields, tokens

MAX_LENGTH = 2**63 - 1
"""The largest C{Content-Length}, in octets: what every server and file system can count to."""

MINORS = {b"HTTP/1.%d" % minor: minor for minor in range(10)}
"""Versions by what says so.  What is higher than 1.1 is read as 1.1 (RFC 9110 section 2.5), and told of as it came."""

# A line with one space before its value and none behind it, from the end of the line before: so none is found within
# another.  Where all lines of a head are such, llhttp finds the same fields, in twice the time.
_PLAIN_FIELD = re.compile(
    rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]++): ([!-~\x80-\xff][\t -~\x80-\xff]*+(?<![\t ]))(?=\r\n)"
)

KEEP_ALIVE = (b"keep-alive",)
CLOSE = (b"close",)
_USUAL_OPTIONS: dict[bytes, tuple[bytes, ...]] = {
    b"keep-alive": KEEP_ALIVE,
    b"close": CLOSE,
    b"Upgrade": (b"upgrade",),
    b"upgrade": (b"upgrade",),
    b"websocket": (b"websocket",),
}

_TWO_ENDS = "There are both Content-Length and Transfer-Encoding."


class _Sink:
    """What llhttp calls: one attribute, because each callback that exists costs 0.1 us a field."""

    __slots__ = ("on_header",)

    on_header: Callable[[bytes, bytes], None]


class Unreadable(Exception):
    """The fields of a head break the grammar or contradict one another."""


def read_fields(parser_type: type[HttpRequestParser] | type[HttpResponseParser], octets: bytes) -> Fields:
    """
    The fields of one head, without the white space around their values.

    @param octets: its first line is known to be well-formed.

    @raise Unreadable: they break the grammar.
    """
    fields: Fields = _PLAIN_FIELD.findall(octets)
    return fields if _are_all(fields, octets) else _read_by_llhttp(parser_type, octets)


def _are_all(fields: Fields, octets: bytes) -> bool:
    """Whether these are the fields of all lines: of each but the first and the empty one."""
    return octets.count(b"\n") == len(fields) + 2 and octets[-4:] == b"\r\n\r\n"


def _read_by_llhttp(parser_type: type[HttpRequestParser] | type[HttpResponseParser], octets: bytes) -> Fields:
    fields: Fields = []
    append = fields.append
    sink = _Sink()
    # llhttp leaves white space at a value's end. No control survives it, so that rstrip() finds no other kind.
    sink.on_header = lambda name, value: append((name, value.rstrip()))
    try:
        parser_type(sink).feed_data(octets)
    except HttpParserUpgrade:
        pass  # the head's end: it comes for any Upgrade
    except HttpParserError as error:
        raise Unreadable(f"The head is malformed: {error}.") from error
    # Had llhttp seen other lines than whoever cut this head, a part of it would be a body to one of the two.
    if not _are_all(fields, octets):
        raise Unreadable("The head is malformed: it does not end where it should.")
    return fields


def read_options(value: bytes) -> tuple[bytes, ...]:
    """The members of C{Connection} or C{Upgrade} in lower case."""
    # The values that nearly all send, without the 0.5 us of a list.
    return _USUAL_OPTIONS.get(value) or tuple(tokens((value,)))


def keeps_alive(minor: int, connection: tuple[bytes, ...]) -> bool:
    """Whether the connection persists after this message (RFC 9112 section 9.3)."""
    return b"close" not in connection and (minor > 0 or b"keep-alive" in connection)


def read_length(value: bytes, length: int | None, chunked: bool) -> int:
    """
    Content-Length, in its shortest form (RFC 9110 section 8.6).

    @param length: what another one has said before.
    @param chunked: a Transfer-Encoding has said before that there are chunks.

    @raise Unreadable: it is not that, or not all that tells where the body ends.
    """
    if length is not None:
        raise Unreadable("There is more than one Content-Length.")
    if chunked:
        raise Unreadable(_TWO_ENDS)
    if not value.isdigit() or (value[0] == 0x30 and value != b"0") or len(value) > 19:
        raise Unreadable("The Content-Length is no plain number.")
    length = int(value)
    if length > MAX_LENGTH:
        raise Unreadable("The Content-Length is too large.")
    return length


def read_coding(value: bytes, minor: int, length: int | None, chunked: bool) -> bool:
    """
    Transfer-Encoding, which is C{chunked} and nothing else (RFC 9112 section 6.1).

    Servers disagree about every other value, and about all of them in HTTP/1.0.

    @param length: what a Content-Length has said before.
    @param chunked: there was one before.

    @raise Unreadable: it is anything else, or not all that tells where the body ends.
    """
    if length is not None:
        raise Unreadable(_TWO_ENDS)
    if chunked or minor == 0 or value.lower() != b"chunked":
        raise Unreadable("This Transfer-Encoding is not understood.")
    return True
