"""L{proxyd.control.store.sqlite}: the contract, other processes, and what can happen to a file."""

from __future__ import annotations

import random
import resource
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from proxyd.control.store import sqlite
from proxyd.control.store.sqlite import MIGRATIONS, SqliteStore
from proxyd.errors import StoreAway, StoreUnusable
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
