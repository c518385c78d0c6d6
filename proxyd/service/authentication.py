"""Who is asked whether a request may go on: the service's authenticator and the rules' own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from proxyd.control.auth.basic import BasicAuthenticator
from proxyd.control.auth.bearer import BearerAuthenticator
from proxyd.control.auth.forward import ForwardAuthenticator
from proxyd.control.auth.passwords import PasswordChecks, read_users
from proxyd.control.auth.roles import Authenticator, Granted, Verdict
from proxyd.errors import ConfigError, Problem, RuleUnusable
from proxyd.forward.pool import Upstream
from proxyd.http.fields import Fields
from proxyd.http.request import RequestHead
from proxyd.outbound.proxies import proxy_for
from proxyd.outbound.route import Route, TLSSettings
from proxyd.rules.auth import NO_AUTH, Auth, BasicAuth, BearerAuth, ForwardAuth
from proxyd.rules.model import Rule
from proxyd.service.settings import Config

_NOTHING: frozenset[bytes] = frozenset()


class Ways(Protocol):
    """Where connections are from: see L{proxyd.service.snapshot.Upstreams}."""

    def get(self, route: Route, connect_timeout: float, limit: int, response_head_size: int) -> Upstream:
        """
        The connections by one route.

        @raise RuleUnusable: the route cannot be used.
        """


class _Unusable:
    """Lets nobody in: what a rule that came at run time asks for is not there."""

    withheld = _NOTHING

    def __init__(self, error: ConfigError) -> None:
        self._error = error

    def check(self, head: RequestHead, forwarding: Fields) -> Granted | Deferred[Verdict]:
        raise RuleUnusable(f"authentication is not possible: {self._error}")


class Authentication:
    """
    The authenticators of one set of rules; equal ones are shared.

    @ivar service: the service's, if it has one.
    """

    __slots__ = ("_by_rule", "_checks", "_config", "_environment", "_made", "_trusted", "_ways", "service")

    def __init__(
        self,
        config: Config,
        rules: Iterable[Rule],
        environment: Mapping[str, str],
        ways: Ways,
        checks: PasswordChecks,
        before: Authentication | None = None,
    ) -> None:
        """
        @param checks: where passwords are checked; it outlives this.
        @param before: that of other rules with the same configuration: what it has read is not read again.

        @raise ConfigError: a file of users or of a token is none.
        """
        self._config = config
        self._environment = environment
        self._ways = ways
        self._checks = checks
        known = {} if before is None else before._made
        self._made: dict[tuple[Auth, bool], Authenticator | None] = {}
        self.service = None if config.auth is None else self._get(config.auth, False, known)
        self._by_rule = {
            rule.id: self._get(rule.auth, rule.dynamic, known) for rule in rules if rule.auth is not None
        }
        # What another server says of who asks is trusted by the targets of all rules.
        self._trusted = _NOTHING
        if self.service is not None and isinstance(config.auth, ForwardAuth):
            self._trusted = self.service.withheld

    @property
    def asks(self) -> bool:
        """Whether there is a request that needs authentication."""
        return self.service is not None or any(self._by_rule.values())

    def of(self, rule: Rule) -> Authenticator | None:
        """
        @return: who is asked about the requests that a rule takes.
        """
        return self._by_rule.get(rule.id, self.service)

    def withheld(self, rule: Rule) -> frozenset[bytes]:
        """
        @return: fields that clients' requests never bring to the target of a rule, public requests included.
        """
        own = self.of(rule)
        return self._trusted if own is None else self._trusted | own.withheld

    @property
    def upstreams(self) -> Iterator[Upstream]:
        """The connections to authentication servers."""
        return (one.upstream for one in self._made.values() if isinstance(one, ForwardAuthenticator))

    def _get(
        self, auth: Auth, dynamic: bool, known: Mapping[tuple[Auth, bool], Authenticator | None]
    ) -> Authenticator | None:
        key = auth, dynamic
        if key not in self._made:
            self._made[key] = known[key] if key in known else self._make(auth, dynamic)
        return self._made[key]

    def _make(self, auth: Auth, dynamic: bool) -> Authenticator | None:
        try:
            if isinstance(auth, BasicAuth):
                return BasicAuthenticator(auth, read_users(auth.htpasswd), self._checks)
            if isinstance(auth, BearerAuth):
                return BearerAuthenticator(auth)
            if isinstance(auth, ForwardAuth):
                return self._forward(auth, dynamic)
        except ConfigError as error:
            if not dynamic:
                raise
            return _Unusable(error)
        assert auth == NO_AUTH
        return None

    def _forward(self, auth: ForwardAuth, dynamic: bool) -> ForwardAuthenticator:
        config, target = self._config, auth.target
        try:
            proxy = None
            if target.socket is None:
                proxy = proxy_for(
                    config.outbound.proxy, target.scheme, target.host, target.port, self._environment,
                    config.outbound.tls,
                )  # fmt: skip
            tls = TLSSettings(target.host) if target.secure else None
            upstream = self._ways.get(
                Route(target.host, target.port, target.socket, None, tls, proxy, dynamic),
                config.timeouts.connect,
                config.limits.per_host,
                config.limits.response_header,
            )
        except RuleUnusable as error:
            raise ConfigError((Problem((), f"{auth.url} cannot be asked: {error}"),)) from error
        return ForwardAuthenticator(auth, upstream, config.timeouts)
