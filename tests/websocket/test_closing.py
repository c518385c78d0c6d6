"""Which Close frames may be sent (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

import pytest
from autobahn.websocket.protocol import WebSocketProtocol

from proxyd.websocket.closing import close_payload, may_be_sent, problem_of

CODES = [
    # code, may it be sent, who says so
    (0, False, "7.4.2"),
    (999, False, "7.4.2"),
    (1000, True, "7.4.1"),
    (1001, True, "7.4.1"),
    (1003, True, "7.4.1"),
    (1004, False, "7.4.1 reserved"),
    (1005, False, "7.4.1 not to be sent"),
    (1006, False, "7.4.1 not to be sent"),
    (1007, True, "7.4.1"),
    (1011, True, "7.4.1"),
    (1012, True, "IANA: service restart"),
    (1013, True, "IANA: try again later"),
    (1014, True, "IANA: bad gateway"),
    (1015, False, "7.4.1 not to be sent"),
    (1016, False, "7.4.2 unassigned"),
    (2999, False, "7.4.2 unassigned"),
    (3000, True, "7.4.2 frameworks"),
    (4999, True, "7.4.2 private use"),
    (5000, False, "7.4.2"),
    (65535, False, "7.4.2"),
]


@pytest.mark.parametrize(("code", "allowed", "rfc"), CODES)
def test_close_codes(code: int, allowed: bool, rfc: str) -> None:
    """Assigned codes and the free ranges may be sent; codes that stand for "none came" may not."""
    assert may_be_sent(code) is allowed
    assert bool(problem_of(code.to_bytes(2, "big"))) is not allowed


def test_what_autobahn_sends() -> None:
    """All codes that Autobahn sends are known here."""
    assert all(may_be_sent(code) for code in WebSocketProtocol.CLOSE_STATUS_CODES_ALLOWED)


PAYLOADS = [
    (b"", "", "5.5.1 no code at all"),
    (b"\x03", "a Close of one octet", "5.5.1"),
    (b"\x03\xe8", "", "5.5.1"),
    (b"\x03\xe8" + "schöner Abgang".encode(), "", "5.5.1 UTF-8"),
    (b"\x03\xe8\xff", "a reason that is not UTF-8", "5.5.1, 8.1"),
    (b"\x03\xe8\xed\xa0\x80", "a reason that is not UTF-8", "8.1 a surrogate"),
    (b"\x03\xe8\xc3", "a reason that is not UTF-8", "8.1 cut short"),
    (b"\x03\xed", "the close code 1005", "7.4.1"),
]


@pytest.mark.parametrize(("payload", "problem", "rfc"), PAYLOADS)
def test_close_payloads(payload: bytes, problem: str, rfc: str) -> None:
    """A Close has nothing, or two octets of code and a reason in UTF-8."""
    assert problem_of(payload) == problem


def test_our_own_close() -> None:
    """What we send ourselves is held to the same rules."""
    assert close_payload(1001) == b"\x03\xe9"
    assert close_payload(1000, b"x" * 123) == b"\x03\xe8" + b"x" * 123


@pytest.mark.parametrize(
    ("code", "reason", "problem"),
    [(1006, b"", "the close code 1006"), (1000, b"\xff", "UTF-8"), (1000, b"x" * 124, "a reason of 124 octets")],
)
def test_no_close_of_ours(code: int, reason: bytes, problem: str) -> None:
    """Neither a code that may not be sent, nor a reason that is too long or no text."""
    with pytest.raises(ValueError, match=problem):
        close_payload(code, reason)
