"""The admin API of the running service and its page: what they show, and where they are listened for."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger

from proxyd import __version__
from proxyd.control.api.access import Access
from proxyd.control.api.calls import Answer, Call, Operation
from proxyd.control.api.connections import Connections as LiveConnections
from proxyd.control.api.connections import ConnectionsAPI
from proxyd.control.api.openapi import description
from proxyd.control.api.resource import AdminResource, Open
from proxyd.control.api.rules import RulesAPI
from proxyd.control.api.status import RulesStatus, Status, StatusAPI, StoreStatus, Totals, WorkerStatus
from proxyd.control.auth.tokens import Tokens
from proxyd.control.counts import BUCKETS_S, Counts
from proxyd.control.page import page_files
from proxyd.control.permissions import Permissions
from proxyd.control.rulebook import Rulebook
from proxyd.control.settings import AdminToken
from proxyd.errors import ConfigError, Problem
from proxyd.forward.site import ProxySite
from proxyd.http.authority import is_loopback
from proxyd.service.listening import Certificates, ServerTLS, listen, only_ours
from proxyd.service.serving import opened
from proxyd.service.settings import Config, Listener
from proxyd.service.snapshot import Snapshot
from proxyd.times import to_the_second

if TYPE_CHECKING:
    from proxyd.control.metrics import Gauge

log = Logger()

CLOSE_S = 2.0
"""Seconds that calls of the API have to be answered when everything else has ended."""


class Service(Protocol):
    """What the API asks of the service."""

    config: Config
    restart_needed: list[str]
    reload_error: str | None

    @property
    def ports(self) -> list[IListeningPort]:
        """What it listens on."""

    @property
    def draining(self) -> bool:
        """Whether it is about to end."""

    @property
    def snapshot(self) -> Snapshot:
        """What the next request is served by."""

    @property
    def connections(self) -> LiveConnections:
        """The requests and WebSockets under way."""

    def counts(self, is_scrape: bool = False) -> Deferred[Counts]:
        """What has been counted, and what is so now."""

    def workers(self) -> list[WorkerStatus]:
        """The processes that serve, if it is not this one."""

    def restart_workers(self) -> int:
        """Replace them, one after the other; returns how many, 0 if this cannot be done now."""

    def reload(self) -> Deferred[ConfigError | None]:
        """Read the configuration again; fires with what is wrong with it."""


class Read(NamedTuple):
    """What a reload has read for the API, before it is in force."""

    tokens: Tokens[AdminToken]
    certificates: list[Certificates | None]


class AdminAPI:
    """
    The admin API.

    @ivar ports: what it listens on, once it does.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        environment: Mapping[str, str],
        service: Service,
        rulebook: Rulebook,
        permissions: Permissions,
    ) -> None:
        """
        @param rulebook: the rules that it changes.
        @param permissions: what these may name.

        @raise ConfigError: the file of a token or of TLS cannot be read.
        """
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._config = config
        self._service = service
        self._started = time.time()
        self._started_at: float = reactor.seconds()
        self._rulebook = rulebook
        self._rules_api = RulesAPI(rulebook, permissions, lambda: service.config.rules, environment)
        self._access = Access(config.admin, reactor)
        self._tls = [None if one.tls is None else ServerTLS(one.tls) for one in config.admin_listen]
        self._site = ProxySite(self._resource(), config, reactor, lambda record: None, self._accept)

    def _resource(self) -> AdminResource:
        admin = self._config.admin
        described: list[Operation] = [
            *self._rules_api.operations,
            *ConnectionsAPI(self._service.connections).operations,
            *StatusAPI(self, self._reactor.seconds).operations,
        ]
        # Made when it is first asked for: that takes as long as the rest of the start.
        openapi = cache(partial(description, described, __version__, admin.base))

        def describe(call: Call) -> Answer:
            return Answer(openapi())

        def expose(call: Call) -> Awaitable[Answer]:
            return self._exposition()

        open_paths = {
            **page_files(),
            "/healthz": Open(lambda: Answer({"status": "ok"})),
            "/readyz": Open(self._readiness),
        }
        operations = [*described, Operation("GET", "/api/openapi.json", "read", describe, "This description", dict)]
        if admin.open_metrics:
            open_paths["/metrics"] = Open(self._exposition)
        else:
            operations.append(Operation("GET", "/metrics", "read", expose, "Metrics for Prometheus", dict))
        return AdminResource(admin.base, self._access, lambda: self.snapshot.trusted, operations, open_paths)

    # Life

    def listen(self) -> None:
        """
        Listen.

        @raise ConfigError: a listener cannot be opened, or anybody could write there.
        """
        for index, (listener, tls) in enumerate(zip(self._config.admin_listen, self._tls, strict=True)):
            private = Listener(only_ours(listener.endpoint), listener.tls)
            listening = listen(self._reactor, private, self._site, tls, lambda one: self.snapshot.trusted.trusts(one))
            self.ports.append(opened(listening, ("admin", "listen", index), listener, self._config.source))
            if not self._config.admin.tokens:
                self._check_private(index, self.ports[-1].getHost())

    def _check_private(self, index: int, here: IAddress) -> None:
        if isinstance(here, UNIXAddress):
            name = os.fsdecode(here.name or b"")
            # Anybody reaches a name in the abstract namespace.
            mode = 0o666 if not name or name.startswith("\0") else stat.S_IMODE(os.stat(name).st_mode)
            text = f"{name} has the mode {mode:o}: without admin.tokens it must be 600" if mode & 0o077 else ""
        else:
            is_private = isinstance(here, IPv4Address | IPv6Address) and is_loopback(here.host)
            text = "" if is_private else "is no loopback address: that needs admin.tokens"
        if text:
            raise ConfigError((Problem(("admin", "listen", index), text),), self._config.source)

    def read(self) -> Read:
        """
        @return: the tokens and certificates of the configuration that the service was started with, as they are now.

        @raise ConfigError: a file cannot be read, or holds something else.
        """
        return Read(Tokens(self._config.admin.tokens), [None if tls is None else tls.read() for tls in self._tls])

    def use(self, config: Config, read: Read) -> None:
        """Take what a reload may change."""
        self._site.use(config)
        self._access.tokens = read.tokens
        for tls, fresh in zip(self._tls, read.certificates, strict=True):
            if tls is not None and fresh is not None:
                tls.use(fresh)

    def close(self) -> Deferred[Any]:
        """Stop listening; fires when all connections have ended."""
        ended: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self.ports]
        self.ports = []
        drained = self._site.drain()
        if not drained.called:
            hurrying = self._reactor.callLater(CLOSE_S, self._site.abort)
            drained.addCallback(lambda _: hurrying.cancel() if hurrying.active() else None)
        return gatherResults([*ended, drained])

    def _accept(self, accepting: bool) -> None:
        for port in self.ports:
            (port.startReading if accepting else port.stopReading)()  # type: ignore[attr-defined]

    # What it shows

    @property
    def snapshot(self) -> Snapshot:
        """What requests are served by."""
        return self._service.snapshot

    @property
    def restart_needed(self) -> list[str]:
        """What of the configuration was changed and needs a restart."""
        return self._service.restart_needed

    def reload(self) -> Deferred[ConfigError | None]:
        """Read the configuration again."""
        return self._service.reload()

    def restart_workers(self) -> int:
        """Replace the processes that serve, one after the other."""
        return self._service.restart_workers()

    async def _status(self, role: str) -> Status:
        service, rulebook = self._service, self._rulebook
        counts = await service.counts()
        return Status(
            version=__version__,
            started=to_the_second(self._started),
            uptime=round(self._reactor.seconds() - self._started_at, 3),
            config=service.config.source,
            listening=[_text(port.getHost()) for port in service.ports],
            draining=service.draining,
            restartNeeded=service.restart_needed,
            reloadError=service.reload_error,
            rules=RulesStatus(
                static=len(service.config.rules),
                dynamic=len(rulebook.rules),
                unusable=sum(one.rule is None for one in rulebook.rules),
            ),
            store=StoreStatus(
                kind=self._config.store.partition(":")[0],
                revision=rulebook.rule_set.revision,
                away=rulebook.store.away,
            ),
            connections=counts.gauges["connections"],
            websockets=counts.gauges["websockets"],
            totals=Totals(
                requests=counts.requests,
                errors=counts.errors,
                latency=list(zip((*BUCKETS_S, None), counts.latency, strict=True)),
            ),
            workers=service.workers(),
            role=role,
        )

    def status(self, role: str) -> Deferred[Status]:
        """The state of the moment."""
        return Deferred.fromCoroutine(self._status(role))

    def _readiness(self) -> Answer:
        service, rulebook = self._service, self._rulebook
        away = rulebook.store.away
        is_ready = bool(service.ports) and not service.draining and rulebook.is_ready
        content = {
            "ready": is_ready,
            "listening": bool(service.ports),
            "draining": service.draining,
            # Why is for those with a token: it can name hosts and files.
            "store": "ok" if rulebook.is_ready else "not read yet" if away is None else "away",
        }
        return Answer(content, 200 if is_ready else 503)

    # Metrics

    async def _exposition(self) -> Answer:
        # Nobody has to wait for prometheus_client at the start.
        from proxyd.control.metrics import exposition

        counts = await self._service.counts(is_scrape=True)
        text, media_type = exposition(counts, self._gauges(counts.gauges))
        return Answer(text, media_type=media_type)

    def _gauges(self, found: Mapping[str, float]) -> Iterator[Gauge]:
        rulebook = self._rulebook
        yield "proxyd_connections", "Clients' connections", {}, found["connections"]
        yield "proxyd_websockets", "WebSockets that are open", {}, found["websockets"]
        meaning = "Connections to origin servers, WebSockets excepted"
        yield "proxyd_pool_connections", meaning, {"state": "idle"}, found["pool_idle"]
        yield "proxyd_pool_connections", meaning, {"state": "used"}, found["pool_used"]
        for state, count in Counter(worker["state"] for worker in self._service.workers()).items():
            yield "proxyd_workers", "Processes that serve", {"state": state}, count
        yield "proxyd_store_up", "Whether the store of rules can be reached", {}, rulebook.store.away is None
        yield "proxyd_store_revision", "Changes of rules so far", {}, rulebook.rule_set.revision
        yield "proxyd_rules", "Rules", {"kind": "static"}, len(self._service.config.rules)
        yield "proxyd_rules", "Rules", {"kind": "dynamic"}, len(rulebook.rules)
        yield "proxyd_start_time_seconds", "When the service was started, since the epoch", {}, self._started


def _text(address: IAddress) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    return f"unix:{os.fsdecode(getattr(address, 'name', None) or b'')}"
