"""
The configuration: a YAML file as frozen values, or everything that is wrong with it at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError
from twisted.internet.endpoints import clientFromString

from proxyd.control.auth.passwords import read_users
from proxyd.control.auth.tokens import digest_of
from proxyd.control.settings import Admin, AdminToken
from proxyd.errors import ConfigError, Problem, RuleUnusable
from proxyd.rules.auth import Auth, BasicAuth, BearerAuth, auth_from, token_from
from proxyd.rules.codec import proxy_from, proxy_tls_from, rule_from_mapping
from proxyd.rules.model import Rule, expand_variables, variables_in
from proxyd.rules.problems import problems_in
from proxyd.rules.proxy import ProxyTLS, Way
from proxyd.rules.rate import parse_rate
from proxyd.service.listening import is_private
from proxyd.service.schema import ConfigDocument, Expanded, ListenerDocument
from proxyd.service.settings import STDOUT, Config, Limits, Listener, ListenerTLS, Log, Outbound, Timeouts
from proxyd.service.yaml_source import Path, Source

__all__ = ["Config", "Limits", "Listener", "ListenerTLS", "Log", "STDOUT", "Timeouts", "Unreadable", "load"]

_SECTIONS = frozenset(field.alias for field in ConfigDocument.model_fields.values()) - {"listen"}
"""What has a default, so that it may be null: a section whose lines are all commented out."""


DEFAULT_STORE = "sqlite:rules.db"
"""Where rules are kept that come from the admin API."""


class Unreadable(ConfigError):
    """The file of the configuration cannot be read at all."""


def load(path: str, environment: Mapping[str, str]) -> Config:
    """
    Return the configuration in a file.

    @param environment: where C{${NAME}} outside of C{rules} is taken from.

    @raise ConfigError: everything that is wrong with it, with lines.
    @raise Unreadable: the file is not there, or cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise Unreadable((Problem((), f"cannot be read: {error.strerror}"),), path) from error
    except UnicodeDecodeError as error:
        raise ConfigError((Problem((), f"is not UTF-8: {error}"),), path) from error
    return parse(text, path, environment)


def parse(text: str, path: str, environment: Mapping[str, str]) -> Config:
    """
    Return the configuration that a file holds.

    @param path: the file's name.
    @param environment: where C{${NAME}} outside of C{rules} is taken from.

    @raise ConfigError: everything that is wrong with it, with lines.
    """
    try:
        source = Source(text)
    except ConfigError as error:
        raise ConfigError(error.problems, path) from error
    return replace(_Loading(source, path, environment).config(), text=text)


class _Loading:
    """One configuration being read: it goes on after each problem, to find them all."""

    def __init__(self, source: Source, path: str, environment: Mapping[str, str]) -> None:
        self.source = source
        self.path = path
        self.base = os.path.dirname(os.path.abspath(path))
        self.environment = environment
        self.problems = list(source.problems)

    def config(self) -> Config:
        """
        @raise ConfigError: everything that is wrong.
        """
        value = self.source.value
        if not isinstance(value, dict):
            self.problems.append(Problem((), "must be a mapping with at least listen and rules"))
            raise ConfigError(self._placed(self.problems), self.path)
        document = self._document({key: part for key, part in value.items() if not (part is None and key in _SECTIONS)})
        given = value.get("rules")
        rules = self._rules(given if isinstance(given, list) else [])
        if document is None:
            raise ConfigError(self._placed(self.problems), self.path)
        auth = auth_from(document.auth, self._located)
        self._check_auth(("auth",), auth)
        listen = self._listeners(("listen",), document.listen)
        admin_listen = self._listeners(("admin", "listen"), document.admin.listen)
        if not document.admin.tokens:
            self._check_without_tokens(admin_listen)
        admin = self._admin(document)
        if self.problems:
            raise ConfigError(self._placed(self.problems), self.path)
        access = document.log.access
        if access not in (None, STDOUT):
            access = self._located(access)
        return Config(
            listen=listen,
            timeouts=Timeouts(**dict(document.timeouts)),
            limits=self._limits(document),
            trusted_proxies=tuple(document.trusted_proxies),
            forwarded=document.forwarded,
            log=Log(access, document.log.format, document.log.query),
            outbound=self._outbound(document),
            rules=tuple(rules.values()),
            source=self.path,
            base=self.base,
            traceparent=document.traceparent,
            admin_listen=admin_listen,
            admin=admin,
            # Nothing is kept for one who can change nothing, unless another node changes it.
            store=document.store or (DEFAULT_STORE if admin_listen else "memory:"),
            store_folder=self.environment.get("STATE_DIRECTORY", "").partition(":")[0] or self.base,
            warnings=self._placed(list(self._warnings(rules))),
            auth=auth,
            # Those that this process may run on, which a container or systemd may have made fewer.
            workers=len(os.sched_getaffinity(0)) if document.workers == "auto" else document.workers,
        )

    def _placed(self, problems: list[Problem]) -> tuple[Problem, ...]:
        """Return the problems with their lines, in the order of the file."""
        placed = (replace(one, line=one.line or self.source.line(one.path)) for one in problems)
        return tuple(sorted(placed, key=lambda one: one.line or 0))

    def _located(self, name: str) -> str:
        return os.path.join(self.base, name)

    def _document(self, value: dict[Any, Any]) -> ConfigDocument | None:
        unset: list[Problem] = []
        expanded = {key: part if key == "rules" else self._expanded(part, (key,), unset) for key, part in value.items()}
        self.problems += unset
        try:
            document = ConfigDocument.model_validate(expanded)
        except ValidationError as error:
            # Where a variable is missing, nothing more can be said.
            places = {problem.path for problem in unset}
            self.problems += (one for one in problems_in(error, ConfigDocument) if one.path not in places)
            return None
        return document

    def _expanded(self, value: Any, path: tuple[str | int, ...], unset: list[Problem]) -> Any:
        """Return a part of the file with its variables replaced; those that cannot be are put into C{unset}."""
        if isinstance(value, dict):
            return {key: self._expanded(part, (*path, key), unset) for key, part in value.items()}
        if isinstance(value, list):
            return [self._expanded(part, (*path, index), unset) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            empty = [name for name in variables_in(value) if self.environment.get(name) == ""]
            text = expand_variables(value, self.environment)
        except (ValueError, RuleUnusable) as error:
            unset.append(Problem(path, str(error)))
            return value
        unset += (Problem(path, f"the variable {name} is empty") for name in empty)
        return Expanded(text)

    def _outbound(self, document: ConfigDocument) -> Outbound:
        outbound = document.outbound

        def located(name: str | None) -> str | None:
            return None if name is None else self._located(name)

        return Outbound(
            proxy_from(outbound.proxy, located) or Way.DIRECT, proxy_tls_from(outbound.tls, located) or ProxyTLS()
        )

    def _limits(self, document: ConfigDocument) -> Limits:
        given = dict(document.limits)
        rate = given.pop("rate")
        return Limits(**given, rate=None if rate is None else parse_rate(rate))

    def _admin(self, document: ConfigDocument) -> Admin:
        admin = document.admin
        tokens = []
        for index, one in enumerate(admin.tokens):
            plain = token_from(one, self._located)
            tokens.append(AdminToken(plain.name, plain.token, plain.sha256, plain.file, one.role))
            self._check_file(("admin", "tokens", index, "file"), None, partial(digest_of, plain))
        return Admin(
            base=admin.base,
            tokens=tuple(tokens),
            hosts=tuple(admin.hosts),
            variables=tuple(admin.variables),
            allow=tuple(admin.allow),
            open_metrics=admin.metrics == "open",
        )

    def _check_without_tokens(self, listeners: tuple[Listener, ...]) -> None:
        for index, one in enumerate(listeners):
            if not is_private(one.endpoint):
                text = "needs admin.tokens: without them only a UNIX socket or a loopback address may be listened on"
                self.problems.append(Problem(("admin", "listen", index), text))

    def _listeners(self, path: Path, given: list[str | ListenerDocument]) -> tuple[Listener, ...]:
        return tuple(self._listener((*path, index), one) for index, one in enumerate(given))

    def _listener(self, place: Path, given: str | ListenerDocument) -> Listener:
        if isinstance(given, str):
            return Listener(given)
        if given.tls is None:
            return Listener(given.endpoint)
        path = (*place, "tls")
        if given.endpoint.partition(":")[0] in ("ssl", "tls"):
            self.problems.append(Problem(path, "the endpoint is TLS already; write tcp: there, or leave tls out"))
        client_ca = given.tls.client_ca
        tls = ListenerTLS(
            tuple(map(self._located, given.tls.certificates)), None if client_ca is None else self._located(client_ca)
        )
        for index, name in enumerate(tls.certificates):
            self._check_pem((*path, "certificates", index), name)
        self._check_pem((*path, "clientCA"), tls.client_ca)
        return Listener(given.endpoint, tls)

    def _check_pem(self, path: tuple[str | int, ...], name: str | None, rule: str | None = None) -> None:
        """Put it on record when this is no PEM file that can be read."""
        if name is None:
            return
        try:
            with open(name, "rb") as file:
                is_pem = b"-----BEGIN " in file.read()
        except OSError as error:
            self.problems.append(Problem(path, f"{name} cannot be read: {error.strerror}", rule=rule))
            return
        if not is_pem:
            self.problems.append(Problem(path, f"{name} is no PEM file (it has no -----BEGIN line)", rule=rule))

    def _check_auth(self, path: tuple[str | int, ...], auth: Auth | None, rule: str | None = None) -> None:
        """Put it on record when a file of users or of a token is none, with the lines that are wrong."""
        if isinstance(auth, BasicAuth):
            self._check_file((*path, "basic", "htpasswd"), rule, partial(read_users, auth.htpasswd))
        elif isinstance(auth, BearerAuth):
            for index, token in enumerate(auth.tokens):
                if token.file is not None:
                    self._check_file((*path, "bearer", "tokens", index, "file"), rule, partial(digest_of, token))

    def _check_file(self, path: tuple[str | int, ...], rule: str | None, read: Callable[[], object]) -> None:
        try:
            read()
        except ConfigError as error:
            self.problems += (Problem(path, one.message, rule=rule) for one in error.problems)

    def _rules(self, mappings: list[Any]) -> dict[int, Rule]:
        """Return the rules that are good, by their places in the list."""
        rules: dict[int, Rule] = {}
        taken: dict[str, int] = {}
        for index, mapping in enumerate(mappings):
            try:
                rule = rule_from_mapping(mapping, index, folder=self.base)
            except ConfigError as error:
                self.problems += error.problems
                continue
            rules[index] = rule
            first = taken.setdefault(rule.id, index)
            if first != index:
                text = f"{rule.id} is the id of rules.{first} too; ids must differ"
                self.problems.append(Problem(("rules", index, "id"), text, rule=rule.name))
            for key, name in (("ca", rule.tls.ca), ("certificate", rule.tls.certificate), ("key", rule.tls.key)):
                self._check_pem(("rules", index, "tls", key), name, rule.name)
            self._check_auth(("rules", index, "auth"), rule.auth, rule.name)
            if rule.endpoint is not None:
                try:
                    clientFromString(object(), rule.endpoint)
                except Exception as error:
                    # Each plugin has its own ways to refuse a string.
                    text = f"is no client endpoint, such as unix:/run/app.sock: {error}"
                    self.problems.append(Problem(("rules", index, "endpoint"), text, rule=rule.name))
        return rules

    def _warnings(self, rules: Mapping[int, Rule]) -> Iterator[Problem]:
        for index, rule in rules.items():
            if not rule.enabled:
                continue
            if rule.change_origin and rule.ws and not rule.origins:
                text = "with ws and no origins it disarms the target's check of Origin; list origins, or set ws: false"
                yield Problem(("rules", index, "changeOrigin"), text, rule=rule.name)
            for name in rule.variables:
                if name not in self.environment:
                    text = f"the variable {name} is not set; until it is, requests are answered 502"
                    yield Problem(("rules", index), text, rule=rule.name)
