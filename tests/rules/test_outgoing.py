"""L{proxyd.rules.outgoing}: the request that a rule makes of a client's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import BadTarget, RuleUnusable, UpgradeForbidden
from proxyd.http.fields import Fields
from proxyd.http.request import RequestHead, parse_request
from proxyd.http.target import parse_target
from proxyd.rules.codec import rule_from_mapping
from proxyd.rules.outgoing import Outgoing, outgoing_head
from proxyd.rules.table import RuleTable

FORWARDING: Fields = [(b"X-Forwarded-For", b"192.0.2.1"), (b"X-Real-IP", b"192.0.2.1")]
HANDSHAKE: Fields = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Key", b"ours")]


def outgoing(environment: dict[str, str] | None = None, **options: Any) -> Outgoing:
    """What a rule makes of requests."""
    mapping = {"name": "r", "pattern": "^/", "target": "http://origin.test:8080", **options}
    return Outgoing(rule_from_mapping(mapping, 0), environment or {})


def request(*fields: str, line: str = "GET /x HTTP/1.1") -> RequestHead:
    """A client's request."""
    return parse_request("\r\n".join([line, "Host: site.test", *fields, "", ""]).encode("latin-1"))


def lines(rule: Outgoing, head: RequestHead) -> list[str]:
    """The head that the origin server gets."""
    octets = outgoing_head(head, head.raw_target, rule.fields(head, FORWARDING))
    assert octets.endswith(b"\r\n\r\n")
    return octets.decode("latin-1").split("\r\n")[:-2]


def upgrade_lines(rule: Outgoing, head: RequestHead) -> list[str]:
    """The upgrade request that the origin server gets."""
    octets = outgoing_head(head, b"/x", rule.upgrade_fields(head, FORWARDING, HANDSHAKE))
    return octets.decode("latin-1").split("\r\n")[:-2]


def target(rule: Outgoing, path: str) -> bytes:
    """The request-target that the origin server gets."""
    parsed = parse_target(b"GET", path.encode())
    return rule.request_target(RuleTable([rule.rule]).match(parsed.normal_path, None), parsed)


def test_plain() -> None:
    """The client's fields in their order, then ours."""
    assert lines(outgoing(), request("Accept: a", "X-B: 1", "x-b: 2")) == [
        "GET /x HTTP/1.1",
        "Host: site.test",
        "Accept: a",
        "X-B: 1",
        "x-b: 2",
        "X-Forwarded-For: 192.0.2.1",
        "X-Real-IP: 192.0.2.1",
        "Via: 1.1 proxyd",
    ]


@pytest.mark.parametrize(
    ("options", "path", "seen"),
    [
        ({}, "/a%2Fb?c=%zz", b"/a%2Fb?c=%zz"),
        ({"target": "http://o.test/base"}, "/a", b"/base/a"),
        ({"target": "http://o.test/base/"}, "/a", b"/base/a"),
        ({"target": "http://o.test/base/"}, "//a", b"/base//a"),
        ({"target": "http://o.test/base"}, "//a", b"/base//a"),
        ({"target": "http://o.test/base/"}, "/", b"/base/"),
        ({"target": "http://o.test/"}, "/a", b"/a"),
        ({"target": "http://o.test/"}, "//a", b"//a"),
        ({}, "//a", b"//a"),
        ({"pattern": "^/api/(.*)$", "rewrite": "/v1/$1"}, "/api/users?id=1", b"/v1/users?id=1"),
        ({"pattern": "^/api/(.*)$", "rewrite": "$1"}, "/api/users", b"/users"),
        ({"pattern": "^/api/(.*)$", "rewrite": "$1"}, "/api/", b"/"),
        ({"pattern": "^/api/(.*)$", "rewrite": "$1"}, "/api//evil.test/x", b"//evil.test/x"[1:]),
        ({"pattern": "^(.*)$", "rewrite": "$1"}, "//evil.test/x", b"//evil.test/x"),
        ({"pattern": "^/(?<v>v\\d)/", "rewrite": "/$<v>"}, "/v7/x", b"/v7"),
        ({"pattern": "^/(a)?(.*)$", "rewrite": "/$1-$2", "target": "http://o.test/p"}, "/b", b"/p/-b"),
    ],
)
def test_request_target(options: dict[str, Any], path: str, seen: bytes) -> None:
    """Prefix, path and query; the host stays where the target says, whatever the path holds."""
    rule = outgoing(**options)
    assert target(rule, path) == seen
    assert rule.url.host in ("o.test", "origin.test")


@pytest.mark.parametrize("path", ["/x/a..b", "/x/a.", "/x/a..%2F"])
def test_rewritten_target_is_examined(path: str) -> None:
    """A rewrite that makes a dot segment of what was none is refused."""
    with pytest.raises(BadTarget):
        target(outgoing(pattern="^/x/a(.*?)b?$", rewrite="/$1"), path)


def test_change_origin() -> None:
    """Host and Origin become the target's: in its own scheme on upgrades only."""
    rule = outgoing(target="ws://origin.test:8080", changeOrigin=True)
    assert lines(rule, request("Origin: http://site.test"))[1:3] == [
        "Host: origin.test:8080",
        "Origin: http://origin.test:8080",
    ]
    assert "Origin: ws://origin.test:8080" in upgrade_lines(rule, request("Origin: http://site.test"))
    assert not any(line.startswith("Origin") for line in lines(rule, request()))


def test_host_without_default_port() -> None:
    """A default port is left out."""
    assert lines(outgoing(target="https://origin.test:443", changeOrigin=True), request())[1] == "Host: origin.test"


def test_host_of_http_1_0() -> None:
    """A client that names no host asks for the target's."""
    head = parse_request(b"GET / HTTP/1.0\r\n\r\n")
    assert lines(outgoing(), head) == [
        "GET / HTTP/1.1",
        "Host: origin.test:8080",
        "X-Forwarded-For: 192.0.2.1",
        "X-Real-IP: 192.0.2.1",
        "Via: 1.0 proxyd",
    ]


def test_headers() -> None:
    """The rule's fields replace the client's; null removes."""
    rule = outgoing(
        {"KEY": "secret"},
        headers={"X-Key": "Bearer ${KEY}", "cookie": None, "X-Real-IP": "hidden", "Host": "own.test", "Origin": "o"},
        changeOrigin=True,
    )
    assert lines(rule, request("x-key: evil", "Cookie: a", "COOKIE: b", "Origin: c", "Accept: d")) == [
        "GET /x HTTP/1.1",
        "Host: own.test",
        "Accept: d",
        "X-Forwarded-For: 192.0.2.1",
        "Via: 1.1 proxyd",
        "X-Key: Bearer secret",
        "X-Real-IP: hidden",
        "Origin: o",
    ]


def test_host_null() -> None:
    """Without any Host there is no HTTP/1.1: null means the target's."""
    assert lines(outgoing(headers={"Host": None}), request())[1] == "Host: origin.test:8080"


def test_connection_cannot_strip_ours() -> None:
    """What Connection names goes, and then ours comes (RFC 9110 section 7.6.1)."""
    rule = outgoing(headers={"X-Key": "1"})
    seen = lines(rule, request("Connection: X-Key, X-Own, Host, X-Forwarded-For, Via, close", "X-Own: 1", "X-Key: 2"))
    assert "X-Key: 1" in seen
    assert "Host: site.test" in seen
    assert "X-Forwarded-For: 192.0.2.1" in seen
    assert "Via: 1.1 proxyd" in seen
    assert not any(line.startswith(("X-Own", "Connection")) for line in seen)


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        (["Content-Length: 0"], ["Content-Length: 0"]),
        (["content-length: 7"], ["Content-Length: 7"]),
        (["transfer-encoding: Chunked"], ["Transfer-Encoding: chunked"]),
        (["TE: gzip"], []),
        (["TE: trailers"], []),
        (["TE: gzip", "TE: Trailers", "Connection: te"], ["TE: trailers", "Connection: TE"]),
        (["TE: gzip", "Connection: te"], []),
    ],
)
def test_framing(fields: list[str], framing: list[str]) -> None:
    """The body's length in one form; a wish for trailers as our own."""
    assert lines(outgoing(), request(*fields, line="POST /x HTTP/1.1"))[5:] == framing


@pytest.mark.parametrize("options", [{"base": "/b/"}, {"relativePaths": True}])
def test_pages_that_will_be_changed(options: dict[str, Any]) -> None:
    """Only a whole page without encoding can be changed."""
    seen = lines(outgoing(**options), request("Accept-Encoding: gzip, br", "Range: bytes=0-1", "If-Range: x"))
    assert [line for line in seen if line.startswith(("Accept-E", "Range", "If-"))] == ["Accept-Encoding: identity"]
    seen = lines(outgoing(headers={"Accept-Encoding": "br"}, **options), request())
    assert seen[-1] == "Accept-Encoding: br"


def test_upgrade() -> None:
    """The handshake's fields are ours; cookies and the rest are the client's."""
    handshake = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"]
    head = request(*handshake, "Cookie: a")
    assert upgrade_lines(outgoing(), head) == [
        "GET /x HTTP/1.1",
        "Host: site.test",
        "Cookie: a",
        "X-Forwarded-For: 192.0.2.1",
        "X-Real-IP: 192.0.2.1",
        "Via: 1.1 proxyd",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: ours",
    ]


def test_origins() -> None:
    """An upgrade from an Origin that is not listed is refused, before the Origin is rewritten."""
    rule = outgoing(origins=["https://site.test"], changeOrigin=True)
    upgrade_lines(rule, request("Origin: https://site.test"))
    with pytest.raises(UpgradeForbidden):
        upgrade_lines(rule, request("Origin: https://evil.test"))
    with pytest.raises(UpgradeForbidden):
        upgrade_lines(rule, request("Origin: https://site.test", "Origin: https://evil.test"))
    lines(rule, request("Origin: https://evil.test"))


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"target": "http://${HOST}"}, {}),
        ({"headers": {"X": "${HOST}"}}, {}),
        ({"headers": {"X": "${HOST}"}}, {"HOST": "a\r\nX-Evil: 1"}),
        ({"target": "http://${HOST}"}, {"HOST": "a/../b"}),
    ],
)
def test_variables(options: dict[str, Any], environment: dict[str, str]) -> None:
    """A variable that is not set, or breaks out, makes the rule unusable."""
    with pytest.raises(RuleUnusable):
        outgoing(environment, **options)


NAMES = st.sampled_from(["Connection", "X-A", "Host-B", "Cookie", "TE", "X-Forwarded-For", "Via", "Proxy", "Upgrade"])
VALUES = st.sampled_from(["x-a", "cookie, via", "trailers", "", "close", "te, host, content-length", "\xe9"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_whatever_comes(fields: list[tuple[str, str]]) -> None:
    """One head comes out, with one Host, and nothing of the client's that ends with its connection."""
    seen = lines(outgoing(), request(*(f"{name}: {value}" for name, value in fields)))
    names = [line.partition(":")[0].lower() for line in seen[1:]]
    assert names.count("host") == 1
    assert names.count("x-forwarded-for") == 1
    assert not {"proxy", "upgrade"} & set(names)
    assert ("connection" in names) == ("te" in names)


def test_trailers() -> None:
    """A trailer cannot bring what the rule sets or removes, nor a look-alike of what decides a request's way."""
    rule = outgoing(headers={"X-Key": "secret", "X-User": None})
    trailers = [(b"X-User", b"a"), (b"x_key", b"b"), (b"X_Forwarded_For", b"c"), (b"X-Sum", b"1"), (b"Own", b"2")]
    assert rule.trailers(trailers, (b"own",)) == [(b"X-Sum", b"1")]


def test_withheld() -> None:
    """What an authentication server says is taken from no client, however it is spelled."""
    withheld = frozenset((b"x-user", b"authorization"))
    mapping = {"name": "r", "pattern": "^/", "target": "http://a", "headers": {"X-Set": "rule", "X-Null": None}}
    rule = Outgoing(rule_from_mapping(mapping, 0), {}, withheld)
    head = request("X-User: a", "x_user: b", "X.USER: c", "Authorization: d", "X-Users: e", "Origin: f")
    assert lines(rule, head)[2:-4] == ["X-Users: e", "Origin: f"]
    trailers = [(b"X_User", b"a"), (b"X-Users", b"b")]
    assert rule.trailers(trailers, ()) == [(b"X-Users", b"b")]
    granted = [(b"X-User", b"ann"), (b"x_set", b"not the rule's"), (b"X-Null", b"not removed")]
    for fields in (rule.fields(head, FORWARDING), rule.upgrade_fields(head, FORWARDING, HANDSHAKE)):
        assert rule.with_granted(fields, granted) == fields[:-2] + b"X-User: ann\r\n\r\n"
