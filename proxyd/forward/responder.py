"""What a client's channel and whoever answers a request say to each other."""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol


class Responder(Protocol):
    """Who answers one request: an exchange with an origin server, or a Resource."""

    def body_received(self, payload: bytes, ended: bool) -> None:
        """More of the request's body, after C{Channel.read_body}."""

    def cancel(self) -> None:
        """The answer is no longer wanted: the client has gone, or its request turned out bad."""

    def pause(self) -> None:
        """The client does not take more for now."""

    def resume(self) -> None:
        """The client takes more again."""


class Body(Enum):
    """How a client learns where an answer's body ends."""

    NONE = auto()
    LENGTH = auto()
    """The fields hold C{Content-Length}."""
    STREAM = auto()
    """By chunks, or for HTTP/1.0 by the connection's end."""
    FRAMED = auto()
    """The fields and the octets that follow hold it already."""
