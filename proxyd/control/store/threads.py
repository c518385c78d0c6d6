"""A thread for calls that block."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class OneThread:
    """
    Makes calls one after another, in the order in which they were asked for.

    Unlike those of a C{ThreadPool} it is never waited for by blocking: it may
    be connecting to a server that does not answer.  It is a daemon, so that
    such a call does not keep the process from ending either.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._calls: SimpleQueue[tuple[Deferred[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], T]) -> Deferred[T]:
        """
        @return: what the call returns, on the reactor.
        """
        answer: Deferred[T] = Deferred()
        self._calls.put((answer, call))
        return answer

    def end(self) -> Deferred[None]:
        """
        End the thread when it has made all calls.

        @return: fires when it has; nothing may be asked for any more.
        """
        ended = self.run(lambda: None)
        self._calls.put(None)
        return ended

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            answer, call = asked
            result: Any
            try:
                result = call()
            except Exception:
                result = Failure()
            self._reactor.callFromThread(answer.callback, result)
            # Nothing is held on to while there is nothing to do.
            del asked, answer, call, result
