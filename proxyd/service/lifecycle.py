"""
The running service: it listens, reloads, drains and ends::

    startService   listens; a listener that cannot be opened stops the start
    reload         new rules and settings for the next request, or none of them
    stopService    no new connection; requests finish, WebSockets are told; then the deadline
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, DeferredLock, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd.errors import ConfigError, Problem
from proxyd.forward.record import Record
from proxyd.forward.site import ProxySite
from proxyd.interfaces import IAccessLog
from proxyd.service.access_log import open_access_log
from proxyd.service.listening import Certificates, ServerTLS, listen
from proxyd.service.resource import RulesResource
from proxyd.service.settings import Config
from proxyd.service.snapshot import Snapshot, Upstreams
from proxyd.websocket.relays import Relays

log = Logger()

DESCRIPTORS_APART = 64
"""Descriptors for what is no connection: log files, the reactor, name resolution."""

DESCRIPTORS_EACH = 2
"""Descriptors for one client's connection: its own, and the one to the origin server."""


class ProxyService(Service):
    """
    One proxy: its listeners, rules, connections and logs.

    @ivar config: what it runs with.
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
        self.config = config = _fitted(config)
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._environment = environment
        self._load = load
        self._access_log = _open_log(config)
        self._relays = Relays(reactor)
        self._reloading = DeferredLock()
        self._tls = [None if one.tls is None else ServerTLS(one.tls) for one in config.listen]
        self.resource = RulesResource(self._snapshot(config), self._relays, reactor)
        self.site = ProxySite(self.resource, config, reactor, self._exchange_ended, self._accept)

    def _snapshot(self, config: Config) -> Snapshot:
        return Snapshot(config, self._environment, Upstreams(self._reactor))

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
            listen(self._reactor, listener, self.site, tls).addCallbacks(self.ports.append, failures.append)
            if failures:
                problem = Problem(("listen", index), f"cannot listen on {listener.endpoint}: {failures[0].value}")
                raise ConfigError((problem,), self.config.source)

    def startService(self) -> None:
        Service.startService(self)
        for warning in self.config.warnings:
            log.warn("{warning}", warning=warning)
        # Only a reactor that runs takes signals: who waits for this line may send one.
        self._reactor.callWhenRunning(self._tell_ports)

    def _tell_ports(self) -> None:
        for port in self.ports:
            log.info("proxyd listens on {address}", address=port.getHost())

    def _accept(self, accepting: bool) -> None:
        for port in self.ports:
            if isinstance(port, FileDescriptor):
                (port.startReading if accepting else port.stopReading)()

    # Reload

    def reload(self) -> Deferred[None]:
        """
        Take a changed configuration for the next requests; a bad one changes nothing, and the log says why.

        Reading it takes a second for each thousand rules: it is done in a
        thread, one reload after the other.

        @return: fires when it is done.
        """
        return self._reloading.run(self._reload)

    def _reload(self) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read_again).addCallbacks(
            self._take, self._not_reloaded
        )

    def _read_again(self) -> tuple[Config, Snapshot, list[Certificates | None]]:
        """Read all files, in a thread."""
        config = _fitted(self._load())
        return config, self._snapshot(config), [None if tls is None else tls.read() for tls in self._tls]

    def _take(self, read: tuple[Config, Snapshot, list[Certificates | None]]) -> None:
        config, snapshot, certificates = read
        try:
            self._take_log(config)
        except ConfigError as error:
            self._not_reloaded(Failure(error))
            return
        for tls, fresh in zip(self._tls, certificates, strict=True):
            if tls is not None and fresh is not None:
                tls.use(fresh)
        if config.listen != self.config.listen:
            log.warn("changes to listen need a restart; everything else is in force")
        for warning in config.warnings:
            log.warn("{warning}", warning=warning)
        self.config = config
        self.site.use(config)
        old, self.resource.snapshot = self.resource.snapshot, snapshot
        old.upstreams.retire()
        log.info("the configuration was reloaded: {count} rules", count=len(config.rules))

    def _take_log(self, config: Config) -> None:
        if config.log != self.config.log:
            opened = _open_log(config)
            if self._access_log is not None:
                self._access_log.close()
            self._access_log = opened
        elif self._access_log is not None:
            self._access_log.reopen()

    def _not_reloaded(self, failure: Failure) -> None:
        if failure.check(ConfigError):
            log.error("the configuration was not reloaded, the old one stays in force:\n{error}", error=failure.value)
        else:
            log.failure("the configuration was not reloaded, the old one stays in force", failure)

    def _exchange_ended(self, record: Record) -> None:
        if self._access_log is not None:
            self._access_log.write(record)

    # End

    def stopService(self) -> Deferred[None]:
        """
        Drain.

        @return: fires when all connections have ended, at the latest after C{timeouts.drain}.
        """
        Service.stopService(self)
        ended: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self.ports]
        self.ports = []
        drained = self.site.drain()
        self._relays.drain()
        deadline = None
        if self.config.timeouts.drain and not drained.called:
            log.info("draining: {count} connections are open", count=self.site.open)
            deadline = self._reactor.callLater(self.config.timeouts.drain, self.stop_at_once)

        def done(result: object) -> None:
            if deadline is not None and deadline.active():
                deadline.cancel()
            self.resource.snapshot.upstreams.retire()
            if self._access_log is not None:
                self._access_log.close()
            if isinstance(result, Failure):
                log.failure("ending failed", result)

        return gatherResults([*ended, drained]).addBoth(done)

    def stop_at_once(self) -> None:
        """Cut off what is still open."""
        log.warn("{count} connections are cut off", count=self.site.open)
        self.site.abort()
        self._relays.abort()


def _open_log(config: Config) -> IAccessLog | None:
    try:
        return open_access_log(config.log)
    except OSError as error:
        problem = Problem(("log", "access"), f"{config.log.access} cannot be opened: {error.strerror}")
        raise ConfigError((problem,), config.source) from error


def _fitted(config: Config) -> Config:
    """
    Raise the soft limit of descriptors to the hard one.

    @return: the configuration, with C{limits.connections} lowered if not even that is enough.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fitting = max(1, (hard - DESCRIPTORS_APART) // DESCRIPTORS_EACH)
    if hard == resource.RLIM_INFINITY or config.limits.connections <= fitting:
        return config
    log.warn(
        "limits.connections is lowered from {configured} to {fitting}: "
        "the system allows {hard} descriptors (ulimit -n)",
        configured=config.limits.connections,
        fitting=fitting,
        hard=hard,
    )
    return replace(config, limits=replace(config.limits, connections=fitting))
