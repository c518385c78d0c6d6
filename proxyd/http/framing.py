"""
Bodies: how long they are, and chunks in and out.

A reader is fed what the connection receives after a head and gives back the
octets of the body among it::

    receive(data) -> octets of the body      until finished is true
    rest                                     then: what followed the body
    end_of_input()                           the connection has ended

@see: RFC 9112 sections 6 (message body), 7.1 (chunked), 8 (incomplete messages)
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from enum import Enum, auto

from proxyd.http.fields import Field, Fields, serialize, valid_name, valid_value
from proxyd.http.request import RequestHead
from proxyd.http.response import ResponseHead

MAX_SIZE_LINE = 1024
"""The most octets of one chunk's size line, its extensions included.  Who sends more has no size to tell."""

MAX_EXTENSIONS = 16 * 1024
"""
The most octets of extensions in one body, which nobody reads: Go's limit too.
Without one, a body of single octets makes a proxy read a thousand times its size.
"""

MAX_TRAILERS = 16 * 1024
"""The most octets of a trailer section, as much as a head has in many servers."""

_CRLF = b"\r\n"
_END_OF_SECTION = b"\r\n\r\n"

# Sixteen digits hold 2^64; the bad white space that RFC 9112 section 7.1.1 lets recipients parse is for
# extensions only. A lone CR or LF within an extension is a line's end to some.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t -~\x80-\xff]*)?")


class BodyTruncated(ValueError):
    """The connection ended before the body did."""


class BadChunk(ValueError):
    """The body is not in chunks as they must be."""


class _Reader(ABC):
    """
    What all readers have in common.

    @ivar finished: whether the body's end has been seen.
    @ivar rest: what followed that end.
    @ivar trailers: the fields behind the body.
    """

    __slots__ = ("finished", "rest", "trailers")

    def __init__(self) -> None:
        self.finished = False
        self.rest = b""
        self.trailers: Fields = []

    @abstractmethod
    def receive(self, data: bytes) -> bytes:
        """
        Read on.

        @return: the octets of the body among these.

        @raise BadChunk: this is no body.
        @raise RuntimeError: the body has L{finished} before.
        """

    def end_of_input(self) -> None:
        """
        The connection has ended.

        @raise BodyTruncated: the body has not.
        """
        if not self.finished:
            raise BodyTruncated("the connection ended within the body")


class LengthReader(_Reader):
    """
    A body of known length; its octets are handed on uncopied.

    @ivar left: how many are still to come.
    """

    __slots__ = ("left",)

    def __init__(self, length: int) -> None:
        super().__init__()
        self.left = length
        self.finished = not length

    def skip(self, count: int) -> None:
        """So many octets, at most those that are L{left}, have gone another way."""
        self.left -= count
        self.finished = not self.left

    def receive(self, data: bytes) -> bytes:
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        if self.finished:
            raise RuntimeError("receive() after the end")
        self.finished = True
        self.rest = data[self.left :]
        return data[: self.left]


class UntilCloseReader(_Reader):
    """A body that ends with the connection (RFC 9112 section 6.3, rule 8)."""

    __slots__ = ()

    def receive(self, data: bytes) -> bytes:
        if self.finished:
            raise RuntimeError("receive() after the end")
        return data

    def end_of_input(self) -> None:
        self.finished = True


class _Expecting(Enum):
    """
    Where within a chunked body one is::

        SIZE --> DATA --> DATA_END --> SIZE      a chunk
        SIZE --> TRAILERS                        the last one
    """

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()


class ChunkedReader(_Reader):
    """
    A body in chunks.

    Sizes are read, extensions dropped; everything but the one right spelling
    is refused, for what one recipient forgives moves the body's end for the
    next (RFC 9112 section 11.2).
    """

    __slots__ = ("_expecting", "_extensions_size", "_kept", "_left", "_max_line", "_max_trailers")

    def __init__(self, max_line: int = MAX_SIZE_LINE, max_trailers: int = MAX_TRAILERS) -> None:
        super().__init__()
        self._max_line = max_line
        self._max_trailers = max_trailers
        self._expecting = _Expecting.SIZE
        self._kept = b""
        self._left = 0
        self._extensions_size = 0

    def receive(self, data: bytes) -> bytes:
        size = len(data)
        if size <= self._left:  # all of it within a chunk
            self._left -= size
            return data
        if self.finished:
            raise RuntimeError("receive() after the end")
        data = self._kept + data
        self._kept = b""
        pieces: list[bytes] = []
        position = 0
        while not self.finished:
            if self._expecting is _Expecting.DATA:
                end = position + self._left
                pieces.append(data[position:end])
                if end > len(data):
                    self._left = end - len(data)
                    break
                self._left = 0
                self._expecting = _Expecting.DATA_END
                position = end
            after = self._step(data, position)
            if after < 0:
                self._kept = data[position:]
                break
            position = after
        if self.finished:
            self.rest = data[position:]
        return b"".join(pieces)

    def _step(self, data: bytes, position: int) -> int:
        """Read one thing that is no data: where it ends, or -1 if not all of it is there."""
        if self._expecting is _Expecting.SIZE:
            return self._read_size(data, position)
        if self._expecting is _Expecting.DATA_END:
            return self._read_data_end(data, position)
        return self._read_trailers(data, position)

    def _read_size(self, data: bytes, position: int) -> int:
        end = data.find(_CRLF, position, position + self._max_line + 2)
        if end < 0:
            # One octet more may be the CR.
            if len(data) - position > self._max_line + 1:
                raise BadChunk("a chunk's size line is too long")
            if data.find(b"\n", position) >= 0:
                raise BadChunk("a chunk's size line ends without a carriage return")
            return -1
        found = _SIZE_LINE.fullmatch(data, position, end)
        if found is None:
            raise BadChunk("a chunk has no proper size")
        if found[2] is not None:
            self._extensions_size += len(found[2])
            if self._extensions_size > MAX_EXTENSIONS:
                raise BadChunk("the chunk extensions are too long")
        self._left = int(found[1], 16)
        if self._left:
            self._expecting = _Expecting.DATA
            return end + 2
        self._expecting = _Expecting.TRAILERS
        # The line break belongs to the trailers, too: with it, no trailers end as any do.
        return end

    def _read_data_end(self, data: bytes, position: int) -> int:
        end = data[position : position + 2]
        if end == _CRLF:
            self._expecting = _Expecting.SIZE
            return position + 2
        if not _CRLF.startswith(end):
            raise BadChunk("a chunk is not as long as it says")
        return -1

    def _read_trailers(self, data: bytes, position: int) -> int:
        end = data.find(_END_OF_SECTION, position, position + self._max_trailers + 4)
        if end < 0:
            if len(data) - position > self._max_trailers + 3:
                raise BadChunk("the trailers are too long")
            return -1
        if end > position:
            self.trailers = [_read_trailer(line) for line in data[position + 2 : end].split(_CRLF)]
        self.finished = True
        return end + 4


def _read_trailer(line: bytes) -> Field:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not valid_name(name) or not valid_value(value):
        raise BadChunk("a trailer is malformed")
    return name, value


BodyReader = LengthReader | ChunkedReader | UntilCloseReader


def request_body(head: RequestHead) -> BodyReader | None:
    """A reader for the body of this request, C{None} if it has none (RFC 9112 section 6.3)."""
    if head.chunked:
        return ChunkedReader()
    return LengthReader(head.length) if head.length else None


def response_body(head: ResponseHead) -> BodyReader | None:
    """A reader for the body of this response, C{None} if it has none (RFC 9112 section 6.3)."""
    if head.bodiless:
        return None
    if head.chunked:
        return ChunkedReader()
    if head.length is None:
        return UntilCloseReader()
    return LengthReader(head.length) if head.length else None


def chunk(data: bytes) -> bytes:
    """These octets as one chunk; of none nothing, since an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Fields) -> bytes:
    """The end of a body in chunks, with the fields that follow it."""
    return b"0\r\n%b\r\n" % serialize(trailers)
