"""L{proxyd.service.authentication}: who is asked about which requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from proxyd.control.auth.passwords import PasswordChecks
from proxyd.errors import ConfigError, RuleUnusable
from proxyd.forward.pool import Upstream
from proxyd.http.request import parse_request
from proxyd.outbound.route import Route
from proxyd.rules.codec import rule_from_mapping
from proxyd.rules.model import Rule
from proxyd.service.authentication import Authentication
from proxyd.service.config import load

HEAD = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
BEARER = {"bearer": {"tokens": ["0123456789abcdef"]}}
SSO = {"forward": {"url": "http://sso.test", "headers": ["X-User"]}}


class Ways:
    """Connections to nowhere."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def get(self, route: Route, connect_timeout: float, limit: int, response_head_size: int) -> Upstream:
        self.routes.append(route)
        return Upstream(route.name, None, Clock())  # type: ignore[arg-type]


def rule(name: str, auth: Any = None, **changes: Any) -> Rule:
    """A rule with this authentication."""
    mapping = {"id": name, "name": name, "pattern": "^/", "target": "http://a", "auth": auth}
    return replace(rule_from_mapping(mapping), **changes)


def authentication(
    folder: Path, rules: list[Rule], service: str = "none", before: Authentication | None = None
) -> tuple[Authentication, Ways]:
    """What there is with this configuration."""
    file = folder / "proxyd.yaml"
    file.write_text(f"listen: ['tcp:1']\nauth: {service}\n")
    ways, checks = Ways(), PasswordChecks(Clock())
    return Authentication(load(str(file), {}), rules, {}, ways, checks, before), ways


def test_nobody_is_asked(tmp_path: Path) -> None:
    """Without any authentication there is none to ask."""
    nothing, _ = authentication(tmp_path, [rule("a"), rule("b", "none")])
    assert not nothing.asks
    assert nothing.service is nothing.of(rule("a")) is nothing.of(rule("b")) is None
    assert nothing.withheld(rule("a")) == frozenset()


def test_shared(tmp_path: Path) -> None:
    """Equal ones are one, also after other rules have changed."""
    rules = [rule("a", BEARER), rule("b", BEARER), rule("c", "none"), rule("d")]
    first, ways = authentication(tmp_path, rules, str(SSO))
    assert first.asks
    assert first.of(rules[0]) is first.of(rules[1]) is not None
    assert first.of(rules[2]) is None
    assert first.of(rules[3]) is first.service is not None
    assert [one.name for one in first.upstreams] == ["sso.test:80"]
    second, unused = authentication(tmp_path, rules[1:], str(SSO), first)
    assert second.of(rules[1]) is first.of(rules[1])
    assert second.service is first.service
    assert unused.routes == []


def test_withheld(tmp_path: Path) -> None:
    """What the service's server says is taken from clients of no rule, what a rule's says not from its own."""
    own = {"forward": {"url": "http://own.test", "headers": ["X-Own"]}}
    rules = [rule("a", BEARER), rule("b", "none"), rule("c"), rule("d", own)]
    found, _ = authentication(tmp_path, rules, str(SSO))
    assert [found.withheld(one) for one in rules] == [
        {b"x-user", b"authorization"}, {b"x-user"}, {b"x-user"}, {b"x-user", b"x-own"}
    ]  # fmt: skip
    found, _ = authentication(tmp_path, rules)
    assert [found.withheld(one) for one in rules] == [{b"authorization"}, set(), set(), {b"x-own"}]


def test_rules_from_run_time(tmp_path: Path) -> None:
    """Their servers are guarded as their targets are; a file that is not there keeps everybody out, and only there."""
    guarded, plain = rule("a", SSO, dynamic=True), rule("b", SSO)
    found, ways = authentication(tmp_path, [guarded, plain])
    assert [route.guarded for route in ways.routes] == [True, False]
    assert found.of(guarded) is not found.of(plain)
    lost = {"basic": {"htpasswd": str(tmp_path / "lost")}}
    found, _ = authentication(tmp_path, [rule("a", lost, dynamic=True)])
    asked = found.of(rule("a"))
    assert asked is not None
    with pytest.raises(RuleUnusable, match="lost cannot be read"):
        asked.check(HEAD, [])
    with pytest.raises(ConfigError, match="lost cannot be read"):
        authentication(tmp_path, [rule("a", lost)])
