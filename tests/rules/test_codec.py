"""Rules as mappings and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import ConfigError
from proxyd.rules.codec import mapping_from_rule, rule_from_mapping
from proxyd.rules.model import Rule, RuleLimits, RuleTimeouts, TargetTLS
from proxyd.rules.proxy import PacSource, Way
from proxyd.rules.rate import Rate

MINIMAL = {"name": "api", "pattern": "^/api/(.*)", "target": "http://127.0.0.1:8080"}
DEFAULTS: dict[str, Any] = {
    "id": "static-0",
    "hosts": None,
    "rewrite": None,
    "changeOrigin": False,
    "origins": None,
    "secure": True,
    "ws": True,
    "headers": {},
    "publicRoutes": None,
    "auth": None,
    "enabled": True,
    "order": None,
    "base": None,
    "relativePaths": False,
    "proxy": None,
    "tls": {"ca": None, "certificate": None, "key": None, "serverName": None},
    "endpoint": None,
    "timeouts": {"connect": None, "response": None, "body": None, "websocketIdle": None},
    "limits": {"body": None, "rate": None},
}
FULL: dict[str, Any] = {
    "id": "users.v2",
    "name": "Users",
    "pattern": "^/users/(?<id>[0-9]+)$",
    "hosts": ["Example.com", "*.example.com", "::1", "127.0.0.?"],
    "target": "https://${BACKEND}:8443/base",
    "rewrite": "/v2/$<id>",
    "changeOrigin": True,
    "origins": ["https://app.example", "http://[::1]:3000", "null"],
    "secure": False,
    "ws": False,
    "headers": {"Authorization": "Bearer ${TOKEN}", "Cookie": None, "Host": "x", "X-Empty": ""},
    "publicRoutes": {"GET": ["/users/*", "**/x", "?"], "ALL": []},
    "auth": None,
    "enabled": False,
    "order": 7,
    "base": "/app/",
    "relativePaths": True,
    "proxy": {
        "url": "https://user:p%40ss@proxy.example:8443",
        "headers": {"X-Proxy": "1"},
        "noProxy": ["a.example", "10.0.0.0/8"],
        "tls": {"ca": "/ca.pem", "verify": False, "certificate": None, "key": None},
    },
    "tls": {"ca": "ca.pem", "certificate": "/c.pem", "key": "k.pem", "serverName": "a.example"},
    "endpoint": "unix:/run/app.sock",
    "timeouts": {"connect": 1, "response": 2.5, "body": 0, "websocketIdle": 60},
    "limits": {"body": 1000, "rate": "10/s"},
}


def problems(mapping: object, index: int | None = 3) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        rule_from_mapping(mapping, index)
    return [str(problem) for problem in raised.value.problems]


def test_defaults() -> None:
    """Three fields are enough; the others have their defaults."""
    rule = rule_from_mapping(MINIMAL, 0)
    assert mapping_from_rule(rule) == DEFAULTS | MINIMAL
    assert rule == Rule(id="static-0", name="api", pattern=rule.pattern, target=rule.target)


def test_every_field() -> None:
    """Every field reaches its place in the rule, and comes back as it was."""
    rule = rule_from_mapping(FULL)
    assert rule.id == "users.v2"
    assert rule.hosts == tuple(FULL["hosts"])
    assert rule.origins == tuple(FULL["origins"])
    assert rule.headers == tuple(FULL["headers"].items())
    assert rule.tls == TargetTLS("ca.pem", "/c.pem", "k.pem", "a.example")
    assert rule.timeouts == RuleTimeouts(1, 2.5, 0, 60)
    assert rule.limits == RuleLimits(1000, Rate("10/s", 10, 1))
    assert rule.change_origin and rule.relative_paths
    assert not (rule.secure or rule.ws or rule.enabled)
    assert (rule.order, rule.base, rule.endpoint) == (7, "/app/", "unix:/run/app.sock")
    assert mapping_from_rule(rule) == FULL


SOME = {key: st.sampled_from([FULL[key], DEFAULTS.get(key, FULL[key])]) for key in FULL}


@given(st.fixed_dictionaries({}, optional=SOME))
def test_round_trip(fields: dict[str, Any]) -> None:
    """A mapping makes a rule, which makes the mapping with its defaults, which makes the same rule."""
    given_fields = {**MINIMAL, **fields}
    if "$<id>" in (given_fields.get("rewrite") or ""):
        given_fields["pattern"] = FULL["pattern"]
    rule = rule_from_mapping(given_fields, 0)
    assert mapping_from_rule(rule) == DEFAULTS | given_fields
    assert rule_from_mapping(mapping_from_rule(rule)) == rule


def test_plain_routes_round_trip() -> None:
    """A list of public routes stays a list."""
    mapping = MINIMAL | {"publicRoutes": ["/api/public/**"]}
    assert mapping_from_rule(rule_from_mapping(mapping, 0))["publicRoutes"] == ["/api/public/**"]


def test_file_names_begin_in_the_folder() -> None:
    """Relative names are relative to the configuration, absolute ones stay."""
    rule = rule_from_mapping(FULL, folder="/etc/proxyd")
    assert rule.tls == TargetTLS("/etc/proxyd/ca.pem", "/c.pem", "/etc/proxyd/k.pem", "a.example")


BAD_ID = "id (rule 'api'): must be 1 to 64 letters, digits, '.', '_' or '-', and not 'reorder', '.' or '..'"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"nmae": "x"}, "nmae (rule 'api'): unknown field; did you mean name?"),
        ({"name": " "}, "name (rule ' '): must be one line of text that is not blank"),
        ({"name": "a\nb"}, "name (rule 'a\\nb'): must be one line of text that is not blank"),
        ({"name": ""}, "name: must not be empty"),
        ({"name": 5}, "name: must be a string, not a number"),
        ({"id": "a b"}, BAD_ID),
        ({"id": "reorder"}, BAD_ID),
        ({"pattern": "("}, "pattern (rule 'api'): is no ECMAScript regular expression: unterminated group"),
        ({"target": "a:80"}, "target (rule 'api'): is no URL; one such as http://127.0.0.1:8080 would be right"),
        ({"target": "http://${A"}, "target (rule 'api'): has a ${ without its }"),
        ({"rewrite": "/$2"}, "rewrite (rule 'api'): $2 names a group that the pattern lacks; it has 1"),
        ({"hosts": []}, "hosts (rule 'api'): must not be empty"),
        ({"hosts": ["a:80"]}, "hosts.0 (rule 'api'): must be a host or a glob of hosts"),
        ({"hosts": ["ü.de"]}, "hosts.0 (rule 'api'): must be a host or a glob of hosts"),
        ({"origins": ["app.example"]}, "origins.0 (rule 'api'): must be scheme://host[:port] without a path"),
        ({"origins": ["https://a/b"]}, "origins.0 (rule 'api'): must be scheme://host[:port] without a path"),
        ({"origins": [None]}, "origins.0 (rule 'api'): must be a string, not null"),
        ({"secure": "no"}, "secure (rule 'api'): must be true or false, not a string"),
        ({"headers": {"Content-Length": "1"}}, "headers.Content-Length (rule 'api'): cannot be set by a rule"),
        ({"headers": {"transfer-encoding": None}}, "headers.transfer-encoding (rule 'api'): cannot be set by a rule"),
        ({"headers": {"Sec-WebSocket-Key": "1"}}, "headers.Sec-WebSocket-Key (rule 'api'): cannot be set by a rule"),
        ({"headers": {"a b": "1"}}, "headers.a b (rule 'api'): is no name of a header field"),
        ({"headers": {"X": "a\r\nb"}}, "headers.X (rule 'api'): must have no line breaks"),
        ({"headers": {"X": "a\0"}}, "headers.X (rule 'api'): must have no line breaks"),
        ({"headers": {"X": "${a b}"}}, "headers.X (rule 'api'): ${a b} is no variable"),
        ({"headers": {"X": 1}}, "headers.X (rule 'api'): must be a string, not a number"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers (rule 'api'): X-A and x-a are the same field; keep one"),
        ({"publicRoutes": 5}, "publicRoutes (rule 'api'): must be a list or a mapping, not a number"),
        ({"publicRoutes": ["/a", ""]}, "publicRoutes.1 (rule 'api'): an empty glob matches nothing"),
        ({"publicRoutes": ["api/*"]}, "publicRoutes.0 (rule 'api'): 'api/*' matches no path: paths begin with a slash"),
        ({"publicRoutes": {"get": []}}, "publicRoutes.get (rule 'api'): must be a method in capitals, or ALL"),
        ({"publicRoutes": {"GET": "/a"}}, "publicRoutes.GET (rule 'api'): must be a list, not a string"),
        ({"auth": {"basic": {}}}, "auth.basic.htpasswd (rule 'api'): is required"),
        ({"proxy": "ftp://a"}, "proxy (rule 'api'): has the scheme 'ftp'; a proxy's is one of http, https, socks4"),
        ({"proxy": "a:3128"}, "proxy (rule 'api'): is no proxy URL"),
        ({"proxy": 5}, "proxy (rule 'api'): must be a string, not a number"),
        ({"proxy": {"pac": "a", "url": "http://a"}}, "proxy (rule 'api'): has both url and pac; keep one"),
        ({"proxy": {"pac": ""}}, "proxy.pac (rule 'api'): must be the name of a file or an http or https URL"),
        ({"proxy": {"pac": "ftp://a"}}, "proxy.pac (rule 'api'): must be the name of a file or an http or"),
        ({"proxy": {"pac": "http://hidden@a/"}}, "proxy.pac (rule 'api'): is no URL of a script"),
        ({"proxy": {"pac": "a", "noProxy": []}}, "proxy.noProxy (rule 'api'): "),
        ({"proxy": {}}, "proxy.url (rule 'api'): is required"),
        ({"proxy": {"url": "direct"}}, "proxy.url (rule 'api'): is no proxy URL"),
        ({"proxy": {"url": "http://a", "headers": {"Host": "b"}}}, "proxy.headers (rule 'api'): the header 'Host'"),
        ({"proxy": {"url": "http://a", "noProxy": ["a b"]}}, "proxy.noProxy.0 (rule 'api'): must be one host"),
        ({"proxy": {"url": "http://a", "tls": {"verify": "no"}}}, "proxy.tls.verify (rule 'api'): must be true or"),
        ({"order": 1.5}, "order (rule 'api'): must be a whole number, not a decimal"),
        ({"base": ""}, "base (rule 'api'): must be one line of text that is not blank"),
        ({"tls": {"key": "k"}}, "tls (rule 'api'): has a key without a certificate"),
        ({"tls": {"ca": ""}}, "tls.ca (rule 'api'): must be the name of a file"),
        ({"tls": {"verify": 0}}, "tls.verify (rule 'api'): unknown field; known are ca, certificate, key, serverName"),
        ({"timeouts": {"connect": -1}}, "timeouts.connect (rule 'api'): must be at least 0"),
        ({"timeouts": {"body": float("inf")}}, "timeouts.body (rule 'api'): must be a finite number"),
        ({"limits": {"body": 1.5}}, "limits.body (rule 'api'): must be a whole number, not a decimal"),
        ({"limits": {"rate": 5}}, "limits.rate (rule 'api'): must be a string, not a number"),
        ({"limits": {"rate": "5"}}, "limits.rate (rule 'api'): must be a number of requests and a unit, such as 10/s"),
    ],
)
def test_bad_rules(fields: dict[str, Any], problem: str) -> None:
    """Each problem says where, in which rule, what is wrong and what would be right."""
    [found] = problems(MINIMAL | fields)
    assert found.startswith("rules.3." + problem)


@pytest.mark.parametrize("fields", [{"auth": None}, {"proxy": None}, {"rewrite": ""}, {"limits": {}}])
def test_other_words_for_defaults(fields: dict[str, Any]) -> None:
    """What means the default is accepted."""
    assert rule_from_mapping(MINIMAL | fields, 0) == rule_from_mapping(MINIMAL, 0)


def test_all_problems_at_once() -> None:
    """No problem hides another; a template is not examined without its pattern."""
    found = problems({"pattern": "(", "target": 1, "rewrite": "/$9", "headers": {"te": "a", "b c": "d"}, "x": None})
    assert [one.partition(":")[0] for one in found] == [
        "rules.3.name", "rules.3.pattern", "rules.3.target", "rules.3.headers.te", "rules.3.headers.b c", "rules.3.x"
    ]  # fmt: skip


def test_no_value_is_shown() -> None:
    """What may be a credential does not appear in a problem."""
    text = "".join(problems(MINIMAL | {"headers": {"X": "secret\n", "Y": ["secret"]}, "target": "http://u:secret@a"}))
    assert "secret" not in text


def test_dynamic_rules_need_an_id() -> None:
    """Without a place in the file there is no default id, and problems are at the fields themselves."""
    assert problems(MINIMAL, None) == ["id (rule 'api'): is required"]
    assert problems([], None) == ["must be a mapping, not a list"]
    assert rule_from_mapping(MINIMAL | {"id": "x"}).id == "x"


def test_proxies() -> None:
    """A rule has a way of its own, or the service's; file names begin in the configuration's folder."""
    assert rule_from_mapping(MINIMAL, 0).proxy is None
    assert rule_from_mapping(MINIMAL | {"proxy": ""}, 0).proxy is Way.DIRECT
    assert rule_from_mapping(MINIMAL | {"proxy": "env"}, 0).proxy is Way.ENVIRONMENT
    tls = {"url": "https://p", "tls": {"ca": "ca.pem"}}
    assert rule_from_mapping(MINIMAL | {"proxy": tls}, 0, folder="/etc").proxy.tls.ca == "/etc/ca.pem"
    for written, located in (("a.pac", "/etc/a.pac"), ("/b.pac", "/b.pac"), ("https://c/d.pac", "https://c/d.pac")):
        rule = rule_from_mapping(MINIMAL | {"proxy": {"pac": written}}, 0, folder="/etc")
        assert rule.proxy == PacSource(located)
        assert mapping_from_rule(rule)["proxy"] == {"pac": located}
    simple = rule_from_mapping(MINIMAL | {"proxy": "socks5h://u:p@h"}, 0)
    assert mapping_from_rule(simple)["proxy"] == "socks5h://u:p@h:1080"
