"""Cutting the heads of requests off what a client sends, within their limits."""

from __future__ import annotations

from proxyd.errors import LimitExceeded, RequestError

_CR = 0x0D


def cut_head(data: bytes, header: int, uri: int) -> tuple[bytes, bytes]:
    """
    Cut the first head off.

    @param header: the most octets that a head may have.
    @param uri: the most octets that a request-target may have.

    @return: the head with the empty line that ends it, or nothing if it is not whole yet; and the rest.

    @raise RequestError: there will never be a head that is served.
    """
    whole = data
    if data and data[0] == _CR:
        # RFC 9112 section 2.2 asks for one empty line to be ignored; old clients send up to two.
        data = data.removeprefix(b"\r\n").removeprefix(b"\r\n")
        if data.startswith(b"\r\n"):
            raise RequestError("There are empty lines before the request.")
    end = data.find(b"\r\n\r\n") + 4
    size = end if end > 3 else len(data)
    if size > uri:
        line = data[:size].partition(b"\r\n")[0]
        if len(line.partition(b" ")[2].partition(b" ")[0]) > uri:
            raise LimitExceeded(f"The request-target is longer than {uri} octets.", 414)
    if size > header:
        raise LimitExceeded(f"The request's head is longer than {header} octets.", 431)
    if end > 3:
        return (data, b"") if end == len(data) else (data[:end], data[end:])
    if data.count(b"\n") != data.count(b"\r\n"):
        raise RequestError("A line of the request's head ends without a carriage return.")
    # With its empty lines: each segment could else bring two more.
    return b"", whole
