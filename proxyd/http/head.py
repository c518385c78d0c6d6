"""
What the heads of requests and responses have in common.

llhttp reads the fields; everything that it lets pass and two servers could
read differently is refused.  One parser sees exactly one head: it has no
offset at a message's end, and bodies are the business of
L{proxyd.http.framing}.

@see: RFC 9112 sections 2 to 6
"""

from __future__ import annotations

from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from proxyd.http.fields import Fields, tokens

MAX_LENGTH = 2**63 - 1
"""The largest C{Content-Length}, in octets: what every server and file system can count to."""

MINORS = {b"HTTP/1.%d" % minor: minor for minor in range(10)}
"""Versions by what says so.  What is higher than 1.1 is read as 1.1 (RFC 9110 section 2.5), and told of as it came."""

KEEP_ALIVE = (b"keep-alive",)
CLOSE = (b"close",)
_USUAL_OPTIONS: dict[bytes, tuple[bytes, ...]] = {
    b"keep-alive": KEEP_ALIVE,
    b"close": CLOSE,
    b"Upgrade": (b"upgrade",),
    b"upgrade": (b"upgrade",),
    b"websocket": (b"websocket",),
}


class _Sink:
    """What llhttp calls: one attribute, because each callback that exists costs 0.1 us a field."""

    __slots__ = ("on_header",)

    on_header: Callable[[bytes, bytes], None]


class Unreadable(Exception):
    """The fields of a head break the grammar or contradict one another."""


def read_fields(parser_type: type[HttpRequestParser] | type[HttpResponseParser], octets: bytes) -> Fields:
    """
    The fields of one head by llhttp, without the white space around their values.

    @raise Unreadable: they break the grammar.
    """
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
    # Each line but the first and the empty one is a field.  Had llhttp seen other lines than whoever cut
    # this head, a part of it would be a body to one of the two.
    if octets.count(b"\n") != len(fields) + 2 or octets[-4:] != b"\r\n\r\n":
        raise Unreadable("The head is malformed: it does not end where it should.")
    return fields


def read_options(value: bytes) -> tuple[bytes, ...]:
    """The members of C{Connection} or C{Upgrade} in lower case."""
    # The values that nearly all send, without the 0.5 us of a list.
    return _USUAL_OPTIONS.get(value) or tuple(tokens((value,)))


def keeps_alive(minor: int, connection: tuple[bytes, ...]) -> bool:
    """Whether the connection persists after this message (RFC 9112 section 9.3)."""
    return b"close" not in connection and (minor > 0 or b"keep-alive" in connection)


def read_length(value: bytes) -> int:
    """
    Content-Length, in its shortest form (RFC 9110 section 8.6); a second one llhttp has refused.

    @raise Unreadable: it is not that.
    """
    if not value.isdigit() or (value[0] == 0x30 and value != b"0") or len(value) > 19:
        raise Unreadable("The Content-Length is no plain number.")
    length = int(value)
    if length > MAX_LENGTH:
        raise Unreadable("The Content-Length is too large.")
    return length


def read_coding(value: bytes, minor: int, seen: bool) -> bool:
    """
    Transfer-Encoding, which is C{chunked} and nothing else (RFC 9112 section 6.1).

    Servers disagree about every other value, and about all of them in HTTP/1.0.
    One beside a Content-Length llhttp has refused.

    @param seen: there was one before.

    @raise Unreadable: it is anything else.
    """
    if seen or minor == 0 or value.lower() != b"chunked":
        raise Unreadable("This Transfer-Encoding is not understood.")
    return True
