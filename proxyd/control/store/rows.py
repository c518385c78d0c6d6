"""A store's rows, in the words that every database knows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from proxyd.control.store.values import Change, Document, RuleSet, StoredRule, in_order
from proxyd.errors import StaleRevision, StoreUnusable

Execute = Callable[[str, Sequence[Any]], Any]
"""Makes a statement, whose values are at its question marks; returns a cursor of the DB-API."""

Migrations = Sequence[Sequence[str]]
"""
The statements that make tables of one version of those of the version before; the first ones of nothing.

What has once been released stays as it is: a change is one more step at the end.
"""

UNREADABLE_SIZE: Final = 200
"""Characters that are shown of a document that cannot be read."""


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

    def __init__(self, execute: Execute, migrations: Migrations, prefix: str = "") -> None:
        """
        @param migrations: all that this program knows.
        @param prefix: what the tables' names begin with.
        """
        self._execute = execute
        self._migrations = migrations
        self._rules = f"{prefix}rules"
        self._history = f"{prefix}history"
        self._meta = f"{prefix}meta"

    def version(self) -> int:
        """
        @return: that of the tables, which must be there.
        """
        row = self._execute(f"SELECT version FROM {self._meta}", ()).fetchone()
        if row is None or not isinstance(row[0], int):
            raise StoreUnusable(f"its table {self._meta} does not say of which version the tables are")
        return row[0]

    def check(self) -> None:
        """
        See whether these are still tables that this program knows.

        @raise StoreUnusable: a newer one has migrated them meanwhile.
        """
        missing(self._migrations, self.version())

    def migrate(self, version: int) -> None:
        """Make the tables those of the latest version."""
        for step in missing(self._migrations, version):
            for statement in step:
                self._execute(statement, ())
        self._execute(f"UPDATE {self._meta} SET version = ?", (len(self._migrations),))

    def read(self) -> RuleSet:
        """
        @return: all rules, also those whose rows somebody has edited until nobody can read them.

        @raise StoreUnusable: the tables are not those of this program any more.
        """
        # One statement: the revision is that of these rules, whoever writes meanwhile.
        rows = self._execute(
            "SELECT m.version, m.revision, m.identity, r.id, r.place, r.document, r.revision"
            f" FROM {self._meta} m LEFT JOIN {self._rules} r ON 1 = 1",
            (),
        ).fetchall()
        if not rows or not isinstance(rows[0][0], int) or not isinstance(rows[0][1], int):
            raise StoreUnusable(f"its table {self._meta} does not say of which version and revision the tables are")
        version, revision, identity = rows[0][:3]
        missing(self._migrations, version)
        rules = [
            StoredRule(_document(rule_id, place, document), _number(at))
            for *_, rule_id, place, document, at in rows
            if rule_id is not None
        ]
        # Not by the database: what it takes for the order of places is not, where one is no number.
        return RuleSet(revision, in_order(rules), _text(identity))

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Change:
        """
        Write one change down.

        @raise StaleRevision: it was not made from what is there.
        @raise StoreUnusable: the tables are not those of this program any more.
        """
        kept = replace(change, revision=base + 1)
        # First, for this is also what locks: nobody else comes as far until the transaction is over.
        moved = self._execute(
            f"UPDATE {self._meta} SET revision = ? WHERE revision = ? AND version <= ?",
            (kept.revision, base, len(self._migrations)),
        ).rowcount
        if not moved:
            self.check()
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
            Change(
                *(_text(action), _text(who), None if rule_id is None else _text(rule_id)),
                *(_json(before), _json(after), revision, _seconds(at)),
            )
            for action, who, rule_id, before, after, revision, at in rows.fetchall()
        ]


# What somebody can have written into a row: not all databases keep to the types of their columns.


def _document(rule_id: Any, place: Any, document: Any) -> Document:
    """A rule's document.  Its columns are what the database goes by, so they go before what it says itself."""
    columns = {"id": _text(rule_id), "order": _number(place)}
    read = _json(document)
    return {**(read if isinstance(read, dict) else {"unreadable": _text(document)[:UNREADABLE_SIZE]}), **columns}


def _json(text: Any) -> Any:
    """What a text says; C{None} if it is no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, TypeError, RecursionError):
        return None


def _refuse(constant: str) -> Any:
    # Python would read and write it, and no browser could read what the control API answers.
    raise ValueError(f"{constant} is no JSON")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
