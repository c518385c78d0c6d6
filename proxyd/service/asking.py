"""A request between its head and its origin server, while somebody is asked whether it may go on."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxyd.control.auth.roles import Answered, Granted, Verdict
from proxyd.forward.channel import Channel
from proxyd.forward.roles import Body
from proxyd.http.fields import values
from proxyd.http.request import RequestHead
from proxyd.http.response import is_bodiless

NOBODY = Granted()
"""Who needs no authentication."""


class Asking:
    """Answers a request while nobody knows yet who is to answer it."""

    __slots__ = ("_verdict", "cancelled")

    def __init__(self, verdict: Deferred[Verdict]) -> None:
        self._verdict = verdict
        self.cancelled = False

    def body_received(self, payload: bytes, ended: bool) -> None:
        """Nobody has asked for it."""

    def cancel(self) -> None:
        self.cancelled = True
        self._verdict.cancel()

    def pause(self) -> None:
        """There is nothing to pause."""

    def resume(self) -> None:
        """There is nothing to resume."""


def judge(
    result: Verdict | Failure,
    go_on: Callable[[Granted, RequestHead, Channel], None],
    head: RequestHead,
    channel: Channel,
) -> None:
    """
    Let a request go on, or answer it.

    @param go_on: called when it may go on.
    """
    if isinstance(result, Failure):
        result.raiseException()
    elif isinstance(result, Answered):
        _pass_on(result, head, channel)
    else:
        channel.record.user = result.user
        go_on(result, head, channel)


def _pass_on(answer: Answered, head: RequestHead, channel: Channel) -> None:
    """Send an authentication server's answer."""
    channel.record.origin = answer.origin
    fields, body = answer.fields, answer.body
    dated = bool(values(fields, b"date"))
    if body is None:
        channel.respond(answer.status, answer.reason, fields, Body.NONE, dated=dated)
    else:
        fields = [*fields, (b"Content-Length", b"%d" % len(body))]
        shown = b"" if is_bodiless(answer.status, head.method) else body
        channel.respond(answer.status, answer.reason, fields, Body.LENGTH, shown, dated=dated)
