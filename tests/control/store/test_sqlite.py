"""L{proxyd.control.store.sqlite}: the contract, other processes, and what can happen to a file."""

from __future__ import annotations

import random
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from proxyd.control.store import sqlite
from proxyd.control.store.sqlite import MIGRATIONS, SqliteStore
from proxyd.control.store.values import Change
from proxyd.errors import StaleRevision, StoreAway, StoreUnusable
from tests.control.store.committer import commit_once
from tests.control.store.contract import Changes, Contract, change, document, documents, replayed
from tests.support.folders import folder_for

ROOT = Path(__file__).parents[3]

NEXT = (*MIGRATIONS, ("ALTER TABLE rules ADD COLUMN note TEXT DEFAULT 'none'",))
"""What a later version could add."""


class Files(TestCase):
    """A file, and stores in it."""

    timeout = 120

    def setUp(self) -> None:
        self.path = folder_for(self) / "rules.db"

    def store(self, **options: Any) -> tuple[SqliteStore, Changes]:
        """A store that is not open yet, and what it calls."""
        from twisted.internet import reactor

        store = SqliteStore(reactor, str(self.path), **options)
        self.addCleanup(store.close)
        return store, Changes(reactor)

    async def opened(self, **options: Any) -> Any:
        """A store that is open."""
        return (await self.open(**options))[0]

    async def open(self, **options: Any) -> tuple[SqliteStore, Changes]:
        """The same, and what it calls."""
        store, changes = self.store(**options)
        await store.open(changes)
        return store, changes

    def other(self) -> Any:
        """A connection of somebody else's."""
        return closing(sqlite3.connect(self.path, isolation_level=None))


class SqliteContractTests(Files, Contract):
    """The contract, in a file."""

    async def anew(self) -> Any:
        self.path = self.path.parent / "other.db"
        return await self.opened()


class FileTests(Files):
    """What is particular to a file."""

    async def test_mode(self) -> None:
        """The file, its log and the log's index are for nobody else."""
        store = await self.opened()
        await store.commit(0, {"a": document("a")}, change())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.path.parent.iterdir()}
        self.assertEqual(modes, dict.fromkeys(["rules.db", "rules.db-wal", "rules.db-shm"], 0o600))

    async def test_durable(self) -> None:
        """A commit is on the disk before it is answered."""
        store = await self.opened()
        pragmas = [
            await store._thread.run(lambda name=name: store._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("journal_mode", "synchronous")
        ]
        self.assertEqual(pragmas, ["wal", 2])

    async def test_kept(self) -> None:
        """Another store in the same file finds it all."""
        store = await self.opened()
        kept = await store.commit(0, {"a": document("a")}, change())
        rules = await store.read()
        await store.close()
        again = await self.opened()
        self.assertEqual((await again.read(), await again.history(None, 9)), (rules, [kept]))

    async def test_close(self) -> None:
        """What was asked for before is done, nothing is done afterwards, and the thread is over."""
        store = await self.opened()
        committed, closed = store.commit(0, {}, change()), store.close()
        await self.assertFailure(store.read(), StoreAway)
        await closed
        self.assertEqual((await committed).revision, 1)
        store._thread._thread.join(10)
        self.assertFalse(store._thread._thread.is_alive())
        self.assertFalse(store._polling.running)

    async def test_not_open(self) -> None:
        """A store that has not been opened is away, and can be closed."""
        store, _ = self.store()
        await self.assertFailure(store.read(), StoreAway)
        await store.close()
        self.assertFalse(self.path.exists())

    async def test_closed_while_it_opens(self) -> None:
        """Nothing goes on."""
        store, changes = self.store()
        opening = store.open(changes)
        await store.close()
        await opening
        self.assertFalse(store._polling.running)

    async def test_errors_of_who_asks(self) -> None:
        """A value that no database can have is not the store's fault."""
        store, changes = await self.open()
        await self.assertFailure(store.commit(0, {"a": document("a", 2**63)}, change()), OverflowError)
        await self.assertFailure(store.commit(0, {None: document("a")}, change()), sqlite3.IntegrityError)
        self.assertEqual((store.away, changes.count, (await store.read()).revision), (None, 0, 0))


class OthersTests(Files):
    """Several who use one file."""

    async def test_notice_each_other(self) -> None:
        """What one commits, the other is told of."""
        one, of_one = await self.open()
        two, of_two = await self.open()
        for base, (here, there, heard) in enumerate([(one, two, of_two), (two, one, of_one), (one, two, of_two)]):
            told = heard.next()
            await here.commit(base, {"a": document("a", base)}, change())
            await told
            self.assertEqual((await there.read()).rules[0].document["order"], base)

    async def test_own_changes(self) -> None:
        """One's own commits are no news."""
        store, changes = await self.open()
        for base in range(3):
            await store.commit(base, {}, change())
            await store._poll()
        self.assertEqual(changes.count, 0)

    async def test_open_at_once(self) -> None:
        """Many that open one new file make it once, and none of them is away."""
        for _ in range(10):
            stores = [self.store()[0] for _ in range(6)]
            await gatherResults([store.open(lambda: None) for store in stores])
            self.assertEqual([store.away for store in stores], [None] * 6)
            await gatherResults([store.close() for store in stores])
            self.path.unlink()

    async def test_one_that_does_not_wait(self) -> None:
        """The store waits for others where SQLite does not."""
        self.patch(sqlite, "BUSY_S", sqlite.BUSY_S)
        with closing(sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)) as reader:
            reader.execute("CREATE TABLE theirs (a)")
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM theirs").fetchall()
            store, changes = self.store()
            attempts: list[None] = []

            def connect() -> sqlite3.Connection:
                sqlite.BUSY_S = 0.0
                attempts.append(None)
                if len(attempts) == 3:
                    reader.execute("COMMIT")
                return SqliteStore._connect(store)

            self.patch(store, "_connect", connect)
            await store.open(changes)
        self.assertEqual((store.away, len(attempts)), (None, 3))

    async def test_at_once(self) -> None:
        """Of many that commit at the same time nobody's change is lost, and nobody's overwrites another's."""
        stores = [await self.opened() for _ in range(4)]

        async def commit(store: Any) -> list[int]:
            return [await commit_once(store) for _ in range(25)]

        from twisted.internet.defer import ensureDeferred

        revisions = await gatherResults([ensureDeferred(commit(store)) for store in stores])
        self.assertEqual(sorted(sum(revisions, [])), list(range(1, 101)))
        await whole(self, stores[0], 100)

    async def test_processes(self) -> None:
        """The same with processes, which start with no file."""
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.control.store.committer", self.path, "30"],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(3)
        ]
        printed = [child.communicate(timeout=60)[0] for child in children]
        self.assertEqual([child.returncode for child in children], [0, 0, 0])
        self.assertEqual(sorted(int(line) for line in "".join(printed).split()), list(range(1, 91)))
        await whole(self, await self.opened(), 90)


async def whole(test: TestCase, store: Any, revision: int) -> None:
    """The history is complete, and the rules are what it leads to."""
    rules = await store.read()
    history = (await store.history(None, 1_000_000))[::-1]
    test.assertEqual(rules.revision, revision)
    test.assertEqual([one.revision for one in history], list(range(1, revision + 1)))
    test.assertEqual(documents(rules), replayed(history))


class TroubleTests(Files):
    """A file that cannot be read or written for a while."""

    async def trouble(self, store: SqliteStore, changes: Changes, text: str) -> None:
        """A commit fails; then the store is back by itself, and it is as it was."""
        before = changes.count
        failure = await self.assertFailure(store.commit(1, {"a": None}, change()), StoreAway)
        self.assertIn(text, str(failure))
        self.assertEqual((store.away, changes.count), (str(failure), before + 1))

    async def back(self, store: SqliteStore, changes: Changes) -> None:
        """The store comes back by itself, and is as it was."""
        await changes.until(lambda: store.away is None)
        self.assertEqual(list(documents(await store.read())), ["a"])
        self.assertEqual((await store.commit(1, {}, change())).revision, 2)

    async def with_one(self) -> tuple[SqliteStore, Changes]:
        """A store with one rule."""
        self.patch(sqlite, "BUSY_S", 0.1)
        store, changes = await self.open()
        await store.commit(0, {"a": document("a")}, change())
        return store, changes

    async def execute(self, store: Any, statement: str) -> None:
        """Do something to the store's own connection."""
        await store._thread.run(lambda: store._connection.execute(statement).fetchall())

    async def test_locked(self) -> None:
        """Somebody else writes for too long."""
        store, changes = await self.with_one()
        with self.other() as other:
            other.execute("BEGIN IMMEDIATE")
            await self.trouble(store, changes, "locked")
        await self.back(store, changes)

    async def test_full(self) -> None:
        """There is no room."""
        store, changes = await self.with_one()
        await self.execute(store, "PRAGMA max_page_count = 1")
        large = document("b", name="x" * 100_000)
        failure = await self.assertFailure(store.commit(1, {"b": large}, change()), StoreAway)
        self.assertIn("full", str(failure))
        self.assertEqual(store.away, str(failure))
        await self.back(store, changes)

    async def test_read_only(self) -> None:
        """It may not be written to."""
        store, changes = await self.with_one()
        await self.execute(store, "PRAGMA query_only = ON")
        await self.trouble(store, changes, "readonly")
        await self.back(store, changes)

    async def test_io_error(self) -> None:
        """The system refuses to write any more."""
        store, changes = await self.with_one()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            await self.trouble(store, changes, "I/O error")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await self.back(store, changes)

    async def test_locked_from_the_beginning(self) -> None:
        """A store that cannot be opened yet is away, and comes when it can."""
        self.patch(sqlite, "BUSY_S", 0.1)
        with self.other() as other:
            other.execute("PRAGMA journal_mode = DELETE")
            other.execute("BEGIN EXCLUSIVE")
            store, changes = await self.open()
            self.assertIn("locked", str(store.away))
            self.assertEqual(changes.count, 1)
        await changes.until(lambda: store.away is None)
        self.assertEqual((await store.read()).revision, 0)

    async def test_damaged_meanwhile(self) -> None:
        """A file that is damaged while it is open is away, for it may be replaced."""
        store = await self.opened()
        await store.commit(0, {f"r{number}": document(f"r{number}", name="x" * 3000) for number in range(50)}, change())
        await store.close()
        size = self.path.stat().st_size
        with self.path.open("r+b") as file:
            file.seek(20 * 4096)
            file.write(b"\xff" * (size - 20 * 4096))
        again = await self.opened()
        failure = await self.assertFailure(again.read(), StoreAway)
        self.assertIn("malformed", str(failure))
        self.assertEqual(again.away, str(failure))


class ReplacedTests(Files):
    """A file that is moved, removed or replaced while it is open."""

    async def with_rules(self, name: str, *ids: str) -> Path:
        """Make a file, with a rule and a revision for each id."""
        path, self.path = self.path, self.path.parent / name
        store = await self.opened()
        await self.fill(store, ids)
        await store.close()
        made, self.path = self.path, path
        return made

    async def fill(self, store: Any, ids: Iterable[str]) -> None:
        """Commit a rule for each id."""
        for base, rule_id in enumerate(ids):
            await store.commit(base, {rule_id: document(rule_id)}, change(rule_id=rule_id))

    def kept_in(self, path: Path) -> list[str]:
        """What is in a file that nobody uses any more, without a log."""
        self.assertFalse(path.with_name(f"{path.name}-wal").exists())
        with closing(sqlite3.connect(path)) as connection:
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            return [rule_id for (rule_id,) in connection.execute("SELECT id FROM rules ORDER BY id")]

    async def test_moved(self) -> None:
        """A file that has gone takes no changes: they fail, and no empty store is made; when it is back, so is all."""
        store, changes = await self.open()
        await self.fill(store, "ab")
        elsewhere = self.path.parent / "elsewhere.db"
        self.path.rename(elsewhere)
        failure = await self.assertFailure(store.commit(2, {"c": document("c")}, change()), StoreAway)
        self.assertEqual(str(failure), f"{self.path}: the file that was there is gone")
        self.assertEqual((store.away, changes.count), (str(failure), 1))
        for asked in (store.read(), store.history(None, 1), store.change(1), store.commit(2, {}, change())):
            await self.assertFailure(asked, StoreAway)
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["elsewhere.db"])
        self.assertEqual(self.kept_in(elsewhere), ["a", "b"])
        elsewhere.rename(self.path)
        await changes.until(lambda: store.away is None)
        self.assertEqual(list(documents(await store.read())), ["a", "b"])
        self.assertEqual((await store.commit(2, {}, change())).revision, 3)

    async def test_removed(self) -> None:
        """It is noticed though nobody asks; an empty file in its place is not a store either."""
        store, changes = await self.open()
        await self.fill(store, "a")
        self.path.unlink()
        await changes.until(lambda: store.away is not None)
        self.assertIn("gone", str(store.away))
        self.path.touch()
        await changes.until(lambda: "there are no rules in this one" in str(store.away))
        self.assertEqual(self.path.stat().st_size, 0)
        (await self.with_rules("restored.db", "b")).rename(self.path)
        await changes.until(lambda: store.away is None)
        self.assertEqual(list(documents(await store.read())), ["b"])

    async def test_replaced(self) -> None:
        """What is there now is read, not mixed with what was, and is what is written to."""
        restored = await self.with_rules("restored.db", "x", "y")
        store, changes = await self.open()
        await self.fill(store, "ab")
        self.path.rename(self.path.parent / "old.db")
        restored.rename(self.path)
        told = changes.next()
        # Made from the same revision, of other rules.
        await self.assertFailure(store.commit(2, {"c": document("c")}, change()), StaleRevision)
        await told
        self.assertIsNone(store.away)
        self.assertEqual(list(documents(await store.read())), ["x", "y"])
        await store.commit(2, {"z": document("z")}, change())
        await store.close()
        self.assertEqual(self.kept_in(self.path), ["x", "y", "z"])
        self.assertEqual(self.kept_in(self.path.parent / "old.db"), ["a", "b"])

    async def test_replaced_while_nobody_asks(self) -> None:
        """The store says that there are other rules."""
        restored = await self.with_rules("restored.db", "x")
        store, changes = await self.open()
        restored.rename(self.path)
        await changes.next()
        self.assertEqual(list(documents(await store.read())), ["x"])

    async def test_replaced_under_several(self) -> None:
        """All who have it open go over to the same file and the same log."""
        restored = await self.with_rules("restored.db", "x")
        stores = [await self.open() for _ in range(3)]
        await self.fill(stores[0][0], "ab")
        restored.rename(self.path)
        for base, (store, _) in enumerate(stores, 1):
            self.assertEqual((await store.read()).revision, base)
            await store.commit(base, {str(base): document(str(base))}, change())
        for store, _ in stores:
            self.assertEqual(sorted(documents(await store.read())), ["1", "2", "3", "x"])
            await store.close()
        self.assertEqual(self.kept_in(self.path), ["1", "2", "3", "x"])

    async def test_away_and_back_unnoticed(self) -> None:
        """Who has not seen that the file was away has not a log of its own afterwards."""
        one, two = await self.opened(), await self.opened()
        await self.fill(one, "a")
        two._polling.stop()
        elsewhere = self.path.parent / "elsewhere.db"
        self.path.rename(elsewhere)
        await self.assertFailure(one.read(), StoreAway)
        elsewhere.rename(self.path)
        await one.read()
        await one.commit(1, {"b": document("b")}, change())
        self.assertEqual(list(documents(await two.read())), ["a", "b"])
        await two.commit(2, {"c": document("c")}, change())
        self.assertEqual(list(documents(await one.read())), ["a", "b", "c"])
        two._polling.start(1)

    async def test_closed_after_it_was_moved(self) -> None:
        """No log is left for the next file to be mixed with."""
        store = await self.opened()
        await self.fill(store, "a")
        old = self.path.rename(self.path.parent / "old.db")
        await store.close()
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["old.db"])
        self.assertEqual(self.kept_in(old), ["a"])

    async def test_replaced_while_it_writes(self) -> None:
        """A change that went to the file that was there is not acknowledged."""
        path = self.path

        class Moving(dict[str, Any]):
            def items(self) -> Any:
                path.unlink()
                return super().items()

        store = await self.opened()
        failure = await self.assertFailure(store.commit(0, Moving(a=document("a")), change()), StoreAway)
        self.assertIn("was replaced while the change was being written", str(failure))
        self.assertEqual(store.away, str(failure))

    async def test_another_log(self) -> None:
        """Who puts a file there with its log finds both untouched."""
        folder = self.path.parent
        store, _ = await self.open()
        await self.fill(store, "a")
        (folder / "new").mkdir()
        with closing(sqlite3.connect(await self.with_rules("new/rules.db", "x"), isolation_level=None)) as other:
            other.execute("PRAGMA journal_mode = WAL")
            other.execute("UPDATE meta SET revision = 7")
            for name in ("rules.db-wal", "rules.db-shm", "rules.db"):
                (folder / "new" / name).rename(folder / name)
            self.assertEqual((await store.read()).revision, 7)

    async def test_link(self) -> None:
        """A symbolic link that leads elsewhere leads to another store; the file that it led to stays whole."""
        one, two = await self.with_rules("one.db", "x"), await self.with_rules("two.db", "y")
        self.path.symlink_to(one)
        store = await self.opened()
        await store.commit(1, {"z": document("z")}, change())
        self.path.unlink()
        self.path.symlink_to(two)
        self.assertEqual(list(documents(await store.read())), ["y"])
        self.assertEqual(self.kept_in(one), ["x", "z"])

    async def test_name(self) -> None:
        """Any name is a name, whatever it means in a URI."""
        self.path = self.path.parent / "a b%41?mode=memory#ä.db"
        store = await self.opened()
        await self.fill(store, "a")
        await store.close()
        self.assertEqual(self.kept_in(self.path), ["a"])


class EditedTests(Files):
    """Rows that somebody has edited by hand."""

    async def edited(self, *statements: str) -> SqliteStore:
        """A store with three rules, after that."""
        store: SqliteStore = await self.opened()
        writes = {rule_id: document(rule_id, order) for order, rule_id in enumerate("abc")}
        await store.commit(0, writes, change(after=writes["a"]))
        with self.other() as other:
            for statement in statements:
                other.execute(statement)
        return store

    async def test_columns(self) -> None:
        """Id and order are what the columns say."""
        store = await self.edited(
            """UPDATE rules SET document = '{"id": "x", "order": "y", "name": "z"}' WHERE id = 'a'""",
            "UPDATE rules SET id = 'd', place = 9 WHERE id = 'b'",
            "UPDATE rules SET document = '{}' WHERE id = 'c'",
        )
        self.assertEqual(
            [rule.document for rule in (await store.read()).rules],
            [document("a", 0, name="z"), document("c", 2), document("d", 9)],
        )

    async def test_no_objects(self) -> None:
        """What is no JSON object is shown as it is, as far as it is not too long."""
        texts = {
            "''": "", "'{'": "{", "'[1]'": "[1]", "'null'": "null", "7": "7", "x'ff7b'": "\ufffd{",
            "CAST(x'7bff' AS TEXT)": "{\ufffd", """'{"n": NaN}'""": '{"n": NaN}', f"'{'x' * 999}'": "x" * 200,
            f"'{'[' * 100_000}'": "[" * 200,
        }  # fmt: skip
        store = await self.edited("DELETE FROM rules")
        with self.other() as other:
            for place, text in enumerate(texts):
                other.execute(f"INSERT INTO rules VALUES ('r{place}', {place}, {text}, 1)")
        self.assertEqual(
            [rule.document for rule in (await store.read()).rules],
            [document(f"r{place}", place, unreadable=shown) for place, shown in enumerate(texts.values())],
        )

    async def test_no_numbers(self) -> None:
        """What is no number counts as 0, in matching order, too."""
        store = await self.edited(
            "UPDATE rules SET place = -1 WHERE id = 'b'",
            "UPDATE rules SET place = 'first', revision = 'x' WHERE id = 'c'",
            "INSERT INTO rules VALUES ('d', 1.5, '{}', x'00')",
        )
        rules = [(rule.document["id"], rule.document["order"], rule.revision) for rule in (await store.read()).rules]
        self.assertEqual(rules, [("b", -1, 1), ("a", 0, 1), ("c", 0, 0), ("d", 0, 0)])

    async def test_nothing(self) -> None:
        """So does nothing at all, in tables that somebody else has made."""
        store = await self.edited(
            "DROP TABLE rules",
            "CREATE TABLE rules (id, place, document, revision)",
            "INSERT INTO rules VALUES (NULL, NULL, NULL, NULL), ('a', NULL, NULL, NULL), (x'62', 1, '{}', 1)",
        )
        rules = (await store.read()).rules
        self.assertEqual([rule.document for rule in rules], [document("a", unreadable=""), document("b", 1)])
        self.assertEqual([rule.revision for rule in rules], [0, 1])

    async def test_history(self) -> None:
        """What a change was cannot be read, but which one it was."""
        store = await self.edited("UPDATE history SET before = '{', after = x'ff', at = 'now', who = x'6f', action = 3")
        expected = Change("3", "o", "a", None, None, 1, 0.0)
        self.assertEqual(await store.history(None, 9), [expected])
        self.assertEqual(await store.change(1), expected)
        with self.other() as other:
            other.execute("UPDATE history SET at = 9e999")
        self.assertEqual((await store.history(None, 9))[0].at, 0.0)

    async def test_meta(self) -> None:
        """Without the table's one row it is no store, neither while it is open nor afterwards."""
        for statement in ("UPDATE meta SET version = 'x'", "DELETE FROM meta"):
            store = await self.edited(statement)
            for asked in (store.read(), store.commit(1, {}, change()), store.read()):
                self.assertIn("its table meta does not say", str(await self.assertFailure(asked, StoreAway)))
            await store.close()
            self.path.unlink()

    async def test_revision(self) -> None:
        """A revision that is none is not one that somebody else has made."""
        store = await self.edited("UPDATE meta SET revision = 'x'")
        self.assertIn("its table meta does not say", str(await self.assertFailure(store.read(), StoreAway)))


class UnusableTests(Files):
    """What can never be a store."""

    async def refused(self, text: str, **options: Any) -> None:
        """It cannot be opened, for this reason, and nothing goes on."""
        store, changes = self.store(**options)
        failure = await self.assertFailure(store.open(changes), StoreUnusable)
        self.assertIn(text, str(failure))
        await self.assertFailure(store.read(), StoreAway)
        assert store._thread is not None
        store._thread._thread.join(10)
        self.assertFalse(store._thread._thread.is_alive())

    async def test_no_folder(self) -> None:
        """The folder is not there."""
        self.path = self.path.parent / "missing" / "rules.db"
        await self.refused(f"{self.path}: it cannot be made: No such file or directory")

    async def test_folder(self) -> None:
        """It is a folder."""
        self.path.mkdir()
        await self.refused("unable to open database file")

    async def test_no_database(self) -> None:
        """It is something else."""
        self.path.write_bytes(b"listen: tcp:80\n" * 100)
        await self.refused("file is not a database")
        self.assertEqual(self.path.read_bytes(), b"listen: tcp:80\n" * 100)

    async def test_another_database(self) -> None:
        """It is a database of somebody else's."""
        with self.other() as other:
            other.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        await self.refused("no such column: version")

    async def test_newer(self) -> None:
        """It was made by a later version; both versions are named, and it stays as it is."""
        later = await self.opened(migrations=NEXT)
        await later.commit(0, {"a": document("a")}, change())
        await later.close()
        await self.refused("its tables are of version 2, and this proxyd knows versions up to 1 only")
        self.assertEqual((await (await self.opened(migrations=NEXT)).read()).revision, 1)

    async def test_upgrade(self) -> None:
        """Tables of the version before are made those of this one, with all that is in them."""
        store = await self.opened()
        await store.commit(0, {"a": document("a")}, change())
        before = await store.read(), await store.history(None, 9)
        await store.close()
        later = await self.opened(migrations=NEXT)
        self.assertEqual((await later.read(), await later.history(None, 9)), before)
        with self.other() as other:
            self.assertEqual(other.execute("SELECT note FROM rules").fetchall(), [("none",)])
            self.assertEqual(other.execute("SELECT version, revision FROM meta").fetchall(), [(2, 1)])

    async def test_upgrade_that_fails(self) -> None:
        """It is made whole or not at all."""
        store = await self.opened()
        await store.close()
        await self.refused("nonsense", migrations=(*NEXT, ("DROP TABLE history", "nonsense")))
        with self.other() as other:
            self.assertEqual(other.execute("SELECT version FROM meta").fetchall(), [(1,)])
            self.assertEqual(other.execute("SELECT count(*) FROM history").fetchall(), [(0,)])
            columns = [row[1] for row in other.execute("PRAGMA table_info(rules)")]
        self.assertEqual(columns, ["id", "place", "document", "revision"])

    async def test_upgraded_meanwhile(self) -> None:
        """A store that another program upgrades while it is away stays away."""
        self.patch(sqlite, "BUSY_S", 0.1)
        store, changes = await self.open()
        await store._thread.run(store._disconnect)  # type: ignore[union-attr]
        await (await self.opened(migrations=NEXT)).close()
        failure = await self.assertFailure(store.read(), StoreAway)
        self.assertIn("version 2", str(failure))
        self.assertEqual((store.away, changes.count), (str(failure), 1))


    async def upgraded(self) -> tuple[SqliteStore, Changes]:
        """A store with one rule, whose tables a newer program has migrated."""
        store, changes = await self.open()
        await store.commit(0, {"a": document("a")}, change())
        await (await self.opened(migrations=NEXT)).close()
        return store, changes

    async def test_upgraded_while_it_runs(self) -> None:
        """A store writes nothing to tables that a newer program has migrated, and is away from then on."""
        store, _ = await self.upgraded()
        text = "its tables are of version 2, and this proxyd knows versions up to 1 only"
        for _ in range(2):
            failure = await self.assertFailure(store.commit(1, {"a": None}, change()), StoreAway)
            self.assertEqual((str(failure), store.away), (text, text))
            await store._poll()
            self.assertEqual(store.away, text)
        with self.other() as other:
            self.assertEqual(other.execute("SELECT version, revision FROM meta").fetchall(), [(2, 1)])

    async def test_upgraded_while_it_reads(self) -> None:
        """Nor does it read them."""
        store, _ = await self.upgraded()
        self.assertIn("version 2", str(await self.assertFailure(store.read(), StoreAway)))

    async def test_upgraded_while_nobody_asks(self) -> None:
        """It is noticed all the same."""
        store, changes = await self.upgraded()
        await changes.until(lambda: "version 2" in str(store.away))
        with self.other() as other:
            other.execute("UPDATE meta SET version = 1")
        await changes.until(lambda: store.away is None)
        self.assertEqual(list(documents(await store.read())), ["a"])


class KillTests(Files):
    """A process that is killed at any moment has kept what it said, and nothing half."""

    async def kill(self, times: int) -> None:
        """Kill the process that writes, that often, in the same file."""
        acknowledged = 0
        for _ in range(times):
            lines = await self.killed_after(random.randrange(12))
            last = int(lines[-1]) if lines else acknowledged
            store = await self.opened()
            revision = (await store.read()).revision
            # What was committed in the last moment need not have been acknowledged any more.
            self.assertIn(revision, (last, last + 1))
            await whole(self, store, revision)
            await store.close()
            with self.other() as other:
                self.assertEqual(other.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            acknowledged = revision
        self.assertGreater(acknowledged, times)

    async def killed_after(self, lines: int) -> list[str]:
        """
        @return: what a process acknowledged until it was killed.
        """
        command = [sys.executable, "-m", "tests.control.store.committer", str(self.path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            seen = [child.stdout.readline() for _ in range(lines + 1)]
            # Not always right after a commit: somewhere in what the next one does, too.
            for _ in range(random.randrange(20_000)):
                pass
            child.kill()
            rest = child.stdout.read().splitlines(keepends=True)
        assert child.returncode == -9, child.returncode
        return [line for line in [*seen, *rest] if line.endswith("\n")]

    async def test_killed(self) -> None:
        """Fifteen times."""
        await self.kill(15)

    @pytest.mark.soak
    async def test_killed_often(self) -> None:
        """Two hundred times."""
        await self.kill(200)

    test_killed_often.timeout = 900  # type: ignore[attr-defined]
