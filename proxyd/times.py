"""Moments as people and programs read them: ISO 8601 in UTC, and as HTTP has them."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache


def to_the_second(moment: float) -> str:
    """@param moment: seconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def to_the_millisecond(moment: float) -> str:
    """@param moment: seconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"


def date_line() -> bytes:
    """The field C{Date} of a message that is made now, as a line (RFC 9110 section 6.6.1)."""
    return _date_line(int(time.time()))


# A second has many messages: 0.2 instead of 3 us.
@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
