"""
C{Proxy-Status}: why an answer is not the origin server's.

@see: RFC 9209, RFC 8941 section 4.1 (serialising structured fields)
"""

from __future__ import annotations

import re

# What a quoted string of RFC 8941 section 3.3.3 cannot hold.
_UNPRINTABLE = re.compile(r"[^ -~]")


def proxy_status(error_type: str, *, details: str | None = None, received_status: int | None = None) -> bytes:
    """
    The value of C{Proxy-Status} for an answer that proxyd makes.

    @param error_type: one of RFC 9209 section 2.3.
    @param details: more of it, for people; no address and no credential.
    @param received_status: the status code of the answer that is not passed on.
    """
    value = f"proxyd; error={error_type}"
    if details is not None:
        value += f'; details="{_quotable(details)}"'
    if received_status is not None:
        value += f"; received-status={received_status}"
    return value.encode("ascii")


def _quotable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text).replace("\\", "\\\\").replace('"', '\\"')
