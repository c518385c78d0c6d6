"""What is remembered of one exchange, for the access log."""

from __future__ import annotations

from itertools import count

from proxyd.errors import ExchangeError, UpstreamError
from proxyd.http.request import RequestHead

OPERATOR = "operator"
"""The party that failed when somebody closed the connection through the admin API."""

_numbers = count(1)


class Record:
    """
    One request from its head to the last octet of its answer.

    @ivar head: the request, or L{None} when it could not be read.
    @ivar client: the client's address, as far as trusted proxies tell.
    @ivar started: when the head was whole, in seconds of the reactor's clock.
    @ivar status: the status code sent; 0 when none was.
    @ivar sent: octets of the answer's body, or of WebSocket frames to the client.
    @ivar received: octets of the request's body, or of WebSocket frames from the client.
    @ivar duration: seconds until all was done.
    @ivar user: who asks, if that was found out.
    @ivar rule_id: the rule that took the request.
    @ivar origin: the authority that was asked.
    @ivar origin_s: seconds until the origin's head was there.
    @ivar counted: it counts towards the limit of its client's address.
    @ivar relayed: of a WebSocket that has ended: frames and octets from the client, frames and octets from the origin.
    @ivar failed_party: C{client}, C{proxyd}, C{origin}, C{proxy} or L{OPERATOR}.
    @ivar failed_stage: what was being done: C{request}, C{connection}, C{websocket}, or an L{UpstreamError}'s.
    @ivar failed: who failed, and how: C{origin connect_failed ...}; empty when nobody did.
    """

    __slots__ = (
        "_number",
        "client",
        "counted",
        "duration",
        "failed",
        "failed_party",
        "failed_stage",
        "head",
        "origin",
        "origin_s",
        "received",
        "relayed",
        "rule_id",
        "sent",
        "started",
        "status",
        "user",
    )

    def __init__(self, head: RequestHead | None, client: str, started: float) -> None:
        self.head = head
        self.client = client
        self.started = started
        self.status = 0
        self.sent = 0
        self.received = 0
        self.duration = 0.0
        self.user = ""
        self.rule_id = ""
        self.origin = ""
        self.origin_s: float | None = None
        self.counted = False
        self._number = 0
        self.relayed = (0, 0, 0, 0)
        self.failed = self.failed_party = self.failed_stage = ""

    @property
    def number(self) -> int:
        """No other exchange of this process that was asked for its number has the same."""
        if not self._number:
            self._number = next(_numbers)
        return self._number

    def fail(self, error: ExchangeError) -> None:
        """Note an error that proxyd answers, or would answer."""
        stage = error.stage if isinstance(error, UpstreamError) else "request"
        self.note(error.party, stage, f"{error.error_type}: {error}")

    def note(self, party: str, stage: str, text: str) -> None:
        """Note who failed, and at what; the first failure is the one that counts."""
        if not self.failed:
            self.failed = f"{party} {text}"
            self.failed_party = party
            self.failed_stage = stage
