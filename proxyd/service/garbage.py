"""The garbage collector, in a process that leaves it hardly anything to do."""

from __future__ import annotations

import gc
from typing import Final

THRESHOLD: Final = 10_000
"""
So many more objects than before have it look for cycles, instead of Python's 700.

What serves requests and WebSockets leaves none.  As long as many connections
come and go their number rises and falls, and each search would be in vain: 1 %
of what a new connection for each request costs.
"""


def settle() -> None:
    """What is there now stays (modules, rules): it need not be looked at again and again."""
    gc.freeze()
    gc.set_threshold(THRESHOLD)
