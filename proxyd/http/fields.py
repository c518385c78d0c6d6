"""
Ordered header fields, and which of them go further than one connection.

A field is a pair of its name as it came and its value without the white space
around it.  Fields stay a list: their order, their duplicates and their
spelling belong to whoever sent them.

@see: RFC 9110 section 5 (fields), 6.5 (trailers), 7.6.1 (Connection).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable

Field = tuple[bytes, bytes]
Fields = list[Field]

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""The lower-case names of fields that end with the connection they came on."""

# "Close" is reserved so that it can never be anything but the connection option (RFC 9110 section 16.3.1).
# With it in the set, the two options that nearly every message has cost no set of their own.
_DROPPED = HOP_BY_HOP | {b"close"}

_NEVER_NAMED = frozenset((b"host", b"content-length"))

_NOT_IN_TRAILERS = HOP_BY_HOP | {
    # framing, and how the content is to be read
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"trailer",
    # routing
    b"forwarded",
    b"host",
    b"max-forwards",
    b"proxy",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-real-ip",
    # authentication
    b"authentication-info",
    b"authorization",
    b"cookie",
    b"proxy-authentication-info",
    b"set-cookie",
    b"www-authenticate",
}

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")


def valid_name(name: bytes) -> bool:
    """Whether this is a token, as the name of a field must be (RFC 9110 section 5.1)."""
    return _NAME.fullmatch(name) is not None


def valid_value(value: bytes) -> bool:
    """Whether this may be the value of a field: no controls, no white space around it (RFC 9110 section 5.5)."""
    return _VALUE.fullmatch(value) is not None


# What an octet of a name becomes in the environment of a CGI or WSGI application, as some servers have it:
# letters and digits in one case, all else alike.
_CANONICAL = bytes(ord(chr(octet).lower()) if chr(octet).isalnum() and octet < 128 else 0x2D for octet in range(256))


def canonical(name: bytes) -> bytes:
    """
    The name of a field, the same for all spellings that an application may take for one another.

    C{X-User}, C{x_user} and C{X.User} are all C{x-user}.
    """
    return name.translate(_CANONICAL)


def values(fields: Iterable[Field], name: bytes) -> list[bytes]:
    """
    The values of one field, line by line.

    @param name: in lower case.
    """
    return [value for given, value in fields if given.lower() == name]


def gathered(fields: Iterable[Field], names: Container[bytes]) -> dict[bytes, list[bytes]]:
    """
    The values of several fields, line by line, found in one pass: under the names in lower case that are there.

    @param names: in lower case.
    """
    found: dict[bytes, list[bytes]] = {}
    for given, value in fields:
        name = given.lower()
        if name in names:
            found.setdefault(name, []).append(value)
    return found


def tokens(lines: Iterable[bytes]) -> list[bytes]:
    """The members of a list of tokens, in lower case and without the empty ones (RFC 9110 section 5.6.1.2)."""
    return [token for member in b",".join(lines).lower().split(b",") if (token := member.strip(b" \t"))]


def end_to_end(fields: Iterable[Field], connection: Collection[bytes]) -> Fields:
    """
    The fields that go on to the next hop, in their order.

    C{Host} and C{Content-Length} stay, whatever C{Connection} says: a client
    must not be able to talk a message out of its routing or framing.

    @param connection: the members of C{Connection} in lower case.

    @see: RFC 9110 section 7.6.1
    """
    dropped = _DROPPED
    if not dropped.issuperset(connection):
        dropped = dropped.union(connection) - _NEVER_NAMED
    return [field for field in fields if field[0].lower() not in dropped]


def trailers_to_forward(fields: Iterable[Field], connection: Collection[bytes]) -> Fields:
    """
    The trailers that go on to the next hop, in their order.

    Left out is what a recipient might take for framing, routing or
    authentication when it merges trailers into the head.

    @param connection: the members of the head's C{Connection} in lower case.

    @see: RFC 9110 section 6.5.1
    """
    dropped = _NOT_IN_TRAILERS.union(connection)
    # To a CGI or WSGI application an underscore is a hyphen.
    return [field for field in fields if field[0].lower().replace(b"_", b"-") not in dropped]


def serialize(fields: Iterable[Field]) -> bytes:
    """
    The fields as lines.

    Nothing is checked: what came through L{proxyd.http.head} or was found
    valid by L{valid_name} and L{valid_value} holds no line break.
    """
    return b"\r\n".join([*map(b": ".join, fields), b""])
