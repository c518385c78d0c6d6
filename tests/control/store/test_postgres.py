"""L{proxyd.control.store.postgres}: the contract, other nodes, and a server that goes and comes."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from typing import Any, ClassVar

import psycopg
import pytest
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.main import CONNECTION_LOST
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from proxyd.control.store import postgres, session
from proxyd.control.store.opening import store_for
from proxyd.control.store.postgres import MIGRATIONS, PostgresStore
from proxyd.control.store.values import Change
from proxyd.errors import StaleRevision, StoreAway, StoreUnusable
from tests.control.store.committer import commit_once
from tests.control.store.contract import Changes, Contract, change, document, documents, replayed
from tests.support.postgres import PASSWORD, Postgres

NEXT = (*MIGRATIONS, ("ALTER TABLE proxyd_rules ADD COLUMN note text DEFAULT '100%?'",))
"""What a later version could add."""


class Nodes(TestCase):
    """A database of one's own, and stores in it."""

    timeout = 120

    server: ClassVar[Postgres]

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres) -> None:
        type(self).server = postgres

    def setUp(self) -> None:
        self.url = self.server.database()
        self.logged: list[LogEvent] = []
        observer: Any = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def tearDown(self) -> None:
        """Nothing that was logged names the password, in whatever form."""
        for event in self.logged:
            self.assert_secret(repr(event))

    def assert_secret(self, text: str) -> None:
        """A text does not tell the password."""
        self.assertNotIn(PASSWORD, text)
        self.assertNotIn(self.url.partition("://")[2].partition("@")[0].partition(":")[2], text)
        self.assertNotIn("5ecret", text)

    def lines(self) -> list[str]:
        """What proxyd has logged, by its beginnings."""
        texts = [str(event.get("log_format")) for event in self.logged]
        return [text.partition(":")[0] for text in texts if text.startswith("the store")]

    def store(self, url: str | None = None, **options: Any) -> tuple[PostgresStore, Changes]:
        """A store that is not open yet, and what it calls."""
        from twisted.internet import reactor

        store = PostgresStore(reactor, url or self.url, **options)
        self.addCleanup(store.close)
        return store, Changes(reactor)

    async def open(self, url: str | None = None, **options: Any) -> tuple[PostgresStore, Changes]:
        """A store that is open, and what it calls."""
        store, changes = self.store(url, **options)
        await store.open(changes)
        return store, changes

    async def opened(self, **options: Any) -> Any:
        """A store that is open."""
        return (await self.open(**options))[0]

    def ended(self, store: PostgresStore) -> None:
        """A store's thread is over."""
        assert store._thread is not None
        store._thread._thread.join(10)
        self.assertFalse(store._thread._thread.is_alive())


class PostgresContractTests(Nodes, Contract):
    """The contract, in a server."""

    async def anew(self) -> Any:
        self.url = self.server.database()
        return await self.opened()


class NodesTests(Nodes):
    """Several nodes with one database."""

    async def test_notice_each_other(self) -> None:
        """What one commits, the other is told of, within a second."""
        from twisted.internet import reactor

        one, of_one = await self.open()
        two, of_two = await self.open()
        for base, (here, there, heard) in enumerate([(one, two, of_two), (two, one, of_one)] * 10):
            told = heard.next().addTimeout(1, reactor)
            await here.commit(base, {"a": document("a", base)}, change())
            await told
            self.assertEqual((await there.read()).rules[0].document["order"], base)

    async def test_own_changes(self) -> None:
        """One's own commits are no news, and another's is news though it arrives while a call is made."""
        store, changes = await self.open()
        other = await self.opened()
        await store.commit(0, {}, change())
        await store.read()
        self.assertEqual(changes.count, 0)
        told = changes.next()
        busy = store._ask(lambda tables: tables._execute("SELECT pg_sleep(0.3)", ()))
        await other.commit(1, {}, change())
        await busy
        await told
        self.assertEqual(changes.count, 1)

    async def test_not_watched(self) -> None:
        """A reactor that takes the socket for lost, as it does of its own accord, is made to look at it again."""
        from twisted.internet import reactor

        store, changes = await self.open()
        other = await self.opened()
        assert store._session is not None
        reactor.removeReader(store._session)
        store._session.connectionLost(Failure(CONNECTION_LOST))
        told = changes.next()
        await other.commit(0, {}, change())
        await told
        self.assertIsNone(store.away)

    async def test_open_at_once(self) -> None:
        """Many that start with an empty database make its tables once, and none of them is away."""
        for _ in range(5):
            self.url = self.server.database()
            stores = [self.store()[0] for _ in range(6)]
            await gatherResults([store.open(lambda: None) for store in stores])
            self.assertEqual([store.away for store in stores], [None] * 6)
            await gatherResults([store.close() for store in stores])

    async def test_at_once(self) -> None:
        """Of many that commit at the same time nobody's change is lost, and nobody's overwrites another's."""
        stores = [await self.opened() for _ in range(4)]

        async def commit(store: Any) -> list[int]:
            return [await commit_once(store) for _ in range(25)]

        revisions = await gatherResults([ensureDeferred(commit(store)) for store in stores])
        self.assertEqual(sorted(sum(revisions, [])), list(range(1, 101)))
        await self.whole(stores[0], 100)

    async def test_stale_at_once(self) -> None:
        """Of many that commit from the same revision exactly one succeeds."""
        stores = [await self.opened() for _ in range(4)]
        for base in range(10):
            stale = 0
            for asked in [store.commit(base, {}, change()) for store in stores]:
                try:
                    await asked
                except StaleRevision:
                    stale += 1
            self.assertEqual(stale, 3)

    async def test_serializable_server(self) -> None:
        """A server with another isolation level makes no difference."""
        name = self.url.rpartition("/")[2]
        self.server.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        await self.test_stale_at_once()

    async def whole(self, store: Any, revision: int) -> None:
        """The history is complete, and the rules are what it leads to."""
        rules = await store.read()
        history = (await store.history(None, 1_000_000))[::-1]
        self.assertEqual([one.revision for one in history], list(range(1, revision + 1)))
        self.assertEqual((rules.revision, documents(rules)), (revision, replayed(history)))


class AwayTests(Nodes):
    """A server that is not there for a while."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(postgres, "RETRY_S", 0.05)

    async def away(self, store: PostgresStore, changes: Changes) -> str:
        """
        The store is away by itself, and fails at once.

        @return: the reason.
        """
        await changes.until(lambda: store.away is not None)
        why = str(store.away)
        self.assert_secret(why)
        asked: list[Any] = [store.read(), store.commit(1, {}, change()), store.history(None, 1), store.change(1)]
        self.assertTrue(all(one.called for one in asked))
        for one in asked:
            self.assert_secret(repr(await self.assertFailure(one, StoreAway)))
        return why

    async def back(self, store: PostgresStore, changes: Changes) -> None:
        """The store comes back by itself, with all that it had."""
        await changes.until(lambda: store.away is None)
        self.assertEqual(list(documents(await store.read())), ["a"])
        self.assertEqual((await store.commit(1, {}, change())).revision, 2)

    async def with_one(self) -> tuple[PostgresStore, Changes]:
        """A store with one rule."""
        store, changes = await self.open()
        await store.commit(0, {"a": document("a")}, change())
        return store, changes

    async def test_restart(self) -> None:
        """A server that ends is noticed though nobody asks, and so is its return; each is logged once."""
        store, changes = await self.with_one()
        self.server.stop()
        self.assertIn("closed the connection", await self.away(store, changes))
        await changes.until(lambda: "refused" in str(store.away))
        self.server.start()
        await self.back(store, changes)
        self.assertEqual(
            self.lines(), ["the store of rules in PostgreSQL is away", "the store of rules in PostgreSQL is back"]
        )

    async def test_crash(self) -> None:
        """After a crash everything that was acknowledged is there."""
        store, changes = await self.with_one()
        self.server.crash()
        await self.away(store, changes)
        self.server.start()
        await self.back(store, changes)

    async def test_crashes_while_committing(self) -> None:
        """Whatever a crash hits: what was acknowledged is there, and nothing half."""
        store, changes = await self.open()
        acknowledged = 0
        for _ in range(3):
            until = acknowledged + 20
            while acknowledged < until:
                acknowledged = await commit_once(store)
            broken = [commit_once(store) for _ in range(3)]
            asked = gatherResults([ensureDeferred(one) for one in broken], consumeErrors=True)
            self.server.crash()
            with pytest.raises(Exception):  # noqa: B017
                await asked
            await changes.until(lambda: store.away is not None)
            self.server.start()
            await changes.until(lambda: store.away is None)
            rules = await store.read()
            self.assertIn(rules.revision, range(acknowledged, acknowledged + 4))
            history = (await store.history(None, 1_000_000))[::-1]
            self.assertEqual([one.revision for one in history], list(range(1, rules.revision + 1)))
            self.assertEqual(documents(rules), replayed(history))
            acknowledged = rules.revision

    async def test_terminated(self) -> None:
        """A session that an administrator ends is made again."""
        store, changes = await self.with_one()
        self.server.execute("SELECT pg_terminate_backend(%s)", tuple(self.server.sessions(self.url)))
        await changes.until(lambda: store.away is not None)
        await self.back(store, changes)

    async def test_changed_meanwhile(self) -> None:
        """What others commit while a store is away, it is told of when it is back."""
        store, changes = await self.with_one()
        other = await self.opened()
        blocked = self.url.rpartition("/")[2]
        mine = await store._ask(lambda tables: tables._connection.info.backend_pid)
        self.server.execute(f"ALTER DATABASE {blocked} WITH ALLOW_CONNECTIONS false")
        self.server.execute("SELECT pg_terminate_backend(%s)", (mine,))
        await changes.until(lambda: "not currently accepting connections" in str(store.away))
        await other.commit(1, {"b": document("b")}, change())
        self.server.execute(f"ALTER DATABASE {blocked} WITH ALLOW_CONNECTIONS true")
        await changes.until(lambda: store.away is None)
        self.assertEqual(sorted(documents(await store.read())), ["a", "b"])

    async def test_frozen(self) -> None:
        """A server that takes what it is asked and never answers is given up."""
        self.patch(session, "DEADLINE_S", 0.3)
        store, changes = await self.with_one()
        (pid,) = self.server.sessions(self.url)
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        asked: list[Any] = [store.read(), store.commit(1, {"a": None}, change()), store.read()]
        for one in asked:
            await self.assertFailure(one, StoreAway)
        await self.back(store, changes)

    async def test_blocked(self) -> None:
        """Somebody who locks the tables for too long makes calls fail, and not wait."""
        self.patch(session, "STATEMENT_S", 0.3)
        store, changes = await self.with_one()
        with closing(psycopg.connect(self.url)) as other:
            other.execute("SELECT * FROM proxyd_meta FOR UPDATE")
            failure = await self.assertFailure(store.commit(1, {"a": None}, change()), StoreAway)
            self.assertIn("statement timeout", str(failure))
        await self.back(store, changes)

    async def test_away_from_the_beginning(self) -> None:
        """A store opens without its server, and makes its tables when that comes."""
        self.server.stop()
        store, changes = await self.open()
        self.assertIn("refused", await self.away(store, changes))
        self.server.start()
        await changes.until(lambda: store.away is None)
        self.assertEqual((await store.read()).revision, 0)

    async def test_read_only_server(self) -> None:
        """A server that takes no changes, as after a failover, is away for who commits."""
        store, changes = await self.with_one()
        await store._ask(lambda tables: tables._execute("SET default_transaction_read_only = on", ()))
        failure = await self.assertFailure(store.commit(1, {"a": None}, change()), StoreAway)
        self.assertIn("read-only", str(failure))
        await self.back(store, changes)

    async def test_wrong_password(self) -> None:
        """The server's refusal is a reason like others, and does not tell the password."""
        store, changes = await self.open(self.url.replace("5ecret", "5ecret%20wrong"))
        self.assertIn("authentication failed", await self.away(store, changes))

    async def test_delays(self) -> None:
        """Attempts are further and further apart, up to a limit, and begin again with each loss."""
        self.patch(postgres, "MAX_RETRY_S", 0.2)
        store, changes = await self.with_one()
        self.server.stop()
        await changes.until(lambda: store._delay == 0.2)
        self.server.start()
        await self.back(store, changes)
        self.assertEqual(store._delay, 0.05)

    async def test_errors_of_who_asks(self) -> None:
        """A value that no database can have is not the server's fault."""
        store, changes = await self.open()
        await self.assertFailure(store.commit(0, {"a": document("a", 2**63)}, change()), psycopg.DataError)
        await self.assertFailure(store.commit(0, {None: document("a")}, change()), psycopg.IntegrityError)
        self.assertEqual((store.away, changes.count, (await store.read()).revision), (None, 0, 0))


class CloseTests(Nodes):
    """The end of a store."""

    async def test_close(self) -> None:
        """What was asked for before is done, nothing is done afterwards; no thread and no connection is left."""
        store = await self.opened()
        self.assertEqual(len(self.server.sessions(self.url)), 1)
        committed, closed = store.commit(0, {}, change()), store.close()
        await self.assertFailure(store.read(), StoreAway)
        await closed
        self.assertEqual((await committed).revision, 1)
        self.ended(store)
        # Which no connection would allow.
        self.server.execute(f"DROP DATABASE {self.url.rpartition('/')[2]}")

    async def test_not_open(self) -> None:
        """A store that has not been opened is away, and can be closed."""
        store, _ = self.store()
        await self.assertFailure(store.read(), StoreAway)
        await store.close()

    async def test_close_while_it_waits(self) -> None:
        """A call that goes on is broken off."""
        from twisted.internet import reactor

        store = await self.opened()
        slow = store._ask(lambda tables: tables._execute("SELECT pg_sleep(8)", ()))
        await store.close().addTimeout(2, reactor)
        await self.assertFailure(slow, StoreAway)
        self.ended(store)

    async def test_close_while_away(self) -> None:
        """There are no further attempts."""
        self.server.stop()
        store, _ = await self.open()
        await store.close()
        self.ended(store)
        self.assertFalse(store._retrying.active())

    async def test_close_while_it_connects(self) -> None:
        """A server that says nothing is not waited for; the thread ends when the attempt does."""
        from twisted.internet import reactor

        with socket.create_server(("127.0.0.1", 0)) as silent:
            store, changes = self.store(f"postgresql://u:5ecret@127.0.0.1:{silent.getsockname()[1]}/db")
            opening = store.open(changes)
            await store.close().addTimeout(2, reactor)
            taken, _ = silent.accept()
            taken.close()
        await opening
        self.ended(store)
        self.assertEqual(changes.count, 0)

    async def test_close_while_it_opens(self) -> None:
        """What comes of the attempt is closed."""
        store, changes = self.store()
        opening = store.open(changes)
        await store.close()
        await opening
        self.ended(store)
        await self.assertFailure(store.read(), StoreAway)
        self.assertEqual(changes.count, 0)


class UnusableTests(Nodes):
    """What can never be a store."""

    async def refused(self, text: str, url: str | None = None, **options: Any) -> None:
        """It cannot be opened, for this reason, and nothing goes on."""
        store, changes = self.store(url, **options)
        failure = await self.assertFailure(store.open(changes), StoreUnusable)
        self.assertIn(text, str(failure))
        self.assert_secret(repr(failure))
        self.ended(store)

    async def test_newer(self) -> None:
        """Its tables were made by a later version; both versions are named."""
        later = await self.opened(migrations=NEXT)
        await later.commit(0, {"a": document("a")}, change())
        await self.refused("its tables are of version 2, and this proxyd knows versions up to 1 only")
        self.assertEqual((await later.read()).revision, 1)

    async def test_upgrade(self) -> None:
        """Tables of the version before are made those of this one, with all that is in them."""
        store = await self.opened()
        await store.commit(0, {"a": document("a")}, change())
        before = await store.read(), await store.history(None, 9)
        later = await self.opened(migrations=NEXT)
        self.assertEqual((await later.read(), await later.history(None, 9)), before)
        self.assertEqual(self.server.execute("SELECT note FROM proxyd_rules", url=self.url), [("100%?",)])
        self.assertEqual(self.server.execute("SELECT version, revision FROM proxyd_meta", url=self.url), [(2, 1)])

    async def test_upgrade_that_fails(self) -> None:
        """It is made whole or not at all."""
        await self.opened()
        await self.refused("nonsense", migrations=(*NEXT, ("DROP TABLE proxyd_history", "nonsense")))
        self.assertEqual(self.server.execute("SELECT version FROM proxyd_meta", url=self.url), [(1,)])
        self.assertEqual(self.server.execute("SELECT count(*) FROM proxyd_history", url=self.url), [(0,)])

    async def test_upgraded_meanwhile(self) -> None:
        """A store that another program upgrades while it is away stays away."""
        self.patch(postgres, "RETRY_S", 0.05)
        store, changes = await self.open()
        await self.opened(migrations=NEXT)
        self.server.execute("SELECT pg_terminate_backend(%s)", (store._session._tables._connection.info.backend_pid,))
        await changes.until(lambda: "version 2" in str(store.away))

    async def upgraded(self) -> tuple[PostgresStore, Changes]:
        """A store with one rule, whose tables are migrated by a newer program that nobody hears of."""
        store, changes = await self.open()
        await store.commit(0, {"a": document("a")}, change())
        self.server.execute("UPDATE proxyd_meta SET version = 2", url=self.url)
        return store, changes

    async def test_upgraded_while_it_runs(self) -> None:
        """A store writes nothing to tables that a newer program has migrated, and is away."""
        store, _ = await self.upgraded()
        failure = await self.assertFailure(store.commit(1, {"a": None}, change()), StoreAway)
        self.assertEqual(str(failure), "its tables are of version 2, and this proxyd knows versions up to 1 only")
        self.assertEqual(store.away, str(failure))
        self.assertEqual(self.server.execute("SELECT revision FROM proxyd_meta", url=self.url), [(1,)])

    async def test_upgraded_while_it_reads(self) -> None:
        """Nor does it read them; it is away until they are its own again."""
        self.patch(postgres, "RETRY_S", 0.05)
        store, changes = await self.upgraded()
        failure = await self.assertFailure(store.read(), StoreAway)
        self.assertIn("version 2", str(failure))
        self.server.execute("UPDATE proxyd_meta SET version = 1", url=self.url)
        await changes.until(lambda: store.away is None)
        self.assertEqual(list(documents(await store.read())), ["a"])

    async def test_upgrade_is_heard_of(self) -> None:
        """Who migrates the tables tells those who have them open."""
        store, changes = await self.open()
        told = changes.next()
        await self.opened(migrations=NEXT)
        await told
        await self.assertFailure(store.read(), StoreAway)

    async def test_edited_by_hand(self) -> None:
        """No row that somebody has edited is an error."""
        store = await self.opened()
        writes = {rule_id: document(rule_id) for rule_id in "abc"}
        await store.commit(0, writes, change())
        for statement in (
            "UPDATE proxyd_rules SET place = 2, document = document || '}' WHERE id = 'a'",
            "UPDATE proxyd_rules SET place = 1, document = '[]' WHERE id = 'b'",
            """UPDATE proxyd_rules SET place = 3, document = '{"id": "x", "order": "y", "name": "z"}' WHERE id = 'c'""",
            "UPDATE proxyd_history SET before = '', after = '{', at = 'infinity'",
        ):
            self.server.execute(statement, url=self.url)
        self.assertEqual(
            [rule.document for rule in (await store.read()).rules],
            [
                document("b", 1, unreadable="[]"),
                document("a", 2, unreadable='{"id": "a", "order": 0}}'),
                document("c", 3, name="z"),
            ],
        )
        self.assertEqual(await store.history(None, 9), [Change("create", "ops", "a", None, None, 1, 0.0)])
        self.assertIsNone(store.away)

    async def test_no_rights(self) -> None:
        """A user who may not make tables."""
        name = f"poor{os.getpid()}"
        self.server.execute(f"CREATE USER {name} PASSWORD '5ecret'")
        host = self.url.rpartition("@")[2]
        await self.refused("permission denied", f"postgresql://{name}:5ecret@{host}")

    async def test_unknown_parameter(self) -> None:
        """The library's own words would quote the URL."""
        await self.refused("a parameter that PostgreSQL's library does not know", f"{self.url}?pass=5ecret")

    async def test_secret(self) -> None:
        """Neither the store nor its parts tell the password."""
        from twisted.internet import reactor

        store: Any = store_for(reactor, self.url, "/")
        await store.open(lambda: None)
        self.addCleanup(store.close)
        self.assertIsInstance(store, PostgresStore)
        for one in (store, store._session, store._session._tables):
            self.assert_secret(repr(one))
