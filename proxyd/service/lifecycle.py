"""
The running service: it listens, reloads, drains and ends::

    startService   listens, and accepts when the rules of the store have been read
    reload         new rules and settings for the next request, or none of them
    use_rules      other rules from the store or the admin API for the next request
    stopService    no new connection; requests finish, WebSockets are told; then the deadline
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, DeferredLock, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd.control.auth.passwords import HashingThreads, PasswordChecks
from proxyd.control.auth.tokens import Tokens
from proxyd.control.metrics import Metrics
from proxyd.control.rulebook import DynamicRule
from proxyd.control.settings import AdminToken
from proxyd.errors import ConfigError, Problem, StoreError
from proxyd.forward.record import Record
from proxyd.forward.site import ProxySite
from proxyd.interfaces import IAccessLog
from proxyd.outbound.guard import Guard
from proxyd.rules.auth import files_of
from proxyd.rules.table import RuleTable
from proxyd.service.access_log import open_access_log
from proxyd.service.control import ControlPlane, in_force
from proxyd.service.listening import Certificates, ServerTLS, listen
from proxyd.service.resource import RulesResource
from proxyd.service.settings import Config
from proxyd.service.snapshot import Snapshot, Upstreams
from proxyd.service.systemd import Supervisor
from proxyd.websocket.relays import Relays

log = Logger()

DESCRIPTORS_APART = 64
"""Descriptors for what is no connection: log files, the reactor, name resolution."""

DESCRIPTORS_EACH = 2
"""Descriptors for one client's connection: its own, and the one to the origin server."""


MANY_RULES = 1000
"""A table of so many rules takes 10 ms to make: that is done in a thread, as is reading files."""


class _Read(NamedTuple):
    """What a reload has read, before any of it is in force."""

    config: Config
    snapshot: Snapshot
    certificates: list[Certificates | None]
    tokens: Tokens[AdminToken]


class ProxyService(Service):
    """
    One proxy: its listeners, rules, connections and logs.

    @ivar config: what it runs with.
    @ivar control: its control plane.
    @ivar restart_needed: the keys of the configuration that were changed since the start and need another one.
    @ivar reload_error: why the last reload changed nothing, if so.
    @ivar unusable: called when the store turns out to be none, which is logged already.
    @ivar resource: the root of the Resource tree; C{putChild} mounts others beside the rules.
    @ivar ports: what it listens on, once it does.
    @ivar site: the factory of clients' connections, to listen with on endpoints that the configuration cannot name.
    """

    name = "proxyd"

    def __init__(
        self, reactor: Any, config: Config, environment: Mapping[str, str], load: Callable[[], Config]
    ) -> None:
        """
        @param load: reads the configuration again.

        @raise ConfigError: a certificate or the access log cannot be opened.
        """
        self.config = self._started_with = config = _fitted(config)
        self.ports: list[IListeningPort] = []
        self.restart_needed: list[str] = []
        self.reload_error: str | None = None
        self.unusable: Callable[[], None] = reactor.stop
        self._reactor = reactor
        self._environment = environment
        self._load = load
        self._access_log = _open_log(config)
        self._relays = Relays(reactor)
        self._metrics = Metrics(reactor)
        self._supervisor = Supervisor(reactor, environment)
        self._changing = DeferredLock()
        self._passwords = PasswordChecks(reactor, HashingThreads(reactor))
        self._guard = Guard(self._listeners)
        self._connects: Counter[tuple[str, str]] = Counter()
        self._tls = [None if one.tls is None else ServerTLS(one.tls) for one in config.listen]
        self.resource = RulesResource(self._snapshot(config, RuleTable(config.rules)), self._relays, reactor)
        self.site = ProxySite(self.resource, config, reactor, self._exchange_ended, self._accept)
        self.control = ControlPlane(reactor, config, environment, self, self._relays, self._metrics)

    def _snapshot(self, config: Config, table: RuleTable) -> Snapshot:
        upstreams = Upstreams(self._reactor, self._guard, self._connects)
        return Snapshot(config, table, self._environment, upstreams, self._passwords)

    @property
    def snapshot(self) -> Snapshot:
        """What the next request is served by."""
        return self.resource.snapshot

    @property
    def _all_tls(self) -> list[ServerTLS | None]:
        return [*self._tls, *self.control.tls]

    def _trusts(self, address: str) -> bool:
        return self.snapshot.trusted.trusts(address)

    def _listeners(self) -> list[IAddress]:
        return [port.getHost() for port in (*self.ports, *self.control.ports)]

    # Start

    def is_public(self, path: str, method: str, *, upgrade: bool = False, host: str | None = None) -> bool:
        """
        Whether the rules of the moment let this request in without authentication (C{publicRoutes}).

        @param path: the path of the request, without its query.
        @param method: such as C{GET}, which covers C{HEAD}.
        @param upgrade: it asks for a WebSocket.
        @param host: the host that is asked, without its port.
        """
        table = self.resource.snapshot.table
        return table.is_public(path, method, upgrade=upgrade, host=host, now=self._reactor.seconds)

    def privilegedStartService(self) -> None:
        """
        Listen, before twistd gives up its privileges.

        @raise ConfigError: a listener cannot be opened.
        """
        for index, (listener, tls) in enumerate(zip(self.config.listen, self._tls, strict=True)):
            failures: list[Failure] = []
            listening = listen(self._reactor, listener, self.site, tls, self._trusts)
            listening.addCallbacks(self.ports.append, failures.append)
            if failures:
                problem = Problem(("listen", index), f"cannot listen on {listener.endpoint}: {failures[0].value}")
                raise ConfigError((problem,), self.config.source)
        self.control.listen()
        # Nobody is to be told that there is no rule before the store has been asked.
        self._accept(False)

    def startService(self) -> None:
        Service.startService(self)
        for warning in self.config.warnings:
            log.warn("{warning}", warning=warning)
        self._metrics.start()
        self.control.open().addCallbacks(self._opened, self._not_opened)

    def _opened(self, _: object) -> None:
        if self.running:
            self._accept(True)
            # Only a reactor that runs takes signals: who waits for this line may send one.
            self._reactor.callWhenRunning(self._tell_ports)

    def _not_opened(self, failure: Failure) -> None:
        if failure.check(StoreError):
            log.critical("the store of rules cannot be used: {error}", error=failure.value)
        else:
            log.failure("the store of rules cannot be used", failure)
        self._reactor.callWhenRunning(self.unusable)

    def _tell_ports(self) -> None:
        for port in self.ports:
            log.info("proxyd listens on {address}", address=port.getHost())
        for port in self.control.ports:
            log.info("proxyd's admin API listens on {address}", address=port.getHost())
        self._tell_ready()

    def _tell_ready(self) -> None:
        self._supervisor.ready(f"serving by {len(self.snapshot.table)} rules")

    def _accept(self, accepting: bool) -> None:
        for port in self.ports:
            if isinstance(port, FileDescriptor):
                (port.startReading if accepting else port.stopReading)()

    # Reload

    def reload(self) -> Deferred[ConfigError | None]:
        """
        Take a changed configuration for the next requests; a bad one changes nothing, and the log says why.

        Reading it takes a second for each thousand rules: it is done in a
        thread, one reload after the other.

        @return: fires when it is done, with what was wrong.
        """
        return self._changing.run(self._reload)

    def _reload(self) -> Deferred[ConfigError | None]:
        self._supervisor.reloading()
        return deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), self._read_again, self.control.rulebook.rules
        ).addCallbacks(self._take, self._not_reloaded)

    def _read_again(self, dynamic: tuple[DynamicRule, ...]) -> _Read:
        """Read all files, in a thread."""
        config = _fitted(self._load(), is_said=True)
        snapshot = self._snapshot(config, RuleTable(in_force(config.rules, dynamic)))
        certificates = [None if tls is None else tls.read() for tls in self._all_tls]
        return _Read(config, snapshot, certificates, self.control.read_tokens())

    def _take(self, read: _Read) -> ConfigError | None:
        config, snapshot = read.config, read.snapshot
        try:
            self._take_log(config)
        except ConfigError as error:
            return self._not_reloaded(Failure(error))
        for tls, fresh in zip(self._all_tls, read.certificates, strict=True):
            if tls is not None and fresh is not None:
                tls.use(fresh)
        for warning in config.warnings:
            log.warn("{warning}", warning=warning)
        self.config = config
        self.site.use(config)
        self.control.use(config, read.tokens)
        old, self.resource.snapshot = self.resource.snapshot, snapshot
        old.upstreams.retire()
        self._metrics.keep_rules(snapshot.table.by_id)
        self.reload_error = None
        self.restart_needed = _differences(self._started_with, config)
        if self.restart_needed:
            keys = " and ".join(self.restart_needed)
            log.warn("changes to {keys} need a restart; everything else is in force", keys=keys)
        rules = "rule" if len(config.rules) == 1 else "rules"
        log.info("the configuration was reloaded: {count} {rules}", count=len(config.rules), rules=rules)
        self._tell_ready()
        return None

    def use_rules(self) -> Deferred[None]:
        """Serve the next request by the rules of the moment: those of the file, then those of the store."""
        return self._changing.run(self._use_rules)

    def _use_rules(self) -> Deferred[None]:
        rules = in_force(self.config.rules, self.control.rulebook.rules)
        if len(rules) < MANY_RULES and not any(any(files_of(rule.auth)) for rule in rules if rule.dynamic):
            return succeed(self.snapshot.with_table(RuleTable(rules))).addCallback(self._use_snapshot)

        def make() -> Snapshot:
            return self.snapshot.with_table(RuleTable(rules))

        making = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), make)
        return making.addCallback(self._use_snapshot)

    def _use_snapshot(self, snapshot: Snapshot) -> None:
        self.resource.snapshot = snapshot
        snapshot.take_over()
        self._metrics.keep_rules(snapshot.table.by_id)

    def _take_log(self, config: Config) -> None:
        if config.log != self.config.log:
            opened = _open_log(config)
            if self._access_log is not None:
                self._access_log.close()
            self._access_log = opened
        elif self._access_log is not None:
            self._access_log.reopen()

    def _not_reloaded(self, failure: Failure) -> ConfigError:
        error = failure.value
        if isinstance(error, ConfigError):
            log.error("the configuration was not reloaded, the old one stays in force:\n{error}", error=error)
        else:
            log.failure("the configuration was not reloaded, the old one stays in force", failure)
            error = ConfigError((Problem((), "an error in proxyd itself, see its log"),), self.config.source)
        self.reload_error = str(error)
        self._tell_ready()
        return error

    def _exchange_ended(self, record: Record) -> None:
        self._metrics.exchange_ended(record)
        if self._access_log is not None:
            self._access_log.write(record)

    # End

    def stopService(self) -> Deferred[None]:
        """
        Drain.

        @return: fires when all connections have ended, at the latest after C{timeouts.drain}.
        """
        Service.stopService(self)
        self._supervisor.stopping(f"draining {self.site.open} connections")
        ended: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self.ports]
        self.ports = []
        drained = self.site.drain()
        self._metrics.stop()
        self._relays.drain()
        deadline = None
        if self.config.timeouts.drain and not drained.called:
            log.info("draining: {count} connections are open", count=self.site.open)
            deadline = self._reactor.callLater(self.config.timeouts.drain, self.stop_at_once)

        def done(result: object) -> Deferred[Any]:
            if deadline is not None and deadline.active():
                deadline.cancel()
            self.resource.snapshot.upstreams.retire()
            if self._access_log is not None:
                self._access_log.close()
            if isinstance(result, Failure):
                log.failure("ending failed", result)
            self._supervisor.stopped()
            # The API is there as long as there is something to be seen by it.
            return self.control.close()

        return gatherResults([*ended, drained]).addBoth(done)

    def stop_at_once(self) -> None:
        """Cut off what is still open."""
        log.warn("{count} connections are cut off", count=self.site.open)
        self.site.abort()
        self._relays.abort()


def _differences(started: Config, now: Config) -> list[str]:
    """The keys of the configuration that only a start reads, and that have changed."""
    listen = ("listen", started.listen, now.listen)
    admin = ("admin", (started.admin_listen, started.admin), (now.admin_listen, now.admin))
    store = ("store", (started.store, started.store_folder), (now.store, now.store_folder))
    return [key for key, before, after in (listen, admin, store) if before != after]


def _open_log(config: Config) -> IAccessLog | None:
    try:
        return open_access_log(config.log)
    except OSError as error:
        problem = Problem(("log", "access"), f"{config.log.access} cannot be opened: {error.strerror}")
        raise ConfigError((problem,), config.source) from error


def _fitted(config: Config, is_said: bool = False) -> Config:
    """
    Raise the soft limit of descriptors to the hard one, unless it is there already: a sandbox may forbid to touch it.

    @param is_said: the log knows already that not even that is enough.

    @return: the configuration, with C{limits.connections} lowered if so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fitting = max(1, (hard - DESCRIPTORS_APART) // DESCRIPTORS_EACH)
    if hard == resource.RLIM_INFINITY or config.limits.connections <= fitting:
        return config
    if not is_said:
        log.warn(
            "limits.connections is lowered from {configured} to {fitting}: "
            "the system allows {hard} descriptors (ulimit -n)",
            configured=config.limits.connections,
            fitting=fitting,
            hard=hard,
        )
    return replace(config, limits=replace(config.limits, connections=fitting))
