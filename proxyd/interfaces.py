"""Interfaces that others may provide."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface


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

        @param head: the request, a L{proxyd.http.head.RequestHead}.
        @param channel: the connection it came on, a L{proxyd.forward.channel.Channel}:
            it is answered through C{respond} or C{send_error}.
        """


class IAccessLog(Interface):
    """Where finished exchanges are written down."""

    def write(record: Any) -> None:
        """Write down one exchange, a L{proxyd.forward.record.Record}."""

    def reopen() -> None:
        """Begin a new file under the same name: the old one has been moved away."""

    def close() -> None:
        """Let go of the file."""
