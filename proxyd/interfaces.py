"""Interfaces that others may provide."""

from __future__ import annotations

from typing import Any

from zope.interface import Attribute, Interface


class IHeadResource(Interface):
    """
    A Resource that takes a request as soon as its head is there.

    An ordinary C{twisted.web} Resource sees a request only after all of its
    body has been received.  One that also provides this interface is asked
    first, and streams.
    """

    def head_received(head: Any, channel: Any) -> None:
        """
        Serve a request, now or later.

        @param head: the request, a L{proxyd.http.request.RequestHead}.
        @param channel: the connection it came on, a L{proxyd.forward.channel.Channel}:
            it is answered through C{respond} or C{send_error}.
        """


class IAccessLog(Interface):
    """Where finished exchanges are written down."""

    def write(records: Any) -> None:
        """Write down exchanges, an iterable of L{proxyd.forward.record.Record}."""

    def reopen() -> None:
        """Begin a new file under the same name: the old one has been moved away."""

    def close() -> None:
        """Let go of the file."""


class IRuleStore(Interface):
    """
    Where rules that change at run time are kept, for one process or for many.

    Every Deferred may fail with L{proxyd.errors.StoreAway}: the store cannot
    be reached, and nothing was changed.  What has been answered has been kept:
    no crash takes it back.
    """

    away = Attribute(
        """Why the store cannot be reached, for people and without credentials; C{None} while it can."""
    )

    def open(changed: Any) -> Any:
        """
        Make the store ready, its tables of an older version too.

        A store that cannot be reached is no failure here: it goes on trying,
        longer and longer apart, and says C{changed} when it has succeeded.

        @param changed: called, without arguments and on the reactor, whenever the rules may have been changed by
            another process, or L{away} has changed.

        @return: a Deferred of C{None}.

        @raise proxyd.errors.StoreUnusable: this can never be the store: a file that is none, a newer version of
            the tables than this program knows, an extra that is not installed.
        """

    def read() -> Any:
        """
        @return: a Deferred of a L{proxyd.control.store.values.RuleSet}.
        """

    def commit(base: int, writes: Any, change: Any) -> Any:
        """
        Keep one change, all of it or nothing.

        @param base: the revision that it was made from.
        @param writes: from the ids of rules to their new documents, C{None} to delete.
        @param change: a L{proxyd.control.store.values.Change} without its revision and time.

        @return: a Deferred of the Change with both.  It fails with L{proxyd.errors.StaleRevision} when the store
            has had another change since C{base}.
        """

    def history(before: int | None, limit: int) -> Any:
        """
        @param before: only changes before this revision; C{None} for the latest.
        @param limit: the most changes.

        @return: a Deferred of a list of Changes, the latest one first.
        """

    def change(revision: int) -> Any:
        """
        @return: a Deferred of one Change, or of C{None}.
        """

    def close() -> Any:
        """
        Let go of everything.

        @return: a Deferred of C{None}.
        """
