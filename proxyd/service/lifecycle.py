"""
The running service: it listens, reloads, drains and ends::

    startService   listens, and accepts when the rules of the store have been read
    reload         new rules and settings for the next request, or none of them
    use_rules      other rules from the store or the admin API for the next request
    stopService    no new connection; requests finish, WebSockets are told; then the deadline

Clients are served in this process (L{proxyd.service.serving}) or in several
others (L{proxyd.service.workers}); either way the rules are kept, and the admin
API (L{proxyd.service.admin}) is answered, here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd.control.counts import Counts
from proxyd.control.permissions import Permissions
from proxyd.control.rulebook import DynamicRule, Rulebook
from proxyd.control.store.opening import store_for
from proxyd.errors import ConfigError, Problem, StoreError
from proxyd.forward.site import ProxySite
from proxyd.interfaces import IRuleStore
from proxyd.service.resource import RulesResource
from proxyd.service.serving import Serving
from proxyd.service.settings import Config
from proxyd.service.snapshot import Snapshot
from proxyd.service.systemd import Supervisor

if TYPE_CHECKING:
    from proxyd.control.api.connections import Connections
    from proxyd.control.api.status import WorkerStatus
    from proxyd.service.admin import AdminAPI, Read
    from proxyd.service.workers import Workers

log = Logger()


class _Servers(Protocol):
    """Who serves the clients: L{Serving} or L{Workers}, where the meaning of all this is said."""

    ports: list[IListeningPort]

    @property
    def connections(self) -> Connections: ...
    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def open(self) -> int: ...
    def listen(self) -> None: ...
    def start(self) -> Deferred[None]: ...
    def prepare(self, config: Config, dynamic: Sequence[DynamicRule]) -> Deferred[Any]: ...
    def take(self, prepared: Any) -> Deferred[None]: ...
    def use_rules(self, dynamic: Sequence[DynamicRule]) -> Deferred[None]: ...
    def counts(self, is_scrape: bool = False) -> Deferred[Counts]: ...
    def drain(self) -> Deferred[None]: ...
    def stop_at_once(self) -> None: ...


class ProxyService(Service):
    """
    One proxy.

    @ivar config: what it runs with.
    @ivar rulebook: its rules that change at run time.
    @ivar restart_needed: the keys of the configuration that were changed since the start and need another one.
    @ivar reload_error: why the last reload changed nothing, if so.
    @ivar draining: whether it is about to end.
    @ivar unusable: called when the service turns out to be none, which is logged already.
    """

    name = "proxyd"

    def __init__(
        self,
        reactor: Any,
        config: Config,
        environment: Mapping[str, str],
        load: Callable[[], Config],
        store: IRuleStore | None = None,
    ) -> None:
        """
        @param load: reads the configuration again.
        @param store: where rules that change at run time are kept, in place of what the configuration says.

        @raise ConfigError: a certificate or the access log cannot be opened.
        """
        self.config = self._started_with = config
        self.restart_needed: list[str] = []
        self.reload_error: str | None = None
        self.draining = False
        self.unusable: Callable[[], None] = reactor.stop
        self._reactor = reactor
        self._load = load
        self._supervisor = Supervisor(reactor, environment)
        # Over all that changes what is served: reloads, changes of rules, a worker that joins.
        self._changing = DeferredLock()
        self._workers: Workers | None = None
        self._servers: _Servers
        if config.workers > 1:
            # Nobody else has to wait for what supervises processes.
            from proxyd.service.workers import Workers

            self._servers = self._workers = Workers(
                reactor, config, environment, self._listeners, self._changing, self._failed
            )
        else:
            self._servers = Serving(reactor, config, environment, self._listeners)
        permissions = Permissions(config.admin)
        if store is None:
            store = store_for(reactor, config.store, config.store_folder)
        self.rulebook = Rulebook(reactor, store, permissions, config.base, self.use_rules)
        self._admin: AdminAPI | None = None
        if config.admin_listen:
            # Nor for an API that nobody asks.
            from proxyd.service.admin import AdminAPI

            self._admin = AdminAPI(reactor, config, environment, self, self.rulebook, permissions)

    # What programs that embed it may use

    @property
    def resource(self) -> RulesResource:
        """
        The root of the Resource tree; C{putChild} mounts others beside the rules.

        @raise RuntimeError: it is in other processes.
        """
        return self._here.resource

    @property
    def site(self) -> ProxySite:
        """
        The factory of clients' connections, to listen with on endpoints that the configuration cannot name.

        @raise RuntimeError: it is in other processes.
        """
        return self._here.site

    @property
    def _here(self) -> Serving:
        if not isinstance(self._servers, Serving):
            raise RuntimeError(
                f"{self.config.source}: with workers: {self.config.workers} clients are served in other processes;"
                " a program that mounts Resources needs workers: 1"
            )
        return self._servers

    @property
    def ports(self) -> list[IListeningPort]:
        """What it listens on, once it does."""
        return self._servers.ports

    @property
    def snapshot(self) -> Snapshot:
        """What the next request is served by."""
        return self._servers.snapshot

    def is_public(self, path: str, method: str, *, upgrade: bool = False, host: str | None = None) -> bool:
        """
        Whether the rules of the moment let this request in without authentication (C{publicRoutes}).

        @param path: the path of the request, without its query.
        @param method: such as C{GET}, which covers C{HEAD}.
        @param upgrade: it asks for a WebSocket.
        @param host: the host that is asked, without its port.
        """
        table = self.snapshot.table
        return table.is_public(path, method, upgrade=upgrade, host=host, now=self._reactor.seconds)

    # What the admin API asks

    @property
    def connections(self) -> Connections:
        """The requests and WebSockets under way."""
        return self._servers.connections

    def counts(self, is_scrape: bool = False) -> Deferred[Counts]:
        """What has been counted, and what is so now."""
        return self._servers.counts(is_scrape)

    def workers(self) -> list[WorkerStatus]:
        """The processes that serve, if it is not this one."""
        return [] if self._workers is None else self._workers.status()

    def restart_workers(self) -> int:
        """Replace them, one after the other; returns how many, 0 if this cannot be done now."""
        return 0 if self._workers is None else self._workers.restart()

    def _listeners(self) -> Iterable[IAddress]:
        return [port.getHost() for port in (*self.ports, *self._admin_ports)]

    @property
    def _admin_ports(self) -> list[IListeningPort]:
        return [] if self._admin is None else self._admin.ports

    # Start

    def privilegedStartService(self) -> None:
        """
        Listen, before twistd gives up its privileges.

        @raise ConfigError: a listener cannot be opened.
        """
        self._servers.listen()
        if self._admin is not None:
            self._admin.listen()

    def startService(self) -> None:
        Service.startService(self)
        for warning in self.config.warnings:
            log.warn("{warning}", warning=warning)
        Deferred.fromCoroutine(self.rulebook.open()).addCallback(self._opened).addErrback(self._not_opened)

    def _opened(self, _: object) -> Deferred[None] | None:
        if not self.running:
            return None
        return self._servers.start().addCallback(self._started)

    def _started(self, _: object) -> None:
        if self.running:
            # Only a reactor that runs takes signals: who waits for this line may send one.
            self._reactor.callWhenRunning(self._tell_ports)

    def _not_opened(self, failure: Failure) -> None:
        if failure.check(StoreError):
            log.critical("the store of rules cannot be used: {error}", error=failure.value)
        else:
            log.failure("the service cannot be started", failure)
        self._failed()

    def _failed(self) -> None:
        self._reactor.callWhenRunning(self.unusable)

    def _tell_ports(self) -> None:
        for port in self.ports:
            log.info("proxyd listens on {address}", address=port.getHost())
        for port in self._admin_ports:
            log.info("proxyd's admin API listens on {address}", address=port.getHost())
        self._tell_ready()

    def _tell_ready(self) -> None:
        self._supervisor.ready(f"serving by {len(self.snapshot.table)} rules")

    # Changes

    def reload(self) -> Deferred[ConfigError | None]:
        """
        Take a changed configuration for the next requests; a bad one changes nothing, and the log says why.

        Reading it takes a second for each thousand rules: it is done in a
        thread, one reload after the other.

        @return: fires when it is done, with what was wrong.
        """
        return self._changing.run(lambda: Deferred.fromCoroutine(self._reload()))

    async def _reload(self) -> ConfigError | None:
        self._supervisor.reloading()
        try:
            config, read = await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._read_again)
            prepared = await self._servers.prepare(config, self.rulebook.rules)
            await self._servers.take(prepared)
        except ConfigError as error:
            log.error("the configuration was not reloaded, the old one stays in force:\n{error}", error=error)
            return self._not_reloaded(error)
        except Exception:
            log.failure("the configuration was not reloaded, the old one stays in force")
            return self._not_reloaded(
                ConfigError((Problem((), "an error in proxyd itself, see its log"),), self.config.source)
            )
        self.config = config
        if self._admin is not None and read is not None:
            self._admin.use(config, read)
        for warning in config.warnings:
            log.warn("{warning}", warning=warning)
        self.reload_error = None
        self.restart_needed = _differences(self._started_with, config)
        if self.restart_needed:
            keys = " and ".join(self.restart_needed)
            log.warn("changes to {keys} need a restart; everything else is in force", keys=keys)
        rules = "rule" if len(config.rules) == 1 else "rules"
        log.info("the configuration was reloaded: {count} {rules}", count=len(config.rules), rules=rules)
        self._tell_ready()
        return None

    def _read_again(self) -> tuple[Config, Read | None]:
        """Read the files that are this process's own, in a thread."""
        return self._load(), None if self._admin is None else self._admin.read()

    def _not_reloaded(self, error: ConfigError) -> ConfigError:
        self.reload_error = str(error)
        self._tell_ready()
        return error

    def use_rules(self) -> Deferred[None]:
        """Serve the next request by the rules of the moment: those of the file, then those of the store."""
        return self._changing.run(lambda: self._servers.use_rules(self.rulebook.rules))

    # End

    def stopService(self) -> Deferred[None]:
        """
        Drain.

        @return: fires when all connections have ended, at the latest after C{timeouts.drain}.
        """
        Service.stopService(self)
        self.draining = True
        self._supervisor.stopping(f"draining {self._servers.open} connections")

        def done(result: object) -> Deferred[Any]:
            if isinstance(result, Failure):
                log.failure("ending failed", result)
            self._supervisor.stopped()
            # The API is there as long as there is something to be seen by it.
            closed: Deferred[Any] = succeed(None) if self._admin is None else self._admin.close()
            return closed.addBoth(lambda _: self.rulebook.close())

        return self._servers.drain().addBoth(done)

    def stop_at_once(self) -> None:
        """Cut off what is still open."""
        self._servers.stop_at_once()


def _differences(started: Config, now: Config) -> list[str]:
    """The keys of the configuration that only a start reads, and that have changed."""
    listen = ("listen", started.listen, now.listen)
    admin = ("admin", (started.admin_listen, started.admin), (now.admin_listen, now.admin))
    store = ("store", (started.store, started.store_folder), (now.store, now.store_folder))
    workers = ("workers", started.workers, now.workers)
    return [key for key, before, after in (listen, admin, store, workers) if before != after]
