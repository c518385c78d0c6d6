"""
The workers that serve clients, when there are several, asked as one.

The supervising process opens the sockets, and accepts nobody itself.  Each
L{worker<proxyd.service.worker>} listens on the same sockets, and serves by the
same configuration and rules (L{proxyd.service.processes} has them live).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError, gatherResults, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThreadPool

from proxyd.control.api.status import WorkerStatus
from proxyd.control.auth.passwords import HashingThreads, PasswordChecks
from proxyd.control.connections import Live
from proxyd.control.counts import Counts
from proxyd.control.rulebook import DynamicRule
from proxyd.errors import ConfigError, Problem
from proxyd.outbound.guard import Guard
from proxyd.rules.table import RuleTable
from proxyd.service.link import CallFailed
from proxyd.service.listening import bind
from proxyd.service.processes import START_S, Processes, WorkerProcess, unless_gone
from proxyd.service.serving import fitted, in_force, opened
from proxyd.service.settings import Config
from proxyd.service.snapshot import Snapshot, Upstreams
from proxyd.service.worker import address_to
from proxyd.times import to_the_second

PATIENCE_S: Final = 1.0
"""Seconds that a worker has to say what is to be seen of it."""


class _Prepared(NamedTuple):
    """What a reload has read, before it is in force."""

    config: Config
    snapshot: Snapshot


def _fixed(config: Config) -> dict[str, Any]:
    """
    What only the service's own start reads, as JSON: a reload may have seen other things in the file since.

    @param config: what the service was started with.
    """
    return {
        "processes": config.workers,
        "listen": [[one.endpoint, one.tls and [one.tls.certificates, one.tls.client_ca]] for one in config.listen],
        "admin": {"variables": config.admin.variables, "allow": config.admin.allow},
    }


class _Nobody(Factory):
    """Sockets are opened with it that only workers accept from."""

    noisy = False
    protocol = Protocol


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
        self._config = self._started_with = config
        self._environment = environment
        self._listeners = listeners
        self._changing = changing
        # For its soft limit of descriptors; a worker says if that is not enough.
        fitted(config, is_said=True)
        self._guard = Guard(listeners)
        self._passwords = PasswordChecks(reactor, HashingThreads(reactor))
        self.snapshot = self._snapshot(config, ())
        self._dynamic: Sequence[DynamicRule] = ()
        self._processes = Processes(reactor, config.workers, environment, self._join, failed)

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
        return sum(one.counts.gauges["connections"] for one in self._processes.alive)

    # Start

    def listen(self) -> None:
        """
        Open the sockets.

        @raise ConfigError: a listener cannot be opened, or is none that can be shared.
        """
        for index, listener in enumerate(self._config.listen):
            listening = bind(self._reactor, listener, _Nobody())
            port: Any = opened(listening, ("listen", index), listener, self._config.source)
            self.ports.append(port)
            if not isinstance(getattr(port, "socket", None), socket.socket):
                text = f"{listener.endpoint} is no socket that several workers can listen on; it needs workers: 1"
                raise ConfigError((Problem(("listen", index), text),), self._config.source)
            port.stopReading()

    def start(self) -> Deferred[None]:
        """Start all workers; fires when all accept."""
        return self._processes.start([port.socket for port in self.ports])  # type: ignore[attr-defined]

    def _join(self, worker: WorkerProcess) -> Deferred[None]:
        """Have a worker serve as the others do."""
        config = self._config
        # Not under the lock: thousands of rules take seconds to read.
        starting = worker.link.call(
            "start",
            text=config.text,
            path=config.source,
            **_fixed(self._started_with),
            place=worker.place,
            places=self._processes.places,
            listeners=[address_to(one) for one in self._listeners()],
        )
        self._processes.watch(worker, starting, START_S)
        return starting.addCallback(lambda _: self._changing.run(self._catch_up, worker, config))

    def _catch_up(self, worker: WorkerProcess, config: Config) -> Deferred[None]:
        """
        Give a worker what has changed since it began, and let it serve.

        @param config: what it has read.
        """
        joining = Deferred.fromCoroutine(self._have_join(worker, config))
        self._processes.watch(worker, joining, START_S)
        return joining

    async def _have_join(self, worker: WorkerProcess, config: Config) -> None:
        if self._config is not config:
            await worker.link.call("prepare", text=self._config.text, path=self._config.source)
            await worker.link.call("take")
        await self._give_rules(worker)
        await worker.link.call("accept")
        # Here and not later: whoever waits for the lock gives the next rules to all that serve.
        worker.serves()

    def restart(self) -> int:
        """Replace all workers, one after the other; returns how many, 0 if that cannot be done now."""
        return self._processes.restart()

    # Changes

    async def _ask(self, name: str, **arguments: Any) -> list[Any]:
        """
        Ask all that serve; who ends meanwhile does not count.

        @raise CallFailed: one could not do it.
        """
        asked = [one.link.call(name, **arguments) for one in self._processes.serving]
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
        self._processes.before.keep_rules(self.snapshot.table.by_id)
        return Deferred.fromCoroutine(self._ask("take")).addCallback(lambda _: None)

    def use_rules(self, dynamic: Sequence[DynamicRule]) -> Deferred[None]:
        """Have all serve the next request by the rules of the file, then by these."""
        self._dynamic = dynamic
        self.snapshot = self.snapshot.with_table(RuleTable(in_force(self._config.rules, dynamic)))
        self._processes.before.keep_rules(self.snapshot.table.by_id)
        # Those that drain may have a last request to serve.
        return gatherResults([self._give_rules(one) for one in self._processes.joined]).addCallback(lambda _: None)

    def _give_rules(self, worker: WorkerProcess) -> Deferred[None]:
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
        return giving.addErrback(unless_gone)

    # What is seen

    def counts(self, is_scrape: bool = False) -> Deferred[Counts]:
        """What all have counted, those that have ended, too."""
        return Deferred.fromCoroutine(self._all_counts(is_scrape))

    async def _heard(self, name: str, **arguments: Any) -> list[tuple[WorkerProcess, Any]]:
        """Ask all that have something to say; who is gone, or stuck, says nothing."""
        asked = [
            (one, one.link.call(name, **arguments).addTimeout(PATIENCE_S, self._reactor))
            for one in self._processes.joined
        ]
        heard = []
        for worker, answer in asked:
            with suppress(ConnectionDone, TimeoutError):
                heard.append((worker, await answer))
        return heard

    async def _all_counts(self, is_scrape: bool) -> Counts:
        # Of who says nothing, what was said before counts.
        for worker, counts in await self._heard("counts", is_scrape=is_scrape):
            worker.counts = Counts.from_json(counts)
        total = Counts()
        total.add(self._processes.before)
        for worker in self._processes.alive:
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
            for one in self._processes.alive
        ]

    def listed(self) -> Deferred[list[Live]]:
        """All requests and WebSockets under way, the oldest one first."""
        return Deferred.fromCoroutine(self._listed())

    async def _listed(self) -> list[Live]:
        found: list[Live] = []
        for worker, listed in await self._heard("listed"):
            for live in listed:
                # What is one exchange's number in a worker, is this among all.
                live["id"] = live["id"] * self._processes.places + worker.place
            found += listed
        return sorted(found, key=lambda live: -live["age"])

    def close(self, number: int, code: int) -> Deferred[bool]:
        """Close one connection; fires with whether it was there."""
        theirs, place = divmod(number, self._processes.places)
        for worker in self._processes.joined:
            if worker.place == place:
                return worker.link.call("close", number=theirs, code=code)
        return succeed(False)

    def close_rule(self, rule_id: str, code: int, spread_s: float) -> Deferred[int]:
        """Close all that a rule serves now; fires with how many these are."""
        return Deferred.fromCoroutine(self._close_rule(rule_id, code, spread_s))

    async def _close_rule(self, rule_id: str, code: int, spread_s: float) -> int:
        heard = await self._heard("close_rule", rule_id=rule_id, code=code, spread_s=spread_s)
        return sum(closing for _, closing in heard)

    # End

    def drain(self) -> Deferred[None]:
        """Have all drain; fires when all have ended."""
        for port in self.ports:
            port.stopListening()
        self.ports = []
        return self._processes.drain()

    def stop_at_once(self) -> None:
        """Have all cut off what is still open."""
        self._processes.stop_at_once()
