"""
The process that a proxy auto-config script runs in, seen from outside.

It is asked one question at a time, killed when an answer takes too long, and
knows no secret of ours (L{proxyd.outbound.pac_worker} is what runs in it).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure

EVALUATION_S = 5.0
"""Seconds for one answer of a script."""

MAX_ANSWER: Final = 1024 * 1024
"""Octets of one answer."""


class Worker(protocol.ProcessProtocol):
    """One process, and the one line that it is asked to answer."""

    transport: Any  # IProcessTransport

    def __init__(self, reactor: Any, ended: Callable[[Worker], None]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._buffer = b""
        self._asked: Deferred[Any] | None = None
        self._deadline: Any = None
        self._seconds = 0.0
        # Of the environment only what Python needs: a script's process knows no secret.
        kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-P", os.path.join(os.path.dirname(os.path.abspath(__file__)), "pac_worker.py")],
            env={name: os.environ[name] for name in kept if name in os.environ},
            path="/",
        )

    @property
    def pid(self) -> int | None:
        """The process's number."""
        pid: int | None = self.transport.pid
        return pid

    def ask(self, question: dict[str, str]) -> Deferred[Any]:
        """
        @return: the answer; fails with L{ValueError}, whose text says why.
        """
        asked: Deferred[Any] = Deferred()
        self._asked = asked
        self._seconds = EVALUATION_S
        self._deadline = self._reactor.callLater(self._seconds, self._too_slow)
        self.transport.write(json.dumps(question).encode("ascii") + b"\n")
        return asked

    def _too_slow(self) -> None:
        self.kill()
        self._settle(Failure(ValueError(f"it took longer than {self._seconds:g} s")))

    def kill(self) -> None:
        """End the process at once."""
        if self.transport.pid is not None:
            self.transport.signalProcess("KILL")
        self.transport.loseConnection()
        self._ended(self)

    def _settle(self, result: Any) -> None:
        asked, self._asked = self._asked, None
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if asked is None:
            return
        if isinstance(result, Failure):
            asked.errback(result)
        else:
            asked.callback(result)

    def outReceived(self, data: bytes) -> None:
        self._buffer += data
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            if len(self._buffer) > MAX_ANSWER:
                self.kill()
                self._settle(Failure(ValueError("its answer is too long")))
            return
        self._buffer = rest
        answer = json.loads(line)
        if "error" in answer:
            self._settle(Failure(ValueError(str(answer["error"]))))
        else:
            self._settle(answer["result"])

    def processEnded(self, reason: Failure) -> None:
        self._ended(self)
        cause = reason.value
        how = "its process ended"
        if isinstance(cause, ProcessTerminated) and cause.signal is not None:
            how = f"its process was ended by signal {cause.signal}"
        self._settle(Failure(ValueError(how)))
