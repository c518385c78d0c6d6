"""What RE2 looks for is in every path that the pattern matches."""

from __future__ import annotations

import pytest
import re2  # type: ignore[import-untyped]
from corvus_regex_ecma262 import MatchLimitError, Regex
from hypothesis import given, settings

from proxyd.rules.candidates import MAX_SIZE, Segment, segments
from proxyd.rules.reading import Unread, read
from tests.support.ecmascript import PATHS, PATTERNS


def found(source: str) -> list[Segment]:
    regex = Regex(source)
    return segments(read(source, regex.groups, bool(regex.group_names)))


def search(expression: str, path: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    return bool(re2.search(expression.encode(), path.encode(), options))


@given(PATTERNS, PATHS)
@settings(max_examples=250, deadline=None)
def test_nothing_is_missed(source: str, path: str) -> None:
    """Each segment of a pattern is in each path that the pattern matches."""
    try:
        if Regex(source).search(path, timeout=0.05) is None:
            return
        assert all(search(segment.expression, path) for segment in found(source))
    except (Unread, MatchLimitError):
        pass


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("^/api$", [(r"\A\x2fapi\z", 4)]),
        ("^/api/(.*)", [(r"\A\x2fapi\x2f", 5)]),
        ("^/a/(?<n>[^/]+)/b", [(r"\A\x2fa\x2f", 3), (r"\x2fb", 2)]),
        ("/(?:api)/", [(r"\x2fapi\x2f", 5)]),
        ("/a(?!b)(?=c)(?<=d)(?<!e)c", [(r"\x2fac", 3)]),  # look-around is left out
        (r"(ab)\1c", [("ab", 2), ("c", 1)]),
        ("ab+c", [("ab", 2), ("c", 1)]),
        ("(?:ab){2,}c", [("ab", 2), ("c", 1)]),
        ("ab?c*d{0,3}e", [("a", 1), ("e", 1)]),
        (r"\bab\B", [(r"\bab\B", 2)]),
        ("[Aa]b[a-c]", [("[Aa]b[abc]", 3)]),
        ("[a-z]b", [("b", 1)]),
        ("a.b", [("a", 1), ("b", 1)]),
        ("x(?:a.bcd|ef)y", [("x", 1), ("(?:bcd|ef)", 2), ("y", 1)]),
        ("x(?:abc|.)y", [("x", 1), ("y", 1)]),
        ("a|b", [("(?:a|b)", 1)]),
        ("aé", [(r"a[^\x00-\xff]", 2)]),  # never in a path
        ("", []),
        ("^$", []),
        ("a" * (MAX_SIZE + 1), []),
        ("|".join("a" * 100 for _ in range(11)), []),
    ],
)
def test_segments(source: str, expected: list[tuple[str, int]]) -> None:
    """A segment ends where something may repeat, be missing, or be nearly anything."""
    assert found(source) == expected
