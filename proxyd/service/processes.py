"""
The processes of the workers: started, looked after, replaced::

    STARTING --ready, and made to serve as the others do--> SERVING --retire--> DRAINING --> gone
        `---------------- dies, is stuck ----------------------'-------------------> gone

One that dies is replaced, at once or, when it has not lived for long, later and
later.  Those that are to be replaced go when their successors serve.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from proxyd import __version__
from proxyd.control.counts import Counts
from proxyd.control.store.values import StoredRule
from proxyd.service.link import CallFailed, Link
from proxyd.service.sharing import ABSENT, Tally, shared_memory
from proxyd.service.worker import LINK, TALLY

log = Logger()

LOOK_S: Final = 2.0
"""Seconds between two looks at how each worker is."""

STUCK_S: Final = 20.0
"""Seconds after which a worker that does not answer is killed."""

START_S: Final = 60.0
"""
Seconds after which a worker that does not serve is killed: until it is ready, and again until it has joined.
Ten thousand rules take a sixth of it.
"""

KILL_S: Final = 2.0
"""Seconds that a worker has to cut everything off when it is told to."""

STEADY_S: Final = 10.0
"""Seconds after which a worker that dies is replaced at once; one that dies sooner, later and later."""

FIRST_DELAY_S: Final = 0.5
"""Seconds until the first replacement of a worker that has died soon; each further one takes twice as long."""

MAX_DELAY_S: Final = 30.0
"""The most seconds until a replacement."""

PLACES_EACH: Final = 4
"""Processes for each worker: itself, and predecessors that still drain."""


class State(Enum):
    """See the drawing above."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class WorkerProcess(ProcessProtocol):
    """
    One worker.

    @ivar place: its place in the tally.
    @ivar link: calls to it.
    @ivar pid: its number.
    @ivar started: when it was, since the epoch.
    @ivar ready: fires when it can be told what to do.
    @ivar gone: fires when it has ended.
    @ivar counts: what it has counted, when that was last asked.
    @ivar rules: the rules of the store that it has.
    """

    pid = 0

    def __init__(self, processes: Processes, place: int, now: float) -> None:
        self.place = place
        self.state = State.STARTING
        self.counts = Counts()
        self.rules: dict[str, StoredRule] = {}
        self.born = now
        self.started = time.time()
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._processes = processes
        calls: dict[str, Callable[..., None]] = {
            "ready": self._is_ready,
            "log": self._log,
            "leaves": self._leaves,
            "ended": self._ended,
        }
        self.link = Link(calls, lambda: None)

    def serves(self) -> None:
        """It accepts, unless it was sent SIGTERM meanwhile."""
        if self.state is State.STARTING:
            self.state = State.SERVING

    def _is_ready(self) -> None:
        self.ready.callback(None)

    def _log(self, level: str, namespace: str, text: str) -> None:
        Logger(namespace=namespace).emit(LogLevel.lookupByName(level), "worker {pid}: {text}", pid=self.pid, text=text)

    def _leaves(self) -> None:
        self._processes.leaves(self)

    def _ended(self, counts: Mapping[str, Any]) -> None:
        self.counts = Counts.from_json(counts)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        # What does not come as an event is from Python itself, or worse.
        for line in data.decode("utf-8", "replace").splitlines():
            log.error("worker {pid}: {line}", pid=self.pid, line=line)

    def processEnded(self, reason: Failure) -> None:
        self._processes.ended(self, reason)
        self.gone.callback(None)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")

    def look(self) -> Deferred[None]:
        """See how it is."""
        return self.link.call("counts", is_scrape=False).addCallback(self._ended)


class Processes:
    """
    All of them.

    @ivar alive: those that there are.
    @ivar before: what those have counted that there are no more.
    @ivar places: how many there may be at once.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        environment: Mapping[str, str],
        join: Callable[[WorkerProcess], Deferred[None]],
        failed: Callable[[], None],
    ) -> None:
        """
        @param count: how many are to serve.
        @param join: makes one that is ready serve as the others do.
        @param failed: called when none can be started at all.
        """
        self.alive: list[WorkerProcess] = []
        self.before = Counts()
        self.places = count * PLACES_EACH
        self._reactor = reactor
        self._count = count
        self._environment = environment
        self._join = join
        self._failed = failed
        self._sockets: list[socket.socket] = []
        self._memory = shared_memory(self.places)
        self._tally = Tally(self._memory, self.places)
        self._has_served = False
        self._ending = False
        self._restarting = False
        self._delay = FIRST_DELAY_S
        self._looking: IDelayedCall | None = None
        self._waiting: set[IDelayedCall] = set()

    @property
    def serving(self) -> list[WorkerProcess]:
        """Those that accept."""
        return [one for one in self.alive if one.state is State.SERVING]

    @property
    def joined(self) -> list[WorkerProcess]:
        """Those that have something to say: they accept, or have accepted."""
        return [one for one in self.alive if one.state is not State.STARTING]

    # Start

    def start(self, sockets: Sequence[socket.socket]) -> Deferred[None]:
        """
        Start all; fires when all accept.

        @param sockets: what they listen on.
        """
        self._sockets = list(sockets)
        self._looking = self._reactor.callLater(LOOK_S, self._look)
        log.info("{count} workers are started", count=self._count)
        return gatherResults([self._begin() for _ in range(self._count)]).addCallback(lambda _: None)

    def _begin(self) -> Deferred[bool]:
        """Start one worker; fires with whether it serves."""
        taken = {one.place for one in self.alive}
        place = next((place for place in range(self.places) if place not in taken), None)
        if place is None:
            log.error("no worker can be started: {count} still drain", count=len(self.alive))
            self._replace(MAX_DELAY_S)
            return succeed(False)
        worker = WorkerProcess(self, place, self._reactor.seconds())
        try:
            self._spawn(worker)
        except OSError as error:
            if not self._has_served and not self.alive:
                raise
            log.error("no worker can be started: {error}", error=error)
            self._retry()
            return succeed(False)
        self.watch(worker, worker.ready, START_S)
        joining = worker.ready.addCallback(lambda _: self._join(worker))
        return joining.addCallbacks(self._joined, self._not_begun, (worker,), {}, (worker,))

    def _spawn(self, worker: WorkerProcess) -> None:
        """
        Start its process.

        @raise OSError: the system has no room for it.
        """
        ours, theirs = socket.socketpair()
        given = {0: 0, 1: 1, 2: "r", LINK: theirs.fileno(), TALLY: self._memory}
        given.update((TALLY + 1 + index, one.fileno()) for index, one in enumerate(self._sockets))
        reactor_module = type(self._reactor).__module__
        with ours, theirs:
            process = self._reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-m", "proxyd.service.worker", __version__, reactor_module, str(len(self._sockets))],
                env=_environment(self._environment),
                childFDs=given,
            )
            self.alive.append(worker)
            worker.pid = process.pid
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: worker.link))

    def _joined(self, _: None, worker: WorkerProcess) -> bool:
        self._has_served = True
        return worker.state is State.SERVING

    def _not_begun(self, failure: Failure, worker: WorkerProcess) -> bool:
        failure.trap(CallFailed, ConnectionDone)
        if failure.check(CallFailed):
            log.error("worker {pid} cannot serve: {why}", pid=worker.pid, why=failure.value)
            worker.kill()
        return False

    def leaves(self, worker: WorkerProcess) -> None:
        """A worker ends although it was not told to."""
        worker.state = State.DRAINING
        if not self._ending:
            log.info("worker {pid} drains, for it was sent SIGTERM; another one starts", pid=worker.pid)
            self._replace(0.0)

    def ended(self, worker: WorkerProcess, reason: Failure) -> None:
        """A worker is no more."""
        self.alive.remove(worker)
        self._tally.set(worker.place, ABSENT)
        worker.counts.end()
        self.before.add(worker.counts)
        state, worker.state = worker.state, State.DRAINING
        if not worker.ready.called:
            worker.ready.errback(ConnectionDone())
        if self._ending:
            return
        if state is State.DRAINING and reason.check(ProcessDone):
            log.info("worker {pid} has ended", pid=worker.pid)
            return
        lived = self._reactor.seconds() - worker.born
        log.error("worker {pid} {how} after {lived:.1f} s", pid=worker.pid, how=_how(reason), lived=lived)
        if not self._has_served and not self.alive:
            log.critical("no worker can be started")
            self._failed()
        elif lived >= STEADY_S:
            self._delay = FIRST_DELAY_S
            self._replace(0.0)
        else:
            self._retry()

    def _retry(self) -> None:
        """Start another one, if one is missing, later each time."""
        if self._replace(self._delay):
            self._delay = min(2 * self._delay, MAX_DELAY_S)

    def _replace(self, delay: float) -> bool:
        """
        Start another one, in so many seconds.

        @return: whether one is missing.
        """
        expected = sum(one.state is not State.DRAINING for one in self.alive) + len(self._waiting)
        if expected >= self._count:
            return False

        def begin() -> None:
            self._waiting.discard(call)
            self._begin()

        if delay:
            log.info("another worker is started in {delay:g} s", delay=delay)
        call = self._reactor.callLater(delay, begin)
        self._waiting.add(call)
        return True

    def _look(self) -> None:
        """See how all are; kill who does not answer."""
        self._looking = self._reactor.callLater(LOOK_S, self._look)
        for worker in self.joined:
            self.watch(worker, worker.look().addErrback(unless_gone), STUCK_S)

    def watch(self, worker: WorkerProcess, doing: Deferred[Any], seconds: float) -> None:
        """Kill a worker if something takes it longer than so many seconds."""
        doing.addBoth(_cancel, self._reactor.callLater(seconds, self._stuck, worker, seconds))

    def _stuck(self, worker: WorkerProcess, seconds: float) -> None:
        log.error("worker {pid} has not answered for {seconds:g} s and is killed", pid=worker.pid, seconds=seconds)
        worker.kill()

    def restart(self) -> int:
        """
        Replace all workers, one after the other: a new one accepts, then an old one goes.

        @return: how many; 0 when this is being done already, or so many predecessors still drain that there is no
            place for more.
        """
        old = self.serving
        if self._restarting or self._ending or len(self.alive) + len(old) > self.places:
            return 0
        self._restarting = True
        Deferred.fromCoroutine(self._restart(old)).addErrback(
            lambda failure: log.failure("replacing the workers failed", failure)
        )
        return len(old)

    async def _restart(self, old: list[WorkerProcess]) -> None:
        log.info("{count} workers are replaced", count=len(old))
        try:
            for worker in old:
                if worker.state is not State.SERVING:
                    continue
                if not await self._begin():
                    log.error("a new worker could not be started: the old ones stay")
                    return
                worker.state = State.DRAINING
                await worker.link.call("retire").addErrback(unless_gone)
            log.info("all workers are replaced")
        finally:
            self._restarting = False

    # End

    def drain(self) -> Deferred[None]:
        """Have all drain; fires when all have ended."""
        self._ending = True
        for call in self._waiting:
            call.cancel()
        for worker in self.alive:
            if worker.state is State.STARTING:
                worker.kill()
            else:
                worker.link.tell("drain")
        # Until then it is looked at how they are: one that is stuck would keep the service from ending.
        return gatherResults([one.gone for one in self.alive]).addCallback(self._ended)

    def _ended(self, _: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
        os.close(self._memory)

    def stop_at_once(self) -> None:
        """Have all cut off what is still open, and end."""
        for worker in self.alive:
            worker.link.tell("stop_at_once")
            self._reactor.callLater(KILL_S, worker.kill)


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker finds in its environment: systemd is not its to talk to; modules are where they are here."""
    apart = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    kept = {name: value for name, value in environment.items() if name not in apart}
    return {**kept, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


def _how(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, ProcessTerminated) and error.signal:
        return f"was ended by {signal.Signals(error.signal).name}"
    return f"ended with status {getattr(error, 'exitCode', 0)}"


def unless_gone(failure: Failure) -> None:
    """Who has gone need not answer."""
    failure.trap(ConnectionDone)


def _cancel(result: Any, call: IDelayedCall) -> Any:
    if call.active():
        call.cancel()
    return result
