"""One connection to PostgreSQL, from its beginning to its loss."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.control.store.rows import Migrations, Rows, missing
from proxyd.control.store.threads import OneThread
from proxyd.control.store.values import Change, Document
from proxyd.errors import StoreAway, StoreUnusable

T = TypeVar("T")

Connection = psycopg.Connection[tuple[Any, ...]]

CHANNEL: Final = "proxyd_rules"
"""What committers notify, and everybody listens to."""

STATEMENT_S = 10.0
"""Seconds that the server may take for one statement, waiting for others included."""

DEADLINE_S = 15.0
"""Seconds after which a call is broken off, for a server that does not even keep to L{STATEMENT_S}."""

_MIGRATING: Final = 0x70726F787964
"""The advisory lock of who makes the tables: the octets of C{proxyd}."""

_PARAMETERS: Final = {
    "application_name": "proxyd",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # Keepalives do not count while octets that were sent wait to be acknowledged.
    "tcp_user_timeout": 10_000,
}
"""How a dead network is noticed; what the URL says goes before."""

_GONE: Final = (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError, psycopg.ProgrammingError)
"""Errors that end a session: all but those of values that were asked to be written."""


class Tables(Rows):
    """
    The tables, by one connection.

    @ivar socket: a duplicate of the connection's, for the library closes its own whenever there is an error.
    """

    def __init__(self, connection: Connection, migrations: Migrations) -> None:
        super().__init__(self._execute, migrations, "proxyd_")
        self._connection = connection
        self.socket = socket.socket(fileno=os.dup(connection.fileno()))

    def _execute(self, statement: str, values: Sequence[Any]) -> Any:
        if not values:
            return self._connection.execute(statement.encode())
        return self._connection.execute(statement.replace("?", "%s").encode(), values)

    def commit(self, base: int, writes: Mapping[str, Document | None], change: Change) -> Change:
        """Commit, and tell everybody."""
        with self._connection.transaction():
            kept = super().commit(base, writes, change)
            self._execute("SELECT pg_notify(?, ?)", (CHANNEL, str(kept.revision)))
        return kept

    def prepare(self) -> None:
        """Listen, and make the tables what they should be."""
        self._connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        self._execute(f"SET statement_timeout = {STATEMENT_S * 1000:.0f}", ())
        self._execute(f"LISTEN {CHANNEL}", ())
        if missing(self._migrations, self._present()):
            with self._connection.transaction():
                # Looked at again: of many that start at once, one makes them.
                self._execute("SELECT pg_advisory_xact_lock(?)", (_MIGRATING,))
                self.migrate(self._present())
                # Older nodes read, and learn that the tables are theirs no more.
                self._execute("SELECT pg_notify(?, '')", (CHANNEL,))

    def _present(self) -> int:
        # Not to_regclass(): within a transaction it goes on saying what it said before others made the table.
        found = self._execute("SELECT 1 FROM pg_class WHERE relname = 'proxyd_meta' AND pg_table_is_visible(oid)", ())
        return self.version() if found.fetchone() else 0

    def has_heard(self) -> bool:
        """
        @return: whether others have committed something; what we have ourselves is no news.
        """
        heard = list(self._connection.notifies(timeout=0))
        return any(notification.pid != self._connection.info.backend_pid for notification in heard)

    def close(self) -> None:
        """Close the connection, but not L{socket}."""
        self._connection.close()


def connect(url: str, migrations: Migrations) -> Tables:
    """
    Connect, listen, and make the tables what they should be.

    @raise StoreUnusable: the server is there, and this can never be the store.
    @raise StoreAway: it is not there.
    """
    try:
        parameters: dict[str, Any] = {**_PARAMETERS, **conninfo_to_dict(url)}
        whole = make_conninfo("", **parameters)
    except psycopg.Error:
        # Not the reason: it quotes what it does not like, which may be the password.
        raise StoreUnusable("the URL of the store has a parameter that PostgreSQL's library does not know") from None
    with ExitStack() as opened:
        try:
            connection = psycopg.connect(whole, autocommit=True, prepare_threshold=None)
            opened.callback(connection.close)
            tables = Tables(connection, migrations)
            opened.callback(tables.socket.close)
            tables.prepare()
        except psycopg.ProgrammingError as error:
            raise StoreUnusable(_text(error)) from error
        except (psycopg.Error, OSError) as error:
            raise StoreAway(_text(error)) from error
        opened.pop_all()
    return tables


def _text(error: Exception) -> str:
    """What the server or its library says; further lines are about the statement."""
    return f"PostgreSQL: {str(error).partition(chr(10))[0]}"


@implementer(IReadDescriptor)
class Session:
    """
    A connection that is used on a thread.

    While it is not in use the reactor watches its socket: what arrives then
    is a notification, or the end.
    """

    def __init__(
        self,
        reactor: Any,
        thread: OneThread,
        tables: Tables,
        heard: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        """
        @param heard: called when others have committed something.
        @param lost: called once, with the reason, when the connection is of no use any more.
        """
        self._reactor = reactor
        self._thread = thread
        self._tables = tables
        self._heard = heard
        self._lost = lost
        self._calls = 0
        self._is_over = False
        reactor.addReader(self)

    def ask(self, call: Callable[[Tables], T]) -> Deferred[T]:
        """
        Make a call on the thread.

        @return: what it returns; L{StoreAway} when it could not be made, or nobody knows whether it was.
        """

        def answered(result: T) -> T:
            # What arrived with the answer has been read, so the reactor hears nothing of it.
            self.doRead()
            return result

        return self._run(call).addBoth(answered)

    def end(self) -> None:
        """Close the connection, after all calls that have been asked for."""
        self._is_over = True
        self._reactor.removeReader(self)
        self._thread.run(self._tables.close).addBoth(lambda _: self._tables.socket.close())

    def interrupt(self) -> None:
        """Break the connection, whatever the thread waits for."""
        with suppress(OSError):
            self._tables.socket.shutdown(socket.SHUT_RDWR)

    # Of IReadDescriptor

    def fileno(self) -> int:
        return self._tables.socket.fileno()

    def logPrefix(self) -> str:
        return "proxyd rules in postgresql"

    def doRead(self) -> None:
        """There are notifications, or it is the end: the library says which."""

        def listened(has_heard: bool) -> None:
            if has_heard and not self._is_over:
                self._heard()

        if not self._is_over:
            self._run(Tables.has_heard).addCallback(listened).addErrback(lambda failure: failure.trap(StoreAway))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor does not watch any more."""
        self.doRead()

    # The thread

    def _run(self, call: Callable[[Tables], T]) -> Deferred[T]:
        self._reactor.removeReader(self)
        self._calls += 1
        deadline = self._reactor.callLater(DEADLINE_S, self.interrupt)

        def made(result: T) -> T:
            if deadline.active():
                deadline.cancel()
            self._calls -= 1
            if self._is_over:
                return result
            if isinstance(result, Failure) and result.check(StoreAway):
                self.end()
                self._lost(str(result.value))
            elif not self._calls:
                self._reactor.addReader(self)
            return result

        return self._thread.run(partial(_made, call, self._tables)).addBoth(made)


def _made(call: Callable[[Tables], T], tables: Tables) -> T:
    try:
        return call(tables)
    except StoreUnusable as error:
        # Tables of a newer version, made while we have been connected; to connect again will say the same.
        raise StoreAway(str(error)) from error
    except _GONE as error:
        raise StoreAway(_text(error)) from error
