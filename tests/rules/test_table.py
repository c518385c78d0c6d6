"""The table finds the first rule that matches, whatever is in front of the patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

import pytest
from corvus_regex_ecma262 import MatchLimitError
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.errors import MatchTooSlow, NoRuleMatches
from proxyd.rules.globs import PublicRoutes
from proxyd.rules.model import OriginTemplate, Rule
from proxyd.rules.pattern import Pattern, Template
from proxyd.rules.table import KNOWN, MATCH_BUDGET_S, RuleTable
from tests.support.ecmascript import ANY_PATHS, PATTERNS

TARGET = OriginTemplate("http://127.0.0.1:8080")


def rule(rule_id: object, pattern: str, **more: Any) -> Rule:
    return Rule(id=str(rule_id), name=f"rule {rule_id}", pattern=Pattern(pattern), target=TARGET, **more)


def found(table: RuleTable, path: str, host: str | None = None) -> str | None:
    """The id of the rule that takes this request."""
    try:
        return table.match(path, host).rule.id
    except NoRuleMatches:
        return None


def ticking(step: float) -> Callable[[], float]:
    """A clock that moves by C{step} whenever it is asked."""
    ticks = iter(range(1_000_000))
    return lambda: next(ticks) * step


@given(st.lists(st.tuples(PATTERNS, st.booleans()), max_size=20), st.lists(ANY_PATHS, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_it_equals_a_plain_scan(patterns: list[tuple[str, bool]], paths: list[str]) -> None:
    """Among random patterns, the table finds what trying one enabled rule after another finds."""
    rules = [rule(index, pattern, enabled=enabled) for index, (pattern, enabled) in enumerate(patterns)]
    table = RuleTable(rules)
    for path in paths:
        try:
            enabled = (one for one in rules if one.enabled)
            first = next((one.id for one in enabled if one.pattern.search(path, timeout=MATCH_BUDGET_S)), None)
            assert found(table, path) == first
        except (MatchTooSlow, MatchLimitError):
            pass


GLOBS = ["a.example", "b.example", "*.example", "*.b.example", "**.example", "a.*", "x?.example", "A.Example"]
HOSTS = ["a.example", "B.example", "x.b.example", "x.y.b.example", "a.test", "example", "a.example.", None]


@given(
    st.lists(st.tuples(st.sampled_from(["/a", "/b", "/", "/(?!a)"]), st.lists(st.sampled_from(GLOBS), max_size=3))),
    st.sampled_from(HOSTS),
    st.sampled_from(["/a", "/b", "/"]),
)
def test_hosts_equal_a_plain_scan(rules: list[tuple[str, list[str]]], host: str | None, path: str) -> None:
    """Whatever sections hosts put the rules into, the first that takes host and path is found."""
    def takes(pattern: str, globs: list[str]) -> bool:
        name = (host or "").lower().removesuffix(".")
        at_host = not globs or any(name and fnmatch.fnmatchcase(name, glob.lower()) for glob in globs)
        return at_host and Pattern(pattern).search(path, timeout=1.0) is not None

    table = RuleTable(rule(index, pattern, hosts=tuple(globs)) for index, (pattern, globs) in enumerate(rules))
    first = next((str(index) for index, one in enumerate(rules) if takes(*one)), None)
    assert found(table, path, host) == first


def test_ten_thousand_rules() -> None:
    """The first of many is found, before and behind patterns that RE2 cannot express."""
    rules = [rule(index, rf"^/service{index}/(\w+)") for index in range(10_000)]
    rules[3] = rule(3, r"^/(\w)\1")
    rules[5] = rule(5, r"^/service70/\u0041\cA?")
    rules.append(rule("last", r"^/service70/"))
    table = RuleTable(rules)
    assert found(table, "/service9999/x") == "9999"
    assert found(table, "/service70/x") == "70"
    assert found(table, "/service70/A") == "5"
    assert found(table, "/service70/-") == "last"
    assert found(table, "/xxx") == "3"
    assert found(table, "/service10000/x") is None
    assert len(table) == 10_001 and table.rules[70] is table.by_id["70"]


@pytest.mark.parametrize("memory", [1, 20_000, 100_000, 1 << 28])
def test_memory_of_sets(memory: int) -> None:
    """Where one RE2 set has no room for all patterns there are several, and where none has, a plain scan."""
    rules = [rule(index, rf"^/s{index}(?:/.*)?x[0-9a-f]{{12}}$") for index in range(64)]
    table = RuleTable(rules, max_set_memory=memory)
    for index in (0, 31, 63):
        assert found(table, f"/s{index}/ax0123456789ab") == str(index)
    assert found(table, "/s64/x0123456789ab") is None


def test_an_automaton_without_memory_is_no_answer() -> None:
    """
    RE2 says that nothing matches when its automaton runs out of memory: then all rules are tried.

    No pattern was found that brings this about, so RE2's answer is set here.
    """
    table = RuleTable(rule(index, f"^/s{index}$") for index in range(10))
    table._general._sets[0].match = lambda path: None
    assert found(table, "/s7") == "7"


def test_many_candidates() -> None:
    """Where many rules share what RE2 looks for, the first that matches is found."""
    rules = [rule(index, "^/a[0-9]" if index % 2 else "[0-9]b$") for index in range(100)]
    assert found(RuleTable([*rules, rule("last", "^/")]), "/a-b") == "last"
    rules[61] = rule("middle", "^/a-")
    assert found(RuleTable([*rules, rule("last", "^/")]), "/a-b") == "middle"
    assert found(RuleTable(rule(index, f"^/a(?!{'x' if index == 7 else ''})") for index in range(10)), "/a") == "7"


def test_the_match_is_of_the_engine() -> None:
    """The groups are those of the ECMAScript engine, and make the new path."""
    pattern = Pattern("^/api/(?<rest>.*)")
    one = Rule("a", "a", pattern, TARGET, rewrite=Template("/v2/$<rest>", pattern))
    match = RuleTable([one, rule("b", "^/b")]).match("/api/users", None)
    assert (match.rule, match.path, match.rewritten()) == (one, "/api/users", "/v2/users")
    assert RuleTable([one, rule("b", "^/b")]).match("/b", None).rewritten() is None


def test_the_budget_is_for_all_patterns_together() -> None:
    """When the time of a request is used up, the rule that would be tried next is named."""
    table = RuleTable([rule(index, rf"^/(.)\1{{{index + 1}}}") for index in range(10)])
    with pytest.raises(MatchTooSlow) as raised:
        table.match("/ab", None, now=ticking(MATCH_BUDGET_S / 16))
    assert raised.value.rule_id == "4"
    with pytest.raises(NoRuleMatches):
        table.match("/ab", None, now=ticking(MATCH_BUDGET_S / 64))


def test_what_is_known_is_bounded() -> None:
    """Matches are remembered, by path and host, but not for ever, and no long paths."""
    at_host = rule("host", "^/", hosts=("a.example",))
    table = RuleTable([at_host, rule("all", "^/(.*)$")])
    for _ in range(2):
        for path in (f"/{number}" for number in range(KNOWN + 100)):
            assert found(table, path, "b.example") == "all"
            assert table.match(path, "b.example").groups.group(1) == path[1:]
        assert (found(table, "/1", "a.example"), found(table, "/1", None)) == ("host", "all")
        assert found(table, "/" + "a" * 5000, "b.example") == "all"
        assert 0 < len(table._known) <= KNOWN
        assert max(len(path) for path, _ in table._known) < 300


def test_a_pause_is_no_slow_pattern() -> None:
    """The clock goes on while another process has the processor: no rule is to blame for that."""
    table = RuleTable([rule("all", "")])
    times = iter([0.0, 1.0, 1.0, 1.0])
    assert table.match("/", None, now=lambda: next(times)).rule.id == "all"


def test_a_slow_pattern_is_named() -> None:
    """A pattern that takes too long is interrupted, and no later rule is tried."""
    table = RuleTable([rule("slow", r"^/(?:(a+)+)+\1b"), rule("all", "")])
    with pytest.raises(MatchTooSlow) as raised:
        table.match("/" + "a" * 4000, None)
    assert raised.value.rule_id == "slow"


@pytest.mark.parametrize(
    ("method", "path", "upgrade", "host", "public"),
    [
        ("GET", "/a/public/x", False, None, True),
        ("HEAD", "/a/public/x", False, None, True),
        ("POST", "/a/public/x", False, None, False),
        ("GET", "/a/public/x", True, None, True),
        ("GET", "/a/private", False, None, False),
        ("GET", "/a/first/public/x", False, None, False),  # an earlier rule takes it, and has no public routes
        ("GET", "/b/public", False, None, False),  # only the routes of the rule that takes it count
        ("GET", "/c/x", False, None, True),
        ("GET", "/c/x", True, None, False),  # the rule takes no upgrades
        ("GET", "/c/x", False, "other.example", True),
        ("GET", "/host", False, "a.example", True),
        ("GET", "/host", False, "b.example", False),
        ("GET", "/host", False, None, False),
        ("GET", "/nothing", False, None, False),
        ("GET", "/a/public/%2F", False, None, False),
        ("GET", "/slow" + "a" * 4000, False, None, False),
    ],
)
def test_is_public(method: str, path: str, upgrade: bool, host: str | None, public: bool) -> None:
    """A path is public when the rule that takes this very request says so."""
    table = RuleTable(
        [
            rule("first", "^/a/first/"),
            rule("a", "^/a/", public_routes=PublicRoutes({"GET": ["/a/public/**", "/a/first/**", "/b/**"]})),
            rule("b", "^/b/"),
            rule("c", "^/c/", ws=False, public_routes=PublicRoutes(["/c/*"])),
            rule("host", "^/host", hosts=("*.example",), public_routes=PublicRoutes(["/**"])),
            rule("slow", r"^/slow(?:(a+)+)+\1b", public_routes=PublicRoutes(["/**"])),
        ]
    )
    if host == "b.example":
        table = RuleTable([rule("before", "^/host", hosts=("b.example",)), *table.rules])
    assert table.is_public(path, method, upgrade=upgrade, host=host) is public
