"""
Octets from one socket to another within the kernel: they are never copied into this process.

What C{splice} moves must pass through a pipe.  One is enough for all
connections: it is empty again before anything else is done, for what a socket
does not take at once is read out of it.

@see: splice(2)
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from typing import Any, Final

from zope.interface import Interface

WORTH: Final = 64 * 1024
"""Octets of a body still to come for which it is worth it."""

MOST: Final = 512 * 1024
"""Octets that are moved at once, and so the most that are left over when the socket they go to is full."""

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class ISplicing(Interface):
    """A transport that can move what comes to another one of its kind."""

    def splice(
        sink: Any, count: int, moved: Callable[[int], None], measure: Callable[[bytes], int] | None = None
    ) -> None:
        """
        Move the next octets that come, instead of giving them to the protocol.

        Everything else is as if the protocol had written them to the sink: their order, who pauses whom.

        @param sink: the other transport.
        @param count: so many of them; 0 is none any more.
        @param moved: called with the number of each portion.
        @param measure: called when all of them have been moved, with the first octets of what follows, which are still
            to come: how many from there on are to be moved, too.  If it says 0 the protocol is given everything again.
        """


def can_splice(source: Any, sink: Any, count: int) -> bool:
    """Whether so many octets can be moved from one transport to another, and it pays."""
    if count < WORTH or not is_allowed():
        return False
    # Not providedBy(): TLS says that it provides whatever the transport below it does.
    return ISplicing.implementedBy(type(source)) and ISplicing.implementedBy(type(sink))


class Pipe:
    """What the octets pass through."""

    def __init__(self) -> None:
        """
        @raise OSError: there are no descriptors for it.
        """
        self._exit, self._entry = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Who has too many large pipes already gets one of 64 KiB, and moves as much at once.
        with suppress(OSError):
            fcntl.fcntl(self._entry, fcntl.F_SETPIPE_SZ, MOST)

    def move(self, source: int, sink: int, limit: int) -> tuple[int, bytes]:
        """
        Move what has been received.

        @param source: the descriptor of a socket that does not block.
        @param sink: that of another.
        @param limit: the most octets.

        @return: how many left the source, 0 at its end; and those of them that the sink did not take.

        @raise BlockingIOError: there is nothing now.
        @raise OSError: the source is broken.  What breaks the sink shows when the rest is sent.
        """
        count = left = os.splice(source, self._entry, limit if limit < MOST else MOST, flags=_FLAGS)
        try:
            while left:
                left -= os.splice(self._exit, sink, left, flags=_FLAGS)
        except OSError:
            return count, os.read(self._exit, left)
        return count, b""

    def close(self) -> None:
        """Let go of it."""
        os.close(self._exit)
        os.close(self._entry)


@cache
def is_allowed() -> bool:
    """Whether this system lets us: some sandboxes do not know C{splice}, or forbid it."""
    try:
        one, another = socket.socketpair()
        with one, another, closing(Pipe()) as pipe:
            one.send(b"x")
            another.setblocking(False)
            return pipe.move(another.fileno(), another.fileno(), 1) == (1, b"")
    except OSError:
        return False
