"""
The first rule that matches, among ten thousand about as fast as among ten.

Rules are kept in sections: one for each host that rules name exactly or as
C{*.domain}, and one for all others.  In a section one RE2 set says in one pass
over the path which segments of patterns it holds (L{proxyd.rules.candidates});
the rules of these are tried in their order with the ECMAScript engine, whose
answer counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain
from operator import attrgetter
from typing import Final

import re2  # type: ignore[import-untyped]
from corvus_regex_ecma262 import MatchLimitError

from proxyd.errors import MatchTooSlow, NoRuleMatches
from proxyd.rules.globs import host_globs
from proxyd.rules.model import Match, Rule

MATCH_BUDGET_S: Final = 0.05
"""How long all matching of one request may take, in two attempts, seconds."""

_GRAIN_S: Final = 0.012
"""How late the ECMAScript engine may notice that its time is over, seconds: it looks about every 10 ms."""

_ATTEMPT_S: Final = MATCH_BUDGET_S / 2 - _GRAIN_S
"""How long all patterns of one attempt may take, seconds."""

MAX_SET_MEMORY: Final = 256 * 1024 * 1024
"""What one RE2 set may use at most, octets; ten thousand ordinary rules take about 20 MiB."""

MIN_SET_SIZE: Final = 4
"""So few patterns are tried one after another faster than a set answers."""

KNOWN: Final = 1024
"""So many matches are remembered: what is asked again is not tried again."""

_SHORT: Final = 256
"""Characters of a path that is remembered."""

_FEW: Final = 64
"""So many entries are sorted at once; of more, only the first ones are likely to be asked for."""


def _stopped() -> float:
    """A clock that stands: each pattern has its time limit, all together have none."""
    return 0.0


class _Entry:
    """One enabled rule at its place in the table."""

    __slots__ = ("hosts", "index", "rule", "search")

    def __init__(self, index: int, rule: Rule) -> None:
        self.index = index
        self.rule = rule
        self.search = rule.pattern.search
        self.hosts = host_globs(rule.hosts) if rule.hosts else None


_in_order = attrgetter("index")

_Member = tuple[str, list[_Entry]]
"""A segment's expression, and the entries that have it, in their order."""


class _Set:
    """
    One RE2 set, whose members are segments.

    @ivar match: from a path to the members in it; C{None} is that RE2 could not say.
    @ivar entries: of each member, those with that segment, in their order.
    """

    __slots__ = ("entries", "match")

    def __init__(self, members: Sequence[_Member], max_memory: int) -> None:
        """
        @raise re2.error: RE2 has no room for them.
        """
        options = re2.Options()
        options.log_errors = False
        options.encoding = re2.Options.Encoding.LATIN1
        options.never_capture = True
        options.max_mem = max_memory
        expressions = re2.Set.SearchSet(options)
        # RE2 says "nothing matches" also when its automaton has run out of memory.  This first member
        # always matches: without it, an answer is none.
        expressions.Add(b"")
        for expression, _ in members:
            expressions.Add(expression.encode("ascii"))
        expressions.Compile()
        self.match = expressions.Match
        self.entries: list[list[_Entry]] = [[], *(entries for _, entries in members)]


def _sets(members: Sequence[_Member], max_memory: int) -> tuple[list[_Set], list[_Entry]]:
    """Make as few sets as RE2 has room for; also return the entries that fit into none."""
    if not members:
        return [], []
    try:
        return [_Set(members, max_memory)], []
    except re2.error:
        if len(members) == 1:
            return [], members[0][1]
    middle = len(members) // 2
    first, second = _sets(members[:middle], max_memory), _sets(members[middle:], max_memory)
    return first[0] + second[0], first[1] + second[1]


class _Section:
    """Some of the entries, in their order."""

    __slots__ = ("_always", "_entries", "_sets")

    def __init__(self, entries: Sequence[_Entry], max_memory: int) -> None:
        self._entries = entries
        self._sets: list[_Set] = []
        self._always: list[_Entry] = []
        if len(entries) < MIN_SET_SIZE:
            return
        found = [entry.rule.pattern.segments for entry in entries]
        rules_with = Counter(segment for one in found for segment in set(one))
        members: dict[str, list[_Entry]] = {}
        for entry, one in zip(entries, found, strict=True):
            if one:
                best = min(one, key=lambda segment: (rules_with[segment], -segment.length))
                members.setdefault(best.expression, []).append(entry)
            else:
                self._always.append(entry)
        self._sets, refused = _sets(list(members.items()), max_memory)
        self._always = sorted(self._always + refused, key=_in_order)

    def candidates(self, path: str) -> Iterable[_Entry]:
        """Return the entries that may match, in their order."""
        # What RE2 is told holds for ASCII only; no path that came over HTTP is anything else.
        if not self._sets or not path.isascii():
            return self._entries
        octets = path.encode()
        several = [self._always] if self._always else []
        for one in self._sets:
            found = one.match(octets)
            if found is None:
                return self._entries
            for member in found:
                if member:
                    several.append(one.entries[member])
        if len(several) <= 1:
            return several[0] if several else ()
        if sum(map(len, several)) > _FEW:
            return merge(*several, key=_in_order)
        return sorted(chain.from_iterable(several), key=_in_order)


class RuleTable:
    """
    An immutable snapshot of the rules, in matching order.

    @ivar rules: all of them, disabled ones too.
    @ivar by_id: the same by their ids.
    """

    def __init__(self, rules: Iterable[Rule], *, max_set_memory: int = MAX_SET_MEMORY) -> None:
        self.rules = tuple(rules)
        self.by_id = {rule.id: rule for rule in self.rules}
        sections: dict[str, list[_Entry]] = {}
        for index, rule in enumerate(self.rules):
            if rule.enabled:
                entry = _Entry(index, rule)
                for key in dict.fromkeys(map(_section_key, rule.hosts or ("*",))):
                    sections.setdefault(key, []).append(entry)
        general = sections.pop("", [])
        self._known: dict[tuple[str, str | None], Match] = {}
        self._general = _Section(general, max_set_memory)
        self._by_host = {key: _Section(entries, max_set_memory) for key, entries in sections.items()}

    def __len__(self) -> int:
        return len(self.rules)

    def match(self, path: str, host: str | None, now: Callable[[], float] = _stopped) -> Match:
        """
        Return the first enabled rule that takes this request.

        @param path: the normal path, without the query.
        @param host: the request's host without its port.
        @param now: the clock, in seconds.

        @raise NoRuleMatches: there is none.
        @raise MatchTooSlow: the patterns took over half of L{MATCH_BUDGET_S}, twice.
        """
        key = path, host
        known = self._known.get(key)
        if known is not None:
            return known
        name = "" if host is None else host.lower().removesuffix(".")
        try:
            found = self._first(path, name, now)
        except MatchTooSlow:
            # The clock also goes on while another process has the processor: only what takes too long twice does.
            found = self._first(path, name, now)
        if found is None:
            raise NoRuleMatches(f"no rule matches {path}")
        if len(path) <= _SHORT:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[key] = found
        return found

    def _candidates(self, path: str, host: str) -> Iterable[_Entry]:
        """Return the candidates of every section that this host may be in, in the order of all rules."""
        general = self._general.candidates(path)
        by_host = self._by_host
        sections = [section for key in _keys_of(host) if (section := by_host.get(key)) is not None]
        if not sections:
            return general
        found = {entry.index: entry for entry in general}
        for section in sections:
            found.update((entry.index, entry) for entry in section.candidates(path))
        return (found[index] for index in sorted(found))

    def _first(self, path: str, host: str, now: Callable[[], float]) -> Match | None:
        deadline = now() + _ATTEMPT_S
        for entry in self._candidates(path, host) if self._by_host else self._general.candidates(path):
            left = deadline - now()
            if left <= 0:
                raise MatchTooSlow(entry.rule.id)
            if entry.hosts is not None and not (host and entry.hosts.matches(host)):
                continue
            try:
                groups = entry.search(path, timeout=left)
            except MatchLimitError as error:
                raise MatchTooSlow(entry.rule.id) from error
            if groups is not None:
                return Match(entry.rule, groups, path)
        return None

    def is_public(
        self,
        path: str,
        method: str,
        *,
        upgrade: bool = False,
        host: str | None = None,
        now: Callable[[], float] = _stopped,
    ) -> bool:
        """
        Whether this very request needs no authentication: only the publicRoutes of the rule that takes it count.

        @param path: the normal path, without the query.
        @param host: the request's host without its port.
        """
        try:
            rule = self.match(path, host, now=now).rule
        except (NoRuleMatches, MatchTooSlow):
            return False
        if upgrade and not rule.ws:
            return False
        return rule.public_routes is not None and rule.public_routes.is_public(path, method)


def _section_key(glob: str) -> str:
    """Return the host that the glob names, C{.domain} for C{*.domain}, or nothing for a glob that says neither."""
    glob = glob.lower()
    rest = glob[1:] if glob.startswith("*.") else glob
    return "" if "*" in rest or "?" in rest else rest


def _keys_of(host: str) -> Iterator[str]:
    """Return the keys of all sections that may hold rules for this host."""
    yield host
    dot = host.find(".")
    while dot >= 0:
        yield host[dot:]
        dot = host.find(".", dot + 1)
