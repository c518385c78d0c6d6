"""Patterns as trees."""

from __future__ import annotations

import pytest
from corvus_regex_ecma262 import Regex

from proxyd.rules.reading import (
    MAX_DEPTH,
    BackReference,
    Choice,
    LookAround,
    Node,
    Repeated,
    Unread,
    is_anchored,
    is_deaf,
    is_nested,
    read,
)


def tree(source: str) -> Choice:
    regex = Regex(source)
    return read(source, regex.groups, bool(regex.group_names))


def characters(text: str) -> list[Node]:
    return [frozenset(character.encode()) for character in text]


def repeated(character: str, may_be_missing: bool, is_endless: bool, is_lazy: bool = False) -> list[Node]:
    return [Repeated(frozenset(character.encode()), may_be_missing, is_endless, is_lazy)]


@pytest.mark.parametrize(
    ("source", "sequence"),
    [
        ("ab", characters("ab")),
        (r"\/\-\a", characters("/-a")),
        (r"\x61\u0062\x\u", characters("abxu")),
        (r"\t\v\0\01\012\8", characters("\t\v\0\x01\n8")),
        (r"\cA\c1", characters("\x01\\c1")),
        (r"\k", characters("k")),
        ("{]}", characters("{]}")),
        ("a{,2}", characters("a{,2}")),
        ("é", [frozenset()]),
        (r"^$\b\B", [r"\A", r"\z", r"\b", r"\B"]),
        ("a*", repeated("a", True, True)),
        ("a+?", repeated("a", False, True, True)),
        ("a?", repeated("a", True, False)),
        ("a{0}", repeated("a", True, False)),
        ("a{2}", repeated("a", False, False)),
        ("a{2,}?", repeated("a", False, True, True)),
        ("a{0,3}", repeated("a", True, False)),
        ("(a)(?:b)", [Choice([characters("a")]), Choice([characters("b")])]),
        ("(?<n>a|)", [Choice([characters("a"), []])]),
        ("(?=a)(?<!b)", [LookAround(Choice([characters("a")])), LookAround(Choice([characters("b")]))]),
        (r"(a)\1\2", [Choice([characters("a")]), BackReference(), *characters("\x02")]),
        (r"(?<n>a)\k<n>", [Choice([characters("a")]), BackReference()]),
        ("a{" + "9" * 5000 + "}", repeated("a", False, False)),
    ],
)
def test_reading(source: str, sequence: list[Node]) -> None:
    """Everything of the grammar has its place in the tree, Annex B included."""
    assert tree(source) == Choice([sequence])


@pytest.mark.parametrize(
    "source",
    [".", "[]", "[^]", "[a-c]", "[^a-c]", r"[\d-x]", r"[x-\d]", r"[\w.-]", r"[\b]", r"[\01\8]", r"[\cA\c1\c_]",
     r"[\c]", r"[a\]b]", "[-a]", "[a-]", r"[\-a]", r"[\x61-\u0063]", "[é/]", "[a-é]", "[^é]", r"\d", r"\D", r"\w",
     r"\W", r"\s", r"\S", r"[^\S]", r"[\t-\r]", "[a-😀]", "[^😀]", r"\1", r"\377"],
)  # fmt: skip
def test_classes(source: str) -> None:
    """A class holds exactly the ASCII characters that it matches."""
    [[first, *_]] = tree(source).alternatives
    regex = Regex(f"^{source}")
    expected = frozenset(code for code in range(128) if regex.search(chr(code)))
    assert first == expected


@pytest.mark.parametrize("source", ["(?i:a)", "(?-s:a)", "(" * (MAX_DEPTH + 1) + ")" * (MAX_DEPTH + 1)])
def test_unread(source: str) -> None:
    """Flags within the pattern, and groups too deep, are not read."""
    with pytest.raises(Unread):
        tree(source)


@pytest.mark.parametrize(
    ("source", "nested", "deaf"),
    [
        ("a+b+?", False, False),
        ("(?:a+)+", True, False),
        ("(?:a+?)+", True, False),  # linear, as nothing makes the engine backtrack
        ("(?:a+?)+(?=b)", True, True),
        ("(?=(?:a+?)+)b", True, True),
        (r"(c)(?:a+?|d)+\1", True, True),
        ("(?:a*?b?)+", True, True),  # a repetition of what may be nothing
        ("(?:a*?|^)+", True, True),
        ("(?:(?:a|b*)*c+?)*", True, True),
        ("(?:a+)+(?=b)", True, False),
        ("(?:a+?){3}(?=b)", False, False),
    ],
)
def test_slow_patterns(source: str, nested: bool, deaf: bool) -> None:
    """Repetitions within repetitions are known, and those that the engine may be deaf in."""
    assert (is_nested(tree(source)), is_deaf(tree(source))) == (nested, deaf)


@pytest.mark.parametrize(
    ("source", "anchored"),
    [("^a", True), ("a", False), ("^a|b", False), ("(^a)", False), ("", False), ("^(?:a|b)", True)],
)
def test_anchored(source: str, anchored: bool) -> None:
    """What begins with ^ whatever happens is anchored."""
    assert is_anchored(tree(source)) is anchored
