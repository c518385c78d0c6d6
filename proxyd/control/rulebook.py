"""
The rules that change at run time: read from their store, changed there, put in force.

Every change is made from the rules as they are, kept by the store, and put in
force, in this order; when another process was first, it is made anew from what
that left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from proxyd.control.permissions import Permissions
from proxyd.control.store.values import Change, Document, RuleSet, StoredRule, in_order
from proxyd.errors import ConfigError, StaleRevision, StoreAway
from proxyd.interfaces import IRuleStore
from proxyd.rules.codec import rule_from_mapping
from proxyd.rules.model import Rule

log = Logger()


@dataclass(frozen=True, slots=True)
class DynamicRule:
    """
    A rule of the store.

    @ivar rule: what it says; C{None} if it cannot be in force.
    @ivar problem: why not; empty otherwise.
    """

    stored: StoredRule
    rule: Rule | None
    problem: str = ""

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.stored.document["id"])


@dataclass(frozen=True, slots=True)
class Edit:
    """
    One change that is to be made.

    @ivar writes: from ids to new documents, C{None} to delete.
    @ivar change: what the history will say of it.
    """

    writes: Mapping[str, Document | None]
    change: Change


class Rulebook:
    """
    All dynamic rules.

    @ivar store: where they are kept.
    @ivar rule_set: the rules as they are in force.
    @ivar rules: the same, read.
    """

    def __init__(
        self,
        reactor: Any,
        store: IRuleStore,
        permissions: Permissions,
        folder: str,
        put_in_force: Callable[[], Deferred[None]],
    ) -> None:
        """
        @param folder: where the names of files begin.
        @param put_in_force: has the next request served by L{rules}; fires when that is so.
        """
        self.store = store
        self.rule_set = RuleSet()
        self.rules: tuple[DynamicRule, ...] = ()
        self._reactor = reactor
        self._permissions = permissions
        self._folder = folder
        self._put_in_force = put_in_force
        self._changing = DeferredLock()
        self._is_read = False

    @property
    def is_ready(self) -> bool:
        """Whether the store has been read, and can be reached."""
        return self._is_read and self.store.away is None

    async def open(self) -> None:
        """
        Begin: open the store and put its rules in force.

        @raise proxyd.errors.StoreUnusable: this can never be the store.
        """
        await self.store.open(self._store_changed)
        await self._look()

    def close(self) -> Deferred[None]:
        """Let go of the store."""
        closing: Deferred[None] = self.store.close()
        return closing

    async def change(self, make: Callable[[RuleSet], Edit]) -> Change:
        """
        Make one change, keep it and put it in force; what changes nothing is not kept.

        @param make: from the rules as they are; called again when another change came first.

        @raise StoreAway: nothing was changed.
        """
        await self._changing.acquire()
        try:
            while True:
                base = self.rule_set
                if not self._is_read:
                    raise StoreAway(self.store.away or "the rules have not been read yet")
                edit = make(base)
                if edit.change.before == edit.change.after:
                    return edit.change
                try:
                    change: Change = await self.store.commit(base.revision, edit.writes, edit.change)
                except StaleRevision:
                    await self._read()
                else:
                    await self._take(_changed(base, edit.writes, change.revision))
                    what = "all rules" if change.rule_id is None else f"rule {change.rule_id}"
                    log.info("{who}: {action} {what}", who=change.who, action=change.action, what=what)
                    return change
        finally:
            self._changing.release()

    # What others change

    async def follow(self, rule_set: RuleSet) -> None:
        """Put in force what another process keeps."""
        await self._changing.acquire()
        try:
            await self._take(rule_set)
        finally:
            self._changing.release()

    def _store_changed(self) -> None:
        Deferred.fromCoroutine(self._look()).addErrback(
            lambda failure: log.failure("the rules could not be read from their store", failure)
        )

    async def _look(self) -> None:
        """See whether the store has other rules than those in force."""
        await self._changing.acquire()
        try:
            await self._read()
        except StoreAway:
            pass  # it has said so in the log, and says C{changed} when it is back
        finally:
            self._changing.release()

    async def _read(self) -> None:
        rule_set: RuleSet = await self.store.read()
        first, self._is_read = not self._is_read, True
        # Not by the revision alone: a backup that was put back may have the same one.
        if first or rule_set != self.rule_set:
            await self._take(rule_set)

    async def _take(self, rule_set: RuleSet) -> None:
        known = {one.id: one for one in self.rules}
        if sum(_known(known, stored) is None for stored in rule_set.rules) > _FEW:
            # Thousands of patterns take a second.
            rules = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), self._compiled, rule_set, known
            )
        else:
            rules = self._compiled(rule_set, known)
        self.rule_set, self.rules = rule_set, rules
        await self._put_in_force()

    def _compiled(self, rule_set: RuleSet, known: Mapping[str, DynamicRule]) -> tuple[DynamicRule, ...]:
        compiled = []
        for stored in rule_set.rules:
            before = _known(known, stored)
            compiled.append(self._dynamic(stored) if before is None else replace(before, stored=stored))
        return tuple(compiled)

    def _dynamic(self, stored: StoredRule) -> DynamicRule:
        try:
            rule = self.compile(stored.document)
        except ConfigError as error:
            problem = str(error)
        else:
            # Another node may allow more than this one.
            problem = "; ".join(f"{field}: {text}" for field, text in self._permissions.refusals(rule))
            if not problem:
                return DynamicRule(stored, rule)
        log.error("rule {id} of the store is not in force: {problem}", id=stored.document["id"], problem=problem)
        return DynamicRule(stored, None, problem)

    def compile(self, document: Document) -> Rule:
        """
        The rule of a document.

        @raise ConfigError: everything that is wrong with it.
        """
        return replace(rule_from_mapping(dict(document), folder=self._folder), dynamic=True)


_FEW = 50
"""So many rules are read without a thread: a fifth of a millisecond each."""


def _known(known: Mapping[str, DynamicRule], stored: StoredRule) -> DynamicRule | None:
    """The rule as it has been read already, if its document is the same."""
    found = known.get(str(stored.document["id"]))
    if found is not None and (found.stored is stored or found.stored.document == stored.document):
        return found
    return None


def _changed(base: RuleSet, writes: Mapping[str, Document | None], revision: int) -> RuleSet:
    """The rules after a change."""
    rules = {str(one.document["id"]): one for one in base.rules}
    for rule_id, document in writes.items():
        if document is None:
            del rules[rule_id]
        else:
            rules[rule_id] = StoredRule(document, revision)
    return RuleSet(revision, in_order(rules.values()), base.identity)
