"""
Globs for paths and hosts, and the routes that need no authentication.

C{*} is any run of characters but C{/}, C{**} any run, C{?} one character but
C{/}; the whole text must match.  They become ECMAScript expressions, because
that engine is linear in pattern and text: no glob can be made slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from corvus_regex_ecma262 import MatchLimitError, Regex
from corvus_regex_ecma262 import error as PatternError

GLOB_BUDGET_S: Final = 0.05
"""How long one text may be matched, seconds; over it the text does not match."""

ALL_METHODS: Final = "ALL"
"""The key of globs that hold for every method."""

_WILD = re.compile(r"\*\*|[*?]")
_MEANING = {"**": "[^]*", "*": "[^/]*", "?": "[^/]"}
_LITERAL = str.maketrans({special: "\\" + special for special in "^$\\.*+?()[]{}|/"})


def _expression(text: str) -> str:
    """Return an ECMAScript expression that matches what the glob does."""
    parts: list[str] = []
    position = 0
    for wild in _WILD.finditer(text):
        parts += (text[position : wild.start()].translate(_LITERAL), _MEANING[wild[0]])
        position = wild.end()
    parts.append(text[position:].translate(_LITERAL))
    return "".join(parts)


class Globs:
    """
    Some globs, any of which may match.

    @ivar sources: the globs as they were written.
    """

    __slots__ = ("_literals", "_search", "sources")

    def __init__(self, sources: Iterable[str]) -> None:
        """
        @raise ValueError: a glob is empty, or all are too long together.
        """
        self.sources = tuple(sources)
        if "" in self.sources:
            raise ValueError("an empty glob matches nothing; leave it out")
        wild = [source for source in self.sources if _WILD.search(source)]
        self._literals = frozenset(self.sources).difference(wild)
        try:
            self._search = Regex(f"^(?:{'|'.join(map(_expression, wild))})$").search if wild else None
        except PatternError as error:
            raise ValueError(f"too much for one list of globs: {error}") from error

    def matches(self, text: str) -> bool:
        """Whether one of the globs matches the whole text."""
        if text in self._literals:
            return True
        if self._search is None:
            return False
        try:
            return self._search(text, timeout=GLOB_BUDGET_S) is not None
        except MatchLimitError:
            return False


# A table of ten thousand rules is made anew with each change of one of them.
@lru_cache(maxsize=16384)
def host_globs(hosts: tuple[str, ...]) -> Globs:
    """
    Return the globs of a rule's hosts, for hosts in lower case.

    @raise ValueError: they are too long together.
    """
    return Globs(host.lower() for host in hosts)


def compile_glob(text: str) -> Globs:
    """
    Return one glob, ready to match.

    @raise ValueError: it is empty or too long.
    """
    return Globs((text,))


_NEVER_PUBLIC = re.compile(r"%(?:2f|5c|00|25|2e)|[^\x21-\x7e]|[;\\?#]|/\.\.?(?:/|$)|^[^/]|^$", re.IGNORECASE)
"""
What the origin server may read differently than a glob does: it is not
public, whatever the globs say.  The second half is what no normal path holds,
for those who ask with a path of their own making.
"""


class PublicRoutes:
    """
    The paths of a rule that need no authentication, by method.

    @ivar source: as it was written: globs for every method, or globs by method.
    """

    __slots__ = ("_by_method", "_for_all", "source")

    def __init__(self, source: Iterable[str] | Mapping[str, Iterable[str]]) -> None:
        """
        @raise ValueError: a glob is empty, or all are too long together.
        """
        self.source: tuple[str, ...] | tuple[tuple[str, tuple[str, ...]], ...]
        if isinstance(source, Mapping):
            by_method = {method: tuple(globs) for method, globs in source.items()}
            self.source = tuple(by_method.items())
        else:
            by_method = {ALL_METHODS: tuple(source)}
            self.source = by_method[ALL_METHODS]
        everyone = by_method.pop(ALL_METHODS, ())
        if "GET" in by_method:
            by_method["HEAD"] = by_method["GET"] + by_method.get("HEAD", ())
        self._for_all = Globs(everyone)
        self._by_method = {method: Globs(everyone + globs) for method, globs in by_method.items()}

    def is_public(self, path: str, method: str) -> bool:
        """
        Whether this path needs no authentication with this method.

        @param path: the normal path, as globs see it, without the query.
        """
        return _NEVER_PUBLIC.search(path) is None and self._by_method.get(method, self._for_all).matches(path)

    def to_mapping(self) -> list[str] | dict[str, list[str]]:
        """Return the globs, or the globs by method, as they were written."""
        globs: list[str] = []
        by_method: dict[str, list[str]] = {}
        for one in self.source:
            if isinstance(one, str):
                globs.append(one)
            else:
                by_method[one[0]] = list(one[1])
        return by_method or globs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicRoutes) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"PublicRoutes({self.source!r})"
