"""Rules in a file, for all processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Event
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.control.store.rows import Migrations, Rows, missing
from proxyd.control.store.threads import OneThread
from proxyd.control.store.values import Change, Document, RuleSet
from proxyd.errors import StoreAway, StoreUnusable
from proxyd.interfaces import IRuleStore

log = Logger()

T = TypeVar("T")

POLL_S = 0.5
"""Seconds between two looks for changes that another process has made."""

BUSY_S = 5.0
"""Seconds for which a call waits for another process to finish writing."""

RETRY_S = 0.02
"""Seconds between two attempts to open a file that another process is just making a database of."""

MIGRATIONS: Final[Migrations] = (
    (
        "CREATE TABLE rules (id TEXT NOT NULL PRIMARY KEY, place INTEGER NOT NULL, document TEXT NOT NULL,"
        " revision INTEGER NOT NULL)",
        "CREATE TABLE history (revision INTEGER NOT NULL PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL,"
        " action TEXT NOT NULL, rule_id TEXT, before TEXT NOT NULL, after TEXT NOT NULL)",
        "CREATE TABLE meta (version INTEGER NOT NULL, revision INTEGER NOT NULL)",
        "INSERT INTO meta (version, revision) VALUES (0, 0)",
    ),
)
"""The tables, version by version."""

_NEVER: Final = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""What says, while a store is being opened, that it cannot be one."""


def _is_of_the_file(error: sqlite3.DatabaseError) -> bool:
    """Whether an error is not that of who asked, for which Python has other classes."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


@implementer(IRuleStore)
class SqliteStore:
    """
    One file, with a write-ahead log beside it while it is open.

    Every commit is on the disk before it is answered.  All calls are made on
    one thread, by one connection, which an error ends: the next call makes
    another one.
    """

    def __init__(self, reactor: Any, path: str, migrations: Migrations = MIGRATIONS) -> None:
        self.away: str | None = None
        self._reactor = reactor
        self._path = path
        self._migrations = migrations
        self._changed: Callable[[], None] = lambda: None
        self._thread: OneThread | None = None
        self._is_over = Event()
        self._polling = LoopingCall(self._poll)
        self._polling.clock = reactor
        # The thread's own:
        self._connection: sqlite3.Connection | None = None
        self._data_version = 0

    def open(self, changed: Callable[[], None]) -> Deferred[None]:
        """The file is made if there is none, but no folder."""
        self._changed = changed
        self._thread = OneThread(self._reactor, "proxyd rules in sqlite")

        def opened(_: object) -> None:
            if not self._is_over.is_set():
                polling: Deferred[Any] = self._polling.start(POLL_S, now=False)
                polling.addErrback(lambda failure: log.failure("the store is not looked at any more", failure))

        def not_opened(failure: Failure) -> Failure | Deferred[Any]:
            if failure.check(StoreAway):
                opened(None)
                return succeed(None)
            return self.close().addCallback(lambda _: failure)

        return self._ask(lambda connection: None, StoreUnusable).addCallbacks(opened, not_opened)

    def read(self) -> Deferred[RuleSet]:
        return self._ask(lambda connection: _rows(connection).read())

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Deferred[Change]:
        def write(connection: sqlite3.Connection) -> Change:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                return _rows(connection).commit(base, writes, replace(change, at=time.time()))

        return self._ask(write)

    def history(self, before: int | None, limit: int) -> Deferred[list[Change]]:
        return self._ask(lambda connection: _rows(connection).history(before, limit))

    def change(self, revision: int) -> Deferred[Change | None]:
        return self._ask(lambda connection: _rows(connection).change(revision))

    def close(self) -> Deferred[None]:
        """What has been asked for before is still done."""
        if self._thread is None or self._is_over.is_set():
            return succeed(None)
        self._is_over.set()
        if self._polling.running:
            self._polling.stop()
        self._thread.run(self._disconnect)
        return self._thread.end()

    # On the reactor

    def _ask(self, call: Callable[[sqlite3.Connection], T], *passed: type[Exception]) -> Deferred[T]:
        """
        Make a call on the thread, and learn from it whether the store is there.

        @param passed: errors that are not turned into L{StoreAway}.
        """
        if self._thread is None or self._is_over.is_set():
            return fail(StoreAway("the store is not open"))

        def is_there(result: T) -> T:
            self._set_away(None)
            return result

        def is_away(failure: Failure) -> Failure:
            if failure.check(StoreUnusable) and not failure.check(*passed):
                failure = Failure(StoreAway(str(failure.value)))
            self._set_away(str(failure.value) if failure.check(StoreAway) else None)
            return failure

        return self._thread.run(lambda: self._call(call)).addCallbacks(is_there, is_away)

    def _set_away(self, why: str | None) -> None:
        if why == self.away or self._is_over.is_set():
            return
        if why is None:
            log.info("the store of rules {path} is back", path=self._path)
        else:
            log.error("the store of rules is away: {why}", why=why)
        self.away = why
        self._changed()

    def _poll(self) -> Deferred[None]:
        def looked(has_changed: bool) -> None:
            if has_changed and not self._is_over.is_set():
                self._changed()

        return self._ask(self._has_changed).addCallback(looked).addErrback(lambda failure: failure.trap(StoreAway))

    # On the thread

    def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._connect_patiently()
                self._has_changed(self._connection)
            return call(self._connection)
        except sqlite3.DatabaseError as error:
            if not _is_of_the_file(error):
                raise
            self._disconnect()
            raise StoreAway(f"{self._path}: {error}") from error

    def _has_changed(self, connection: sqlite3.Connection) -> bool:
        """Whether another connection has written since the last look."""
        before = self._data_version
        (self._data_version,) = connection.execute("PRAGMA data_version").fetchone()
        return self._data_version != before

    def _connect_patiently(self) -> sqlite3.Connection:
        # SQLite does not wait for others in every case: not when two make the same new file a database.
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                return self._connect()
            except sqlite3.DatabaseError as error:
                code = error.sqlite_errorcode & 0xFF
                if code in _NEVER:
                    raise StoreUnusable(f"{self._path}: {error}") from error
                if code != sqlite3.SQLITE_BUSY or time.monotonic() > deadline or self._is_over.wait(RETRY_S):
                    raise

    def _connect(self) -> sqlite3.Connection:
        _create(self._path)
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Looked at first without a lock: a store that is up to date need not be written to.
            if missing(self._migrations, _version(connection)):
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    _rows(connection).migrate(self._migrations, _version(connection))
        except Exception:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _rows(connection: sqlite3.Connection) -> Rows:
    return Rows(connection.execute)


def _version(connection: sqlite3.Connection) -> int:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return 0
    return _rows(connection).version()


def _create(path: str) -> None:
    """Make an empty file, if there is none, that is for us alone; SQLite gives its log the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # And is not opened: to close it would drop the locks of every other connection of this process.
        return
    except OSError as error:
        raise StoreUnusable(f"{path}: it cannot be made: {error.strerror}") from error
