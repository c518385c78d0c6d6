"""The connections of the moment: listed, and closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from typing_extensions import TypedDict

from proxyd.forward.channel import Channel
from proxyd.forward.record import OPERATOR, Record
from proxyd.websocket.ends import State
from proxyd.websocket.relay import Relay


class Flow(TypedDict):
    """What one side has sent; C{messages} is null for HTTP, C{paused} says that the other side does not take it."""

    octets: int
    messages: int | None
    paused: bool


class Live(TypedDict):
    """One request or WebSocket that is under way; C{age} is in seconds."""

    id: int
    kind: str
    age: float
    client: str
    rule: str
    target: str
    method: str
    path: str
    state: str
    fromClient: Flow
    fromTarget: Flow


class Closing(TypedDict):
    """How many connections are being closed."""

    closing: int


class Site(Protocol):
    """Who knows the clients' connections."""

    channels: set[Channel]


class Relays(Protocol):
    """Who knows the WebSockets."""

    live: set[Relay]


class Connections:
    """All requests and WebSockets that are under way in this process."""

    def __init__(self, clock: IReactorTime, site: Callable[[], Site], relays: Relays) -> None:
        self._clock = clock
        self._site = site
        self._relays = relays

    def listed(self) -> Deferred[list[Live]]:
        """All of them, the oldest one first."""
        now = self._clock.seconds()
        # Before they are numbered, which they are when they are first listed.
        found = sorted(self._all(), key=lambda one: one.record.started)
        return succeed([self._relay(one, now) if isinstance(one, Relay) else self._channel(one, now) for one in found])

    def close(self, number: int, code: int) -> Deferred[bool]:
        """
        Close one.

        @param code: the close code for a WebSocket; a request is cut off.

        @return: whether it was there.
        """
        for one in self._all():
            if one.record.number == number:
                _close(one, code)
                return succeed(True)
        return succeed(False)

    def close_rule(self, rule_id: str, code: int, spread_s: float) -> Deferred[int]:
        """
        Close all that a rule serves now, one after the other.

        @param spread_s: seconds until the last one is closed.

        @return: how many these are.
        """
        found = [one for one in self._all() if one.record.rule_id == rule_id]
        for index, one in enumerate(found):
            delay = spread_s * index / len(found)
            self._clock.callLater(delay, self._close_if_there, one, one.record, code)
        return succeed(len(found))

    def _close_if_there(self, one: Relay | Channel, record: Record, code: int) -> None:
        # A connection of HTTP may have had other requests since.
        is_there = one in self._relays.live if isinstance(one, Relay) else one in self._channels()
        if is_there and one.record is record:
            _close(one, code)

    def _all(self) -> Iterator[Any]:
        yield from list(self._relays.live)
        yield from self._channels()

    def _channels(self) -> Iterable[Channel]:
        return [one for one in self._site().channels if one.is_busy]

    def _relay(self, relay: Relay, now: float) -> Live:
        client, origin = relay.client, relay.origin
        is_open = client.state is State.OPEN and origin.state is State.OPEN
        return _live(
            "websocket",
            relay.record,
            now,
            "open" if is_open else "closing",
            Flow(octets=client.follower.octets, messages=client.follower.messages, paused=origin.is_full),
            Flow(octets=origin.follower.octets, messages=origin.follower.messages, paused=client.is_full),
        )

    def _channel(self, channel: Channel, now: float) -> Live:
        record = channel.record
        return _live(
            "http",
            record,
            now,
            "answering" if record.status else "waiting",
            Flow(octets=record.received, messages=None, paused=channel.is_request_paused),
            Flow(octets=record.sent, messages=None, paused=channel.is_answer_paused),
        )


def _live(kind: str, record: Any, now: float, state: str, from_client: Flow, from_target: Flow) -> Live:
    head = record.head
    return Live(
        id=record.number,
        kind=kind,
        age=round(now - record.started, 3),
        client=record.client,
        rule=record.rule_id,
        target=record.origin,
        method=head.method.decode("latin-1"),
        path=head.raw_target.partition(b"?")[0].decode("latin-1"),
        state=state,
        fromClient=from_client,
        fromTarget=from_target,
    )


def _close(one: Any, code: int) -> None:
    if isinstance(one, Relay):
        one.close(code)
    else:
        one.record.note(OPERATOR, "connection", "closed it through the admin API")
        one.abort()
