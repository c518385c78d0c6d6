"""
Calls between the process that supervises and a worker, over a pair of sockets.

A message is JSON behind its length.  Both ends call and answer::

    {"call": NAME, "id": N, "arguments": {...}}
    {"answer": N, "value": ...}    or    {"answer": N, "error": TEXT}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from proxyd.errors import ConfigError, ProxydError

log = Logger()

MAX_MESSAGE = 1 << 28
"""Octets of one message: ten thousand rules are a few million."""


class CallFailed(ProxydError):
    """The other end could not do what it was asked to do, and says why."""


class Link(Int32StringReceiver):
    """
    One end.

    @ivar calls: what the other end may ask for, by name; it may be answered later.
    @ivar lost: called when there is no other end any more.
    """

    MAX_LENGTH = MAX_MESSAGE
    transport: Any

    def __init__(self, calls: Mapping[str, Callable[..., Any]], lost: Callable[[], object]) -> None:
        self.calls = calls
        self.lost = lost
        self._numbers = count(1)
        self._waiting: dict[int, Deferred[Any]] = {}
        self._is_lost = False

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        """
        Have the other end do something.

        @return: what it answers; fails with L{CallFailed}, or with C{ConnectionDone} when it has gone.
        """
        if self._is_lost:
            return fail(ConnectionDone())
        number = next(self._numbers)
        waiting = self._waiting[number] = Deferred()
        self._send({"call": name, "id": number, "arguments": arguments})
        return waiting

    def tell(self, name: str, **arguments: Any) -> None:
        """The same, for what needs no answer."""
        if not self._is_lost:
            self._send({"call": name, "id": None, "arguments": arguments})

    def _send(self, message: Mapping[str, Any]) -> None:
        self.sendString(json.dumps(message).encode())

    def stringReceived(self, string: bytes) -> None:
        message = json.loads(string)
        if "call" not in message:
            waiting = self._waiting.pop(message["answer"])
            if "error" in message:
                waiting.errback(CallFailed(message["error"]))
            else:
                waiting.callback(message["value"])
            return
        doing = maybeDeferred(self.calls[message["call"]], **message["arguments"])
        doing.addBoth(self._answer, message["call"], message["id"])

    def _answer(self, result: Any, name: str, number: int | None) -> None:
        answer: dict[str, Any] = {"answer": number}
        if isinstance(result, Failure):
            if not result.check(ConfigError):
                log.failure("{name} failed", result, name=name)
            answer["error"] = str(result.value)
        else:
            answer["value"] = result
        if number is not None and not self._is_lost:
            self._send(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.errback(ConnectionDone())
        self.lost()
