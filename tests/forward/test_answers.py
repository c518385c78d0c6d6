"""L{proxyd.forward.answers}: what clients are told of errors, and what never."""

from __future__ import annotations

import json

import pytest

from proxyd import errors
from proxyd.forward.answers import error_answer, reason_phrase
from proxyd.http.request import RequestHead, parse_request

ERRORS = [
    (errors.RequestError("No."), 400, "http_request_error", "No."),
    (errors.LimitExceeded("Too much.", 413), 413, "http_request_denied", "Too much."),
    (errors.NoRuleMatches("secret"), 404, "destination_not_found", "No rule matches this path."),
    (errors.UpgradeForbidden("secret"), 403, "http_request_denied", None),
    (errors.MatchTooSlow("secret"), 500, "proxy_internal_error", None),
    (errors.RuleUnusable("secret"), 502, "proxy_configuration_error", None),
    (errors.OverCapacity("secret"), 503, "connection_limit_reached", None),
    (errors.ConnectFailed("secret"), 502, "destination_unavailable", None),
    (errors.ConnectFailed("secret", error_type="dns_error"), 502, "dns_error", None),
    (errors.TLSFailed("secret"), 502, "tls_protocol_error", None),
    (errors.ResponseMalformed("secret"), 502, "http_protocol_error", None),
    (errors.ResponseTruncated("secret"), 502, "http_response_incomplete", None),
    (errors.UpstreamTimeout("secret", stage="response"), 504, "http_response_timeout", None),
    (errors.ExchangeError("secret"), 500, "proxy_internal_error", None),
]

REGISTERED = set(
    "dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited "
    "destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout "
    "connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received "
    "http_request_error http_request_denied http_response_incomplete http_response_header_section_size "
    "http_response_header_size http_response_body_size http_response_trailer_section_size "
    "http_response_trailer_size http_response_transfer_coding http_response_content_coding http_response_timeout "
    "http_upgrade_failed http_protocol_error proxy_internal_response proxy_internal_error proxy_configuration_error "
    "proxy_loop_detected".split()
)
"""RFC 9209 section 2.3."""


def request(accept: str = "*/*") -> RequestHead:
    """A request that wants this kind of answer."""
    return parse_request(f"GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n".encode())


@pytest.mark.parametrize(("error", "status", "error_type", "public"), ERRORS)
def test_answers(error: errors.ExchangeError, status: int, error_type: str, public: str | None) -> None:
    """Status, registered type and a text for the client; what is for the log stays there."""
    answered, reason, fields, body = error_answer(error, request())
    assert (answered, error.status) == (status, status)
    assert reason == reason_phrase(status).encode()
    assert (b"Proxy-Status", f"proxyd; error={error_type}".encode()) in fields
    assert error_type in REGISTERED
    told = json.loads(body)
    assert told == {"error": public or error.public, "status": status}
    assert "secret" not in body.decode()
    assert (b"Content-Length", b"%d" % len(body)) in fields


def test_html() -> None:
    """A browser gets a page, in which nothing of the text is markup."""
    _, _, fields, body = error_answer(errors.RequestError("<b>"), request("text/html,*/*;q=0.8"))
    assert (b"Content-Type", b"text/html; charset=utf-8") in fields
    assert b"<p>&lt;b&gt;</p>" in body


def test_unreadable_request() -> None:
    """Who cannot say what it wants gets JSON."""
    _, _, fields, _ = error_answer(errors.RequestError("No."), None)
    assert (b"Content-Type", b"application/json") in fields


def test_further_fields() -> None:
    """An error may need fields of its own (RFC 9110 section 15.5.6)."""
    _, _, fields, _ = error_answer(errors.RequestError("No.", 405, ((b"Allow", b"GET"),)), request())
    assert (b"Allow", b"GET") in fields


def test_unknown_status() -> None:
    """A status code without a phrase has none."""
    assert reason_phrase(599) == ""
