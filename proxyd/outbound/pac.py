"""
Proxy auto-config: a script says, target by target, which proxies are to be tried.

The script is somebody else's program.  It runs in a process of its own
(L{proxyd.outbound.pac_worker}), one question at a time, which is killed when
an answer takes too long and replaced when it has ended.  Without an answer
there is no connection: never a direct one.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd.errors import ProxyConnectionRefused
from proxyd.outbound.pac_fetch import MAX_SCRIPT, fetch
from proxyd.outbound.pac_process import Worker
from proxyd.rules.proxy import PacSource, ProxySettings, ProxyTLS, parse_proxy_url

log = Logger()

IDLE_S = 60.0
"""Seconds after which an unused worker is ended."""

ANSWER_S = 60.0
"""Seconds for which an answer counts."""

ANSWERS: Final = 10_000
"""Answers that are kept."""

STAT_S = 1.0
"""Seconds between two looks at a file."""

REFETCH_S = 300.0
"""Seconds after which a URL is read again."""

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}

_SCHEMES: Final = {
    "PROXY": "http",
    "HTTP": "http",
    "HTTPS": "https",
    "SOCKS": "socks5h",
    "SOCKS5": "socks5h",
    "SOCKS4": "socks4a",
}

Candidates = tuple[ProxySettings | None, ...]
"""What is to be tried in turn; L{None} is without a proxy."""


def parse_result(text: str) -> Candidates:
    """
    Read what C{FindProxyForURL} returned; what is no proxy in it is passed over.

    @raise ValueError: nothing is left.
    """
    found: list[ProxySettings | None] = []
    for entry in text.split(";"):
        kind, _, where = entry.strip().partition(" ")
        kind, where = kind.upper(), where.strip()
        if kind == "DIRECT" and not where:
            found.append(None)
        elif kind in _SCHEMES and "@" not in where:
            try:
                found.append(parse_proxy_url(f"{_SCHEMES[kind]}://{where}"))
            except ValueError:
                continue
    if not found:
        raise ValueError(f"it returned {text[:100]!r}, which names no proxy and not DIRECT")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class PacRoute:
    """
    The way that a script says to one target.

    @ivar scheme: the target's.
    @ivar tls: TLS to the proxies.
    """

    source: PacSource
    scheme: str
    tls: ProxyTLS


def pac_error(source: PacSource, reason: str) -> ProxyConnectionRefused:
    """
    @return: what an exchange fails with when a script gives no answer.
    """
    return ProxyConnectionRefused(
        f"the proxy auto-config {source.location} gave no answer: {reason}",
        stage="initializing",
        error_type="proxy_configuration_error",
    )


@dataclass(frozen=True, slots=True)
class _Key:
    scheme: str
    host: str
    port: int

    def question(self) -> dict[str, str]:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if _DEFAULT_PORTS.get(self.scheme) == self.port else f":{self.port}"
        return {"url": f"{self.scheme}://{host}{port}/", "host": self.host}


class PacEvaluator:
    """
    The answers of one script, which is read again when it changes.

    Not more than one worker runs at a time, and none when there was nothing to ask for a while.
    """

    def __init__(self, reactor: Any, source: PacSource) -> None:
        self._reactor = reactor
        self._source = source
        self._script: str | None = None
        self._seen: object = None
        self._looked = float("-inf")
        self._is_reported = False
        self._reason = ""
        self._fetching: Deferred[Any] | None = None
        self._answers: dict[_Key, tuple[float, Candidates]] = {}
        self._waiting: dict[_Key, list[Deferred[Candidates]]] = {}
        self._queue: deque[_Key] = deque()
        self._is_busy = False
        self._worker: Worker | None = None
        self._idle: Any = None
        self._is_retired = False

    @property
    def worker_pid(self) -> int | None:
        """The number of the process that runs, if one does."""
        return None if self._worker is None else self._worker.pid

    def ask(self, scheme: str, host: str, port: int) -> Deferred[Candidates]:
        """
        @return: what is to be tried for a target; fails with L{ProxyConnectionRefused}.  Can be cancelled.
        """
        key = _Key(scheme, host, port)
        self._look()
        known = self._answers.get(key)
        if known is not None and self._reactor.seconds() - known[0] < ANSWER_S:
            return succeed(known[1])
        if self._script is None and self._fetching is None:
            return fail(pac_error(self._source, self._reason))
        waiting: Deferred[Candidates] = Deferred(lambda one: self._give_up(key, one))
        if key not in self._waiting:
            self._waiting[key] = []
            self._queue.append(key)
        self._waiting[key].append(waiting)
        self._next()
        return waiting

    def _give_up(self, key: _Key, waiting: Deferred[Candidates]) -> None:
        if waiting in self._waiting.get(key, ()):
            self._waiting[key].remove(waiting)
        self._end_if_retired()

    def retire(self) -> None:
        """Leave no process behind: who waits still gets an answer."""
        self._is_retired = True
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._is_retired and not any(self._waiting.values()):
            self._end_worker()
            if self._fetching is not None:
                self._fetching.cancel()

    # The script

    def _look(self) -> None:
        """See to it that the script is there, and is the present one."""
        now = self._reactor.seconds()
        if self._source.is_url:
            if self._fetching is None and (self._script is None or now - self._looked >= REFETCH_S):
                self._looked = now
                # Not set afterwards: it may be over at once.
                self._fetching = fetching = fetch(self._reactor, self._source.location)
                fetching.addCallbacks(self._use, self._not_read).addBoth(self._fetched)
        elif self._script is None or now - self._looked >= STAT_S:
            self._looked = now
            try:
                self._read_file()
            except (OSError, ValueError) as error:
                self._not_read(Failure(error))

    def _read_file(self) -> None:
        # A pipe would keep us waiting.
        descriptor = os.open(self._source.location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is no file")
            octets = file.read(MAX_SCRIPT + 1)
        if len(octets) > MAX_SCRIPT:
            raise ValueError(f"it is longer than {MAX_SCRIPT} octets")
        self._use(octets)
        self._seen = seen

    def _use(self, octets: bytes) -> None:
        self._is_reported = False
        script = octets.decode("utf-8", "replace").removeprefix("\ufeff")
        if script != self._script:
            if self._script is not None:
                log.info("the proxy auto-config {location} has changed", location=self._source.location)
            self._script = script
            self._answers.clear()
            if not self._is_busy:
                self._end_worker()

    def _not_read(self, failure: Failure) -> None:
        self._reason = failure.getErrorMessage()
        if not self._is_reported and not self._is_retired:
            self._is_reported = True
            log.error(
                "the proxy auto-config {location} cannot be read{kept}: {error}",
                location=self._source.location,
                kept="" if self._script is None else ", the one from before stays in force",
                error=self._reason,
            )

    def _fetched(self, _: object) -> None:
        self._fetching = None
        if self._script is None:
            self._queue.clear()
            for key in list(self._waiting):
                self._answer(key, Failure(pac_error(self._source, self._reason)))
        self._next()

    # The questions

    def _next(self) -> None:
        if self._is_busy or self._script is None:
            return
        while self._queue:
            key = self._queue.popleft()
            if self._waiting[key]:
                self._ask_worker(key, self._script)
                return
            del self._waiting[key]  # nobody waits any more
        self._end_if_retired()
        self._stop_idle()
        if self._worker is not None:
            self._idle = self._reactor.callLater(IDLE_S, self._end_worker)

    def _ask_worker(self, key: _Key, script: str) -> None:
        self._is_busy = True
        self._stop_idle()
        if self._worker is None:
            try:
                self._worker = worker = Worker(self._reactor, self._worker_ended)
            except OSError as error:
                self._answered(Failure(ValueError(f"its process cannot be started: {error}")), key, script)
                return
            asking = worker.ask({"script": script})
            asking.addCallback(lambda _: worker.ask(key.question()))
            # A worker whose script could not be read has none to ask.
            asking.addErrback(self._refused, worker)
        else:
            asking = self._worker.ask(key.question())
        asking.addCallback(lambda result: parse_result(str(result)))
        asking.addBoth(self._answered, key, script)

    def _refused(self, failure: Failure, worker: Worker) -> Failure:
        if self._worker is worker:
            self._end_worker()
        return failure

    def _answered(self, result: Candidates | Failure, key: _Key, script: str) -> None:
        self._is_busy = False
        if isinstance(result, Failure):
            result = Failure(pac_error(self._source, result.getErrorMessage()))
        elif script == self._script:
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            self._answers[key] = self._reactor.seconds(), result
        if script != self._script:
            self._end_worker()
        self._answer(key, result)
        self._next()

    def _answer(self, key: _Key, result: Candidates | Failure) -> None:
        for waiting in self._waiting.pop(key, ()):
            if not waiting.called:
                waiting.callback(result)

    # The worker

    def _worker_ended(self, worker: Worker) -> None:
        if self._worker is worker:
            self._worker = None
            self._stop_idle()

    def _stop_idle(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._idle = None

    def _end_worker(self) -> None:
        self._stop_idle()
        if self._worker is not None:
            self._worker.kill()
