"""Autobahn's protocols without a socket."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from proxyd.errors import ResponseMalformed
from proxyd.http.upgrade import accept_for
from proxyd.websocket.downstream import DownstreamHandshake
from proxyd.websocket.handshake import Octets
from proxyd.websocket.origin import OriginHandshake

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def test_the_example_of_the_rfc() -> None:
    """The key and its answer in RFC 6455 section 1.3."""
    assert DownstreamHandshake().accept(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_an_origin_that_agrees() -> None:
    """The right answer opens it; each has a key of its own."""
    one, other = OriginHandshake(), OriginHandshake()
    assert one.websocket_key != other.websocket_key
    one.complete(accept_for(one.websocket_key))
    assert one.state == one.STATE_OPEN


def test_an_origin_that_does_not() -> None:
    """The answer to another key is no agreement."""
    with pytest.raises(ResponseMalformed):
        OriginHandshake().complete(accept_for(KEY))


@pytest.mark.parametrize("key", [b"short", b"!!!!!!!!!!!!!!!!!!!!!!==", KEY[:-1] + b"A"])
def test_what_is_no_key(key: bytes) -> None:
    """Autobahn has the last word."""
    with pytest.raises(ValueError, match="opening handshake"):
        DownstreamHandshake().accept(key)


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


def open_downstream() -> DownstreamHandshake:
    """One that has accepted."""
    downstream = DownstreamHandshake()
    downstream.accept(KEY)
    return downstream


@pytest.mark.parametrize("make", [OriginHandshake, open_origin, DownstreamHandshake, open_downstream])
def test_nothing_is_left(make: Any) -> None:
    """When it is let go of it is gone, without the garbage collector, and without an error in the log."""
    gc.collect()
    gc.disable()
    try:
        one = weakref.ref(make())
        assert one() is None
    finally:
        gc.enable()
