"""What every store does, whatever it keeps the rules in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface.verify import verifyObject

from proxyd.control.store.values import Change, RuleSet, StoredRule
from proxyd.errors import StaleRevision
from proxyd.interfaces import IRuleStore

PATIENCE_S = 30.0
"""Seconds for what has to happen at some time."""


def document(rule_id: str, order: int = 0, **more: Any) -> dict[str, Any]:
    """A rule."""
    return {"id": rule_id, "order": order, **more}


def change(action: str = "create", rule_id: str | None = "a", before: Any = None, after: Any = None) -> Change:
    """A change that has not been kept yet."""
    return Change(action, "ops", rule_id, before, after)


def replayed(changes: Iterable[Change]) -> dict[str, Any]:
    """The rules that a history, from its beginning, leads to."""
    rules: dict[str, Any] = {}
    for one in changes:
        assert one.rule_id is not None
        if one.after is None:
            del rules[one.rule_id]
        else:
            rules[one.rule_id] = one.after
    return rules


def documents(rules: RuleSet) -> dict[str, Any]:
    """The rules of a store by their ids."""
    return {rule.document["id"]: rule.document for rule in rules.rules}


class Changes:
    """What a store calls when something has changed."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        for one in list(self._waiting):
            is_so, waiting = one
            if is_so():
                self._waiting.remove(one)
                waiting.callback(None)

    def until(self, is_so: Callable[[], bool]) -> Deferred[None]:
        """
        @return: fires with the first call after which, or at once if already, it is so.
        """
        waiting: Deferred[None] = Deferred()
        waiting.addTimeout(PATIENCE_S, self._reactor)
        if is_so():
            waiting.callback(None)
        else:
            self._waiting.append((is_so, waiting))
        return waiting

    def next(self) -> Deferred[None]:
        """
        @return: fires with the next call.
        """
        before = self.count
        return self.until(lambda: self.count > before)


class Contract:
    """
    The tests that every store passes, to be mixed into a C{TestCase}.

    @ivar assertEqual: and other methods, the C{TestCase}'s.
    """

    assertEqual: Any
    assertIsNone: Any
    assertTrue: Any
    assertFailure: Any

    async def opened(self) -> Any:
        """
        @return: an empty store that is open, and is closed after the test.
        """
        raise NotImplementedError

    async def anew(self) -> Any:
        """
        @return: the same, and another store than any before.
        """
        raise NotImplementedError

    async def kept(self, store: Any) -> tuple[int, list[StoredRule]]:
        """
        @return: the revision and the rules of a store.
        """
        rules = await store.read()
        return rules.revision, list(rules.rules)

    async def test_interface(self) -> None:
        """It is a store."""
        self.assertTrue(verifyObject(IRuleStore, await self.opened()))

    async def test_empty(self) -> None:
        """At the beginning there is nothing."""
        store = await self.opened()
        self.assertIsNone(store.away)
        rules = await store.read()
        self.assertEqual(rules, RuleSet(0, (), rules.identity))
        self.assertEqual(await store.history(None, 10), [])
        self.assertIsNone(await store.change(0))
        self.assertIsNone(await store.change(1))

    async def test_commit(self) -> None:
        """What has been committed is there, with its number and its time."""
        store = await self.opened()
        new = document("a", 3, name="ä €\0\ud800 \N{PILE OF POO}", target="http://h/", headers={"X": None}, n=1.5)
        began = time.time()
        kept = await store.commit(0, {"a": new}, change(after=new))
        self.assertTrue(began <= kept.at <= time.time())
        self.assertEqual(kept, Change("create", "ops", "a", None, new, 1, kept.at))
        self.assertEqual(await self.kept(store), (1, [StoredRule(new, 1)]))
        self.assertEqual(await store.change(1), kept)

    async def test_update_and_delete(self) -> None:
        """A rule has the revision of its last change; one that is deleted is not there."""
        store = await self.opened()
        one, two = document("a", 1), document("b", 2)
        await store.commit(0, {"a": one}, change(after=one))
        await store.commit(1, {"b": two}, change(rule_id="b", after=two))
        changed = document("a", 1, enabled=False)
        await store.commit(2, {"a": changed}, change("toggle", "a", one, changed))
        self.assertEqual(await self.kept(store), (3, [StoredRule(changed, 3), StoredRule(two, 2)]))
        await store.commit(3, {"a": None}, change("delete", "a", changed, None))
        self.assertEqual(await self.kept(store), (4, [StoredRule(two, 2)]))
        self.assertEqual([one.action for one in await store.history(None, 9)], ["delete", "toggle", "create", "create"])

    async def test_order(self) -> None:
        """By order as a number, then by id, octet by octet."""
        store = await self.opened()
        twos = [(rule_id, 2) for rule_id in ("B", "_", "a", "a-1", "a.", "a0", "b")]
        ids = [("z", -1), *twos, ("0", 10), ("c", 2**40)]
        writes = {rule_id: document(rule_id, order) for rule_id, order in reversed(ids)}
        names = [rule_id for rule_id, _ in ids]
        await store.commit(0, writes, change("reorder", None, names[::-1], names))
        self.assertEqual([rule.document["id"] for rule in (await store.read()).rules], names)
        (kept,) = await store.history(None, 1)
        self.assertEqual((kept.rule_id, kept.before, kept.after), (None, names[::-1], names))

    async def test_stale(self) -> None:
        """A change that was made from something else is refused, and nothing of it is kept."""
        store = await self.opened()
        await store.commit(0, {"a": document("a")}, change())
        before = await store.read()
        for base in (0, 2, -1):
            await self.assertFailure(store.commit(base, {"a": None, "b": document("b")}, change()), StaleRevision)
        self.assertEqual(await store.read(), before)
        self.assertEqual(len(await store.history(None, 10)), 1)
        self.assertIsNone(store.away)

    async def test_history(self) -> None:
        """The latest first, page by page."""
        store = await self.opened()
        for base in range(7):
            await store.commit(base, {}, change(rule_id=str(base)))

        async def revisions(before: int | None, limit: int) -> list[int]:
            return [one.revision for one in await store.history(before, limit)]

        self.assertEqual(await revisions(None, 3), [7, 6, 5])
        self.assertEqual(await revisions(5, 3), [4, 3, 2])
        self.assertEqual(await revisions(2, 3), [1])
        self.assertEqual(await revisions(1, 3), [])
        self.assertEqual(await revisions(0, 3), [])
        self.assertEqual(await revisions(100, 100), [7, 6, 5, 4, 3, 2, 1])

    async def test_values_are_its_own(self) -> None:
        """What a caller does to a document afterwards changes nothing that is kept."""
        store = await self.opened()
        new = document("a", headers={"X": "1"})
        kept = await store.commit(0, {"a": new}, change(after=new))
        new["headers"]["X"] = "2"
        (await store.read()).rules[0].document["headers"]["X"] = "3"
        (await store.change(1)).after["headers"]["X"] = "4"
        self.assertEqual((await store.read()).rules[0].document["headers"], {"X": "1"})
        self.assertEqual((await store.change(1)).after["headers"], {"X": "1"})
        self.assertEqual(kept.revision, 1)

    async def test_many(self) -> None:
        """A thousand rules in one change, and a large one."""
        store = await self.opened()
        writes = {f"r{number}": document(f"r{number}", number) for number in range(1000)}
        large = document("large", 1000, name="x" * 1_000_000)
        await store.commit(0, {**writes, "large": large}, change())
        rules = (await store.read()).rules
        self.assertEqual([rule.document for rule in rules], [*writes.values(), large])

    async def test_identity(self) -> None:
        """It stays, whatever is committed; a store that is made anew has another one, though its revision is 0, too."""
        store = await self.opened()
        identity = (await store.read()).identity
        self.assertTrue(re.fullmatch("[0-9a-f]{8}", identity), identity)
        await store.commit(0, {"a": document("a")}, change())
        self.assertEqual((await store.read()).identity, identity)
        self.assertNotEqual((await (await self.anew()).read()).identity, identity)

    async def test_closed_twice(self) -> None:
        """What is closed can be closed again."""
        store = await self.opened()
        await store.close()
        await store.close()
