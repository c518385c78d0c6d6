"""Globs, and the routes that need no authentication."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.rules.globs import Globs, PublicRoutes, compile_glob


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("/api/*", ["/api/", "/api/x"], ["/api", "/api/x/y", "x/api/x"]),
        ("/api/**", ["/api/", "/api/x/y"], ["/api", "/apix"]),
        ("/**/x", ["/a/b/x", "//x"], ["/x"]),
        ("/a?c", ["/abc"], ["/a/c", "/ac", "/abbc"]),
        ("/a", ["/a"], ["/a/", "/A", "/"]),
        ("/a.b+(c)[d]{e}|^$*", ["/a.b+(c)[d]{e}|^$x"], ["/axb+(c)[d]{e}|^$x"]),
        ("/a*b**c", ["/abc", "/axb/y/c"], ["/a/bc"]),
        ("**", ["", "/", "/a\nb"], []),
        ("/***", ["/", "/a/b"], [""]),
        ("/*\\d", ["/a\\d"], ["/a1"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    """The whole text must match, and only wildcards mean anything."""
    assert [text for text in yes + no if compile_glob(glob).matches(text)] == yes


def reference(glob: str) -> str:
    parts = {"**": "[\\s\\S]*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(part) or re.escape(part) for part in re.findall(r"\*\*|.", glob))


@given(st.text("ab/*?", min_size=1, max_size=6), st.text("ab/", max_size=6))
@settings(max_examples=500)
def test_globs_agree_with_a_plain_translation(glob: str, text: str) -> None:
    """Short globs match what their translation to Python's re does."""
    assert compile_glob(glob).matches(text) == (re.fullmatch(reference(glob), text) is not None)


def test_no_glob_is_slow() -> None:
    """A glob that would take a backtracking engine for ever is answered, and in doubt with no."""
    assert not Globs(["/" + "**a" * 30]).matches("/" + "a" * 29 + "/" * 4000)
    assert not Globs(["/" + "**a" * 2000 + "b"]).matches("/" + "a" * 8000)


def test_bad_globs() -> None:
    """An empty glob is a mistake, and what the engine has no room for is refused."""
    with pytest.raises(ValueError, match="empty glob"):
        Globs(["/a", ""])
    with pytest.raises(ValueError, match="too much"):
        Globs(["*a" * 100_000])


def test_routes_for_every_method() -> None:
    """A plain list holds for every method."""
    routes = PublicRoutes(["/public/**", "/health"])
    assert routes.is_public("/public/a", "DELETE")
    assert routes.is_public("/health", "GET")
    assert not routes.is_public("/private", "GET")
    assert routes.to_mapping() == ["/public/**", "/health"]


@pytest.mark.parametrize(
    ("method", "path", "public"),
    [
        ("GET", "/docs/a", True),
        ("HEAD", "/docs/a", True),  # GET covers HEAD
        ("POST", "/docs/a", False),
        ("HEAD", "/head", True),
        ("GET", "/head", False),
        ("POST", "/login", True),
        ("GET", "/all", True),
        ("POST", "/all", True),
        ("DELETE", "/all", True),  # ALL holds for every method
    ],
)
def test_routes_by_method(method: str, path: str, public: bool) -> None:
    """A mapping gives each method its globs."""
    source = {"GET": ["/docs/*"], "HEAD": ["/head"], "POST": ["/login"], "ALL": ["/all"]}
    routes = PublicRoutes(source)
    assert routes.is_public(path, method) is public
    assert routes.to_mapping() == source


@pytest.mark.parametrize(
    "path",
    ["/a%2fb", "/a%2Fb", "/a%5Cb", "/a%00", "/a%252e", "/a;b", "/a/../b", "/a/./b", "/..", "/a/.", "/%2e%2e/b", "/a?b",
     "/a#b", "/a\\b", "/a b", "/ü", "/a\n", "a", ""],
)  # fmt: skip
def test_what_is_never_public(path: str) -> None:
    """What the origin server may read differently than the glob did is not public."""
    assert PublicRoutes(["/a/..c", "/**"]).is_public("/a/..c/.d", "GET")
    assert not PublicRoutes(["**"]).is_public(path, "GET")


def test_values() -> None:
    """Routes are values: equal, hashed and shown by how they were written."""
    one = PublicRoutes(["/a"])
    assert one == PublicRoutes(["/a"]) != PublicRoutes({"ALL": ["/a"]})
    assert hash(one) == hash(PublicRoutes(["/a"])) and one != ("/a",)
    assert repr(one) == "PublicRoutes(('/a',))"
