"""proxyd's opening handshakes, compared with Autobahn's."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from twisted.internet.task import Clock

from proxyd.errors import ResponseMalformed
from proxyd.http.fields import Fields, serialize, values
from proxyd.http.request import parse_request
from proxyd.http.response import parse_response
from proxyd.http.upgrade import SWITCH, accept_for
from proxyd.websocket.handshake import Octets
from proxyd.websocket.origin import OriginHandshake
from proxyd.websocket.relay import RelayOptions
from proxyd.websocket.relays import Relays, Switch
from tests.support.handshakes import Client, accepted_by_server

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
"""The client's, of RFC 6455 section 1.3."""


def switch() -> Switch:
    """What asks an origin server for a WebSocket, as a client has asked for one."""
    fields: Fields = [
        (b"Host", b"a"),
        *SWITCH,
        (b"Sec-WebSocket-Key", KEY),
        (b"Sec-WebSocket-Version", b"13"),
    ]
    head = parse_request(b"GET / HTTP/1.1\r\n%b\r\n" % serialize(fields))
    return Relays(Clock()).upgrade(head, RelayOptions())


def answer(accept: bytes) -> bytes:
    """The head that agrees."""
    fields = [*SWITCH, (b"Sec-WebSocket-Accept", accept)]
    return b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % serialize(fields)


def test_each_asks_with_a_key_of_its_own() -> None:
    """A key is random (RFC 6455 section 4.1), and not the client's."""
    keys = {values(switch().handshake, b"sec-websocket-key")[0] for _ in range(10)}
    assert len(keys | {KEY}) == 11


def test_autobahns_server_accepts_what_we_ask() -> None:
    """And answers what we expect of it."""
    one = switch()
    accept = accepted_by_server(one.handshake)
    assert accept == accept_for(values(one.handshake, b"sec-websocket-key")[0])
    assert one.agreed(parse_response(answer(accept), b"GET"))


def test_the_answer_to_another_key_is_no_agreement() -> None:
    """Neither to us nor to Autobahn's client."""
    with pytest.raises(ResponseMalformed):
        switch().agreed(parse_response(answer(accept_for(KEY)), b"GET"))
    assert not Client().opens(answer(accept_for(KEY)))


def test_autobahns_client_takes_our_answer() -> None:
    """What a client gets is the answer to its own key."""
    client = Client()
    assert client.opens(answer(accept_for(client.key)))


def test_the_example_of_the_rfc() -> None:
    """The key and its answer in RFC 6455 section 1.3."""
    one = switch()
    accept = accept_for(values(one.handshake, b"sec-websocket-key")[0])
    fields = one.agreed(parse_response(answer(accept), b"GET"))
    assert values(fields, b"sec-websocket-accept") == [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]


def test_autobahn_without_a_socket() -> None:
    """The right answer opens it; each has a key of its own."""
    one, other = OriginHandshake(), OriginHandshake()
    assert one.websocket_key != other.websocket_key
    one.complete(accept_for(one.websocket_key))
    assert one.state == one.STATE_OPEN
    with pytest.raises(ResponseMalformed):
        other.complete(accept_for(KEY))


def test_octets_are_kept() -> None:
    """What is written is there; ending it is nothing."""
    transport = Octets()
    transport.write(b"a")
    transport.write(b"b")
    transport.loseConnection()
    transport.abortConnection()
    assert transport.written == b"ab"


def open_origin() -> OriginHandshake:
    """One that has agreed."""
    origin = OriginHandshake()
    origin.complete(accept_for(origin.websocket_key))
    return origin


@pytest.mark.parametrize("make", [OriginHandshake, open_origin])
def test_nothing_is_left(make: Any) -> None:
    """When it is let go of it is gone, without the garbage collector, and without an error in the log."""
    gc.collect()
    gc.disable()
    try:
        one = weakref.ref(make())
        assert one() is None
    finally:
        gc.enable()
