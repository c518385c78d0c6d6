"""
What serves clients in one process: its listeners, rules, connections and access log.

A service of one process has one of these; a service of several has one in each
L{worker<proxyd.service.worker>}, and the process that supervises them has none.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorPluggableNameResolver,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from proxyd.control.auth.passwords import HashingThreads, PasswordChecks
from proxyd.control.connections import Connections
from proxyd.control.counts import Counts
from proxyd.control.rulebook import DynamicRule
from proxyd.errors import ConfigError, Problem
from proxyd.forward.record import Record
from proxyd.forward.site import ProxySite
from proxyd.interfaces import IAccessLog
from proxyd.outbound.guard import Guard
from proxyd.outbound.names import Names
from proxyd.rules.auth import files_of
from proxyd.rules.model import Rule
from proxyd.rules.table import RuleTable
from proxyd.service.access_log import open_access_log
from proxyd.service.failures import tell_failure
from proxyd.service.lag import Lag
from proxyd.service.listening import Certificates, ServerTLS, listen
from proxyd.service.resource import RulesResource
from proxyd.service.settings import Config, Listener
from proxyd.service.snapshot import Snapshot, Upstreams
from proxyd.websocket.closing import SERVICE_RESTART
from proxyd.websocket.relays import Relays

log = Logger()

DESCRIPTORS_APART = 64
"""Descriptors for what is no connection: log files, the reactor, name resolution."""

DESCRIPTORS_EACH = 2
"""Descriptors for one client's connection: its own, and the one to the origin server."""

MANY_RULES = 1000
"""A table of so many rules takes 10 ms to make: that is done in a thread, as is reading files."""

IDLE_S = 2.0
"""
Seconds for which a process that is replaced keeps a connection that is not in
use: a request may be on its way.  It is answered, and then the connection ends.
"""

SPREAD = 2 / 3
"""The part of C{timeouts.drain} over which a process that is replaced closes its WebSockets."""


class Prepared(NamedTuple):
    """What a reload has read, before any of it is in force; C{access_log} is a new one or L{None}."""

    config: Config
    snapshot: Snapshot
    certificates: list[Certificates | None]
    access_log: IAccessLog | None

    def discard(self) -> None:
        """It is not to be in force."""
        if self.access_log is not None:
            self.access_log.close()


class Serving:
    """
    One process's share in the service.

    @ivar config: what it runs with, limits as they are for one process.
    @ivar ports: what it listens on, once it does.
    @ivar resource: the root of the Resource tree.
    @ivar site: the factory of clients' connections.
    @ivar connections: the requests and WebSockets under way.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        environment: Mapping[str, str],
        listeners: Callable[[], Iterable[IAddress]],
        processes: int = 1,
        site: Callable[..., ProxySite] = ProxySite,
    ) -> None:
        """
        @param listeners: the addresses that the service itself listens on.
        @param processes: among how many the limits are divided.

        @raise ConfigError: a certificate or the access log cannot be opened.
        """
        if IReactorPluggableNameResolver.providedBy(reactor):
            reactor.installNameResolver(Names(reactor))
        self._processes = processes
        self.config = config = fitted(config, processes)
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._environment = environment
        self._access_log = _open_log(config)
        self._relays = Relays(reactor)
        self._counts = Counts()
        self._lag = Lag(reactor)
        self._passwords = PasswordChecks(reactor, HashingThreads(reactor))
        self._guard = Guard(listeners)
        self._tls = [None if one.tls is None else ServerTLS(one.tls) for one in config.listen]
        self.resource = RulesResource(self._snapshot(config, config.rules), self._relays, reactor)
        self.site = site(self.resource, config, reactor, self._exchanges_ended, self.accept, self._trusts)
        self.connections = Connections(reactor, lambda: self.site, self._relays)

    def _snapshot(self, config: Config, rules: Iterable[Rule]) -> Snapshot:
        upstreams = Upstreams(self._reactor, self._guard, self._counts.connects)
        return Snapshot(config, RuleTable(rules), self._environment, upstreams, self._passwords)

    def _trusts(self, address: str) -> bool:
        return self.snapshot.trusted.trusts(address)

    @property
    def snapshot(self) -> Snapshot:
        """What the next request is served by."""
        return self.resource.snapshot

    @property
    def open(self) -> int:
        """How many connections of clients there are."""
        return self.site.open

    # Start

    def listen(self, reactors: Sequence[Any] | None = None) -> None:
        """
        Listen, but accept nobody yet: none is to be told that there is no rule before all have been read.

        @param reactors: for each listener, what its endpoint listens by; the reactor itself unless it is another's
            socket that is to be listened on.

        @raise ConfigError: a listener cannot be opened.
        """
        listeners = zip(self.config.listen, self._tls, reactors or [self._reactor] * len(self._tls), strict=True)
        for index, (listener, tls, reactor) in enumerate(listeners):
            listening = listen(reactor, listener, self.site, tls, self._trusts)
            self.ports.append(opened(listening, ("listen", index), listener, self.config.source))
        self.accept(False)

    def start(self) -> Deferred[None]:
        """Accept."""
        self._lag.start()
        self.accept(True)
        return succeed(None)

    def accept(self, accepting: bool) -> None:
        """Accept connections, or leave them where they wait."""
        for port in self.ports:
            if isinstance(port, FileDescriptor):
                (port.startReading if accepting else port.stopReading)()

    # Changes

    def prepare(self, config: Config, dynamic: Sequence[DynamicRule]) -> Deferred[Prepared]:
        """
        Read what a changed configuration names, in a thread.

        @return: fails with L{ConfigError}, and nothing has changed.
        """
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._prepare, config, dynamic)

    def _prepare(self, config: Config, dynamic: Sequence[DynamicRule]) -> Prepared:
        config = fitted(config, self._processes, is_said=True)
        snapshot = self._snapshot(config, in_force(config.rules, dynamic))
        certificates = [None if tls is None else tls.read() for tls in self._tls]
        opened = _open_log(config) if config.log != self.config.log else None
        return Prepared(config, snapshot, certificates, opened)

    def take(self, prepared: Prepared) -> Deferred[None]:
        """Put in force what has been read."""
        config, snapshot = prepared.config, prepared.snapshot
        self.site.report()
        if config.log != self.config.log:
            if self._access_log is not None:
                self._access_log.close()
            self._access_log = prepared.access_log
        elif self._access_log is not None:
            self._access_log.reopen()
        for tls, fresh in zip(self._tls, prepared.certificates, strict=True):
            if tls is not None and fresh is not None:
                tls.use(fresh)
        self.config = config
        self.site.use(config)
        old, self.resource.snapshot = self.resource.snapshot, snapshot
        old.upstreams.retire()
        self._counts.keep_rules(snapshot.table.by_id)
        return succeed(None)

    def use_rules(self, dynamic: Sequence[DynamicRule]) -> Deferred[None]:
        """Serve the next request by the rules of the file, then by these."""
        rules = in_force(self.config.rules, dynamic)
        making: Deferred[Snapshot]
        if len(rules) < MANY_RULES and not any(any(files_of(rule.auth)) for rule in rules if rule.dynamic):
            making = succeed(self.snapshot.with_table(RuleTable(rules)))
        else:
            making = deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), lambda: self.snapshot.with_table(RuleTable(rules))
            )
        return making.addCallback(self._use_snapshot)

    def _use_snapshot(self, snapshot: Snapshot) -> None:
        self.resource.snapshot = snapshot
        snapshot.take_over()
        self._counts.keep_rules(snapshot.table.by_id)

    # What is seen

    def _exchanges_ended(self, records: list[Record]) -> None:
        self._counts.exchanges_ended(records)
        for record in records:
            if record.failed:
                tell_failure(record)
        if self._access_log is not None:
            self._access_log.write(records)

    def counts(self, is_scrape: bool = False) -> Deferred[Counts]:
        """
        What has been counted, and what is so now.

        @param is_scrape: the next one begins with the worst lag anew.
        """
        self.site.report()
        counts = Counts()
        counts.add(self._counts)
        for relay in self._relays.live:
            for index, follower in ((0, relay.client.follower), (2, relay.origin.follower)):
                counts.relayed[index] += follower.frames
                counts.relayed[index + 1] += follower.octets
        upstreams = list(self.snapshot.upstreams)
        idle = sum(one.idle for one in upstreams)
        counts.gauges.update(
            connections=self.site.open,
            websockets=len(self._relays.live),
            pool_idle=idle,
            pool_used=sum(one.open for one in upstreams) - idle,
        )
        counts.lag, counts.worst_lag = self._lag.last, self._lag.worst
        if is_scrape:
            self._lag.worst = 0.0
        return succeed(counts)

    # End

    def drain(self) -> Deferred[None]:
        """
        End: listeners close, requests finish, WebSockets are told.

        @return: fires when all connections have ended, at the latest after C{timeouts.drain}.
        """
        self._relays.drain()
        return self._drain(0.0)

    def retire(self) -> Deferred[None]:
        """
        End in favour of another process, which accepts already: as L{drain}, but so that nobody notices.

        WebSockets go on until C{timeouts.drain} has nearly passed, or for ever if that is 0; they are closed one
        after the other, so that clients do not all come back at once.
        """
        seconds = self.config.timeouts.drain
        if seconds:
            self._relays.close_spread(SERVICE_RESTART, seconds * SPREAD)
        return self._drain(IDLE_S)

    def hurry(self) -> None:
        """It is not this process alone that ends."""
        self._relays.drain()
        self.site.close_when_idle()

    def _drain(self, idle_s: float) -> Deferred[None]:
        ended: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self.ports]
        self.ports = []
        drained = self.site.drain(idle_s)
        self._lag.stop()
        deadline: IDelayedCall | None = None
        if self.config.timeouts.drain and not drained.called:
            log.info("draining: {count} connections are open", count=self.site.open)
            deadline = self._reactor.callLater(self.config.timeouts.drain, self.stop_at_once)

        def done(result: object) -> Any:
            if deadline is not None and deadline.active():
                deadline.cancel()
            self.snapshot.upstreams.retire()
            self.site.report()
            if self._access_log is not None:
                self._access_log.close()
            return None if isinstance(result, list) else result

        return gatherResults([*ended, drained]).addBoth(done)

    def stop_at_once(self) -> None:
        """Cut off what is still open."""
        log.warn("{count} connections are cut off", count=self.site.open)
        self.site.abort()
        self._relays.abort()


def in_force(static: Iterable[Rule], dynamic: Iterable[DynamicRule]) -> list[Rule]:
    """
    @return: all rules, in matching order; where the file has a rule of the same id, that is the one.
    """
    rules = list(static)
    taken = {rule.id for rule in rules}
    return rules + [one.rule for one in dynamic if one.rule is not None and one.id not in taken]


def opened(
    listening: Deferred[IListeningPort], place: tuple[str | int, ...], listener: Listener, source: str
) -> IListeningPort:
    """
    @return: what is listened on.

    @raise ConfigError: it cannot be.
    """
    ports: list[IListeningPort] = []
    failures: list[Any] = []
    listening.addCallbacks(ports.append, failures.append)
    if failures:
        problem = Problem(place, f"cannot listen on {listener.endpoint}: {failures[0].value}")
        raise ConfigError((problem,), source)
    return ports[0]


def fitted(config: Config, processes: int = 1, is_said: bool = False) -> Config:
    """
    Raise the soft limit of descriptors to the hard one, unless it is there already: a sandbox may forbid to touch it.

    @param processes: among how many the numbers of connections are divided.
    @param is_said: the log knows already that not even that is enough.

    @return: the configuration, with C{limits.connections} lowered if so.
    """
    limits = config.limits
    connections, per_host = (-(-number // processes) for number in (limits.connections, limits.per_host))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fitting = max(1, (hard - DESCRIPTORS_APART) // DESCRIPTORS_EACH)
    if hard != resource.RLIM_INFINITY and connections > fitting:
        if not is_said:
            log.warn(
                "limits.connections is lowered from {configured} to {fitting}: "
                "the system allows {hard} descriptors (ulimit -n)",
                configured=connections,
                fitting=fitting,
                hard=hard,
            )
        connections = fitting
    if (connections, per_host) == (limits.connections, limits.per_host):
        return config
    return replace(config, limits=replace(limits, connections=connections, per_host=per_host))


def _open_log(config: Config) -> IAccessLog | None:
    try:
        return open_access_log(config.log)
    except OSError as error:
        problem = Problem(("log", "access"), f"{config.log.access} cannot be opened: {error.strerror}")
        raise ConfigError((problem,), config.source) from error
