"""
The heads of requests.

@see: L{proxyd.http.head}; RFC 9110 sections 7.2, 7.6.1 and 10.1.1
"""

from __future__ import annotations

import re
from typing import Any

from httptools import HttpRequestParser

from proxyd.errors import RequestError
from proxyd.http import authority
from proxyd.http.authority import Authority
from proxyd.http.fields import HOP_BY_HOP, Fields, valid_name
from proxyd.http.forwarded import FORWARDING
from proxyd.http.head import MINORS, Unreadable, keeps_alive, read_coding, read_fields, read_length, read_options
from proxyd.http.target import ORDINARY, Target, parse_target

METHODS = frozenset(
    (
        b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE OPTIONS PATCH POST "
        b"PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNLINK UNLOCK"
    ).split()
)
"""The methods that are served: those of IANA's registry that llhttp knows, without C{CONNECT}."""

_ALLOW = b", ".join(sorted(METHODS))
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
# What nearly every request begins with, read in one go.
_PLAIN_LINE = re.compile(rb"([A-Z]++) " + ORDINARY + rb" HTTP/1\.1")

_DECISIVE = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"proxy", b"transfer-encoding", b"upgrade")
)
"""The lower-case names of the fields that decide how a request is read."""

# To a CGI or WSGI application X_Forwarded_For is X-Forwarded-For: with an underscore these names are
# only ever an attempt to get past a proxy.
_LOOK_ALIKES = HOP_BY_HOP | FORWARDING | {b"content-length"}


class RequestHead:
    """
    The head of one request.

    @ivar line: the request line, as the client wrote it.
    @ivar target: what is asked for.
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
        "line",
        "logged",
        "memo",
        "method",
        "minor",
        "section",
        "target",
        "upgrade",
    )

    line: bytes
    method: bytes
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
    def raw_target(self) -> bytes:
        """What the client wrote for L{target}."""
        return self.line.split(b" ")[1]

    @property
    def has_body(self) -> bool:
        """Whether octets follow this head."""
        return self.chunked or bool(self.length)


def parse_request(octets: bytes, previous: RequestHead | None = None) -> RequestHead:
    """
    Read the head of a request.

    @param octets: from the request line to the empty line, which ends them.
    @param previous: the request before this one on the same connection.
        Clients repeat their fields from request to request, those that poll
        and call all of it, and what is the same to the octet need not be read
        twice.

    @return: C{previous} itself, if all is the same.

    @raise RequestError: this is no request that proxyd serves: 400; 405 for
        C{CONNECT}; 501 for an unknown method; 505 for another major version.
    """
    line, _, section = octets.partition(b"\r\n")
    if previous is not None and line == previous.line and section == previous.section:
        return previous
    head = RequestHead()
    head.line = line
    plain = _PLAIN_LINE.fullmatch(line)
    if plain is None or plain[1] not in METHODS:
        _read_request_line(head, line)
    else:
        head.method, path, query = plain.groups(b"")
        head.target = Target(path, path.decode(), query)
        head.minor = 1
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
        octets = line[:-1] + b"1\r\n" + section
    try:
        head.fields = read_fields(HttpRequestParser, octets)
        _read_request_fields(head)
    except Unreadable as error:
        raise RequestError(str(error)) from error
    # Only now are the few requests looked after that hold what seldom occurs.
    # By find(): "in" tries to take what it looks for as a number first.
    if section.find(b"_") >= 0:
        head.fields = [field for field in head.fields if field[0].find(b"_") < 0 or not _is_look_alike(field[0])]
    if head.target.authority is not None:
        _replace_host(head, head.target.authority)
    return head


def _read_request_line(head: RequestHead, line: bytes) -> None:
    """Read any request line."""
    # Exactly two single spaces (RFC 9112 section 3); llhttp takes more.
    parts = line.split(b" ")
    if len(parts) != 3:
        raise RequestError("The request line is malformed.")
    method, raw_target, version = parts
    minor = MINORS.get(version)
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
    head.target = parse_target(method, raw_target)
    head.minor = minor


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
                    raise Unreadable("There is more than one Host.")
                host = value
            elif key == b"connection":
                connection += read_options(value)
            elif key == b"content-length":
                length = read_length(value, length, chunked)
            elif key == b"transfer-encoding":
                chunked = read_coding(value, minor, length, chunked)
            elif key == b"upgrade":
                upgrade += read_options(value)
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
            raise Unreadable("There is no Host.")
        head.host = None
        head.host_value = b""
    else:
        try:
            head.host = authority.parse(host)
        except ValueError as error:
            raise Unreadable(f"The Host is malformed: {error}.") from error
        head.host_value = host
    head.connection = connection
    head.upgrade = upgrade
    head.length = length
    head.chunked = chunked
    head.expects_continue = expects_continue
    head.keep_alive = keeps_alive(minor, connection)


def _is_look_alike(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-") in _LOOK_ALIKES


def _replace_host(head: RequestHead, host: Authority) -> None:
    """Put the host of an absolute-form in the place of Host (RFC 9112 section 3.2.2)."""
    value = host.to_bytes()
    head.host = host
    head.host_value = value
    # First, as RFC 9110 section 7.2 recommends.
    head.fields = [(b"Host", value), *(field for field in head.fields if field[0].lower() != b"host")]
