"""The CONNECT handshake against a plain reader of whole replies."""

from __future__ import annotations

import re

from proxyd.errors import ProxyAuthenticationRequired, ProxyConnectFailed, ProxyTunnelFailed
from proxyd.http.connect import MAX_REFUSAL_BODY, MAX_REPLY_HEAD
from proxyd.outbound.tunnel import TunnelEndpoint
from tests.fuzzing.cutting import same_for_all
from tests.fuzzing.tunnels import Outcome, converse

REQUEST = b"CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\nX-A: b\r\n\r\n"


def _expected(stream: bytes) -> tuple[int, bytes]:
    """The final status, 0 for none, and what follows the head (RFC 9110 sections 9.3.6 and 15.2)."""
    read = 0
    while (end := stream.find(b"\r\n\r\n", read)) >= 0 and end + 4 <= MAX_REPLY_HEAD:
        line = stream[read:end].split(b"\r\n")[0]
        found = re.fullmatch(rb"HTTP/1\.\d ([1-9]\d\d)( [^\0-\x08\n-\x1f\x7f]*)?", line, re.DOTALL)
        if found is None:
            break
        read = end + 4
        if int(found[1]) >= 200:
            return int(found[1]), stream[read:]
    return 0, b""


def fuzz(data: bytes) -> None:
    """
    A reply.

    @param data: what the proxy says.
    """
    status, rest = _expected(data)
    is_tunnel = 200 <= status < 300

    def outcome(segments: list[bytes]) -> Outcome:
        found = converse(lambda proxy: TunnelEndpoint(proxy, "target.test", 443, [(b"X-A", b"b")]), segments)
        error = found.error
        if is_tunnel:
            assert error is None, f"a tunnel was refused: {error}"
        elif status:
            kind = ProxyAuthenticationRequired if status == 407 else ProxyConnectFailed
            assert type(error) is kind and error.refusal is not None
            assert error.refusal.status == status and rest.startswith(error.refusal.body)
            assert len(error.refusal.body) <= MAX_REFUSAL_BODY
            assert all("\n" not in text for text in error.refusal.challenges)
        else:
            assert type(error) is ProxyTunnelFailed
        return Outcome(found.sent, error is None, found.rest)

    expected = Outcome(REQUEST, is_tunnel, rest if is_tunnel else b"")
    assert same_for_all(data, outcome) == expected, f"{expected} was expected"


SEEDS = [
    b"HTTP/1.1 200 Connection established\r\n\r\nSSH-2.0-x\r\n",
    b"HTTP/1.0 200\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a\"\r\n"
    b"Content-Length: 9\r\n\r\nwho is it",
    b"HTTP/1.1 502 Bad Gateway\r\n\r\nno",
    b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 99 No\r\n\r\n",
    b"\x05\0\r\n\r\n",
    b"<html>\r\n\r\n",
]

WORDS = [b"HTTP/1.1 200 \r\n\r\n", b"HTTP/1.0 407 A\r\n", b"Content-Length: ", b"Proxy-Authenticate: ", b"\r\n\r\n"]
