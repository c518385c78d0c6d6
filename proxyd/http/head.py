"""
The heads of requests and responses.

llhttp reads the fields; everything that it lets pass and two servers could
read differently is refused here.  One parser sees exactly one head: it has no
offset at a message's end, and bodies are the business of
L{proxyd.http.framing}.

@see: RFC 9112 sections 2 to 6, RFC 9110 sections 7.2, 7.6.1 and 10.1.1
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser

from proxyd.errors import RequestError, ResponseMalformed
from proxyd.http import authority
from proxyd.http.authority import Authority
from proxyd.http.fields import HOP_BY_HOP, Fields, end_to_end, serialize, tokens, valid_name
from proxyd.http.target import ORDINARY, Target, parse_target

METHODS = frozenset(
    (
        b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE OPTIONS PATCH POST "
        b"PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNLINK UNLOCK"
    ).split()
)
"""The methods that are served: those of IANA's registry that llhttp knows, without C{CONNECT}."""

MAX_LENGTH = 2**63 - 1
"""The largest C{Content-Length}, in octets: what every server and file system can count to."""

_ALLOW = b", ".join(sorted(METHODS))
# What is higher than 1.1 is read as 1.1 (RFC 9110 section 2.5), and told of as it came.
_MINORS = {b"HTTP/1.%d" % minor: minor for minor in range(10)}
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
# What nearly every request begins with, read in one go.
_PLAIN_LINE = re.compile(rb"([A-Z]++) (" + ORDINARY + rb") HTTP/1\.1(?=\r\n)")
_CONTROLS = bytes(range(0x20)).replace(b"\t", b"") + b"\x7f"
_KEEP_ALIVE = (b"keep-alive",)
_CLOSE = (b"close",)
_USUAL_OPTIONS: dict[bytes, tuple[bytes, ...]] = {
    b"keep-alive": _KEEP_ALIVE,
    b"close": _CLOSE,
    b"Upgrade": (b"upgrade",),
    b"upgrade": (b"upgrade",),
    b"websocket": (b"websocket",),
}
_BODILESS = frozenset((204, 304))

_DECISIVE = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"proxy", b"transfer-encoding", b"upgrade")
)
"""The lower-case names of the fields that decide how a request is read."""

_DECISIVE_IN_ANSWERS = frozenset((b"connection", b"content-length", b"date", b"transfer-encoding"))

# To a CGI or WSGI application X_Forwarded_For is X-Forwarded-For: with an underscore these names are
# only ever an attempt to get past a proxy.
_LOOK_ALIKES = HOP_BY_HOP | {
    b"content-length",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
}


class RequestHead:
    """
    The head of one request.

    @ivar target: what is asked for; L{raw_target} is what the client wrote.
    @ivar minor: of the version HTTP/1: 0, 1, or a higher one that is served as 1.
    @ivar fields: as they came; the host of an absolute-form has replaced
        C{Host}, C{Proxy} and look-alikes such as C{X_Forwarded_For} are gone.
    @ivar host: the host that is asked; C{None} only in HTTP/1.0.
    @ivar host_value: the same as C{Host} says it, or empty.
    @ivar connection: the members of C{Connection} in lower case.
    @ivar length: C{Content-Length}.
    @ivar chunked: whether the body comes in chunks; without either there is none.
    @ivar keep_alive: whether the client will use the connection again.
    @ivar expects_continue: whether the client waits for a 100 with its body.
    @ivar upgrade: the members of C{Upgrade} in lower case.
    @ivar section: the octets that the fields were read from.
    @ivar memo: what was worked out from the fields, for the next head that
        repeats them; whose it is, is for those who put it there to know.
    @ivar logged: the same for the access log.
    """

    __slots__ = (
        "chunked",
        "connection",
        "expects_continue",
        "fields",
        "host",
        "host_value",
        "keep_alive",
        "length",
        "logged",
        "memo",
        "method",
        "minor",
        "raw_target",
        "section",
        "target",
        "upgrade",
    )

    method: bytes
    raw_target: bytes
    target: Target
    minor: int
    fields: Fields
    host: Authority | None
    host_value: bytes
    connection: tuple[bytes, ...]
    length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    upgrade: tuple[bytes, ...]
    section: bytes
    memo: Any
    logged: Any

    def repeat(self, previous: RequestHead) -> None:
        """Take everything but the request line from a head with the same fields."""
        self.section = previous.section
        self.memo = previous.memo
        self.logged = previous.logged
        self.fields = previous.fields
        self.host = previous.host
        self.host_value = previous.host_value
        self.connection = previous.connection
        self.length = previous.length
        self.chunked = previous.chunked
        self.keep_alive = previous.keep_alive
        self.expects_continue = previous.expects_continue
        self.upgrade = previous.upgrade

    @property
    def has_body(self) -> bool:
        """Whether octets follow this head."""
        return self.chunked or bool(self.length)


class ResponseHead:
    """
    The head of one response, interim ones included.

    @ivar reason: as it came, perhaps empty.
    @ivar section: the octets of its fields; L{fields} are read from them when somebody asks.
    @ivar bodiless: whether it has no body, whatever its fields say (RFC 9112 section 6.3).
    @ivar dated: whether it has a C{Date} that goes on.
    @ivar keep_alive: whether the connection can be used again, which it
        cannot after a body that only its end delimits.

    @see: L{RequestHead} for the rest.
    """

    __slots__ = (
        "_fields",
        "_lines",
        "bodiless",
        "chunked",
        "connection",
        "dated",
        "keep_alive",
        "length",
        "minor",
        "reason",
        "section",
        "status",
    )

    minor: int
    status: int
    reason: bytes
    section: bytes
    bodiless: bool
    connection: tuple[bytes, ...]
    length: int | None
    chunked: bool
    keep_alive: bool
    dated: bool
    _fields: Fields | None
    _lines: bytes | None

    @property
    def fields(self) -> Fields:
        """As they came."""
        fields = self._fields
        if fields is None:
            pairs = (line.partition(b": ") for line in self.section.split(b"\r\n")[1:-1])
            fields = self._fields = [(name, value) for name, _, value in pairs]
        return fields

    @property
    def lines(self) -> bytes:
        """The fields that go on to the client, each with the end of its line."""
        lines = self._lines
        return serialize(end_to_end(self.fields, self.connection)) if lines is None else lines


class _Sink:
    """What llhttp calls: one attribute, because each callback that exists costs 0.1 us a field."""

    __slots__ = ("on_header",)

    on_header: Callable[[bytes, bytes], None]


class _Unreadable(Exception):
    """The fields of a head break the grammar or contradict one another."""


def parse_request(octets: bytes, previous: RequestHead | None = None) -> RequestHead:
    """
    Read the head of a request.

    @param octets: from the request line to the empty line, which ends them.
    @param previous: the request before this one on the same connection.
        Clients repeat their fields from request to request, and what is the
        same to the octet need not be read twice.

    @raise RequestError: this is no request that proxyd serves: 400; 405 for
        C{CONNECT}; 501 for an unknown method; 505 for another major version.
    """
    head = RequestHead()
    line_end = _read_plain_line(head, octets) or _read_request_line(head, octets)
    section = octets[line_end:]
    if (
        previous is not None
        and section == previous.section
        and head.minor == previous.minor
        and head.target.authority is previous.target.authority is None
    ):
        head.repeat(previous)
        return head
    head.section = section
    head.memo = head.logged = None
    if head.minor > 1:
        # llhttp knows no version that there is not yet.
        octets = octets[: line_end - 1] + b"1" + section
    try:
        head.fields = _read_fields(HttpRequestParser, octets)
        _read_request_fields(head)
    except _Unreadable as error:
        raise RequestError(str(error)) from error
    # Only now are the few requests looked after that hold what seldom occurs.
    if b"_" in octets:
        head.fields = [(name, value) for name, value in head.fields if b"_" not in name or not _is_look_alike(name)]
    if head.target.authority is not None:
        _replace_host(head, head.target.authority)
    return head


def parse_response(octets: bytes, request_method: bytes) -> ResponseHead:
    """
    Read the head of a response.

    @param octets: from the status line to the empty line, which ends them.
    @param request_method: what it answers; an answer to C{HEAD} has no body.

    @raise ResponseMalformed: it is no HTTP/1, or it is not certain where its body ends.
    """
    head = _read_plainly(octets, request_method)
    if head is not None:
        return head
    head = ResponseHead()
    try:
        _read_status_line(head, octets[: octets.find(b"\r\n")])
        if head.minor > 1:
            octets = b"HTTP/1.1" + octets[8:]
        head._fields = _read_fields(HttpResponseParser, octets)
        head._lines = None
        _read_response_fields(head, request_method)
    except _Unreadable as error:
        raise ResponseMalformed(str(error)) from error
    return head


def is_bodiless(status: int, request_method: bytes) -> bool:
    """Whether a response has no body, whatever its fields say (RFC 9112 section 6.3)."""
    return status < 200 or status in _BODILESS or request_method == b"HEAD"


def _read_plain_line(head: RequestHead, octets: bytes) -> int:
    """
    Read a request line that holds nothing unusual.

    @return: where it ends; 0 if it is another one, of which nothing has been read.
    """
    plain = _PLAIN_LINE.match(octets)
    if plain is None:
        return 0
    method, raw_target, path, query = plain.groups(b"")
    if method not in METHODS:
        return 0
    head.method = method
    head.raw_target = raw_target
    head.target = Target(path, path.decode("ascii"), query)
    head.minor = 1
    return plain.end()


def _read_request_line(head: RequestHead, octets: bytes) -> int:
    """
    Read any other one.

    @return: where it ends.
    """
    line_end = octets.find(b"\r\n")
    # Exactly two single spaces (RFC 9112 section 3); llhttp takes more.
    parts = octets[:line_end].split(b" ")
    if len(parts) != 3:
        raise RequestError("The request line is malformed.")
    method, raw_target, version = parts
    minor = _MINORS.get(version)
    if minor is None:
        if _VERSION.fullmatch(version):
            raise RequestError("Only HTTP/1 is spoken here.", 505)
        raise RequestError("The request line is malformed.")
    if method not in METHODS:
        if method == b"CONNECT":
            raise RequestError("No tunnels are opened here.", 405, ((b"Allow", _ALLOW),))
        if valid_name(method):
            raise RequestError("The method is not known here.", 501)
        raise RequestError("The request line is malformed.")
    head.method = method
    head.raw_target = raw_target
    head.target = parse_target(method, raw_target)
    head.minor = minor
    return line_end


def _read_status_line(head: ResponseHead, line: bytes) -> None:
    minor = _MINORS.get(line[:8])
    status = line[9:12]
    # The space after the status is mandatory, and forgotten by many where no reason follows.
    if minor is None or line[8:9] != b" " or not status.isdigit() or line[12:13] not in (b" ", b""):
        raise _Unreadable("The status line is malformed.")
    head.minor = minor
    head.status = int(status)
    head.reason = line[13:]
    if head.status < 100 or len(head.reason.translate(None, _CONTROLS)) != len(head.reason):
        raise _Unreadable("The status line is malformed.")


def _read_fields(parser_type: type[HttpRequestParser] | type[HttpResponseParser], octets: bytes) -> Fields:
    """The fields of one head by llhttp, without the white space around their values."""
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
        raise _Unreadable(f"The head is malformed: {error}.") from error
    # Each line but the first and the empty one is a field.  Had llhttp seen other lines than whoever cut
    # this head, a part of it would be a body to one of the two.
    if octets.count(b"\n") != len(fields) + 2 or octets[-4:] != b"\r\n\r\n":
        raise _Unreadable("The head is malformed: it does not end where it should.")
    return fields


def _read_request_fields(head: RequestHead) -> None:
    minor = head.minor
    host: bytes | None = None
    connection: tuple[bytes, ...] = ()
    upgrade: tuple[bytes, ...] = ()
    length: int | None = None
    chunked = expects_continue = has_proxy = False
    for name, value in head.fields:
        key = name.lower()
        if key in _DECISIVE:
            if key == b"host":
                if host is not None:
                    raise _Unreadable("There is more than one Host.")
                host = value
            elif key == b"connection":
                connection += _options(value)
            elif key == b"content-length":
                length = _read_length(value)
            elif key == b"transfer-encoding":
                chunked = _read_coding(value, minor, chunked)
            elif key == b"upgrade":
                upgrade += _options(value)
            elif key == b"expect":
                # A client of 1.0 knows no 100 (RFC 9110 section 10.1.1).
                expects_continue = minor > 0 and value.lower() == b"100-continue"
            else:
                has_proxy = True
    if has_proxy:
        # A CGI application would find it as HTTP_PROXY and take it for its own setting.
        head.fields = [field for field in head.fields if field[0].lower() != b"proxy"]
    if host is None:
        if minor:
            raise _Unreadable("There is no Host.")
        head.host = None
        head.host_value = b""
    else:
        try:
            head.host = authority.parse(host)
        except ValueError as error:
            raise _Unreadable(f"The Host is malformed: {error}.") from error
        head.host_value = host
    head.connection = connection
    head.upgrade = upgrade
    head.length = length
    head.chunked = chunked
    head.expects_continue = expects_continue
    head.keep_alive = _keeps_alive(minor, connection)


def _read_response_fields(head: ResponseHead, request_method: bytes) -> None:
    connection: tuple[bytes, ...] = ()
    length: int | None = None
    chunked = dated = False
    for name, value in head.fields:
        key = name.lower()
        if key in _DECISIVE_IN_ANSWERS:
            if key == b"date":
                dated = True
            elif key == b"content-length":
                length = _read_length(value)
            elif key == b"connection":
                connection += _options(value)
            else:
                chunked = _read_coding(value, head.minor, chunked)
    status = head.status
    if length is not None and (status < 200 or status == 204):
        # It must not be there (RFC 9110 section 8.6), and a client that heeds it would wait for a body.
        head._fields = [field for field in head.fields if field[0].lower() != b"content-length"]
        length = None
    head.bodiless = is_bodiless(status, request_method)
    head.connection = connection
    head.length = length
    head.chunked = chunked
    head.dated = dated and b"date" not in connection
    head.keep_alive = _keeps_alive(head.minor, connection) and (
        chunked or length is not None or head.bodiless
    )


# What nearly every server sends: one space before a value, none behind it, and once at most what decides how the
# answer is read.  Where this matches, llhttp finds the same fields.  No line fits two of the alternatives, or a head
# that ends wrongly would be tried in more ways than there is time for.
_VALUE = rb"[!-~\x80-\xff][\t -~\x80-\xff]*+(?<![\t ])"
_REST = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*+:\ " + _VALUE
_PLAIN = re.compile(
    rb"""
    HTTP/1\.1\ ([2-5][0-9][0-9])\ ([\t -~\x80-\xff]*+)                # groups 1 and 2: status, reason
    ((?:\r\n(?:                                                      # 3: all fields
        [!#$%&'*+.^_`|~0-9ABE-JL-OQRSV-Zabe-jl-oqrsv-z-] REST
      | [Cc] (?i:ontent-length):\ (?(4)(?!)) (0|[1-9][0-9]{0,17})     # 4: the length, unless there is one
      | (?(5)(?!)) ([Cc] (?i:onnection):\ (?i:(close)|keep-alive))    # 5 and 6: the line, and whether it is close
      | [Cc] (?! (?i:ontent-length|onnection|lose): ) REST
      | [Dd] (?i:ate)():\ VALUE                                       # 7: whether there is a Date
      | [Dd] (?! (?i:ate): ) REST
      | (?(8)(?!)) ([Kk] (?i:eep-alive):\ VALUE)                      # 8: the line
      | [Kk] (?! (?i:eep-alive): ) REST
      | [PTUptu] (?! (?i:ransfer-encoding|pgrade|e|roxy-[^:]*+): ) REST
    ))*\r\n)\r\n
    """.replace(b"REST", _REST).replace(b"VALUE", _VALUE),
    re.VERBOSE,
)


def _read_plainly(octets: bytes, request_method: bytes) -> ResponseHead | None:
    """
    Read the head of an answer that holds nothing unusual in less than half of the time: its fields stay together.

    @return: L{None} if it is not that.
    """
    plain = _PLAIN.fullmatch(octets)
    if plain is None:
        return None
    digits, reason, section, length, connection, closes, date, kept = plain.groups()
    status = int(digits)
    if length is None or status in _BODILESS:
        return None
    lines = section
    # Those two lines go no further.
    if connection is not None:
        lines = lines.replace(b"\r\n" + connection, b"", 1)
    if kept is not None:
        lines = lines.replace(b"\r\n" + kept, b"", 1)
    head = ResponseHead()
    head.minor = 1
    head.status = status
    head.reason = reason
    head.section = section
    head._fields = None
    head._lines = lines[2:]
    head.bodiless = request_method == b"HEAD"
    head.connection = () if connection is None else _KEEP_ALIVE if closes is None else _CLOSE
    head.length = int(length)
    head.chunked = False
    head.dated = date is not None
    head.keep_alive = closes is None
    return head


def _options(value: bytes) -> tuple[bytes, ...]:
    # The values that nearly all send, without the 0.5 us of a list.
    return _USUAL_OPTIONS.get(value) or tuple(tokens((value,)))


def _keeps_alive(minor: int, connection: tuple[bytes, ...]) -> bool:
    """Whether the connection persists after this message (RFC 9112 section 9.3)."""
    return b"close" not in connection and (minor > 0 or b"keep-alive" in connection)


def _read_length(value: bytes) -> int:
    """Content-Length, in its shortest form (RFC 9110 section 8.6); a second one llhttp has refused."""
    if not value.isdigit() or (value[0] == 0x30 and value != b"0") or len(value) > 19:
        raise _Unreadable("The Content-Length is no plain number.")
    length = int(value)
    if length > MAX_LENGTH:
        raise _Unreadable("The Content-Length is too large.")
    return length


def _read_coding(value: bytes, minor: int, seen: bool) -> bool:
    """
    Transfer-Encoding, which is C{chunked} and nothing else (RFC 9112 section 6.1).

    Servers disagree about every other value, and about all of them in HTTP/1.0.
    One beside a Content-Length llhttp has refused.
    """
    if seen or minor == 0 or value.lower() != b"chunked":
        raise _Unreadable("This Transfer-Encoding is not understood.")
    return True


def _is_look_alike(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-") in _LOOK_ALIKES


def _replace_host(head: RequestHead, host: Authority) -> None:
    """Put the host of an absolute-form in the place of Host (RFC 9112 section 3.2.2)."""
    value = host.to_bytes()
    head.host = host
    head.host_value = value
    # First, as RFC 9110 section 7.2 recommends.
    head.fields = [(b"Host", value), *(field for field in head.fields if field[0].lower() != b"host")]
