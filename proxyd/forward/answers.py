"""The answers that proxyd makes itself: errors, for people and for programs."""

from __future__ import annotations

import json
from html import escape
from http import HTTPStatus

from proxyd.errors import ExchangeError, ProxyError, RequestError
from proxyd.http.fields import Fields, values
from proxyd.http.request import RequestHead
from proxyd.http.status import proxy_status

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{status} {reason}</title></head>
<body><h1>{status} {reason}</h1><p>{text}</p></body>
</html>
"""


def reason_phrase(status: int) -> str:
    """
    @return: the phrase that the HTTP specifications have for a status code, or nothing.
    """
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def error_answer(error: ExchangeError, head: RequestHead | None) -> tuple[int, bytes, Fields, bytes]:
    """
    The answer that tells a client of an error.

    It holds the status and the error's public text: never what is only for the log.

    @param head: the request, whose C{Accept} decides between HTML and JSON.
    @return: status, reason, fields and body.
    """
    status, reason = error.status, reason_phrase(error.status)
    if head is not None and any(b"text/html" in value for value in values(head.fields, b"accept")):
        media_type = b"text/html; charset=utf-8"
        body = _PAGE.format(status=status, reason=escape(reason), text=escape(error.public)).encode()
    else:
        media_type = b"application/json"
        body = json.dumps({"error": error.public, "status": status}).encode() + b"\n"
    details = error.name if isinstance(error, ProxyError) else None
    fields = [
        (b"Proxy-Status", proxy_status(error.error_type, details=details)),
        (b"Content-Type", media_type),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
    ]
    if isinstance(error, RequestError):
        fields.extend(error.fields)
    return status, reason.encode("ascii"), fields, body
