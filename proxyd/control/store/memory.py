"""Rules in memory, for one process and until it ends."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from proxyd.control.store.values import Change, Document, RuleSet, StoredRule, in_order
from proxyd.errors import StaleRevision
from proxyd.interfaces import IRuleStore


@implementer(IRuleStore)
class MemoryStore:
    """Loses everything with its process, and is never away."""

    away: str | None = None

    def __init__(self) -> None:
        self._rules: dict[str, StoredRule] = {}
        self._history: list[Change] = []
        self._identity = secrets.token_hex(4)

    def open(self, changed: Callable[[], None]) -> Deferred[None]:
        """There is nothing to open, and nobody else who could change anything."""
        return succeed(None)

    def read(self) -> Deferred[RuleSet]:
        return succeed(RuleSet(len(self._history), deepcopy(in_order(self._rules.values())), self._identity))

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Deferred[Change]:
        if base != len(self._history):
            return fail(StaleRevision(f"the rules are not those of revision {base} any more"))
        kept = deepcopy(replace(change, revision=base + 1, at=time.time()))
        for rule_id, document in writes.items():
            if document is None:
                self._rules.pop(rule_id, None)
            else:
                self._rules[rule_id] = StoredRule(deepcopy(document), kept.revision)
        self._history.append(kept)
        return succeed(deepcopy(kept))

    def history(self, before: int | None, limit: int) -> Deferred[list[Change]]:
        end = len(self._history) if before is None else max(before - 1, 0)
        return succeed(deepcopy(self._history[:end][::-1][:limit]))

    def change(self, revision: int) -> Deferred[Change | None]:
        is_there = 0 < revision <= len(self._history)
        return succeed(deepcopy(self._history[revision - 1]) if is_there else None)

    def close(self) -> Deferred[None]:
        return succeed(None)
