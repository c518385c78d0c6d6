"""
Which Close frames may be sent.

@see: RFC 6455 section 5.5.1 (the payload) and 7.4 (close codes), and IANA's
    registry of close codes for 1012 to 1014.
"""

from __future__ import annotations

GOING_AWAY = 1001
"""We end, or nothing has been said for too long."""

PROTOCOL_ERROR = 1002
"""The framing is broken."""

TOO_BIG = 1009
"""A message is longer than it may be."""

INTERNAL_ERROR = 1011
"""The other side of the relay is lost or broken."""

SERVICE_RESTART = 1012
"""Another process takes over: come back (IANA's registry of close codes)."""

MAX_REASON = 123
"""The most octets of a reason: a control frame's payload has at most 125."""

_NEVER_SENT = frozenset((1004, 1005, 1006))
"""Reserved, or only for programs to tell of a Close that did not come (section 7.4.1); so is 1015."""


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may hold this code."""
    return (1000 <= code <= 1014 and code not in _NEVER_SENT) or 3000 <= code <= 4999


def problem_of(payload: bytes) -> str:
    """
    @param payload: of a Close frame, unmasked.

    @return: what is wrong with it, or nothing.
    """
    if not payload:
        return ""
    if len(payload) == 1:
        return "a Close of one octet"
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        return f"the close code {code}"
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return "a reason that is not UTF-8"
    return ""


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """
    The payload of a Close frame.

    @param reason: in UTF-8, at most L{MAX_REASON} octets.

    @raise ValueError: that may not be sent.
    """
    payload = code.to_bytes(2, "big") + reason
    problem = problem_of(payload)
    if problem or len(reason) > MAX_REASON:
        raise ValueError(problem or f"a reason of {len(reason)} octets")
    return payload
