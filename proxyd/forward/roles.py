"""What the parts around a client's connection ask of each other."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from proxyd.forward.record import Record
from proxyd.http.request import RequestHead
from proxyd.timer import Timers


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


# Each answer asks for two of them, for which an enumeration takes its time.
LENGTH, STREAM = Body.LENGTH, Body.STREAM


class Timeouts(Protocol):
    """What a channel needs of the configuration's C{timeouts}: seconds, 0 is never."""

    @property
    def header(self) -> float:
        """Until a request's head is whole."""

    @property
    def body(self) -> float:
        """The longest silence of a client that is being waited for."""

    @property
    def keep_alive(self) -> float:
        """How long a connection may be without a request."""


class Limits(Protocol):
    """What a channel needs of the configuration's C{limits}."""

    @property
    def header(self) -> int:
        """Octets of a request's head, and of what a client may send ahead."""

    @property
    def uri(self) -> int:
        """Octets of a request-target."""

    @property
    def body(self) -> int:
        """Octets of a request's body; 0 is no limit."""

    @property
    def connections(self) -> int:
        """Connections of clients at once."""

    @property
    def per_client(self) -> int:
        """Requests of one address at once, and as many connections that make none; 0 is no limit."""


class Settings(Protocol):
    """What a channel needs of the configuration."""

    @property
    def timeouts(self) -> Timeouts:
        """Time-outs."""

    @property
    def limits(self) -> Limits:
        """Limits."""


class Site(Protocol):
    """What a channel has in common with others: see L{proxyd.forward.site}."""

    timers: Timers
    now: Callable[[], float]
    draining: bool
    channels: set[Any]

    @property
    def resources(self) -> Any:
        """What serves ordinary Resources: see L{proxyd.forward.resources}."""

    @property
    def settings(self) -> Settings:
        """Those for the next request."""

    def connection_made(self, channel: Any) -> bool:
        """
        Count a connection.

        @return: whether there is room for it; if not, it is admitted when another has ended.
        """

    def connection_ended(self) -> None:
        """A connection is lost, whatever it spoke last."""

    def greet(self, address: str, limit: int) -> bool:
        """
        Count a connection towards its address until it C{speaks}.

        @param limit: the most such connections that one address may have.

        @return: whether it may be one of them.
        """

    def speaks(self, address: str) -> None:
        """A connection that was C{greet}ed has made a request, or is lost."""

    def admit(self, record: Record, limit: int) -> None:
        """
        Count an exchange towards its client's address until it ends, once.

        @param limit: the most exchanges that one address may have at once.

        @raise proxyd.errors.LimitExceeded: it has as many.
        """

    def exchange_ended(self, record: Record) -> None:
        """An exchange is over, and so is its record."""

    def respond(self, head: RequestHead, channel: Any) -> None:
        """Have a request answered."""
