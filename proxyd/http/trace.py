"""
Trace context: the field by which the parts of a system know one request.

@see: W3C Trace Context, sections 3.2 (traceparent) and 4.3 (mutating it)
"""

from __future__ import annotations

import re

from proxyd.http.fields import Fields, values

_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.DOTALL
)


def is_traced(fields: Fields) -> bool:
    """Whether the fields hold one well-formed C{traceparent}."""
    found = values(fields, b"traceparent")
    if len(found) != 1 or _TRACEPARENT.fullmatch(found[0]) is None:
        return False
    # Version 00 is exactly this long; a later one may have more.
    return not found[0].startswith(b"00") or len(found[0]) == 55


def traced(fields: Fields, random: bytes) -> Fields:
    """
    The fields with a trace of our own: what they hold of another one is not well-formed, and goes.

    @param random: 24 octets: the ids of the trace and of its first span.
    """
    parent = b"00-%b-%b-01" % (random[:16].hex().encode("ascii"), random[16:].hex().encode("ascii"))
    kept = [field for field in fields if field[0].lower() not in (b"traceparent", b"tracestate")]
    return [*kept, (b"traceparent", parent)]
