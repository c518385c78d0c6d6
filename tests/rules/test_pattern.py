"""Patterns and templates mean what ECMAScript says; node is the oracle."""

from __future__ import annotations

import random
from typing import Any

import pytest
from corvus_regex_ecma262 import MatchLimitError

from proxyd.rules.pattern import Pattern, Template
from tests.support.ecmascript import node, random_path, random_pattern

EXPAND = """([pattern, path, template]) => {
    const match = new RegExp(pattern).exec(path);
    if (match === null) return null;
    const whole = path.replace(new RegExp(pattern), template);
    const tail = path.length - match.index - match[0].length;
    return [match.index, [...match].map((group) => group ?? null), whole.slice(match.index, whole.length - tail)];
}"""

PIECES = [
    *["$1", "$2", "$&", "$$", "$<n>", "/", "/v2/", "x"] * 2,
    *["$0", "$00", "$01", "$10", "$11", "$12", "$20", "$99", "$`", "$'"],
    *["$", "$x", "$<", "$$1", "$$$1", "$<n", "1", ">"],
]


def expand(pattern: str, template: str, path: str) -> str:
    compiled = Pattern(pattern)
    match = compiled.search(path, timeout=1.0)
    assert match is not None
    return Template(template, compiled).expand(match)


def test_patterns_and_templates_agree_with_node() -> None:
    """Matches, groups and expansions of thousands of random patterns, paths and templates are those of node."""
    rnd = random.Random(262)
    cases: list[list[str]] = []
    ours: list[Any] = []
    while len(cases) < 3000:
        path = random_path(rnd)
        source = "".join(rnd.choice(PIECES) for _ in range(rnd.randint(1, 5)))
        try:
            pattern = Pattern(random_pattern(rnd))
            template = Template(source, pattern)
        except ValueError:
            continue
        match = pattern.search(path, timeout=1.0)
        cases.append([pattern.source, path, source])
        ours.append(match and [match.start(), [match.group(), *match.groups()], template.expand(match)])
    agreed = 0
    for case, our, theirs in zip(cases, ours, node(EXPAND, cases), strict=True):
        if theirs is not None and not theirs[2].startswith("/"):
            theirs[2] = "/" + theirs[2]
        assert our == theirs, case
        agreed += our is not None
    assert agreed > 1000


@pytest.mark.parametrize("pattern", ["(", "a**", "[b-a]", r"(?<n>a)\k<m>", "(?<a", "a{2,1}"])
def test_invalid_patterns_are_refused_as_by_node(pattern: str) -> None:
    """What new RegExp() throws at is a ValueError that says why."""
    with pytest.raises(ValueError, match="is no ECMAScript regular expression: [^e]"):
        Pattern(pattern)
    script = "(pattern) => { try { new RegExp(pattern); return true } catch { return false } }"
    assert node(script, [pattern]) == [False]


@pytest.mark.parametrize(
    ("pattern", "template", "path", "new"),
    [
        ("^/api/(.*)", "/$1", "/api/users/7", "/users/7"),
        ("^/api/(.*)", "/v2/fixed", "/api/users", "/v2/fixed"),
        ("^/api/(.*)", "fixed", "/api/users", "/fixed"),  # a result without a leading slash gets one
        ("^/api/(.*)", "$1", "/api/users", "/users"),
        ("^/api/(.*)", "$1", "/api/", "/"),
        ("^/(a)?(b)?", "/$1-$2", "/b", "/-b"),  # a group that took no part is empty
        ("^/(?<n>[^/]+)/(?<m>x)?", "/$<n>$<m>!", "/a/", "/a!"),
        ("/b", "/[$`|$&|$']", "/a/b/c", "/[/a|/b|/c]"),
        ("^/(.)", "/$$1$11$01$", "/a", "/$1a1a$"),  # $11 is $1 and 1 when there is one group; a lone $ stays
        ("(((((((((((a)))))))))))", "/$11$10", "/a", "/aa"),
        ("^/(.)", "/$0$00$<", "/a", "/$0$00$<"),
        ("^/(..)/(..)", "/$2/$1", "/$1/$2", "/$2/$1"),  # what a group brings is not expanded again
    ],
)
def test_template(pattern: str, template: str, path: str, new: str) -> None:
    """The template makes the whole new path."""
    assert expand(pattern, template, path) == new


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("/$2", r"\$2 names a group that the pattern lacks; it has 1"),
        ("/$20", r"\$20 names a group"),
        ("/$02", r"\$02 names a group"),
        ("/$<m>", r"\$<m> names a group that the pattern lacks; its named groups: n"),
        ("/$1?a=b", r"holds '\?'.*%3F"),
        ("/x#y", "holds '#'.*%23"),
        ("/a b", "holds ' '.*%20"),
        ("/a\\b", r"holds '\\\\'.*%5C"),
        ("/a\n", r"holds '\\n'.*%0A"),
        ("/ü", "holds 'ü'; percent-encode"),
    ],
)
def test_template_is_refused(template: str, problem: str) -> None:
    """Groups that the pattern lacks, and what no path can hold, are refused before anything runs."""
    with pytest.raises(ValueError, match=problem):
        Template(template, Pattern("^/(?<n>.)"))


def test_names_without_named_groups() -> None:
    """A name in a template of a pattern without named groups is a mistake, though ECMAScript leaves it as it is."""
    with pytest.raises(ValueError, match="its named groups: none"):
        Template("/$<n>", Pattern("^/(.)"))


def test_empty_template_is_the_root() -> None:
    """A template that expands to nothing makes the path of the root."""
    assert expand("^/api", "", "/api") == "/"


def test_slow_patterns_are_interrupted() -> None:
    """A back-reference can make a match exponential; its time limit holds."""
    with pytest.raises(MatchLimitError):
        Pattern(r"^/(?:(a+)+)+\1b").search("/" + "a" * 4000, timeout=0.005)


@pytest.mark.parametrize(
    "source", ["a.*x.*q", "aaa.*x[0-9a-f]{16}q", "a{1,}[-a]{20}%", "[^/]+?[^q]{20}[b]", "(?:a?){200}z"]
)
def test_no_pattern_holds_the_reactor(source: str) -> None:
    """Patterns that are quadratic for the engine, and deaf to its time limit as they are written, are interrupted."""
    with pytest.raises(MatchLimitError):
        Pattern(source).search("/" + "a" * 8191, timeout=0.0001)


def test_what_cannot_be_interrupted_is_refused() -> None:
    """A lazy repetition within a repetition, where the engine backtracks, is no pattern here."""
    with pytest.raises(ValueError, match="has a lazy repetition within a repetition"):
        Pattern("(?:a+?)+(?=b)")
    assert Pattern("(?i:a)").search("/A", timeout=1.0)


def test_values() -> None:
    """Patterns and templates are values: equal, hashed and shown by their sources."""
    one, same, other = Pattern("(a)"), Pattern("(a)"), Pattern("(b)")
    assert one == same and hash(one) == hash(same) and one != other and one != "(a)"
    assert repr(one) == "Pattern('(a)')"
    assert (one.groups, Pattern("(?<n>a)(b)").names) == (1, frozenset({"n"}))
    assert Template("/$1", one) == Template("/$1", other) != Template("/", one)
    assert hash(Template("/", one)) == hash(Template("/", one)) and Template("/", one) != "/"
    assert repr(Template("/$1", one)) == "Template('/$1')"
