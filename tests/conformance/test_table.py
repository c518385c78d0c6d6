"""docs/conformance.md names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "conformance.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+\.py)::(\w+)`", PAGE)))
TABLES = re.findall(r"^\|(?! ?-)(.*)\|$", PAGE, re.MULTILINE)


@cache
def _tests(file: Path) -> set[str]:
    """The names of the tests in a file, those of its classes included."""
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_page_names_tests() -> None:
    """There are many: the pattern above has found them."""
    assert len(NAMED) >= 40


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_test_exists(file: str, name: str) -> None:
    """Each test that the table names is there."""
    assert name.startswith("test") and name in _tests(ROOT / file)


def test_every_demand_is_proved() -> None:
    """Each row of the tables of demands names a test, or says why there is none."""
    rows = [row for row in TABLES if re.match(r" ?\d+(\.\d+)*[ ,]", row)]
    assert len(rows) >= 80
    for row in rows:
        cells = row.split(" | ")
        assert len(cells) == 4, row
        assert "::" in cells[3] or cells[3].strip().startswith(("not ", "differs")), row
