"""Proxy-Status."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.http.status import proxy_status


@pytest.mark.parametrize(
    ("details", "received_status", "value"),
    [
        # RFC 9209 section 2, RFC 8941 section 4.1
        (None, None, b"proxyd; error=dns_error"),
        ("refused", None, b'proxyd; error=dns_error; details="refused"'),
        (None, 407, b"proxyd; error=dns_error; received-status=407"),
        ("a", 200, b'proxyd; error=dns_error; details="a"; received-status=200'),
        ("", None, b'proxyd; error=dns_error; details=""'),
        ('say "\\"', None, b'proxyd; error=dns_error; details="say \\"\\\\\\""'),
        ("a\r\nb\0\x7f\xe9\u20ac", None, b'proxyd; error=dns_error; details="a??b????"'),
    ],
)
def test_proxy_status(details: str | None, received_status: int | None, value: bytes) -> None:
    """Parameters in order, details as a quoted string."""
    assert proxy_status("dns_error", details=details, received_status=received_status) == value


@given(st.text())
def test_details_never_leave_their_string(details: str) -> None:
    """Whatever the text, the value is one item of RFC 8941 and one line."""
    value = proxy_status("dns_error", details=details)
    assert re.fullmatch(rb'proxyd; error=dns_error; details="(?:[ !#-\[\]-~]|\\[\\"])*"', value)
