"""
What rules that change at run time may hold.

Whoever may write them is not who runs proxyd: such a rule must not read files,
open sockets or show variables of this machine unless the configuration says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxyd.control.settings import Admin
from proxyd.rules.auth import ForwardAuth, files_of
from proxyd.rules.globs import Globs
from proxyd.rules.model import Rule, TargetTLS
from proxyd.rules.proxy import PacSource, ProxySettings, ProxyTLS


class Permissions:
    """What the configuration allows."""

    def __init__(self, admin: Admin) -> None:
        self._allowed = frozenset(admin.allow)
        self._variables = Globs(admin.variables)

    def refusals(self, rule: Rule) -> Iterator[tuple[str, str]]:
        """
        @return: each field that a rule may not hold, and why.
        """
        for allowance, field in _used(rule):
            if allowance not in self._allowed:
                yield field, f"is only allowed when admin.allow lists {allowance}"
        for name in rule.variables:
            if not self._variables.matches(name):
                yield _place(rule, name), f"the variable {name} is not among admin.variables"


def _used(rule: Rule) -> Iterator[tuple[str, str]]:
    """The allowances that a rule needs, with the fields that need them."""
    if rule.endpoint is not None:
        yield "endpoint", "endpoint"
    if rule.target.source.lower().startswith("http+unix:"):
        yield "http+unix", "target"
    yield from _files("tls", rule.tls)
    if any(files_of(rule.auth)):
        yield "files", "auth"
    if isinstance(rule.auth, ForwardAuth) and rule.auth.target.socket is not None:
        yield "http+unix", "auth.forward.url"
    proxy = rule.proxy
    if isinstance(proxy, PacSource):
        yield "pac", "proxy.pac"
    elif isinstance(proxy, ProxySettings) and proxy.tls is not None:
        yield from _files("proxy.tls", proxy.tls)


def _files(prefix: str, tls: TargetTLS | ProxyTLS) -> Iterator[tuple[str, str]]:
    named = (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key))
    return (("files", f"{prefix}.{name}") for name, file in named if file is not None)


def _place(rule: Rule, variable: str) -> str:
    if variable in rule.target.variables:
        return "target"
    return next((f"headers.{name}" for name, value in rule.headers if value and f"${{{variable}}}" in value), "headers")
