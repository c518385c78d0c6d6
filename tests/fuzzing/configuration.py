"""A configuration file, and the rules in it as the admin API has them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from proxyd.errors import ConfigError
from proxyd.rules.codec import mapping_from_rule, rule_from_mapping
from proxyd.rules.model import Rule
from proxyd.service.config import load
from tests.fuzzing.cutting import nothing_logged

_FOLDER = tempfile.TemporaryDirectory(prefix="proxyd-fuzzing-")
_FILE = Path(_FOLDER.name, "proxyd.yaml")


def fuzz(data: bytes) -> None:
    """
    One file.

    @param data: YAML, or what should be; a rule in JSON is YAML, too.
    """
    _FILE.write_bytes(data)
    with nothing_logged():
        try:
            config = load(str(_FILE), {"SET": "value", "EMPTY": ""})
        except ConfigError as error:
            assert error.problems and str(error)
            assert all(problem.message for problem in error.problems)
            lines = data.count(b"\n") + data.count(b"\r") + 1 + data.count("\u2028".encode()) + data.count(b"\xc2\x85")
            assert all(problem.line is None or 0 < problem.line <= lines + 2 for problem in error.problems)
        else:
            assert config.listen
            for rule in config.rules:
                _there_and_back(rule)
        if data.startswith(b"{"):
            _as_json(data)


def _as_json(data: bytes) -> None:
    """What the admin API would make of it."""
    try:
        mapping = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        rule = rule_from_mapping(mapping)
    except ConfigError as error:
        assert error.problems and str(error)
    else:
        _there_and_back(rule)


def _there_and_back(rule: Rule) -> None:
    """A rule is the same after it has been JSON."""
    mapping: Any = mapping_from_rule(rule)
    again = rule_from_mapping(json.loads(json.dumps(mapping)))
    assert again == rule
    assert mapping_from_rule(again) == mapping


_RULE = {
    "id": "a",
    "name": "api",
    "hosts": ["*.example"],
    "pattern": "^/api/(?<id>.*)$",
    "rewrite": "/v2/$<id>",
    "target": "http://127.0.0.1:${SET}",
    "headers": {"X-A": "${SET}", "X-B": None},
    "publicRoutes": {"GET": ["/api/public/**"], "ALL": ["/api/{a,b}"]},
    "proxy": {"url": "http://u:p@h", "headers": {"X": "y"}, "noProxy": ["a.test", "::/8"], "tls": {"verify": False}},
    "timeouts": {"connect": 1.5},
    "limits": {"body": 5, "rate": "10/s"},
    "changeOrigin": True,
    "origins": ["https://a.example"],
    "order": -3,
}

_BEGINNING = b"listen: ['tcp:8080']\n"

SEEDS = [
    json.dumps(_RULE).encode(),
    b'{"id": "a", "name": "a", "pattern": "^/", "target": "http://a", "proxy": {"pac": "a.pac"}, "ws": false}',
    b'{"id": "a", "name": "a", "pattern": "(", "target": "a:80", "rewrite": "/$2"}',
    _BEGINNING + b"rules:\n" + b"".join(b"  " + line.encode() + b"\n" for line in yaml.safe_dump([_RULE]).splitlines()),
    _BEGINNING + b"rules: [{name: a, pattern: ^/, target: 'https://a', endpoint: 'unix:/run/a.sock'}]\n",
    _BEGINNING + b"timeouts: {header: 1.5, body: 0}\nlimits: {header: 100, rate: 5/m}\ntrustedProxies: [10.0.0.0/8]\n",
    _BEGINNING + b"admin: {listen: ['unix:/a.sock'], tokens: [{name: a, role: read, token: '${SET}'}], allow: [::1]}\n",
    _BEGINNING + b"auth: {bearer: {tokens: [{name: a, sha256: " + b"ab" * 32 + b"}]}}\nlog: {format: json}\n",
    _BEGINNING + b"auth: {basic: {htpasswd: users}}\nstore: 'sqlite:rules.db'\noutbound: {proxy: 'socks5h://u:p@h:1'}\n",
    _BEGINNING + b"auth: {forward: {url: 'http://a/', headers: [X-U]}}\nforwarded: true\ntraceparent: true\n",
    b"listen:\n  - endpoint: tcp:443\n    tls: {certificates: [a.pem], clientCA: b.pem}\n",
    b"listen: &a ['tcp:80']\nadmin: {listen: *a}\nlog: {<<: {format: json}}\n",
    b"listen: ['tcp:${SET}', 'tcp:${EMPTY}', 'tcp:${UNSET}', '${']\n",
    b"listen: ['tcp:80']\nlisten: ['tcp:81']\n",
    b"- a\n",
    b"%YAML 1.1\n---\nlisten: !!str a\n...\n",
    "listen: ['tcp:80']\nrules: [{name: 'ü', pattern: 'ü', target: 'http://ü'}]\n".encode(),
    b"\xff\xfe",
]

WORDS = [
    *(f"{key}: ".encode() for key in _RULE),
    *(f'"{key}": '.encode() for key in _RULE),
    *b"listen admin store workers outbound auth timeouts limits trustedProxies forwarded log rules".split(),
    *b"!!timestamp !!int !!float !!bool !!binary !!set !!omap !!null !!pairs &a *a <<: ? | > --- .inf .nan".split(),
    *b"${SET} ${UNSET} ${ 1e999 0x1F 1:30 2001-01-01 direct env socks5:// [*a] {*a:*a} true null 10/s **".split(),
]
