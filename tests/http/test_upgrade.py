"""The WebSocket opening handshake, between the client's and the origin server's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import ResponseMalformed
from proxyd.http.fields import serialize, values
from proxyd.http.request import RequestHead, parse_request
from proxyd.http.response import ResponseHead, parse_response
from proxyd.http.upgrade import (
    HANDSHAKE,
    Offer,
    accept_for,
    as_key,
    check_switch,
    is_upgrade,
    offer,
    request_handshake_fields,
    response_handshake_fields,
)

# The example of RFC 6455 section 1.3
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

ASKING = {
    b"Upgrade": b"websocket",
    b"Connection": b"keep-alive, Upgrade",
    b"Sec-WebSocket-Key": KEY,
    b"Sec-WebSocket-Version": b"13",
}
SWITCHING = {b"Upgrade": b"WebSocket", b"Connection": b"upgrade", b"Sec-WebSocket-Accept": ACCEPT}


def request(fields: dict[bytes, bytes], *more: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead:
    """Parse a request of these fields, less the empty ones, and lines."""
    lines = serialize((name, value) for name, value in fields.items() if value)
    return parse_request(start + b"\r\nHost: h\r\n" + lines + b"".join(line + b"\r\n" for line in more) + b"\r\n")


def response(fields: dict[bytes, bytes], *more: bytes, start: bytes = b"HTTP/1.1 101 x") -> ResponseHead:
    """Parse a response of these fields and lines."""
    return parse_response(
        start + b"\r\n" + serialize(fields.items()) + b"".join(line + b"\r\n" for line in more) + b"\r\n", b"GET"
    )


@pytest.mark.parametrize(
    ("change", "more", "start", "upgrade"),
    [
        # RFC 6455 section 4.2.1
        ({}, [], b"GET / HTTP/1.1", True),
        ({b"Upgrade": b"h2c, WebSocket"}, [], b"GET / HTTP/1.1", True),
        ({b"Connection": b"UPGRADE"}, [], b"GET / HTTP/1.1", True),
        ({}, [b"Content-Length: 0"], b"GET / HTTP/1.1", True),
        # The version is for the origin server to judge (section 4.4).
        ({b"Sec-WebSocket-Version": b"8"}, [], b"GET / HTTP/1.1", True),
        ({b"Sec-WebSocket-Version": b""}, [], b"GET / HTTP/1.1", True),
        ({}, [], b"GET / HTTP/1.2", True),
        ({}, [], b"POST / HTTP/1.1", False),
        ({}, [], b"GET / HTTP/1.0", False),
        ({}, [b"Content-Length: 1"], b"GET / HTTP/1.1", False),
        ({}, [b"Transfer-Encoding: chunked"], b"GET / HTTP/1.1", False),
        ({b"Upgrade": b""}, [], b"GET / HTTP/1.1", False),
        ({b"Upgrade": b"h2c"}, [], b"GET / HTTP/1.1", False),
        ({b"Upgrade": b"websockets"}, [], b"GET / HTTP/1.1", False),
        ({b"Connection": b""}, [], b"GET / HTTP/1.1", False),
        ({b"Connection": b"keep-alive"}, [], b"GET / HTTP/1.1", False),
        ({b"Sec-WebSocket-Key": b""}, [], b"GET / HTTP/1.1", False),
        ({}, [b"Sec-WebSocket-Key: " + KEY], b"GET / HTTP/1.1", False),
        ({b"Sec-WebSocket-Key": b"c2hvcnQ="}, [], b"GET / HTTP/1.1", False),
        ({b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZXM="}, [], b"GET / HTTP/1.1", False),
        ({b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ"}, [], b"GET / HTTP/1.1", False),
        ({b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25j Q=="}, [], b"GET / HTTP/1.1", False),
        ({b"Sec-WebSocket-Key": b"\xe9Ghl"}, [], b"GET / HTTP/1.1", False),
    ],
)
def test_is_upgrade(change: dict[bytes, bytes], more: list[bytes], start: bytes, upgrade: bool) -> None:
    """What is no whole handshake is a plain request."""
    assert is_upgrade(request(ASKING | change, *more, start=start)) is upgrade


def test_accept() -> None:
    """The example of RFC 6455 section 1.3."""
    assert accept_for(KEY) == ACCEPT


def test_a_nonce_as_a_key() -> None:
    """The nonce of the example in RFC 6455 section 1.3, without a line's end."""
    assert as_key(b"the sample nonce") == KEY


def test_offer() -> None:
    """Protocols keep their case, extensions lose their parameters."""
    head = request(
        ASKING,
        b"Sec-WebSocket-Protocol: Chat, superchat,",
        b"Sec-WebSocket-Protocol: v2.x",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-a ;b",
        b"Sec-WebSocket-Extensions: x-c",
    )
    assert offer(head.fields) == Offer((b"Chat", b"superchat", b"v2.x"), (b"permessage-deflate", b"x-a", b"x-c"))
    assert offer(request(ASKING).fields) == Offer((), ())


OFFER = Offer((b"chat", b"v2"), (b"permessage-deflate", b"x-a"))


@pytest.mark.parametrize(
    "more",
    [
        # RFC 6455 section 4.2.2
        [],
        [b"Sec-WebSocket-Protocol: v2"],
        [b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"],
        [b"Sec-WebSocket-Extensions: x-a, permessage-deflate"],
        [b"Sec-WebSocket-Extensions: x-a", b"Sec-WebSocket-Extensions: permessage-deflate"],
        [b"Set-Cookie: a=b", b"X: caf\xe9"],
    ],
)
def test_switches(more: list[bytes]) -> None:
    """A 101 that answers what was offered."""
    check_switch(response(SWITCHING, *more), KEY, OFFER)


@pytest.mark.parametrize(
    ("change", "more", "start"),
    [
        # RFC 6455 section 4.1, the checks of a client
        ({}, [], b"HTTP/1.1 200 x"),
        ({b"Upgrade": b"h2c"}, [], b"HTTP/1.1 101 x"),
        ({b"Upgrade": b"websocket, h2c"}, [], b"HTTP/1.1 101 x"),
        ({b"Sec-WebSocket-Accept": accept_for(b"other")}, [], b"HTTP/1.1 101 x"),
        ({b"Sec-WebSocket-Accept": ACCEPT.lower()}, [], b"HTTP/1.1 101 x"),
        ({b"Sec-WebSocket-Accept": b""}, [], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Accept: " + ACCEPT], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Protocol: other"], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Protocol: CHAT"], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Protocol: chat, v2"], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: v2"], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Protocol:"], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Extensions: x-b"], b"HTTP/1.1 101 x"),
        ({}, [b"Sec-WebSocket-Extensions: x-a, x-b; y"], b"HTTP/1.1 101 x"),
    ],
)
def test_switches_to_something_else(change: dict[bytes, bytes], more: list[bytes], start: bytes) -> None:
    """A 101 that a client would have to fail is a bad gateway."""
    with pytest.raises(ResponseMalformed) as caught:
        check_switch(response(SWITCHING | change, *more, start=start), KEY, OFFER)
    assert (caught.value.status, caught.value.error_type) == (502, "http_upgrade_failed")


def test_a_switch_needs_connection() -> None:
    """Upgrade without its Connection option was not meant for us (RFC 9110 section 7.8)."""
    head = response(SWITCHING)
    head.connection = ()
    with pytest.raises(ResponseMalformed):
        check_switch(head, KEY, OFFER)


def test_what_the_origin_server_is_asked() -> None:
    """The client's lines cross as they came, the key is the given one, and no more than one of each of ours."""
    head = request(
        ASKING | {b"Upgrade": b"h2c, websocket"},
        b"sec-websocket-protocol: a, B",
        b"Sec-WebSocket-Protocol: c",
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8, x-y",
        b"Sec-WebSocket-Accept: x",
        b"Cookie: a",
    )
    fields = request_handshake_fields(head.fields, b"key")
    assert fields == [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", b"key"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"sec-websocket-protocol", b"a, B"),
        (b"Sec-WebSocket-Protocol", b"c"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate; server_max_window_bits=8, x-y"),
    ]
    assert {name.lower() for name, _ in fields} <= HANDSHAKE | {b"upgrade", b"connection"}


def test_what_the_client_is_answered() -> None:
    """The origin server's fields, and the accept for the client's own key."""
    head = response(
        SWITCHING | {b"Sec-WebSocket-Accept": b"for another key", b"Connection": b"Upgrade, X-Hop"},
        b"Sec-WebSocket-Protocol: a",
        b"Set-Cookie: a",
        b"Keep-Alive: 5",
        b"X-Hop: 1",
        b"set-cookie: b",
    )
    assert response_handshake_fields(head, KEY) == [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", ACCEPT),
        (b"Sec-WebSocket-Protocol", b"a"),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
    ]


@given(st.permutations([(name, value) for name, value in ASKING.items()]), st.sampled_from([bytes.upper, bytes.lower]))
def test_case_and_order_do_not_matter(fields: list[tuple[bytes, bytes]], spell: object) -> None:
    """Fields are found whatever their place and the case of their names."""
    assert callable(spell)
    head = request({spell(name): value for name, value in fields})
    assert is_upgrade(head)
    assert values(request_handshake_fields(head.fields, KEY), b"sec-websocket-version") == [b"13"]
