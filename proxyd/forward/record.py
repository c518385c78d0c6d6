"""What is remembered of one exchange, for the access log."""

from __future__ import annotations

from proxyd.errors import ExchangeError
from proxyd.http.head import RequestHead


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
    @ivar rule_id: the rule that took the request.
    @ivar origin: the authority that was asked.
    @ivar origin_s: seconds until the origin's head was there.
    @ivar counted: it counts towards the limit of its client's address.
    @ivar failed: who failed, and how: C{origin connect_failed ...}; empty when nobody did.
    """

    __slots__ = (
        "client",
        "counted",
        "duration",
        "failed",
        "head",
        "origin",
        "origin_s",
        "received",
        "rule_id",
        "sent",
        "started",
        "status",
    )

    def __init__(self, head: RequestHead | None, client: str, started: float) -> None:
        self.head = head
        self.client = client
        self.started = started
        self.status = 0
        self.sent = 0
        self.received = 0
        self.duration = 0.0
        self.rule_id = ""
        self.origin = ""
        self.origin_s: float | None = None
        self.counted = False
        self.failed = ""

    def fail(self, error: ExchangeError) -> None:
        """Note who failed; the first failure is the one that counts."""
        if not self.failed:
            self.failed = f"{error.party} {error.error_type}: {error}"
