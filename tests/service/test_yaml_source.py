"""YAML with lines, and without keys that are there twice."""

from __future__ import annotations

import pytest

from proxyd.errors import ConfigError
from proxyd.service.yaml_source import Source

TEXT = """\
a: 1
list:
  - x
  - {deep: 2,
     more: 3}
base: &base
  k: 1
merged:
  <<: *base
  own: 2
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("a",), 1),
        (("list",), 2),
        (("list", 0), 3),
        (("list", 1, "deep"), 4),
        (("list", 1, "more"), 5),
        (("list", 7), 2),  # of the nearest place around it
        (("list", "x"), 2),
        (("a", "b", "c"), 1),
        (("nothing",), 1),
        (("merged", "own"), 10),
        (("merged", "k"), 7),
    ],
)
def test_lines(path: tuple[str | int, ...], line: int) -> None:
    """Every place has its line, and what is not there has that of what is around it."""
    assert Source(TEXT).line(path) == line


def test_values() -> None:
    """The document is plain values, an empty one nothing."""
    assert Source(TEXT).value["merged"] == {"k": 1, "own": 2}
    assert Source("").value is None
    assert Source("").line(("a",)) is None


def test_duplicates() -> None:
    """Equal keys are a problem at any depth, with both lines."""
    source = Source("a: 1\nb:\n  - c: 1\n    d: 2\n    c: 3\na: 4\n")
    assert [(one.path, one.line, one.message) for one in source.problems] == [
        (("b", 0, "c"), 5, "is there twice, first in line 3; keep one"),
        (("a",), 6, "is there twice, first in line 1; keep one"),
    ]


def test_aliases() -> None:
    """An alias is looked at once."""
    assert len(Source("a: &a {x: 1, x: 2}\nb: *a\n").problems) == 1


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
"""Few lines that stand for 10^11 values."""


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: [1\nb: 2\n", 2, "no YAML: while parsing a flow sequence"),
        ("a: b: c\n", 1, "no YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", 2, "no YAML: expected a single document"),
        ("a: *b\n", 1, "no YAML: found undefined alias"),
        ("? [x]\n: 1\n", 1, "no YAML: while constructing a mapping found unhashable key"),
        ("a: !!python/object:os.system x\n", 1, "no YAML: could not determine a constructor"),
        ("a: 2026-13-45\n", None, "no YAML: month must be in 1..12"),
        ("a: \0\n", None, "no YAML: unacceptable character"),
        ("a: !!bool s3cret\n", None, "no YAML: a value is not what its tag says"),
        ("a: !!timestamp x\n", None, "no YAML: a value is not what its tag says"),
        ("a: !!int ''\n", None, "no YAML: a value is not what its tag says"),
        ("a: 1\nb: &b [1, *b]\n", 2, "an alias stands for what it is a part of"),
        ("a: &a {<<: *a}\n", 1, "an alias stands for what it is a part of"),
        (LAUGHS, 7, "its aliases stand for too much"),
        ("[" * 1500, None, "no YAML: maximum recursion depth"),
    ],
)
def test_no_yaml(text: str, line: int | None, problem: str) -> None:
    """What is no YAML is one problem, with its line where there is one."""
    with pytest.raises(ConfigError) as raised:
        Source(text)
    [found] = raised.value.problems
    assert (found.line, found.message[: len(problem)]) == (line, problem)


@pytest.mark.parametrize("text", ["a: *s3cret\n", "a: !s3cret x\n", "a: !<s3cret> x\n", "a: &b 1\nc: *s3crets\n"])
def test_secrets_that_are_no_text(text: str) -> None:
    """A secret that begins with * or ! is no YAML without quotes, and is not shown for that."""
    with pytest.raises(ConfigError) as raised:
        Source(text)
    assert "s3cret" not in str(raised.value) and "no YAML" in str(raised.value)
