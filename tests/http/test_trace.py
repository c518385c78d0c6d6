"""Trace context: what counts as a trace, and how one begins."""

from __future__ import annotations

import pytest

from proxyd.http.trace import is_traced, traced

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
GOOD = b"00-%b-%b-01" % (TRACE, SPAN)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GOOD, True),
        (b"00-%b-%b-00" % (TRACE, SPAN), True),
        (b"cc-%b-%b-01-what the future brings" % (TRACE, SPAN), True),
        (GOOD + b"-more", False),  # version 00 has no more
        (b"ff-%b-%b-01" % (TRACE, SPAN), False),
        (b"00-%b-%b-01" % (b"0" * 32, SPAN), False),
        (b"00-%b-%b-01" % (TRACE, b"0" * 16), False),
        (GOOD.upper(), False),
        (GOOD[:-1], False),
        (b"cc-%b-%b-01." % (TRACE, SPAN), False),
        (b"", False),
        (b"nonsense", False),
    ],
)
def test_well_formed(value: bytes, expected: bool) -> None:
    """W3C Trace Context section 3.2.2, by its grammar."""
    assert is_traced([(b"Accept", b"*/*"), (b"TraceParent", value)]) is expected


def test_once() -> None:
    """Two of them are none (section 3.2)."""
    assert not is_traced([(b"traceparent", GOOD), (b"traceparent", GOOD)])
    assert not is_traced([])


def test_beginning() -> None:
    """A trace of our own is well-formed, and replaces what was not, with its state (section 4.3)."""
    came = [(b"Accept", b"*/*"), (b"Traceparent", b"bad"), (b"tracestate", b"a=b")]
    fields = traced(came, bytes(range(1, 25)))
    assert fields[0] == (b"Accept", b"*/*") and len(fields) == 2
    assert fields[1] == (b"traceparent", b"00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01")
    assert is_traced(fields)
