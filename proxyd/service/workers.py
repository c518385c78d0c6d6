"""
The processes that serve clients, when there are several, and who supervises them.

The supervising process opens the sockets, and accepts nobody itself.  Each
L{worker<proxyd.service.worker>} listens on the same sockets; one that dies is
replaced, those that are to be replaced go when their successors accept::

    STARTING --ready, configured, given the rules--> SERVING --retire--> DRAINING --> gone
        `---------------- dies, is stuck ---------------'------------------> gone
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, gatherResults, inlineCallbacks, succeed
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from proxyd import __version__
from proxyd.control.api.status import WorkerStatus
from proxyd.control.auth.passwords import HashingThreads, PasswordChecks
from proxyd.control.connections import Live
from proxyd.control.counts import Counts
from proxyd.control.rulebook import DynamicRule
from proxyd.control.store.values import StoredRule
from proxyd.errors import ConfigError, Problem
from proxyd.outbound.guard import Guard
from proxyd.rules.table import RuleTable
from proxyd.service.link import CallFailed, Link
from proxyd.service.listening import listen
from proxyd.service.proxy_protocol import PREFIX
from proxyd.service.serving import in_force, opened
from proxyd.service.settings import Config, Listener
from proxyd.service.sharing import ABSENT, Tally, shared_memory
from proxyd.service.snapshot import Snapshot, Upstreams
from proxyd.service.worker import LINK, TALLY, address_to
from proxyd.times import to_the_second

log = Logger()

LOOK_S: Final = 2.0
"""Seconds between two looks at how each worker is."""

STUCK_S: Final = 20.0
"""Seconds after which a worker that does not answer is killed."""

STEADY_S: Final = 10.0
"""Seconds after which a worker that dies is replaced at once; one that dies sooner, later and later."""

FIRST_DELAY_S: Final = 0.5
"""Seconds until the first replacement of a worker that has died soon; each further one takes twice as long."""

MAX_DELAY_S: Final = 30.0
"""The most seconds until a replacement."""

PLACES_EACH: Final = 4
"""Processes for each worker: itself, and predecessors that still drain."""


class State(Enum):
    """See the drawing of the module."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class _Prepared(NamedTuple):
    """What a reload has read, before it is in force."""

    config: Config
    snapshot: Snapshot


class _Nobody(Factory):
    """Sockets are opened with it that only workers accept from."""

    noisy = False
    protocol = Protocol


class _Worker(ProcessProtocol):
    """
    One worker.

    @ivar place: its place in the tally.
    @ivar link: calls to it.
    @ivar counts: what it has counted, when that was last asked.
    @ivar rules: the rules of the store that it has.
    """

    pid = 0

    def __init__(self, workers: Workers, place: int, now: float) -> None:
        self.place = place
        self.state = State.STARTING
        self.counts = Counts()
        self.rules: dict[str, StoredRule] = {}
        self.born = now
        self.started = time.time()
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._workers = workers
        self.link = Link({"ready": self._is_ready, "log": self._log, "ended": self._ended}, lambda: None)

    def _is_ready(self) -> None:
        self.ready.callback(None)

    def _log(self, level: str, namespace: str, text: str) -> None:
        Logger(namespace=namespace).emit(LogLevel.lookupByName(level), "worker {pid}: {text}", pid=self.pid, text=text)

    def _ended(self, counts: Mapping[str, Any]) -> None:
        self.counts = Counts.from_json(counts)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        # What does not come as an event is from Python itself, or worse.
        for line in data.decode("utf-8", "replace").splitlines():
            log.error("worker {pid}: {line}", pid=self.pid, line=line)

    def processEnded(self, reason: Failure) -> None:
        self._workers.ended(self, reason)
        self.gone.callback(None)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")

    def look(self) -> Deferred[None]:
        """See how it is."""
        return self.link.call("counts", is_scrape=False).addCallback(self._ended)


class Workers:
    """
    All workers of a service.

    @ivar ports: the sockets that they share.
    @ivar snapshot: what they serve the next request by, to be looked at.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        environment: Mapping[str, str],
        listeners: Callable[[], Iterable[IAddress]],
        changing: DeferredLock,
        failed: Callable[[], None],
    ) -> None:
        """
        @param listeners: the addresses that the service listens on.
        @param changing: held while what is served changes.
        @param failed: called when no worker can be started at all.
        """
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._config = config
        self._environment = environment
        self._listeners = listeners
        self._changing = changing
        self._failed = failed
        self._guard = Guard(listeners)
        self._passwords = PasswordChecks(reactor, HashingThreads(reactor))
        self.snapshot = self._snapshot(config, ())
        self._dynamic: Sequence[DynamicRule] = ()
        self._places = config.workers * PLACES_EACH
        self._memory = shared_memory(self._places)
        self._tally = Tally(self._memory, self._places)
        self._alive: list[_Worker] = []
        self._before = Counts()
        self._has_served = False
        self._ending = False
        self._restarting = False
        self._delay = FIRST_DELAY_S
        self._looking: IDelayedCall | None = None
        self._waiting: set[IDelayedCall] = set()

    def _snapshot(self, config: Config, dynamic: Sequence[DynamicRule]) -> Snapshot:
        upstreams = Upstreams(self._reactor, self._guard, Counts().connects)
        table = RuleTable(in_force(config.rules, dynamic))
        return Snapshot(config, table, self._environment, upstreams, self._passwords)

    @property
    def connections(self) -> Workers:
        """The requests and WebSockets under way: see L{listed}."""
        return self

    @property
    def open(self) -> int:
        """How many connections of clients there were at the last look."""
        return sum(one.counts.gauges["connections"] for one in self._alive)

    # Start

    def listen(self) -> None:
        """
        Open the sockets.

        @raise ConfigError: a listener cannot be opened, or is none that can be shared.
        """
        for index, listener in enumerate(self._config.listen):
            plain = Listener(listener.endpoint.removeprefix(PREFIX))
            listening = listen(self._reactor, plain, _Nobody(), None, lambda _: True)
            port: Any = opened(listening, ("listen", index), listener, self._config.source)
            self.ports.append(port)
            if not isinstance(getattr(port, "socket", None), socket.socket):
                text = f"{listener.endpoint} is no socket that several workers can listen on; it needs workers: 1"
                raise ConfigError((Problem(("listen", index), text),), self._config.source)
            port.stopReading()

    def start(self) -> Deferred[None]:
        """Start all workers; fires when all accept."""
        self._looking = self._reactor.callLater(LOOK_S, self._look)
        log.info("{count} workers are started", count=self._config.workers)
        return gatherResults([self._begin() for _ in range(self._config.workers)]).addCallback(lambda _: None)

    def _begin(self) -> Deferred[bool]:
        """Start one worker; fires with whether it serves."""
        taken = {one.place for one in self._alive}
        place = next(place for place in range(self._places) if place not in taken)
        worker = _Worker(self, place, self._reactor.seconds())
        self._alive.append(worker)
        ours, theirs = socket.socketpair()
        sockets = [port.socket for port in self.ports]  # type: ignore[attr-defined]
        given = {0: 0, 1: 1, 2: "r", LINK: theirs.fileno(), TALLY: self._memory}
        given.update((TALLY + 1 + index, one.fileno()) for index, one in enumerate(sockets))
        reactor_module = type(self._reactor).__module__
        with ours, theirs:
            process = self._reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-m", "proxyd.service.worker", __version__, reactor_module, str(len(sockets))],
                env=_environment(self._environment),
                childFDs=given,
            )
            worker.pid = process.pid
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: worker.link)
            )
        return worker.ready.addCallback(lambda _: self._changing.run(self._join, worker)).addCallbacks(
            lambda _: True, self._not_begun, errbackArgs=(worker,)
        )

    @inlineCallbacks
    def _join(self, worker: _Worker) -> Any:
        """Have a worker serve as the others do; nothing changes meanwhile."""
        yield worker.link.call(
            "start",
            text=self._config.text,
            path=self._config.source,
            processes=self._config.workers,
            place=worker.place,
            places=self._places,
            listeners=[address_to(one) for one in self._listeners()],
        )
        yield self._give_rules(worker)
        yield worker.link.call("accept")
        worker.state = State.SERVING
        self._has_served = True

    def _not_begun(self, failure: Failure, worker: _Worker) -> bool:
        failure.trap(CallFailed, ConnectionDone)
        if failure.check(CallFailed):
            log.error("worker {pid} cannot serve: {why}", pid=worker.pid, why=failure.value)
            worker.kill()
        return False

    # Life

    def ended(self, worker: _Worker, reason: Failure) -> None:
        """A worker is no more."""
        self._alive.remove(worker)
        self._tally.set(worker.place, ABSENT)
        worker.counts.end()
        self._before.add(worker.counts)
        state, worker.state = worker.state, State.DRAINING
        if not worker.ready.called:
            worker.ready.errback(ConnectionDone())
        if self._ending:
            return
        if state is State.DRAINING and reason.check(ProcessDone):
            log.info("worker {pid} has ended", pid=worker.pid)
            return
        lived = self._reactor.seconds() - worker.born
        if state is State.DRAINING:
            delay = None
        elif lived >= STEADY_S or reason.check(ProcessDone):
            delay, self._delay = 0.0, FIRST_DELAY_S
        else:
            delay, self._delay = self._delay, min(2 * self._delay, MAX_DELAY_S)
        then = "" if delay is None else f"; another one is started in {delay:g} s" if delay else "; another one starts"
        log.error(
            "worker {pid} {how} after {lived:.1f} s{then}", pid=worker.pid, how=_how(reason), lived=lived, then=then
        )
        if not self._has_served and not self._alive:
            log.critical("no worker can be started")
            self._failed()
        elif delay is not None:
            self._later(delay)

    def _later(self, delay: float) -> None:
        def replace() -> None:
            self._waiting.discard(call)
            self._begin()

        call = self._reactor.callLater(delay, replace)
        self._waiting.add(call)

    def _look(self) -> None:
        """See how all are; kill who does not answer."""
        self._looking = self._reactor.callLater(LOOK_S, self._look)
        for worker in self._alive:
            if worker.ready.called and worker.state is not State.STARTING:
                looking = self._reactor.callLater(STUCK_S, self._stuck, worker)
                worker.look().addErrback(_unless_gone).addBoth(_cancel, looking)

    def _stuck(self, worker: _Worker) -> None:
        log.error("worker {pid} has not answered for {seconds:g} s and is killed", pid=worker.pid, seconds=STUCK_S)
        worker.kill()

    def restart(self) -> int:
        """
        Replace all workers, one after the other: a new one accepts, then an old one goes.

        @return: how many; 0 when this is being done already, or so many predecessors still drain that there is no
            place for more.
        """
        old = [one for one in self._alive if one.state is State.SERVING]
        if self._restarting or self._ending or len(self._alive) + len(old) > self._places:
            return 0
        self._restarting = True
        Deferred.fromCoroutine(self._restart(old)).addErrback(
            lambda failure: log.failure("replacing the workers failed", failure)
        )
        return len(old)

    async def _restart(self, old: list[_Worker]) -> None:
        log.info("{count} workers are replaced", count=len(old))
        try:
            for worker in old:
                if not await self._begin():
                    log.error("a new worker could not be started: the old ones stay")
                    return
                if worker.state is State.SERVING:
                    worker.state = State.DRAINING
                    worker.link.tell("retire")
            log.info("all workers are replaced")
        finally:
            self._restarting = False

    # Changes

    async def _ask(self, name: str, **arguments: Any) -> list[Any]:
        """
        Ask all that serve; who ends meanwhile does not count.

        @raise CallFailed: one could not do it.
        """
        asked = [one.link.call(name, **arguments) for one in self._alive if one.state is State.SERVING]
        answers = []
        failures = []
        for one in asked:
            try:
                answers.append(await one)
            except ConnectionDone:
                continue
            except CallFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return answers

    def prepare(self, config: Config, dynamic: Sequence[DynamicRule]) -> Deferred[_Prepared]:
        """
        Have all workers read what a changed configuration names.

        @return: fails with L{ConfigError}, and nothing has changed.
        """
        return Deferred.fromCoroutine(self._prepare(config, dynamic))

    async def _prepare(self, config: Config, dynamic: Sequence[DynamicRule]) -> _Prepared:
        snapshot = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), self._snapshot, config, dynamic
        )
        try:
            await self._ask("prepare", text=config.text, path=config.source)
        except CallFailed as error:
            await self._ask("discard")
            raise ConfigError((Problem((), str(error)),)) from error
        return _Prepared(config, snapshot)

    def take(self, prepared: _Prepared) -> Deferred[None]:
        """Have all put in force what has been read."""
        self._config, self.snapshot = prepared
        self._before.keep_rules(self.snapshot.table.by_id)
        return Deferred.fromCoroutine(self._ask("take")).addCallback(lambda _: None)

    def use_rules(self, dynamic: Sequence[DynamicRule]) -> Deferred[None]:
        """Have all serve the next request by the rules of the file, then by these."""
        self._dynamic = dynamic
        self.snapshot = self.snapshot.with_table(RuleTable(in_force(self._config.rules, dynamic)))
        self._before.keep_rules(self.snapshot.table.by_id)
        serving = [one for one in self._alive if one.state is State.SERVING]
        return gatherResults([self._give_rules(one) for one in serving]).addCallback(lambda _: None)

    def _give_rules(self, worker: _Worker) -> Deferred[None]:
        """Tell a worker what has changed since it was last told."""
        rules = {one.id: one.stored for one in self._dynamic if one.rule is not None}
        changed = [
            (dict(stored.document), stored.revision)
            for rule_id, stored in rules.items()
            if worker.rules.get(rule_id) is not stored
        ]
        gone = [rule_id for rule_id in worker.rules if rule_id not in rules]
        worker.rules = rules
        if not changed and not gone:
            return succeed(None)
        revision = max((stored.revision for stored in rules.values()), default=0)
        giving = worker.link.call("rules", revision=revision, changed=changed, gone=gone)
        return giving.addErrback(_unless_gone)

    # What is seen

    def counts(self, is_scrape: bool = False) -> Deferred[Counts]:
        """What all have counted, those that have ended, too."""
        return Deferred.fromCoroutine(self._all_counts(is_scrape))

    async def _all_counts(self, is_scrape: bool) -> Counts:
        asked = [
            (one, one.link.call("counts", is_scrape=is_scrape))
            for one in self._alive
            if one.state is not State.STARTING
        ]
        for worker, answer in asked:
            try:
                worker.counts = Counts.from_json(await answer)
            except (ConnectionDone, CallFailed):
                continue  # what it has said before is what there is
        total = Counts()
        total.add(self._before)
        for worker in self._alive:
            total.add(worker.counts)
        return total

    def status(self) -> list[WorkerStatus]:
        """Each of them, as it was at the last look."""
        return [
            WorkerStatus(
                pid=one.pid,
                state=one.state.value,
                started=to_the_second(one.started),
                connections=one.counts.gauges["connections"],
                websockets=one.counts.gauges["websockets"],
                requests=one.counts.requests,
            )
            for one in self._alive
        ]

    def listed(self) -> Deferred[list[Live]]:
        """All requests and WebSockets under way, the oldest one first."""
        return Deferred.fromCoroutine(self._listed())

    async def _listed(self) -> list[Live]:
        asked = [(one, one.link.call("listed")) for one in self._alive if one.state is not State.STARTING]
        found: list[Live] = []
        for worker, answer in asked:
            try:
                listed: list[Live] = await answer
            except (ConnectionDone, CallFailed):
                continue
            found += [{**live, "id": self._number(worker, live["id"])} for live in listed]
        return sorted(found, key=lambda live: -live["age"])

    def _number(self, worker: _Worker, number: int) -> int:
        """What is one exchange's number in a worker, is this among all."""
        return number * self._places + worker.place

    def close(self, number: int, code: int) -> Deferred[bool]:
        """Close one connection; fires with whether it was there."""
        theirs, place = divmod(number, self._places)
        for worker in self._alive:
            if worker.place == place and worker.state is not State.STARTING:
                return worker.link.call("close", number=theirs, code=code)
        return succeed(False)

    def close_rule(self, rule_id: str, code: int, spread_s: float) -> Deferred[int]:
        """Close all that a rule serves now; fires with how many these are."""
        return Deferred.fromCoroutine(self._close_rule(rule_id, code, spread_s))

    async def _close_rule(self, rule_id: str, code: int, spread_s: float) -> int:
        asked = [
            one.link.call("close_rule", rule_id=rule_id, code=code, spread_s=spread_s)
            for one in self._alive
            if one.state is not State.STARTING
        ]
        closing = 0
        for answer in asked:
            try:
                closing += await answer
            except (ConnectionDone, CallFailed):
                continue  # it is gone, and so are its connections
        return closing

    # End

    def drain(self) -> Deferred[None]:
        """Have all drain; fires when all have ended."""
        self._ending = True
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        for call in self._waiting:
            call.cancel()
        for port in self.ports:
            port.stopListening()
        self.ports = []
        for worker in self._alive:
            if worker.state is State.STARTING:
                worker.kill()
            else:
                worker.link.tell("drain")
        return gatherResults([one.gone for one in self._alive]).addCallback(lambda _: os.close(self._memory))

    def stop_at_once(self) -> None:
        """Have all cut off what is still open."""
        for worker in self._alive:
            worker.link.tell("stop_at_once")


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


def _unless_gone(failure: Failure) -> None:
    failure.trap(ConnectionDone)


def _cancel(result: Any, call: IDelayedCall) -> Any:
    if call.active():
        call.cancel()
    return result
