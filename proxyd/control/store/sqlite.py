"""Rules in a file, for all processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from threading import Event
from typing import Any, Final, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.control.store.rows import Migrations, Rows, missing
from proxyd.control.store.threads import OneThread
from proxyd.control.store.values import Change, Document, RuleSet
from proxyd.errors import StaleRevision, StoreAway, StoreUnusable
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
        "CREATE TABLE meta (version INTEGER NOT NULL, revision INTEGER NOT NULL, identity TEXT NOT NULL)",
        "INSERT INTO meta (version, revision, identity) VALUES (0, 0, lower(hex(randomblob(4))))",
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


_File = tuple[int, int]
"""Which file it is, whatever its name: its device and its number there."""


def _is_of_the_file(error: sqlite3.DatabaseError) -> bool:
    """Whether an error is not that of who asked, for which Python has other classes."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


@implementer(IRuleStore)
class SqliteStore:
    """
    One file, with a write-ahead log beside it while it is open.

    Every commit is on the disk before it is answered.  All calls are made on
    one thread, by one connection, which an error ends: the next call makes
    another one.  So does a call that finds another file at the name.  Where
    there is none any more the store is away: a new one would be an empty one.
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
        self._real = ""
        self._files: Mapping[str, _File | None] = {}
        self._is_unread = False

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
        def read(connection: sqlite3.Connection) -> RuleSet:
            rule_set = self._rows(connection).read()
            self._is_unread = False
            return rule_set

        return self._ask(read)

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Deferred[Change]:
        def write(connection: sqlite3.Connection) -> Change:
            if self._is_unread:
                # What is at the name now may have had as many changes, and other ones.
                raise StaleRevision("the rules have not been read since their file was opened again")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                kept = self._rows(connection).commit(base, writes, replace(change, at=time.time()))
            if self._is_replaced():
                raise StoreAway(f"{self._path}: the file was replaced while the change was being written to it")
            return kept

        return self._ask(write)

    def history(self, before: int | None, limit: int) -> Deferred[list[Change]]:
        return self._ask(lambda connection: self._rows(connection).history(before, limit))

    def change(self, revision: int) -> Deferred[Change | None]:
        return self._ask(lambda connection: self._rows(connection).change(revision))

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

    def _reopened(self) -> None:
        # To be there again is told of in any case, so this is for a file that was replaced in one moment.
        if self.away is None and not self._is_over.is_set():
            log.warn("the file of rules {path} was replaced, and is opened again", path=self._path)
            self._changed()

    def _poll(self) -> Deferred[None]:
        def looked(has_changed: bool) -> None:
            if has_changed and not self._is_over.is_set():
                self._changed()

        return self._ask(self._has_changed).addCallback(looked).addErrback(lambda failure: failure.trap(StoreAway))

    # On the thread

    def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._is_replaced():
                self._disconnect()
            if self._connection is None:
                is_again = bool(self._files)
                self._connection = self._connect_patiently()
                self._has_changed(self._connection)
                if is_again:
                    self._is_unread = True
                    self._reactor.callFromThread(self._reopened)
            return call(self._connection)
        except (StoreAway, StoreUnusable):
            self._disconnect()
            raise
        except sqlite3.DatabaseError as error:
            if not _is_of_the_file(error):
                raise
            self._disconnect()
            raise StoreAway(f"{self._path}: {error}") from error

    def _has_changed(self, connection: sqlite3.Connection) -> bool:
        """Whether another connection has written since the last look; it may have been a newer proxyd's."""
        before = self._data_version
        (self._data_version,) = connection.execute("PRAGMA data_version").fetchone()
        if self._data_version == before:
            return False
        self._rows(connection).check()
        return True

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
        if not self._files:
            _create(self._path)
        # SQLite keeps its log beside what a symbolic link leads to.
        real = os.path.realpath(self._path)
        # Looked at before it is opened: when it is replaced in between, the next call sees that.
        file = _file_at(self._path)
        if file is None:
            raise StoreAway(f"{self._path}: the file that was there is gone")
        # So that SQLite does not make one that has gone since.
        uri = f"file://{quote(os.fsencode(real))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            # By default a text that is not UTF-8 is an error of the whole statement.
            connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
            if self._files and not self._version(connection):
                # Such as one that is just being copied to where it was.
                raise StoreAway(f"{self._path}: the file that was there is gone, and there are no rules in this one")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # Looked at first without a lock: a store that is up to date need not be written to.
            if missing(self._migrations, self._version(connection)):
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._rows(connection).migrate(self._version(connection))
        except Exception:
            connection.close()
            raise
        self._real = real
        self._files = {self._path: file, real: file, **{name: _file_at(name) for name in _log(real)}}
        return connection

    def _is_replaced(self) -> bool:
        """
        Whether what is at a name is not what is open: the file, or its log, without which it is not whole.

        Asked before every call, for a connection goes on with a file that has
        no name any more as if nothing had happened.
        """
        return self._connection is not None and any(_file_at(name) != file for name, file in self._files.items())

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if _file_at(self._real) != self._files[self._real]:
                self._leave(connection)
        finally:
            connection.close()

    def _leave(self, connection: sqlite3.Connection) -> None:
        """
        Take the log away from where the file was, after writing what is in it to the file, wherever that is now.

        SQLite leaves it there, and would take it for that of the next file with this name.
        """
        try:
            (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            why = "somebody else reads it" if is_busy else None
        except sqlite3.DatabaseError as error:
            why = str(error)
        if why is not None:
            log.error("the file that was {path} may lack the last changes: {why}", path=self._path, why=why)
        for name in _log(self._real):
            # Who has moved the file may have put another one there with its log.
            if _file_at(name) == self._files[name]:
                with suppress(OSError):
                    os.unlink(name)

    def _rows(self, connection: sqlite3.Connection) -> Rows:
        return Rows(connection.execute, self._migrations)

    def _version(self, connection: sqlite3.Connection) -> int:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            return 0
        return self._rows(connection).version()


def _log(path: str) -> tuple[str, str]:
    """The names of a file's log and of the log's index."""
    return f"{path}-wal", f"{path}-shm"


def _file_at(name: str) -> _File | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(path: str) -> None:
    """Make an empty file, if there is none, that is for us alone; SQLite gives its log the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # And is not opened: to close it would drop the locks of every other connection of this process.
        return
    except OSError as error:
        raise StoreUnusable(f"{path}: it cannot be made: {error.strerror}") from error
