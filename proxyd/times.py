"""Moments as people and programs read them: ISO 8601, in UTC."""

from __future__ import annotations

import time


def to_the_second(moment: float) -> str:
    """@param moment: seconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def to_the_millisecond(moment: float) -> str:
    """@param moment: seconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1000):03d}Z"
