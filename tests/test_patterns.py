"""Regular expressions mean the same in every Python that proxyd runs on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import walk_packages
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

import proxyd

SINGLE = (_constants.IN, _constants.LITERAL, _constants.NOT_LITERAL, _constants.ANY)
"""What stands for one character."""


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """All that proxyd's modules keep."""
    for found in walk_packages(proxyd.__path__, "proxyd."):
        for name, value in vars(import_module(found.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{found.name}.{name}", value


def possessive_groups(parsed: Iterable[Any]) -> Iterator[Any]:
    """The groups in an expression that are repeated possessively."""
    for part in parsed:
        if isinstance(part, tuple) and part and part[0] is _constants.POSSESSIVE_REPEAT:
            repeated = part[1][2]
            if len(repeated) != 1 or repeated[0][0] not in SINGLE:
                yield repeated
        if isinstance(part, (tuple, list, _parser.SubPattern)):
            yield from possessive_groups(part)


def test_no_group_is_possessive() -> None:
    """
    Python before 3.11.5 goes on behind what the last, failed repetition had consumed (python/cpython issue 106052).

    So C{/admin/.} passed for a path without dot segments.
    """
    assert list(possessive_groups(_parser.parse(r"a(?:(?:bc|d)*+)e++")))
    kept = dict(patterns())
    assert "proxyd.http.request._PLAIN_LINE" in kept
    wrong = [name for name, one in kept.items() if list(possessive_groups(_parser.parse(one.pattern, one.flags)))]
    assert wrong == []
