"""Memory of a process that serves: what the garbage collector leaves alone, and what the heap keeps."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLD: Final = 10_000
"""
So many more objects than before have it look for cycles, instead of Python's 700.

What serves requests and WebSockets leaves none.  As long as many connections
come and go their number rises and falls, and each search would be in vain: 1 %
of what a new connection for each request costs.
"""

BLOCK: Final = 1024 * 1024
"""
Octets of the largest block of memory that often comes and goes.

From glibc's heap it comes and goes without the kernel, and twice as much is
kept free there.  Else what is received at once may be given back each time, to
be asked for again: up to 200 page faults for each megabyte over TLS within
TLS, a quarter of its cost.
"""


@contextmanager
def loading() -> Iterator[None]:
    """For as long as what comes stays, the collector does not look: a twentieth of the time until proxyd listens."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """Call it once, when all is loaded."""
    # What is there now stays (modules, rules): it need not be looked at again and again.
    gc.freeze()
    gc.set_threshold(THRESHOLD)
    # Freed again at once: glibc learns from it (mallopt(3), M_MMAP_THRESHOLD).
    bytes(BLOCK)
