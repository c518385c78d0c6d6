"""
A process that commits to a store in a file until it is killed, or has committed often enough.

C{python -m tests.control.store.committer FILE [COUNT]} prints each revision when it has been acknowledged.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from proxyd.control.store.sqlite import SqliteStore
from proxyd.control.store.values import Change
from proxyd.errors import StaleRevision

IDS = "abcdefgh"


async def commit_once(store: Any) -> int:
    """
    Create, change or delete some rule, from what is there.

    @return: the revision, when it has been acknowledged.
    """
    while True:
        rules = await store.read()
        before = {rule.document["id"]: rule.document for rule in rules.rules}
        rule_id = random.choice(IDS)
        old = before.get(rule_id)
        # Some are larger than a page of the file, and than the whole log usually is.
        new = {"id": rule_id, "order": random.randrange(9), "name": "x" * random.choice((1, 100, 9_000, 300_000))}
        if old is None:
            what = Change("create", "child", rule_id, None, new)
        elif random.random() < 0.5:
            what = Change("update", "child", rule_id, old, new)
        else:
            what = Change("delete", "child", rule_id, old, None)
        try:
            kept = await store.commit(rules.revision, {rule_id: what.after}, what)
        except StaleRevision:
            continue
        return int(kept.revision)


async def main(reactor: Any, path: str, count: str = "1000000") -> None:
    """Commit."""
    store = SqliteStore(reactor, path)
    await store.open(lambda: None)
    for _ in range(int(count)):
        revision = await commit_once(store)
        sys.stdout.write(f"{revision}\n")
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
