"""A store's rows, in the words that every database knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxyd.control.store.values import Change, Document, RuleSet, StoredRule
from proxyd.errors import StaleRevision, StoreUnusable

Execute = Callable[[str, Sequence[Any]], Any]
"""Makes a statement, whose values are at its question marks; returns a cursor of the DB-API."""

Migrations = Sequence[Sequence[str]]
"""
The statements that make tables of one version of those of the version before; the first ones of nothing.

What has once been released stays as it is: a change is one more step at the end.
"""


def missing(migrations: Migrations, version: int) -> Migrations:
    """
    @param version: that of the tables, 0 for none.

    @return: the steps that are still to be made.

    @raise StoreUnusable: the tables are newer than this program.
    """
    if version > len(migrations):
        raise StoreUnusable(
            f"its tables are of version {version}, and this proxyd knows versions up to {len(migrations)} only"
        )
    return migrations[version:]


class Rows:
    """
    What is asked of the tables C{rules}, C{history} and C{meta}, by one connection.

    Every method that writes wants to be in a transaction.
    """

    def __init__(self, execute: Execute, prefix: str = "") -> None:
        """
        @param prefix: what the tables' names begin with.
        """
        self._execute = execute
        self._rules = f"{prefix}rules"
        self._history = f"{prefix}history"
        self._meta = f"{prefix}meta"

    def version(self) -> int:
        """
        @return: that of the tables, which must be there.
        """
        (version,) = self._execute(f"SELECT version FROM {self._meta}", ()).fetchone()
        return int(version)

    def migrate(self, migrations: Migrations, version: int) -> None:
        """Make the tables those of the latest version."""
        for step in missing(migrations, version):
            for statement in step:
                self._execute(statement, ())
        self._execute(f"UPDATE {self._meta} SET version = ?", (len(migrations),))

    def read(self) -> RuleSet:
        """
        @return: all rules.
        """
        # One statement: the revision is that of these rules, whoever writes meanwhile.
        rows = self._execute(
            f"SELECT m.revision, r.document, r.revision FROM {self._meta} m LEFT JOIN {self._rules} r ON 1 = 1"
            " ORDER BY r.place, r.id",
            (),
        ).fetchall()
        rules = (StoredRule(json.loads(document), at) for _, document, at in rows if document is not None)
        return RuleSet(rows[0][0], tuple(rules))

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Change:
        """
        Write one change down.

        @raise StaleRevision: it was not made from what is there.
        """
        kept = replace(change, revision=base + 1)
        # First, for this is also what locks: nobody else comes as far until the transaction is over.
        moved = self._execute(
            f"UPDATE {self._meta} SET revision = ? WHERE revision = ?", (kept.revision, base)
        ).rowcount
        if not moved:
            raise StaleRevision(f"the rules are not those of revision {base} any more")
        for rule_id, document in writes.items():
            if document is None:
                self._execute(f"DELETE FROM {self._rules} WHERE id = ?", (rule_id,))
            else:
                self._execute(
                    f"INSERT INTO {self._rules} (id, place, document, revision) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET"
                    " place = excluded.place, document = excluded.document, revision = excluded.revision",
                    (rule_id, document["order"], json.dumps(document), kept.revision),
                )
        self._execute(
            f"INSERT INTO {self._history} (revision, at, who, action, rule_id, before, after)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(kept.revision, kept.at, kept.who, kept.action, kept.rule_id),
                *(json.dumps(kept.before), json.dumps(kept.after)),
            ),
        )
        return kept

    def history(self, before: int | None, limit: int) -> list[Change]:
        """
        @return: the latest changes, first the last.
        """
        where, values = ("", ()) if before is None else ("WHERE revision < ?", (before,))
        return self._changes(f"{where} ORDER BY revision DESC LIMIT ?", (*values, limit))

    def change(self, revision: int) -> Change | None:
        """
        @return: one change, if there was such a one.
        """
        return next(iter(self._changes("WHERE revision = ?", (revision,))), None)

    def _changes(self, which: str, values: Sequence[Any]) -> list[Change]:
        rows = self._execute(
            f"SELECT action, who, rule_id, before, after, revision, at FROM {self._history} {which}", values
        )
        return [
            Change(action, who, rule_id, json.loads(before), json.loads(after), revision, at)
            for action, who, rule_id, before, after, revision, at in rows.fetchall()
        ]
