"""
Everything that proxyd itself reports as gone wrong::

    ProxydError
    ├── ConfigError                     the configuration: every problem at once
    ├── StoreError                      the rules that change at run time
    │   ├── StoreUnusable               this can never be the store
    │   ├── StoreAway                   it cannot be reached at present
    │   └── StaleRevision               another change came first
    ├── WebSocketError                  C{connect_websocket}: what is no error of the way there
    │   ├── HandshakeRefused            the server answers with something else than a 101
    │   └── ConnectionClosed            the connection is over
    └── ExchangeError                   one request cannot be served
        ├── RequestError          400   what the client sent
        │   ├── BadTarget         400   its request-target
        │   ├── Unauthorized      401   it does not show who asks
        │   └── LimitExceeded     4xx   408, 413, 414, 429, 431
        ├── NoRuleMatches         404
        ├── UpgradeForbidden      403   an Origin that the rule does not accept
        ├── MatchTooSlow          500   the patterns took longer than they may
        ├── RuleUnusable          502   an unset variable, a file that cannot be read
        ├── OverCapacity          503   limits, draining
        ├── AuthUnavailable       503   who asks cannot be found out at present
        └── UpstreamError         502   the origin, or the way to it
            ├── ConnectFailed     502   no connection
            ├── TLSFailed         502   no TLS that can be trusted
            ├── ResponseMalformed 502   not HTTP, or not what was asked for
            ├── ResponseTruncated 502   it ended early
            ├── UpstreamTimeout   504   too slow
            ├── OutOfDescriptors  503   the system has none left for a connection
            └── ProxyError        502   the proxy on the way to the origin (504: too slow)
                ├── ProxyConnectFailed            33  it refused
                ├── ProxyAuthenticationRequired   34  it wants to know who we are
                ├── ProxyConnectionRefused        35  it cannot be reached
                └── ProxyTunnelFailed             36  it failed afterwards, or TLS in its tunnel did

A client that goes away is no error: it is an outcome in the access log.
"""

from __future__ import annotations

from dataclasses import dataclass


class ProxydError(Exception):
    """The root of this tree."""


@dataclass(frozen=True)
class Problem:
    """
    One thing that is wrong with a configuration.

    @ivar path: where, as keys and indices from the top: C{("rules", 3, "target")}.
    @ivar message: what is wrong and what would be right.
    @ivar line: the line in the file, from 1, where it is known.
    @ivar rule: how people call the rule, if it is within one.
    """

    path: tuple[str | int, ...]
    message: str
    line: int | None = None
    rule: str | None = None

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.path)
        named = f" (rule {self.rule!r})" if self.rule is not None else ""
        return f"{where}{named}: {self.message}" if where else self.message


class ConfigError(ProxydError):
    """
    A configuration is refused.

    @ivar problems: everything that is wrong with it.
    @ivar source: the name of its file, or empty.
    """

    def __init__(self, problems: tuple[Problem, ...], source: str = "") -> None:
        super().__init__(problems, source)
        self.problems = problems
        self.source = source

    def __str__(self) -> str:
        return "\n".join(self._line(problem) for problem in self.problems)

    def _line(self, problem: Problem) -> str:
        place = ":".join(str(part) for part in (self.source, problem.line) if part not in ("", None))
        return f"{place}: {problem}" if place else str(problem)


class StoreError(ProxydError):
    """Something about the store of rules."""


class StoreUnusable(StoreError):
    """This can never be the store: no such file or database, or one of a newer version."""


class StoreAway(StoreError):
    """The store cannot be reached at present; nothing was changed."""


class StaleRevision(StoreError):
    """The rules have been changed since they were read."""


class ExchangeError(ProxydError):
    """
    A request that proxyd answers itself.

    The text of the exception is for the log; a client is told the status and
    L{public} only, so that no address, variable or credential leaks.

    @cvar status: the status code of the answer.
    @cvar error_type: the error type in C{Proxy-Status} (RFC 9209 section 2.3).
    @cvar party: who failed, as the access log has it: C{client}, C{proxyd} or C{origin}.
    @cvar public: what the client is told.
    """

    status = 500
    error_type = "proxy_internal_error"
    party = "proxyd"
    public = "The proxy could not serve this request."


class RequestError(ExchangeError):
    """
    The request is malformed, or is not one that proxyd serves.

    @ivar fields: further fields of the answer, such as C{Allow}.
    """

    status = 400
    error_type = "http_request_error"
    party = "client"

    def __init__(self, message: str, status: int = 400, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.public = message
        self.fields = fields


class BadTarget(RequestError):
    """A request-target, or the path that a rewrite made of it, is not acceptable."""


class Unauthorized(RequestError):
    """
    The request does not show who asks, or not credibly.

    The text is the same whatever was wrong: who tries learns nothing from it.
    """

    error_type = "http_request_denied"

    def __init__(self, challenge: bytes) -> None:
        """
        @param challenge: the value of C{WWW-Authenticate} (RFC 9110 section 11.6.1).
        """
        super().__init__("Authentication is required.", 401, ((b"WWW-Authenticate", challenge),))


class LimitExceeded(RequestError):
    """The request is larger, slower or more frequent than it may be."""

    error_type = "http_request_denied"


class NoRuleMatches(ExchangeError):
    """No rule takes this request."""

    status = 404
    error_type = "destination_not_found"
    public = "No rule matches this path."


class UpgradeForbidden(ExchangeError):
    """The C{Origin} of a WebSocket upgrade is none that the rule accepts."""

    status = 403
    error_type = "http_request_denied"
    party = "client"
    public = "This origin may not open a WebSocket here."


class MatchTooSlow(ExchangeError):
    """
    Matching took longer than it may.

    @ivar rule_id: the rule whose pattern was being tried.
    """

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"the pattern of rule {rule_id} took too long to match")
        self.rule_id = rule_id


class RuleUnusable(ExchangeError):
    """The rule that matches cannot be followed at present: a variable is not set, a file cannot be read."""

    status = 502
    error_type = "proxy_configuration_error"
    public = "The proxy is not configured for this request."


class OverCapacity(ExchangeError):
    """There is no room for this request now."""

    status = 503
    error_type = "connection_limit_reached"
    public = "The proxy is busy. Try again later."


class AuthUnavailable(ExchangeError):
    """The authentication server that decides does not: it cannot be reached, or its answer is none."""

    status = 503
    error_type = "destination_unavailable"
    public = "The proxy cannot find out at present who may see this. Try again later."


class UpstreamError(ExchangeError):
    """
    The origin server, or the way to it, failed.

    @cvar code: the number of this error in the contract that it is part of, or 0.
    @cvar name: its name there, or empty.
    @ivar stage: what was being done, for the access log: C{connect}, C{tls}, C{request}, C{response}.
    """

    code = 0
    name = ""
    status = 502
    error_type = "proxy_internal_error"
    party = "origin"
    public = "The server behind the proxy could not be reached."

    def __init__(self, message: str, *, stage: str, error_type: str | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        if error_type is not None:
            self.error_type = error_type


class ConnectFailed(UpstreamError):
    """No connection to the origin server could be made."""

    name = "target_connect_failed"
    error_type = "destination_unavailable"

    def __init__(self, message: str, *, stage: str = "connect", error_type: str | None = None) -> None:
        super().__init__(message, stage=stage, error_type=error_type)


class TLSFailed(UpstreamError):
    """The origin server's TLS failed, or its certificate is not good."""

    name = "target_tls_failed"
    error_type = "tls_protocol_error"

    def __init__(self, message: str, *, stage: str = "tls", error_type: str | None = None) -> None:
        super().__init__(message, stage=stage, error_type=error_type)


class ResponseMalformed(UpstreamError):
    """The origin server's answer is no HTTP/1, or not an answer to what was asked."""

    error_type = "http_protocol_error"
    public = "The server behind the proxy sent an answer that makes no sense."

    def __init__(self, message: str, *, stage: str = "response", error_type: str | None = None) -> None:
        super().__init__(message, stage=stage, error_type=error_type)


class ResponseTruncated(UpstreamError):
    """The origin server's answer ended early."""

    error_type = "http_response_incomplete"
    public = "The server behind the proxy broke off its answer."

    def __init__(self, message: str, *, stage: str = "response", error_type: str | None = None) -> None:
        super().__init__(message, stage=stage, error_type=error_type)


class UpstreamTimeout(UpstreamError):
    """The origin server, or the way to it, took too long."""

    status = 504
    error_type = "http_response_timeout"
    public = "The server behind the proxy took too long."

    def __init__(self, message: str, *, stage: str, error_type: str | None = None) -> None:
        super().__init__(message, stage=stage, error_type=error_type)
        if stage == "connect":
            self.name = ConnectFailed.name


class OutOfDescriptors(UpstreamError):
    """The system has no descriptor for another connection."""

    status = 503
    error_type = OverCapacity.error_type
    party = "proxyd"
    public = OverCapacity.public


@dataclass(frozen=True)
class Refusal:
    """
    What a proxy said when it refused a tunnel.

    @ivar status: the status code of an HTTP proxy, the reply code of a SOCKS one.
    @ivar challenges: how it wants to be told who we are.
    @ivar body: the first 4 KiB of it.
    """

    status: int
    reason: str = ""
    challenges: tuple[str, ...] = ()
    body: bytes = b""


class ProxyError(UpstreamError):
    """
    The proxy on the way to the origin server failed, or what is beyond it.

    @ivar hop: C{proxy}, or C{target} for what is beyond it.
    @ivar refusal: what the proxy said.
    """

    party = "proxy"
    public = "The way to the server behind the proxy failed."

    def __init__(
        self,
        message: str,
        *,
        stage: str,
        error_type: str | None = None,
        hop: str = "proxy",
        refusal: Refusal | None = None,
        timed_out: bool = False,
    ) -> None:
        """
        @param stage: C{initializing}, C{proxy_handshake}, C{proxy_tls_handshake} or C{reading}.
        """
        super().__init__(message, stage=stage, error_type=error_type)
        self.hop = hop
        self.refusal = refusal
        if timed_out:
            self.status = 504


class ProxyConnectFailed(ProxyError):
    """The proxy refused the tunnel."""

    code = 33
    name = "proxy_connect_failed"
    error_type = "connection_refused"


class ProxyAuthenticationRequired(ProxyError):
    """The proxy wants credentials, or other ones."""

    code = 34
    name = "proxy_authentication_required"
    error_type = "proxy_configuration_error"


class ProxyConnectionRefused(ProxyError):
    """The proxy could not be reached."""

    code = 35
    name = "proxy_connection_refused"
    error_type = "connection_refused"


class ProxyTunnelFailed(ProxyError):
    """The proxy was reached and then failed: it fell silent, talked nonsense or hung up; or TLS did not come about."""

    code = 36
    name = "proxy_tunnel_failed"
    error_type = "connection_terminated"


class WebSocketError(ProxydError):
    """A WebSocket connection of the client is not there, or no more."""


class HandshakeRefused(WebSocketError):
    """
    The server did not agree to a WebSocket.

    @ivar status: the status code of its answer.
    @ivar fields: names, as they came, and values.
    @ivar body: the first 4 KiB of it.
    """

    def __init__(self, status: int, reason: str, fields: tuple[tuple[str, str], ...], body: bytes) -> None:
        super().__init__(f"the server refused the WebSocket: {status} {reason}".rstrip())
        self.status = status
        self.reason = reason
        self.fields = fields
        self.body = body


class ConnectionClosed(WebSocketError):
    """
    A WebSocket connection is over, and all messages have been received.

    @ivar code: the close code: the server's, our own if we gave the connection
        up, 1005 for a Close without one, 1006 for a connection that was lost.
    @ivar reason: what was said about it.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the connection was closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason

    @property
    def is_clean(self) -> bool:
        """Whether it has ended as connections should: with 1000, 1001 or no code."""
        return self.code in (1000, 1001, 1005)
