"""The configuration reference: generated from the types, and the tables written by hand agree with it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator

import pytest

from proxyd.rules.auth import MIN_TOKEN
from proxyd.rules.codec import MAX_MEMBERS
from proxyd.service.schema import MAX_WORKERS
from tests.support.snippets import ROOT

_spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
assert _spec is not None and _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)

KEYS = {key.name: key for key in generate.FILE.all}
FIELDS = {key.name: key for key in generate.RULE.all}

REFERENCE = (ROOT / "docs" / "reference.md").read_text()

SAYS_WHERE = {"required": "required", "see [there](#the-store)": "`null`", "no listener": "", "": ""}
"""Defaults in words, and what the types have there."""

WORDS = {"bool": "bool", "int": "whole number", "list": "list", "map": "mapping", "string": "string", "URL": "string"}
"""Types as the reference calls them, and as the types do."""


def test_generated() -> None:
    """The page is what the types make of it; if not, run C{python docs/generate.py}."""
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page()


def test_numbers_in_meanings() -> None:
    """A number that a docstring names is the one that is checked."""
    assert f"at most {MAX_WORKERS};" in KEYS["workers"].meaning
    assert f"at least {MIN_TOKEN} " in KEYS["admin.tokens[].token"].meaning
    assert f"at most {MAX_MEMBERS} " in FIELDS["hosts"].limits


def rows(header: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of the tables of the reference that have this header: the key, then the other cells."""
    for table in re.findall(rf"^\| {re.escape(header)}.*\n\|[-|]+\n((?:\|.*\n)+)", REFERENCE, re.MULTILINE):
        for line in table.splitlines():
            first, *others = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            for key in re.findall(r"`([^`]+)`", first):
                yield key, [first, *others]


@pytest.mark.parametrize(("key", "cells"), list(rows("key | default")))
def test_defaults(key: str, cells: list[str]) -> None:
    """Each key of a table is there, and its default is the type's; numbers in its text are the type's limits."""
    names = [name for name in KEYS if name == key or (key == "pass" and name.endswith(".pass"))]
    assert names, f"there is no {key}"
    for name in names:
        default = SAYS_WHERE.get(cells[1], cells[1])
        if key == "auth":
            assert (default, KEYS[name].default) == ("`none`", "`null`")
        else:
            assert default.replace('"', "").strip("`") == KEYS[name].default.replace('"', "").strip("`"), name
        for limit in re.findall(r"at least ([\d,]+)", cells[-1]):
            assert f"at least {int(limit.replace(',', '')):,}" in KEYS[name].limits


@pytest.mark.parametrize(("field", "cells"), list(rows("field | type, default")))
def test_rule_defaults(field: str, cells: list[str]) -> None:
    """The same for the fields of a rule."""
    kind, _, default = cells[1].partition(", ")
    known = FIELDS[field]
    if default == "required":
        assert known.default == "required"
    elif re.fullmatch(r"`(true|false|\{\})`", default):
        assert known.default in (default, "")
    else:
        assert known.default in ("`null`", ""), "the default is in words: none, or that of the service"
    assert WORDS.get(kind, "") in known.type


def test_every_key_is_in_a_table() -> None:
    """No key and no field is without a line in the reference."""
    told = {key for key, _ in rows("key | ")} | {key for key, _ in rows("field | type")}
    inner = re.compile(r"\[\]|\.proxy\.|^proxy\.|\.pass$|^(outbound|tls|timeouts|limits)\.")
    assert {name for name in KEYS if not inner.search(name) and KEYS[name].default != ""} - told == {
        "auth.basic", "auth.bearer", "auth.forward",
    }  # fmt: skip
    assert {name for name in FIELDS if not inner.search(name)} <= told


def test_defaults_are_json() -> None:
    """What a default looks like can be written into a configuration."""
    for key in (*KEYS.values(), *FIELDS.values()):
        if key.default not in ("", "required"):
            json.loads(key.default.strip("`"))
