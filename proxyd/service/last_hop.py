"""
Requests that end here: how far they may go, and what answers them.

@see: RFC 9110 section 7.6.2 (Max-Forwards), 9.3.7 (OPTIONS), 9.3.8 (TRACE)
"""

from __future__ import annotations

from proxyd.errors import RequestError
from proxyd.forward.channel import Channel
from proxyd.forward.roles import Body
from proxyd.http.fields import serialize, values
from proxyd.http.request import METHODS, RequestHead

LIMITED_BY_HOPS = (b"TRACE", b"OPTIONS")
"""The methods whose requests may say how far they go."""

_NOT_TRACED = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
"""What an answer to C{TRACE} must not show (RFC 9110 section 9.3.8)."""


def is_last_hop(head: RequestHead) -> bool:
    """
    Whether the request must go no further; if it may, it may go one hop less far.

    @raise RequestError: it does not say clearly how far.
    """
    lines = values(head.fields, b"max-forwards")
    if not lines:
        return False
    if len(lines) > 1 or not lines[0].isdigit() or len(lines[0]) > 9:
        raise RequestError("Max-Forwards must be one number.")
    hops = int(lines[0])
    if hops:
        head.section, head.memo = b"", None
        head.fields = [
            (name, b"%d" % (hops - 1) if name.lower() == b"max-forwards" else value) for name, value in head.fields
        ]
    return not hops


def answer_options(channel: Channel) -> None:
    """Say which methods there are."""
    channel.respond(204, b"No Content", [(b"Allow", b", ".join(sorted(METHODS)))], Body.NONE)


def answer_trace(channel: Channel) -> None:
    """Show the request as it arrived, without what is secret."""
    head = channel.head
    shown = [field for field in head.fields if field[0].lower() not in _NOT_TRACED]
    body = b"%b\r\n%b\r\n" % (head.line, serialize(shown))
    fields = [(b"Content-Type", b"message/http"), (b"Content-Length", b"%d" % len(body))]
    channel.respond(200, b"OK", fields, Body.LENGTH, body)
