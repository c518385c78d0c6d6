"""
The WebSocket opening handshake as a proxy has it: which fields cross, and
whether the origin server's C{101} is one.

The keys of the two connections may differ; protocols and extensions are
agreed end to end, so that their fields cross as they are.

@see: RFC 6455 section 4, RFC 9110 section 7.8 (Upgrade)
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import NamedTuple

from proxyd.errors import ResponseMalformed
from proxyd.http.fields import Field, Fields, end_to_end, gathered, tokens, values
from proxyd.http.request import RequestHead
from proxyd.http.response import ResponseHead

HANDSHAKE = frozenset(
    (
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    )
)
"""The lower-case names of the fields that L{request_handshake_fields} provides."""

_CROSSING = HANDSHAKE - {b"sec-websocket-accept", b"sec-websocket-key"}
_OFFERING = frozenset((b"sec-websocket-extensions", b"sec-websocket-protocol"))
_AGREEING = _OFFERING | {b"sec-websocket-accept", b"upgrade"}

KEY_SIZE = 16
"""Octets of the nonce that a C{Sec-WebSocket-Key} is (RFC 6455 section 4.1)."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SWITCH: Fields = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
"""What says that WebSocket is spoken from here on, or asks for it."""


class Offer(NamedTuple):
    """
    What the client offers to speak.

    @ivar protocols: subprotocols, in the client's order and spelling.
    @ivar extensions: the names of extensions, without their parameters.
    """

    protocols: tuple[bytes, ...]
    extensions: tuple[bytes, ...]


_NOTHING = Offer((), ())


def is_upgrade(head: RequestHead) -> bool:
    """Whether this asks for a WebSocket (RFC 6455 section 4.2.1); its version is the origin server's to judge."""
    return (
        b"websocket" in head.upgrade
        and b"upgrade" in head.connection
        and head.method == b"GET"
        and head.minor > 0
        and not head.has_body
        and _is_key(values(head.fields, b"sec-websocket-key"))
    )


def _is_key(lines: Sequence[bytes]) -> bool:
    try:
        return len(lines) == 1 and len(a2b_base64(lines[0], strict_mode=True)) == KEY_SIZE
    except Error:
        return False


def handshake_of(head: RequestHead) -> Fields:
    """The client's fields of the opening handshake: L{HANDSHAKE}."""
    return [field for field in head.fields if field[0].lower() in HANDSHAKE]


def offer(asked: Iterable[Field]) -> Offer:
    """
    What may be in the answer to this.

    @param asked: at least L{handshake_of} the request.
    """
    found = gathered(asked, _OFFERING)
    if not found:
        return _NOTHING
    return Offer(
        tuple(_members(found.get(b"sec-websocket-protocol", ()))),
        tuple(extension_names(found.get(b"sec-websocket-extensions", ()))),
    )


def _members(lines: Iterable[bytes]) -> list[bytes]:
    """The members of a list as they are spelled: subprotocols are compared case-sensitively."""
    return [member for part in b",".join(lines).split(b",") if (member := part.strip(b" \t"))]


def extension_names(lines: Iterable[bytes]) -> list[bytes]:
    """The names of the extensions in C{Sec-WebSocket-Extensions} lines, without their parameters."""
    # A quoted parameter must be a token once unquoted (RFC 6455 section 9.1), so that it holds no comma.
    return [member.partition(b";")[0].rstrip(b" \t") for member in _members(lines)]


def as_key(nonce: bytes) -> bytes:
    """The C{Sec-WebSocket-Key} of L{KEY_SIZE} random octets (RFC 6455 section 4.1)."""
    return b2a_base64(nonce, newline=False)


def accept_for(key: bytes) -> bytes:
    """The C{Sec-WebSocket-Accept} for this key (RFC 6455 section 4.2.2)."""
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def check_switch(response: ResponseHead, key: bytes, offer: Offer) -> tuple[bytes, ...]:
    """
    Make sure that the origin server now speaks WebSocket, and as was offered.

    @param key: the one that was sent to the origin server.

    @return: the names of the extensions that it has chosen.

    @raise ResponseMalformed: it does not (RFC 6455 section 4.1, the checks of a client).
    """
    found = gathered(response.fields, _AGREEING)
    protocols = found.get(b"sec-websocket-protocol", ())
    extensions = tuple(extension_names(found.get(b"sec-websocket-extensions", ())))
    if response.status != 101:
        problem = "the status is not 101"
    elif tokens(found.get(b"upgrade", ())) != [b"websocket"]:
        problem = "Upgrade is not websocket"
    elif b"upgrade" not in response.connection:
        problem = "Connection does not list upgrade"
    elif found.get(b"sec-websocket-accept") != [accept_for(key)]:
        problem = "Sec-WebSocket-Accept is wrong"
    elif len(protocols) > 1 or not set(protocols).issubset(offer.protocols):
        problem = "the subprotocol was not offered"
    elif not set(extensions).issubset(offer.extensions):
        problem = "an extension was not offered"
    else:
        return extensions
    raise ResponseMalformed(f"no WebSocket: {problem}", stage="response", error_type="http_upgrade_failed")


def request_handshake_fields(asked: Iterable[Field], key: bytes) -> Fields:
    """
    The fields that ask the origin server for what the client asked for.

    @param asked: at least L{handshake_of} the request.
    @param key: the client's, or one of our own.
    """
    crossing = [field for field in asked if field[0].lower() in _CROSSING]
    return [*SWITCH, (b"Sec-WebSocket-Key", key), *crossing]


def response_handshake_fields(response: ResponseHead, client_key: bytes) -> Fields:
    """All fields of the client's C{101}: the origin server's, with the answer to the client's own key."""
    kept = [
        field
        for field in end_to_end(response.fields, response.connection)
        if field[0].lower() != b"sec-websocket-accept"
    ]
    return [*SWITCH, (b"Sec-WebSocket-Accept", accept_for(client_key)), *kept]
