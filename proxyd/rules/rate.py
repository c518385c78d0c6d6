"""
How many requests one client may make in which time.

Each client has a bucket that holds as many tokens as it may make requests at
once; a request takes one, and they come back evenly over the time.  Who has
made no request for that long has a full one, so that only the others need be
remembered.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final, NamedTuple

MAX_CLIENTS: Final = 100_000
"""Clients that are remembered for one limit, some 20 MiB; beyond, the one that has been silent longest is forgotten."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}

_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])")


class Rate(NamedTuple):
    """
    So many requests in so many seconds; as many at once.

    @ivar source: as it was written.
    """

    source: str
    requests: int
    seconds: int


NO_RATE: Final = Rate("none", 0, 0)
"""No limit, where there would be another one."""


def parse_rate(text: str) -> Rate:
    """
    Read C{10/s}, C{100/m}, C{1000/h} or C{none}.

    @raise ValueError: it is none of these.
    """
    if text == NO_RATE.source:
        return NO_RATE
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError("must be a number of requests and a unit, such as 10/s, 100/m or 1000/h, or none")
    return Rate(text, int(found[1]), _UNITS[found[2]])


class Buckets:
    """The buckets of all clients under one limit."""

    def __init__(self, rate: Rate) -> None:
        self._capacity = float(rate.requests)
        self._per_second = rate.requests / rate.seconds
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> float:
        """
        Count one request.

        @param now: in seconds.

        @return: 0 if it may be made, else the seconds until one may be.
        """
        left, at = self._left.get(client, (self._capacity, now))
        left = min(self._capacity, left + (now - at) * self._per_second)
        allowed = left >= 1
        self._left[client] = left - allowed, now
        self._left.move_to_end(client)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._per_second
