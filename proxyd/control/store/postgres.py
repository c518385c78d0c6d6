"""Rules in PostgreSQL, for all processes of many machines."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.control.store.rows import Migrations, Rows
from proxyd.control.store.threads import OneThread
from proxyd.control.store.values import Change, Document, RuleSet
from proxyd.errors import StoreAway, StoreUnusable
from proxyd.interfaces import IRuleStore

if TYPE_CHECKING:
    from proxyd.control.store.session import Session, Tables

log = Logger()

T = TypeVar("T")

RETRY_S = 0.5
"""Seconds until the first attempt to reach the server again; the next ones are twice as far apart each."""

MAX_RETRY_S = 10.0
"""Seconds between two attempts at most."""

CLOSE_S = 0.5
"""Seconds that calls have to come to their end before L{PostgresStore.close} breaks the connection."""

MIGRATIONS: Final[Migrations] = (
    (
        # Ids are compared by their octets, whatever the database's language: matching order is the same everywhere.
        'CREATE TABLE proxyd_rules (id text COLLATE "C" PRIMARY KEY, place bigint NOT NULL, document text NOT NULL,'
        " revision bigint NOT NULL)",
        "CREATE TABLE proxyd_history (revision bigint PRIMARY KEY, at double precision NOT NULL, who text NOT NULL,"
        " action text NOT NULL, rule_id text, before text NOT NULL, after text NOT NULL)",
        "CREATE TABLE proxyd_meta (version integer NOT NULL, revision bigint NOT NULL, identity text NOT NULL)",
        "INSERT INTO proxyd_meta (version, revision, identity)"
        " VALUES (0, 0, substr(md5(random()::text || clock_timestamp()::text), 1, 8))",
    ),
)
"""The tables, version by version."""


@implementer(IRuleStore)
class PostgresStore:
    """
    Tables in a database, whose server tells every node of what another one has committed.

    All calls are made on one thread, by one connection.  It is made again when
    it is lost; while it is not there, calls fail at once.  A commit that was
    asked for when the connection broke fails with L{StoreAway}, too: only the
    history tells whether the server has kept it.
    """

    def __init__(self, reactor: Any, url: str, migrations: Migrations = MIGRATIONS) -> None:
        self.away: str | None = None
        self._reactor = reactor
        self._url = url
        self._migrations = migrations
        self._changed: Callable[[], None] = lambda: None
        self._thread: OneThread | None = None
        self._session: Session | None = None
        self._is_over = False
        self._retrying: Any = None
        self._delay = RETRY_S

    def open(self, changed: Callable[[], None]) -> Deferred[None]:
        """The database has to be there; its tables are made."""
        self._changed = changed
        self._thread = thread = OneThread(self._reactor, "proxyd rules in postgresql")

        return self._try(thread).addErrback(lambda failure: self.close().addCallback(lambda _: failure))

    def read(self) -> Deferred[RuleSet]:
        return self._ask(lambda tables: tables.read())

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Deferred[Change]:
        kept = replace(change, at=time.time())
        return self._ask(lambda tables: tables.commit(base, writes, kept))

    def history(self, before: int | None, limit: int) -> Deferred[list[Change]]:
        return self._ask(lambda tables: tables.history(before, limit))

    def change(self, revision: int) -> Deferred[Change | None]:
        return self._ask(lambda tables: tables.change(revision))

    def close(self) -> Deferred[None]:
        """Calls that are being made have a moment to come to their end; a server that does not answer is left."""
        if self._thread is None or self._is_over:
            return succeed(None)
        self._is_over = True
        if self._retrying is not None and self._retrying.active():
            self._retrying.cancel()
        session, self._session = self._session, None
        if session is not None:
            session.end()
        closed: Deferred[None] = Deferred()

        def hurry() -> None:
            if session is not None:
                session.interrupt()
            else:
                # It is connecting, which nothing can break off: what comes of it is closed, and the thread ends.
                closed.callback(None)

        hurrying = self._reactor.callLater(CLOSE_S, hurry)

        def ended(_: object) -> None:
            if hurrying.active():
                hurrying.cancel()
            if not closed.called:
                closed.callback(None)

        self._thread.end().addCallback(ended)
        return closed

    def _ask(self, call: Callable[[Rows], T]) -> Deferred[T]:
        if self._session is None:
            return fail(StoreAway(self.away or "the store is not open"))
        return self._session.ask(call)

    def _try(self, thread: OneThread) -> Deferred[None]:
        """
        Connect.

        @return: fails with L{StoreUnusable} only; as long as the server is away there are further attempts.
        """

        def connect() -> Tables:
            try:
                from proxyd.control.store import session
            except ImportError:
                raise StoreUnusable("a store in PostgreSQL needs psycopg: pip install 'proxyd[postgres]'") from None
            return session.connect(self._url, self._migrations)

        def connected(tables: Tables) -> None:
            from proxyd.control.store.session import Session

            if self._is_over:
                tables.close()
                tables.socket.close()
                return
            self._session = Session(self._reactor, thread, tables, self._changed, lost)
            self._delay = RETRY_S
            self._set_away(None)

        def lost(why: str) -> None:
            self._session = None
            retry(why)

        def retry(why: str) -> None:
            if self._is_over:
                return
            # Nodes that have lost the same server do not come back to it all at once.
            self._retrying = self._reactor.callLater(self._delay * random.uniform(0.75, 1.0), again)
            self._delay = min(2 * self._delay, MAX_RETRY_S)
            self._set_away(why)

        def again() -> None:
            # It can have become unusable meanwhile, by another program that is newer.
            self._try(thread).addErrback(not_connected, StoreUnusable)

        def not_connected(failure: Failure, kind: type[Exception] = StoreAway) -> None:
            failure.trap(kind)
            retry(str(failure.value))

        return thread.run(connect).addCallbacks(connected, not_connected)

    def _set_away(self, why: str | None) -> None:
        if why == self.away:
            return
        if why is None:
            log.info("the store of rules in PostgreSQL is back")
        elif self.away is None:
            log.error("the store of rules in PostgreSQL is away: {why}", why=why)
        self.away = why
        self._changed()
