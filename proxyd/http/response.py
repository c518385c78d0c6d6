"""
The heads of responses.

@see: L{proxyd.http.head}; RFC 9112 sections 4 and 6.3
"""

from __future__ import annotations

import re

from httptools import HttpResponseParser

from proxyd.errors import ResponseMalformed
from proxyd.http.fields import Fields, end_to_end, serialize
from proxyd.http.head import (
    CLOSE,
    KEEP_ALIVE,
    MINORS,
    Unreadable,
    keeps_alive,
    read_coding,
    read_fields,
    read_length,
    read_options,
)

_CONTROLS = bytes(range(0x20)).replace(b"\t", b"") + b"\x7f"
_BODILESS = frozenset((204, 304))
_DECISIVE = frozenset((b"connection", b"content-length", b"date", b"transfer-encoding"))
"""The lower-case names of the fields that decide how a response is read, or goes on."""

_STATUSES = {b"%d" % status: status for status in range(200, 600)}

# What nearly every server sends: one space before a value, none behind it, once what decides how the answer is read,
# and together the two lines that go no further.  Where this matches, llhttp finds the same fields.  Each line fits one
# of the alternatives at most, so that a head that ends wrongly is tried in one way only.
_VALUE = rb"[!-~\x80-\xff][\t -~\x80-\xff]*+(?<![\t ])\r\n"
_REST = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*+:\ VALUE"
_FIELDS = rb"""(?:
        [!#$%&'*+.^_`|~0-9ABD-JL-OQRSV-Zabd-jl-oqrsv-z-] REST
      | [Cc] (?! (?i:ontent-length|onnection|lose): ) REST
      | [KPTUkptu] (?! (?i:eep-alive|ransfer-encoding|pgrade|e|roxy-[^:]*+): ) REST
    )*"""
_PART = rb"( FIELDS (?: (?i:content-length):\ (0|[1-9][0-9]{0,17})\r\n FIELDS )? )"
_PLAIN = re.compile(
    rb"""
    HTTP/1\.1\ ([2-5][0-9][0-9])\ ([\t -~\x80-\xff]*+)\r\n        # groups 1 and 2: status, reason
    PART                                                           # 3 and 4: fields, and the length among them
    (?:
        (?: (?i:keep-alive):\ VALUE )?
        (?i:connection):\ (?i:(close)|keep-alive)\r\n               # 5: whether it is close
        (?: (?i:keep-alive):\ VALUE )?
        PART                                                       # 6 and 7: the same as 3 and 4
    )?
    \r\n""".replace(b"PART", _PART).replace(b"FIELDS", _FIELDS).replace(b"REST", _REST).replace(b"VALUE", _VALUE),
    re.VERBOSE,
)


class ResponseHead:
    """
    The head of one response, interim ones included.

    @ivar reason: as it came, perhaps empty.
    @ivar octets: all of it; L{fields} are read from them when somebody asks.
    @ivar lines: the fields that go on to the client, each with the end of its line; none of an interim answer.
    @ivar bodiless: whether it has no body, whatever its fields say (RFC 9112 section 6.3).
    @ivar dated: whether it has a C{Date} that goes on.
    @ivar keep_alive: whether the connection can be used again, which it
        cannot after a body that only its end delimits.

    @see: L{proxyd.http.request.RequestHead} for the rest.
    """

    __slots__ = (
        "_fields",
        "bodiless",
        "chunked",
        "connection",
        "dated",
        "keep_alive",
        "length",
        "lines",
        "minor",
        "octets",
        "reason",
        "status",
    )

    minor: int
    status: int
    reason: bytes
    octets: bytes
    bodiless: bool
    connection: tuple[bytes, ...]
    length: int | None
    chunked: bool
    keep_alive: bool
    dated: bool
    lines: bytes
    _fields: Fields | None

    @property
    def fields(self) -> Fields:
        """As they came."""
        fields = self._fields
        if fields is None:
            pairs = (line.partition(b": ") for line in self.octets.split(b"\r\n")[1:-2])
            fields = self._fields = [(name, value) for name, _, value in pairs]
        return fields


def parse_response(octets: bytes, request_method: bytes) -> ResponseHead:
    """
    Read the head of a response.

    @param octets: from the status line to the empty line, which ends them.
    @param request_method: what it answers; an answer to C{HEAD} has no body.

    @raise ResponseMalformed: it is no HTTP/1, or it is not certain where its body ends.
    """
    plain = _PLAIN.fullmatch(octets)
    if plain is None:
        return _parse_fully(octets, request_method)
    digits, reason, lines, length, closes, more, other_length = plain.groups()
    if more is not None:
        lines += more
        if length is None:
            length = other_length
        elif other_length is not None:
            return _parse_fully(octets, request_method)
    status = _STATUSES[digits]
    if length is None or status in _BODILESS:
        return _parse_fully(octets, request_method)
    head = ResponseHead()
    head.minor = 1
    head.status = status
    head.reason = reason
    head.octets = octets
    head._fields = None
    head.lines = lines
    head.bodiless = request_method == b"HEAD"
    head.connection = () if more is None else KEEP_ALIVE if closes is None else CLOSE
    head.length = int(length)
    head.chunked = False
    # By find(): "in" tries to take what it looks for as a number first.
    head.dated = octets.find(b"\r\nDate: ") > 0 or octets.lower().find(b"\r\ndate: ") > 0
    head.keep_alive = closes is None
    return head


def _parse_fully(octets: bytes, request_method: bytes) -> ResponseHead:
    """Read the head of any response, field by field."""
    head = ResponseHead()
    try:
        _read_status_line(head, octets[: octets.find(b"\r\n")])
        if head.minor > 1:
            octets = b"HTTP/1.1" + octets[8:]
        head._fields = read_fields(HttpResponseParser, octets)
        _read_response_fields(head, request_method)
    except Unreadable as error:
        raise ResponseMalformed(str(error)) from error
    return head


def is_bodiless(status: int, request_method: bytes) -> bool:
    """Whether a response has no body, whatever its fields say (RFC 9112 section 6.3)."""
    return status < 200 or status in _BODILESS or request_method == b"HEAD"


def _read_status_line(head: ResponseHead, line: bytes) -> None:
    minor = MINORS.get(line[:8])
    status = line[9:12]
    # The space after the status is mandatory, and forgotten by many where no reason follows.
    if minor is None or line[8:9] != b" " or not status.isdigit() or line[12:13] not in (b" ", b""):
        raise Unreadable("The status line is malformed.")
    head.minor = minor
    head.status = int(status)
    head.reason = line[13:]
    if head.status < 100 or len(head.reason.translate(None, _CONTROLS)) != len(head.reason):
        raise Unreadable("The status line is malformed.")


def _read_response_fields(head: ResponseHead, request_method: bytes) -> None:
    connection: tuple[bytes, ...] = ()
    length: int | None = None
    chunked = dated = False
    for name, value in head.fields:
        key = name.lower()
        if key in _DECISIVE:
            if key == b"date":
                dated = True
            elif key == b"content-length":
                length = read_length(value, length, chunked)
            elif key == b"connection":
                connection += read_options(value)
            else:
                chunked = read_coding(value, head.minor, length, chunked)
    status = head.status
    if length is not None and (status < 200 or status == 204):
        # It must not be there (RFC 9110 section 8.6), and a client that heeds it would wait for a body.
        head._fields = [field for field in head.fields if field[0].lower() != b"content-length"]
        length = None
    head.bodiless = is_bodiless(status, request_method)
    head.lines = serialize(end_to_end(head.fields, connection)) if status >= 200 else b""
    head.connection = connection
    head.length = length
    head.chunked = chunked
    head.dated = dated and b"date" not in connection
    head.keep_alive = keeps_alive(head.minor, connection) and (
        chunked or length is not None or head.bodiless
    )
