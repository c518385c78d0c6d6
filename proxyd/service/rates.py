"""The rates of all clients, over all changes of rules and reloads."""

from __future__ import annotations

from math import ceil
from typing import Final

from twisted.internet.interfaces import IReactorTime

from proxyd.errors import LimitExceeded
from proxyd.rules.model import Rule
from proxyd.rules.rate import NO_RATE, Buckets, Rate

MAX_LIMITS: Final = 1000
"""Limits that are remembered at once; those of rules that are gone make room."""


class Rates:
    """Counts the requests that clients make."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, Rate], Buckets] = {}

    def admit(self, client: str, of_service: Rate | None, rule: Rule | None) -> None:
        """
        Count one request.

        @param of_service: the limit for all rules without one of their own.
        @param rule: the one that takes it, if any does.

        @raise LimitExceeded: the client makes too many.
        """
        own = None if rule is None else rule.limits.rate
        rate = of_service if own is None else own
        if rate is None or rate is NO_RATE:
            return
        key = ("" if own is None or rule is None else rule.id), rate
        buckets = self._buckets.get(key)
        if buckets is None:
            if len(self._buckets) >= MAX_LIMITS:
                del self._buckets[next(iter(self._buckets))]
            buckets = self._buckets[key] = Buckets(rate)
        wait = buckets.take(client, self._clock.seconds())
        if wait:
            raise LimitExceeded(
                f"More than {rate.source} requests are not served.", 429, ((b"Retry-After", b"%d" % ceil(wait)),)
            )
