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

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from zope.interface import Interface

WORTH: Final = 64 * 1024
"""Octets of a body still to come for which it is worth it."""

MOST: Final = 512 * 1024
"""Octets that are moved at once, and so the most that are left over when the socket they go to is full."""

HEAD: Final = 10
"""Octets that are looked at to know how many are to be moved: what says so at the head of a WebSocket's long frame."""

_PEEK_OFF: Final = 42
"""C{SO_PEEK_OFF} of Linux, where peeking begins; the standard library does not name it."""

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
        @param measure: called with the first octets of what follows, which are still to come, as are some of those
            before them: how many from there on are to be moved, too.  If it says 0 it is called again when all before
            them have been moved; if it says so then, the protocol is given everything again.
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

    def fill(self, source: int, limit: int) -> int:
        """
        Take what has been received.

        @param source: the descriptor of a socket that does not block.
        @param limit: the most octets.

        @return: how many; 0 is the source's end.

        @raise BlockingIOError: there is nothing now, or no room for it.
        @raise OSError: the source is broken.
        """
        return os.splice(source, self._entry, limit, flags=_FLAGS)

    def drain(self, sink: int, count: int) -> bytes:
        """
        Give all that was taken to another socket.

        @param sink: its descriptor.
        @param count: how many octets were taken.

        @return: those that it did not take.  What breaks it shows when they are sent.
        """
        try:
            while count:
                count -= os.splice(self._exit, sink, count, flags=_FLAGS)
        except OSError:
            return os.read(self._exit, count)
        return b""

    def empty(self) -> None:
        """Lose what it holds."""
        with suppress(BlockingIOError):
            while os.read(self._exit, 4096):
                pass

    def close(self) -> None:
        """Let go of it."""
        os.close(self._exit)
        os.close(self._entry)


def can_look_ahead(sock: socket.socket) -> bool:
    """
    Whether one may look at what comes behind the next octets: with Linux 6.9 at TCP's, with 6.12 over IPv6, too.

    If so each later peek begins where it was last told to, and moves that on: tell it every time.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _PEEK_OFF, 0)
    except OSError:
        return False
    return True


@cache
def is_allowed() -> bool:
    """Whether this system lets us: some sandboxes do not know C{splice}, or forbid it."""
    try:
        one, another = socket.socketpair()
        with one, another, closing(Pipe()) as pipe:
            one.send(b"x")
            another.setblocking(False)
            return pipe.fill(another.fileno(), 1) == 1 and pipe.drain(another.fileno(), 1) == b""
    except OSError:
        return False


class Move:
    """
    What a transport does in place of reading while octets are moved.

    Its pipe is filled as far as it can be before it is drained: who waits for
    the octets is woken up once for all of them.
    """

    __slots__ = ("_left", "_looks_ahead", "_measure", "_moved", "_sink", "_source")

    def __init__(
        self,
        source: Any,
        sink: Any,
        count: int,
        moved: Callable[[int], None],
        measure: Callable[[bytes], int] | None = None,
    ) -> None:
        """See L{ISplicing.splice}, which the source is asked to do."""
        self._source = source
        self._sink = sink
        self._left = count
        self._moved = moved
        self._measure = measure
        self._looks_ahead = measure is not None and can_look_ahead(source.socket)

    def __call__(self) -> Any:
        """
        Move what has come, and what follows it for as long as that is to be moved, too.

        @return: as C{doRead}.
        """
        try:
            return self._move()
        except BaseException:
            # Whatever it was: the next connection must not find octets of this one.
            self._source.reactor.pipe.empty()
            raise

    def _move(self) -> Any:
        source, sink, measure = self._source, self._sink, self._measure
        if sink.written:
            sink.send()
        is_free = sink.is_free()
        pipe, left, room, rest = source.reactor.pipe, self._left, MOST, b""
        end, is_over = None, False
        try:
            while room:
                if measure is not None:
                    left = self._look(left, measure)
                    if not left:
                        is_over = True
                        break
                if is_free:
                    count = pipe.fill(source.fileno(), left if left < room else room)
                else:
                    rest = source.socket.recv(min(left, source.bufferSize))
                    count = len(rest)
                if not count:
                    end = CONNECTION_LOST if source.is_reset else CONNECTION_DONE
                    break
                left -= count
                room -= count
                if left or rest or measure is None:
                    break
        except BlockingIOError:
            pass
        except OSError:
            source.is_reset = True
            end = CONNECTION_LOST
        self._left = left
        if room < MOST:
            # An end is seen again when this has gone on.
            end = None
            if is_free:
                rest = pipe.drain(sink.fileno(), MOST - room)
            if not left and measure is None:
                source.instead = None
            if rest:
                sink.write(rest)
            self._moved(MOST - room)
        if is_over and not rest and source.instead is self:
            source.instead = None
            return source.doRead()
        return end

    def _look(self, left: int, measure: Callable[[bytes], int]) -> int:
        """
        Look at what comes behind what is left, as far as it can be seen.

        @return: how many octets are to be moved from here on.

        @raise BlockingIOError: nothing is left, and nothing has come.
        """
        recv = self._source.socket.recv
        try:
            if not self._looks_ahead:
                return left or measure(recv(HEAD, socket.MSG_PEEK))
            look_at = self._source.socket.setsockopt
            while left < MOST:
                look_at(socket.SOL_SOCKET, _PEEK_OFF, left)
                more = measure(recv(HEAD, socket.MSG_PEEK))
                if not more:
                    break
                left += more
        except OSError as error:
            if not left:
                raise
            if not isinstance(error, BlockingIOError):
                # What has come before it is still to be moved.
                self._source.is_reset = True
        return left
