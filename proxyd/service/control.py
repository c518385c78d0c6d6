"""
The control plane of the running service: the rules that change at run time,
the admin API and its page, and where they are listened for.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd import __version__
from proxyd.control.api.access import Access, is_loopback
from proxyd.control.api.calls import Answer, Call, Operation
from proxyd.control.api.connections import ConnectionsAPI
from proxyd.control.api.openapi import description
from proxyd.control.api.resource import AdminResource, Open
from proxyd.control.api.rules import RulesAPI
from proxyd.control.api.status import RulesStatus, Status, StatusAPI, StoreStatus, Totals
from proxyd.control.auth.tokens import Tokens
from proxyd.control.connections import Connections
from proxyd.control.metrics import BUCKETS_S, Metrics
from proxyd.control.page import page_files
from proxyd.control.permissions import Permissions
from proxyd.control.rulebook import DynamicRule, Rulebook
from proxyd.control.settings import AdminToken
from proxyd.control.store.opening import store_for
from proxyd.errors import ConfigError, Problem
from proxyd.forward.site import ProxySite
from proxyd.rules.model import Rule
from proxyd.service.listening import ServerTLS, listen, only_ours
from proxyd.service.settings import Config, Listener
from proxyd.service.snapshot import Snapshot
from proxyd.websocket.relays import Relays

log = Logger()

CLOSE_S = 2.0
"""Seconds that calls of the API have to be answered when everything else has ended."""


class Service(Protocol):
    """What the control plane asks of the service."""

    config: Config
    restart_needed: list[str]
    reload_error: str | None
    site: ProxySite
    ports: list[IListeningPort]

    @property
    def snapshot(self) -> Snapshot:
        """What the next request is served by."""

    def reload(self) -> Deferred[ConfigError | None]:
        """Read the configuration again; fires with what is wrong with it."""

    def use_rules(self) -> Deferred[None]:
        """Serve the next request by the rules of the moment."""


class ControlPlane:
    """
    The rules that change at run time, and all that shows and changes them.

    @ivar rulebook: these rules.
    @ivar ports: what the admin API listens on, once it does.
    @ivar tls: the TLS of these, where they have one.
    @ivar site: the factory of callers' connections.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        environment: Mapping[str, str],
        service: Service,
        relays: Relays,
        metrics: Metrics,
    ) -> None:
        """
        @raise ConfigError: the file of a token or of TLS cannot be read.
        """
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._config = config
        self._service = service
        self._relays = relays
        self._metrics = metrics
        self._started = time.time()
        permissions = Permissions(config.admin)
        store = store_for(reactor, config.store, config.store_folder)
        self.rulebook = Rulebook(reactor, store, permissions, config.base, service.use_rules)
        self._rules_api = RulesAPI(self.rulebook, permissions, lambda: service.config.rules, environment)
        self._access = Access(config.admin, reactor)
        self.tls = [None if one.tls is None else ServerTLS(one.tls) for one in config.admin_listen]
        self.site = ProxySite(self._resource(), config, reactor, lambda record: None, self._accept)

    def _resource(self) -> AdminResource:
        admin = self._config.admin
        described: list[Operation] = [
            *self._rules_api.operations,
            *ConnectionsAPI(Connections(self._reactor, lambda: self._service.site, self._relays)).operations,
            *StatusAPI(self, self._reactor.seconds).operations,
        ]
        # Made when it is first asked for: that takes as long as the rest of the start.
        openapi = cache(partial(description, described, __version__, admin.base))

        def describe(call: Call) -> Answer:
            return Answer(openapi())

        def expose(call: Call) -> Answer:
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
        for index, (listener, tls) in enumerate(zip(self._config.admin_listen, self.tls, strict=True)):
            failures: list[Failure] = []
            private = Listener(only_ours(listener.endpoint), listener.tls)
            listening = listen(self._reactor, private, self.site, tls, lambda one: self.snapshot.trusted.trusts(one))
            listening.addCallbacks(self.ports.append, failures.append)
            if failures:
                text = f"cannot listen on {listener.endpoint}: {failures[0].value}"
                raise ConfigError((Problem(("admin", "listen", index), text),), self._config.source)
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

    def read_tokens(self) -> Tokens[AdminToken]:
        """
        @return: the tokens of the configuration that the service was started with, their files read now.

        @raise ConfigError: a file cannot be read, or holds no token.
        """
        return Tokens(self._config.admin.tokens)

    def use(self, config: Config, tokens: Tokens[AdminToken]) -> None:
        """Take what a reload may change."""
        self.site.use(config)
        self._access.tokens = tokens

    def open(self) -> Deferred[None]:
        """
        Put the rules of the store in force.

        @return: fails with L{proxyd.errors.StoreUnusable}.
        """
        return Deferred.fromCoroutine(self.rulebook.open())

    def close(self) -> Deferred[Any]:
        """Stop listening, and let go of the store; fires when all connections to the API have ended."""
        ended: list[Deferred[Any]] = [maybeDeferred(port.stopListening) for port in self.ports]
        self.ports = []
        drained = self.site.drain()
        if not drained.called:
            hurrying = self._reactor.callLater(CLOSE_S, self.site.abort)
            drained.addCallback(lambda _: hurrying.cancel() if hurrying.active() else None)
        return gatherResults([*ended, drained]).addBoth(lambda _: self.rulebook.close())

    def _accept(self, accepting: bool) -> None:
        for port in self.ports:
            (port.startReading if accepting else port.stopReading)()  # type: ignore[attr-defined]

    # What the API shows

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

    def status(self, role: str) -> Status:
        """The state of the moment."""
        service, rulebook = self._service, self.rulebook
        return Status(
            version=__version__,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            uptime=round(time.time() - self._started, 3),
            config=service.config.source,
            listening=[_text(port.getHost()) for port in service.ports],
            draining=service.site.draining,
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
            connections=service.site.open,
            websockets=len(self._relays.live),
            totals=Totals(
                requests=self._metrics.requests,
                errors=self._metrics.errors,
                latency=list(zip((*BUCKETS_S, None), self._metrics.latency, strict=True)),
            ),
            role=role,
        )

    def _readiness(self) -> Answer:
        service, away = self._service, self.rulebook.store.away
        is_ready = bool(service.ports) and not service.site.draining and self.rulebook.is_ready
        content = {
            "ready": is_ready,
            "listening": bool(service.ports),
            "draining": service.site.draining,
            # Why is for those with a token: it can name hosts and files.
            "store": "ok" if self.rulebook.is_ready else "not read yet" if away is None else "away",
        }
        return Answer(content, 200 if is_ready else 503)

    # Metrics

    def _exposition(self) -> Answer:
        text, media_type = self._metrics.exposition(self)
        return Answer(text, media_type=media_type)

    def connects(self) -> Iterable[tuple[str, str, int]]:
        """Connections to origin servers: by which proxy, with which outcome, how many."""
        return [(proxy, outcome, count) for (proxy, outcome), count in self.snapshot.upstreams.connects.items()]

    def relayed(self) -> tuple[int, int, int, int]:
        """Of WebSockets that are open: frames and octets from clients, frames and octets from origin servers."""
        totals = [0, 0, 0, 0]
        for relay in self._relays.live:
            for index, follower in ((0, relay.client.follower), (2, relay.origin.follower)):
                totals[index] += follower.frames
                totals[index + 1] += follower.octets
        return totals[0], totals[1], totals[2], totals[3]

    def gauges(self) -> Iterator[tuple[str, str, dict[str, str], float]]:
        """What is so at this moment."""
        upstreams = list(self.snapshot.upstreams)
        idle = sum(one.idle for one in upstreams)
        rulebook = self.rulebook
        yield "proxyd_connections", "Clients' connections", {}, self._service.site.open
        yield "proxyd_websockets", "WebSockets that are open", {}, len(self._relays.live)
        meaning = "Connections to origin servers, WebSockets excepted"
        yield "proxyd_pool_connections", meaning, {"state": "idle"}, idle
        yield "proxyd_pool_connections", meaning, {"state": "used"}, sum(one.open for one in upstreams) - idle
        yield "proxyd_store_up", "Whether the store of rules can be reached", {}, rulebook.store.away is None
        yield "proxyd_store_revision", "Changes of rules so far", {}, rulebook.rule_set.revision
        yield "proxyd_rules", "Rules", {"kind": "static"}, len(self._service.config.rules)
        yield "proxyd_rules", "Rules", {"kind": "dynamic"}, len(rulebook.rules)
        yield "proxyd_start_time_seconds", "When the service was started, since the epoch", {}, self._started


def in_force(static: Iterable[Rule], dynamic: Iterable[DynamicRule]) -> list[Rule]:
    """
    @return: all rules, in matching order; where the file has a rule of the same id, that is the one.
    """
    rules = list(static)
    taken = {rule.id for rule in rules}
    return rules + [one.rule for one in dynamic if one.rule is not None and one.id not in taken]


def _text(address: IAddress) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    return f"unix:{os.fsdecode(getattr(address, 'name', None) or b'')}"
