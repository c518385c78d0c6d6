"""Targets, variables and what a rule says about itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxyd.errors import RuleUnusable
from proxyd.rules.model import (
    Match,
    OriginTemplate,
    Rule,
    TargetURL,
    expand_variables,
    header_fields,
    parse_target_url,
    variables_in,
)
from proxyd.rules.pattern import Pattern, Template


@pytest.mark.parametrize(
    ("text", "url", "host_value"),
    [
        ("http://a", TargetURL("http", "a", 80, b""), b"a"),
        ("HTTP://A.Example:80/", TargetURL("http", "a.example", 80, b"/"), b"a.example"),
        ("https://a:80/x", TargetURL("https", "a", 80, b"/x"), b"a:80"),
        ("ws://a:443", TargetURL("ws", "a", 443, b""), b"a:443"),
        ("wss://a:443/b%20c/", TargetURL("wss", "a", 443, b"/b%20c/"), b"a"),
        ("http://127.0.0.1:", TargetURL("http", "127.0.0.1", 80, b""), b"127.0.0.1"),
        ("http://[::1]:8080", TargetURL("http", "::1", 8080, b""), b"[::1]:8080"),
        ("https://[FE80::1]", TargetURL("https", "fe80::1", 443, b""), b"[fe80::1]"),
        ("http://a_b.c-d.", TargetURL("http", "a_b.c-d.", 80, b""), b"a_b.c-d."),
        ("http://Bücher.example", TargetURL("http", "xn--bcher-kva.example", 80, b""), b"xn--bcher-kva.example"),
        ("http+unix://%2Frun%2Fa.sock/x", TargetURL("http+unix", "localhost", 80, b"/x", "/run/a.sock"), b"localhost"),
    ],
)
def test_target_urls(text: str, url: TargetURL, host_value: bytes) -> None:
    """A URL is read whole; Host leaves default ports out."""
    assert parse_target_url(text) == url
    assert url.host_value == host_value
    assert url.secure is (url.scheme in ("https", "wss"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "is no URL"),
        ("//a/b", "is no URL"),
        ("ftp://a", "has the scheme ftp"),
        ("http://a?b", "must have no query$"),
        ("http://a/#b", "must have no fragment$"),
        ("http://u:p@a", "must have no user or password"),
        ("http://", "has no host"),
        ("http://:80", "has no host"),
        ("http://a:0", "has the port 0"),
        ("http://a:65536", "has the port 65536"),
        ("http://a:b", "where host"),
        ("http://::1", "brackets"),
        ("http://[::g]", "where host"),
        ("http://[1.2]", "no IPv6 address"),
        ("http://a b", "where a host would be right"),
        ("http://a..b", "where a host would be right"),
        ("http://-a", "where a host would be right"),
        ("http://" + "a" * 254, "where a host would be right"),
        ("http://\u2488.example", "no host name"),
        ("http://a/b c", "percent-encoded"),
        ("http://a/%zz", "percent-encoded"),
        ("http://a/ü", "percent-encoded"),
        ("http://a/b\\c", "percent-encoded"),
        ("http://a/../b", "segment"),
        ("http://a/b/%2E%2e", "segment"),
        ("http://a/.;x", "segment"),
        ("http+unix://run/a", "absolute socket path"),
        ("http+unix:///run/a", "absolute socket path"),
        ("http+unix://%2Fa%00", "absolute socket path"),
        ("http+unix://%2F%ff", "not UTF-8"),
        ("http+unix://%2F" + "a" * 107, "over 107 octets"),
    ],
)
def test_bad_target_urls(text: str, problem: str) -> None:
    """What is no target is refused with what would be right."""
    with pytest.raises(ValueError, match=problem):
        parse_target_url(text)


@pytest.mark.parametrize(
    ("target", "plain", "upgrade"),
    [
        ("ws://backend:8080", b"http://backend:8080", b"ws://backend:8080"),
        ("wss://a", b"https://a", b"wss://a"),
        ("https://a:8443", b"https://a:8443", b"https://a:8443"),
        ("http+unix://%2Fa", b"http://localhost", b"http://localhost"),
    ],
)
def test_origins(target: str, plain: bytes, upgrade: bytes) -> None:
    """On upgrades the target's scheme is as written, on other requests http or https."""
    url = parse_target_url(target)
    assert (url.origin(websocket=False), url.origin(websocket=True)) == (plain, upgrade)


@pytest.mark.parametrize(
    ("text", "names", "expanded"),
    [
        ("plain", (), "plain"),
        ("${A}-${B_2}", ("A", "B_2"), "one-two"),
        ("$${A}", (), "${A}"),
        ("$$${A}", (), "$${A}"),
        ("$A {A}", (), "$A {A}"),
        ("$${${A}}", ("A",), "${one}"),
        ("${R}", ("R",), "${A}"),  # a value is not expanded again
    ],
)
def test_variables(text: str, names: tuple[str, ...], expanded: str) -> None:
    """Variables are replaced once; a doubled dollar sign makes a literal."""
    assert variables_in(text) == names
    assert expand_variables(text, {"A": "one", "B_2": "two", "R": "${A}"}) == expanded


@pytest.mark.parametrize(
    ("text", "problem"), [("${A", "without its }"), ("${a b}", "is no variable"), ("${}", "is no variable")]
)
def test_bad_variables(text: str, problem: str) -> None:
    """A variable that is not closed, or is no name, is refused when the rule is read."""
    with pytest.raises(ValueError, match=problem):
        variables_in(text)


@pytest.mark.parametrize("value", [None, "a\rb", "a\nb", "a\0"])
def test_unusable_variables(value: str | None) -> None:
    """A variable that is not set, or would break a field, makes the rule unusable; the text names it, not its value."""
    with pytest.raises(RuleUnusable, match="the variable NAME (is not set|holds a line break or NUL)$"):
        expand_variables("x${NAME}", {} if value is None else {"NAME": value})


@pytest.mark.parametrize(
    "source",
    ["${URL}", "${SCHEME}://a", "http://${HOST}", "http://${HOST}:${PORT}/${PATH}/x", "http://a.${DOMAIN}:80",
     "http+unix://${SOCKET}/x", "${HOST}:8080/x"],
)  # fmt: skip
def test_target_templates(source: str) -> None:
    """Variables may stand anywhere in a target."""
    template = OriginTemplate(source)
    assert template.url is None and template.variables


@pytest.mark.parametrize("source", ["${URL}?x", "http://${USER}@a", "ftp://${HOST}", "http://${HOST}:x", "$${A}", "${A}://a:b"])
def test_bad_target_templates(source: str) -> None:
    """What no variable could make right is refused when the rule is read."""
    with pytest.raises(ValueError):
        OriginTemplate(source)


def test_resolving() -> None:
    """A target is resolved from the environment, and anew when that has changed."""
    template = OriginTemplate("http://${HOST}:${PORT}/x")
    first = template.resolve({"HOST": "a", "PORT": "8080"})
    assert first == TargetURL("http", "a", 8080, b"/x")
    assert template.resolve({"HOST": "a", "PORT": "8080"}) is first
    assert template.resolve({"HOST": "b", "PORT": "80"}).host == "b"
    with pytest.raises(RuleUnusable, match="HOST is not set"):
        template.resolve({})
    with pytest.raises(RuleUnusable, match=r"http://\$\{HOST\}:\$\{PORT\}/x is no URL with HOST, PORT") as raised:
        template.resolve({"HOST": "u:secret@b", "PORT": "80"})
    assert "secret" not in str(raised.value)
    fixed = OriginTemplate("http://a")
    assert fixed.resolve({}) is fixed.url


def test_headers_and_variables_of_a_rule() -> None:
    """Values are expanded and encoded; names keep their spelling; null removes."""
    headers = (("X-Key", "${KEY}!"), ("Cookie", None), ("X-U", "ü"))
    rule = Rule("a", "a", Pattern(""), OriginTemplate("http://${HOST}:${KEY}"), headers=headers)
    assert header_fields(rule, {"KEY": " k\t "}) == [(b"X-Key", b"k\t !"), (b"Cookie", None), (b"X-U", "ü".encode())]
    assert header_fields(rule, {"KEY": ""})[0] == (b"X-Key", b"!")
    assert rule.variables == ("HOST", "KEY")


def test_values() -> None:
    """Targets are values: equal, hashed and shown by their sources."""
    one = OriginTemplate("http://a")
    assert one == OriginTemplate("http://a") != OriginTemplate("http://b") and one != "http://a"
    assert hash(one) == hash(OriginTemplate("http://a"))
    assert repr(one) == "OriginTemplate('http://a')"


def test_matches() -> None:
    """A match expands its rule's template; without one the path stays as it came."""
    pattern = Pattern("^/a(.*)")
    groups = pattern.search("/a/b", timeout=1.0)
    assert groups is not None
    plain = Rule("a", "a", pattern, OriginTemplate("http://a"))
    assert Match(plain, groups, "/a/b").rewritten() is None
    assert Match(replace(plain, rewrite=Template("/c$1", pattern)), groups, "/a/b").rewritten() == "/c/b"
    assert hash(plain) == hash(Rule("a", "a", Pattern("^/a(.*)"), OriginTemplate("http://a")))
