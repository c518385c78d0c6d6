"""
What requests are served by: rules and settings at one moment.

A request keeps the snapshot that it began with.  A change makes a new one and
puts it in the old one's place with one assignment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from proxyd.control.auth.passwords import PasswordChecks
from proxyd.errors import RuleUnusable
from proxyd.forward.html import Rewriter
from proxyd.forward.pool import Upstream
from proxyd.http.forwarded import TrustedProxies
from proxyd.outbound.guard import Guard
from proxyd.outbound.pac import PacEvaluator, PacRoute
from proxyd.outbound.proxies import proxy_for
from proxyd.outbound.route import OriginEndpoint, Route, TLSSettings
from proxyd.rules.auth import Auth
from proxyd.rules.model import Rule, TargetURL
from proxyd.rules.outgoing import Outgoing
from proxyd.rules.proxy import PacSource, Proxy
from proxyd.rules.table import RuleTable
from proxyd.service.authentication import Authentication
from proxyd.service.settings import Config, Outbound, Timeouts
from proxyd.websocket.relay import RelayOptions

MAX_PROXIES = 100
"""Proxies and outcomes whose connections are counted apart."""


class Upstreams:
    """
    The connections to all origin servers: one L{Upstream} for each way to one.

    @ivar guard: says where rules that change at run time must not lead.
    @ivar connects: how often a connection was made, by the proxy on the way and the outcome.
    """

    def __init__(self, reactor: Any, guard: Guard, connects: Counter[tuple[str, str]]) -> None:
        """
        @param guard: says where rules that change at run time must not lead.
        """
        self.connects = connects
        self._reactor = reactor
        self.guard = guard
        self._is_retired = False
        self._by_route: dict[tuple[Route, float], Upstream] = {}
        self._evaluators: dict[PacSource, PacEvaluator] = {}

    def get(self, route: Route, connect_timeout: float, limit: int, response_head_size: int) -> Upstream:
        """
        The connections by one route.

        @raise proxyd.errors.RuleUnusable: the route cannot be used.
        """
        key = route, connect_timeout
        upstream = self._by_route.get(key)
        if upstream is None:
            endpoint = OriginEndpoint(self._reactor, route, connect_timeout, self._evaluator, self.guard)
            upstream = self._by_route[key] = Upstream(
                route.name, endpoint, self._reactor, report=partial(self._report, _proxy_name(route))
            )
            if self._is_retired or isinstance(route.proxy, PacRoute):
                # Each connection may go another way: none is kept for a request that the script would send elsewhere.
                upstream.retire()
        upstream.limit = limit
        upstream.response_head_size = response_head_size
        return upstream

    def _evaluator(self, source: PacSource) -> PacEvaluator:
        if source not in self._evaluators:
            made = self._evaluators[source] = PacEvaluator(self._reactor, source)
            if self._is_retired:
                made.retire()
        return self._evaluators[source]

    def _report(self, proxy: str, succeeded: bool) -> None:
        outcome = "ok" if succeeded else "failed"
        is_known = (proxy, outcome) in self.connects or len(self.connects) < MAX_PROXIES
        self.connects[proxy if is_known else "other", outcome] += 1

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._by_route.values())

    def keep(self, used: Iterable[Upstream]) -> None:
        """Let go of all ways but these; requests under way finish."""
        kept = set(used)
        for key, upstream in list(self._by_route.items()):
            if upstream not in kept:
                upstream.retire()
                del self._by_route[key]
        sources = {key[0].proxy.source for key in self._by_route if isinstance(key[0].proxy, PacRoute)}
        for source in self._evaluators.keys() - sources:
            self._evaluators.pop(source).retire()

    def retire(self) -> None:
        """Close all connections, each when its exchange is done, and leave no process behind."""
        self._is_retired = True
        for evaluator in self._evaluators.values():
            evaluator.retire()
        for upstream in self._by_route.values():
            upstream.retire()


def _proxy_name(route: Route) -> str:
    if isinstance(route.proxy, PacRoute):
        return "pac"
    return "direct" if route.proxy is None else route.proxy.name


def route_of(rule: Rule, url: TargetURL, outbound: Outbound, environment: Mapping[str, str]) -> Route:
    """
    @return: the way to the target of a rule.

    @raise proxyd.errors.RuleUnusable: the environment is to name the proxy, and names none that is one.
    """
    proxy = None
    if rule.endpoint is None and url.socket is None:
        way = outbound.proxy if rule.proxy is None else rule.proxy
        proxy = proxy_for(way, url.scheme, url.host, url.port, environment, outbound.tls)
    tls = None
    if url.secure:
        tls = TLSSettings(
            rule.tls.server_name or url.host, rule.secure, rule.tls.ca, rule.tls.certificate, rule.tls.key
        )
    return Route(url.host, url.port, url.socket, rule.endpoint, tls, proxy, rule.dynamic)


class RuleInUse:
    """
    What serving a request needs of the rule that takes it.

    @ivar outgoing: what the rule makes of requests.
    @ivar route: the way to its target.
    @ivar upstream: the connections by that way.
    @ivar timeouts: the service's, with the rule's own in their place.
    @ivar body_limit: octets of a request's body; 0 is no limit.
    @ivar html: makes what changes a page on its way back.
    @ivar trailers: those of a request that go on.
    @ivar relaying: how its WebSockets are relayed.
    @ivar variables: the names of the variables that it uses.
    @ivar values: what they were when this was made.
    """

    __slots__ = (
        "body_limit", "html", "outgoing", "relaying", "route", "timeouts", "trailers", "upstream", "values", "variables"
    )  # fmt: skip

    variables: tuple[str, ...]
    values: tuple[str | None, ...]

    def __init__(
        self,
        rule: Rule,
        environment: Mapping[str, str],
        config: Config,
        upstreams: Upstreams,
        withheld: frozenset[bytes] = frozenset(),
    ) -> None:
        """
        @param withheld: fields that clients' requests never bring to the target.

        @raise proxyd.errors.RuleUnusable: the rule cannot be followed.
        """
        own, service = rule.timeouts, config.timeouts
        self.outgoing = Outgoing(rule, environment, withheld)
        self.trailers = self.outgoing.trailers
        self.timeouts = Timeouts(
            connect=service.connect if own.connect is None else own.connect,
            response=service.response if own.response is None else own.response,
            body=service.body if own.body is None else own.body,
        )
        self.route = route_of(rule, self.outgoing.url, config.outbound, environment)
        self.upstream = upstreams.get(
            self.route,
            self.timeouts.connect,
            config.limits.per_host,
            config.limits.response_header,
        )
        self.body_limit = config.limits.body if rule.limits.body is None else rule.limits.body
        self.html: Callable[[], Rewriter] | None = None
        if rule.base is not None or rule.relative_paths:
            self.html = partial(Rewriter, rule.base, rule.relative_paths)
        self.relaying = RelayOptions(
            idle=service.websocket_idle if own.websocket_idle is None else own.websocket_idle,
            ping=service.websocket_ping,
            max_message=config.limits.max_message,
        )


class Snapshot:
    """
    Rules and settings at one moment.

    @ivar config: the configuration.
    @ivar table: its rules.
    @ivar token: what no other snapshot has.
    @ivar trusted: the proxies whose word is believed.
    @ivar upstreams: the connections to its targets.
    @ivar environment: where variables are taken from.
    @ivar is_rated: whether there is any limit on how many requests a client may make.
    @ivar authentication: who is asked whether a request may go on; L{None} if none is asked about.
    @ivar reported: what the log has said already of rules that cannot be followed.
    """

    def __init__(
        self,
        config: Config,
        table: RuleTable,
        environment: Mapping[str, str],
        upstreams: Upstreams,
        passwords: PasswordChecks,
        before: Authentication | None = None,
    ) -> None:
        """
        @param table: all rules: those of the file, then those that change at run time.
        @param passwords: where passwords are checked; it outlives this.
        @param before: what the same configuration asks about requests with other rules.

        @raise proxyd.errors.ConfigError: a file of users or of a token is none.
        """
        self.config = config
        self.token = object()
        self.table = table
        self.trusted = TrustedProxies(config.trusted_proxies)
        self.upstreams = upstreams
        self.environment = environment
        self.is_rated = config.limits.rate is not None or any(rule.limits.rate for rule in table.rules)
        self.passwords = passwords
        # Kept apart, so that serving a request without it costs one test.
        self._authentication = Authentication(config, self.table.rules, environment, upstreams, passwords, before)
        self.authentication = self._authentication if self._authentication.asks else None
        self.reported: set[str] = set()
        self._in_use: dict[str, RuleInUse] = {}

    def with_table(self, table: RuleTable) -> Snapshot:
        """
        @return: the same settings and connections with other rules; what is the same of them stays as it is.
        """
        changed = Snapshot(
            self.config, table, self.environment, self.upstreams, self.passwords, self._authentication
        )
        for rule_id, in_use in list(self._in_use.items()):
            rule = table.by_id.get(rule_id)
            if rule is self.table.by_id.get(rule_id):
                changed._in_use[rule_id] = in_use
            elif rule is not None:
                # By the same way as before it is, with all connections that there are, if that has not changed.
                with suppress(RuleUnusable):
                    changed.rule_in_use(rule)
        return changed

    def take_over(self) -> None:
        """This one is for the next request: let go of the connections that none of its rules has asked for."""
        used = [in_use.upstream for in_use in self._in_use.values()]
        self.upstreams.keep([*used, *self._authentication.upstreams])

    @property
    def guard(self) -> Guard:
        """Where rules that change at run time must not lead."""
        return self.upstreams.guard

    @property
    def forwarded(self) -> bool:
        """Whether C{Forwarded} is sent."""
        return self.config.forwarded

    @property
    def proxy(self) -> Proxy:
        """The way to targets whose rules name none."""
        return self.config.outbound.proxy

    @property
    def auth(self) -> Auth | None:
        """Authentication for rules that say nothing of it."""
        return self.config.auth

    def rule_in_use(self, rule: Rule) -> RuleInUse:
        """
        What serving a request needs of a rule, made when it is first asked for.

        @raise proxyd.errors.RuleUnusable: the rule cannot be followed at present.
        """
        known = self._in_use.get(rule.id)
        if known is not None and (not known.variables or known.values == self._values(known.variables)):
            return known
        made = self._in_use[rule.id] = RuleInUse(
            rule, self.environment, self.config, self.upstreams, self._authentication.withheld(rule)
        )
        made.variables = rule.variables
        made.values = self._values(made.variables)
        return made

    def _values(self, variables: tuple[str, ...]) -> tuple[str | None, ...]:
        return tuple(self.environment.get(name) for name in variables)
