"""
The public WebSocket client: from a URL, and what is to be used on the way, to an open connection.

What the arguments say wrongly is a C{ValueError} at once; no text of an error
holds a credential.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote, unquote_to_bytes, urlsplit

from twisted.internet.defer import Deferred

from proxyd.errors import ProxyTunnelFailed, RuleUnusable, TLSFailed
from proxyd.http.authority import Authority
from proxyd.http.authority import parse as parse_authority
from proxyd.http.fields import HOP_BY_HOP, Fields, valid_name, valid_value
from proxyd.outbound.no_proxy import NoProxy, normal_host
from proxyd.outbound.pac import PacEvaluator, PacRoute
from proxyd.outbound.proxies import proxy_for
from proxyd.outbound.route import OriginEndpoint, Route, TLSSettings
from proxyd.rules.proxy import (
    PacSource,
    Proxy,
    ProxySettings,
    ProxyTLS,
    Way,
    connect_headers,
    parse_pac,
    parse_proxy,
    parse_proxy_url,
)
from proxyd.websocket.client import ConnectionOptions, WebSocketConnection
from proxyd.websocket.opening import Opening, open_websocket

_T = TypeVar("_T")

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}
_SECURE = ("wss", "https")

_NOT_OURS_TO_SEND = (HOP_BY_HOP - {b"proxy-authorization"}) | {b"content-length", b"expect", b"trailer"}
_IN_TARGETS = "/?:@!$&'()*+,;=-._~%"


def connect_websocket(
    url: str,
    *,
    proxy: str | Mapping[str, Any] | None = "env",
    no_proxy: str | Iterable[str] = (),
    headers: Headers | None = None,
    protocols: str | Iterable[str] = (),
    tls: Mapping[str, Any] | None = None,
    compress: bool = True,
    max_message: int = 16 * 1024 * 1024,
    open_timeout: float = 10,
    close_timeout: float = 5,
    environment: Mapping[str, str] | None = None,
    reactor: Any = None,
) -> Deferred[WebSocketConnection]:
    """
    Open a WebSocket connection.

    @param url: C{ws://} or C{wss://}, or C{http://} and C{https://}, which mean the same.  A user and a password in
        it become C{Authorization}.
    @param proxy: C{"env"} is what the environment says; C{"direct"}, nothing or L{None} is none; else the URL of
        one, or a mapping C{{url, headers, tls: {ca, verify, certificate, key}}}, or C{{pac}}, the file or the URL of
        a proxy auto-config script.
    @param no_proxy: hosts that are reached without it, as in C{NO_PROXY}.
    @param headers: further fields of the request.
    @param protocols: subprotocols, the most wanted one first.
    @param tls: C{{ca, verify, certificate, key, serverName}} of the target; files are PEM.
    @param compress: offer permessage-deflate.
    @param max_message: octets of the longest message that is accepted, unpacked; 0 is no limit.
    @param open_timeout: seconds until the connection is open; 0 is no limit.
    @param close_timeout: seconds for the closing handshake.
    @param environment: in place of this process's.
    @param reactor: in place of the global one.

    @return: fails with L{HandshakeRefused<proxyd.errors.HandshakeRefused>}, or with an
        L{UpstreamError<proxyd.errors.UpstreamError>}: its C{name} and C{code} say which.  Cancelled, it leaves
        nothing behind.

    @raise ValueError: an argument is wrong.
    """
    if reactor is None:
        from twisted.internet import reactor
    target = _read_url(url)
    chosen = _read_protocols(protocols)
    fields = _read_headers(headers, target)
    route = _route(target, proxy, no_proxy, tls, os.environ if environment is None else environment)
    if min(max_message, open_timeout, close_timeout) < 0:
        raise ValueError("a limit is negative")
    evaluators: list[PacEvaluator] = []

    def evaluator(source: PacSource) -> PacEvaluator:
        evaluators.append(PacEvaluator(reactor, source))
        return evaluators[-1]

    endpoint = _checked("", lambda: OriginEndpoint(reactor, route, open_timeout, evaluator))
    opening = Opening(target.target, fields, chosen, open_timeout)
    connecting = open_websocket(reactor, endpoint, opening, ConnectionOptions(compress, max_message, close_timeout))
    for one in evaluators:
        connecting.addBoth(_retire, one)
    if isinstance(route.proxy, ProxySettings) and route.tls is not None:
        connecting.addErrback(_inside_a_tunnel)
    return connecting


def _retire(result: _T, evaluator: PacEvaluator) -> _T:
    evaluator.retire()
    return result


def _inside_a_tunnel(failure: Any) -> Any:
    """The target's TLS failed after its handshake, as TLS 1.3 lets a server do."""
    error = failure.value
    if not isinstance(error, TLSFailed):
        return failure
    raise ProxyTunnelFailed(
        str(error), stage="proxy_tls_handshake", error_type=error.error_type, hop="target"
    ) from error


@dataclass(frozen=True, slots=True)
class _Target:
    """
    What a URL says.

    @ivar host: an ASCII name or an address, without brackets.
    @ivar target: the path and the query.
    """

    scheme: str
    host: str
    port: int
    target: bytes
    authorization: bytes | None

    @property
    def host_value(self) -> bytes:
        """What C{Host} says."""
        return Authority(self.host, self.port).to_bytes(_PORTS[self.scheme])


def _read_url(url: str) -> _Target:
    if not isinstance(url, str):
        raise ValueError("the URL is no string")
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        raise ValueError("the URL must begin with ws://, wss://, http:// or https://")
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url) or "#" in url or "\\" in url:
        raise ValueError("the URL holds white space, a control character, a backslash or a fragment")
    parts, port, host = None, None, ""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = normal_host(parts.hostname or "")
        parse_authority(Authority(host).to_bytes())
    except ValueError:
        parts = None
    if parts is None or not host or port == 0:
        raise ValueError("the URL has no host, or one that is none, or a port that is none")
    path = quote(parts.path or "/", safe=_IN_TARGETS)
    if parts.query or "?" in url:
        path += "?" + quote(parts.query, safe=_IN_TARGETS)
    authorization = None
    if parts.username is not None:
        user, password = unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")
        authorization = b"Basic " + b64encode(user + b":" + password)
    return _Target(scheme, host, port or _PORTS[scheme], path.encode("ascii"), authorization)


def _read_protocols(protocols: str | Iterable[str]) -> tuple[bytes, ...]:
    listed = (protocols,) if isinstance(protocols, str) else tuple(protocols)
    chosen = tuple(one.encode("ascii", "replace") for one in listed)
    if not all(map(valid_name, chosen)) or b"?" in b"".join(chosen) or len(set(chosen)) < len(chosen):
        raise ValueError("the protocols must be tokens, each of them once")
    return chosen


def _read_headers(headers: Headers | None, target: _Target) -> Fields:
    fields: Fields = []
    for name, value in (headers.items() if isinstance(headers, Mapping) else headers or ()):
        pair = _field(name, value)
        lower = pair[0].lower()
        if lower == b"proxy-authorization":
            raise ValueError('the header Proxy-Authorization would go to the target: say proxy={"headers": …}')
        if lower in _NOT_OURS_TO_SEND or lower.startswith(b"sec-websocket-"):
            raise ValueError(f"the header {name!r} is set by proxyd in an opening handshake")
        fields.append(pair)
    names = [name.lower() for name, _ in fields]
    if names.count(b"host") > 1:
        raise ValueError("there is more than one Host among the headers")
    if b"host" not in names:
        fields.insert(0, (b"Host", target.host_value))
    if target.authorization is not None and b"authorization" not in names:
        fields.append((b"Authorization", target.authorization))
    return fields


def _field(name: object, value: object) -> tuple[bytes, bytes]:
    if isinstance(name, str) and isinstance(value, str):
        # What cannot be encoded becomes a question mark, which makes the two differ.
        octets = name.encode("latin-1", "replace"), value.encode("latin-1", "replace")
        if octets[0].decode("latin-1") == name and octets[1].decode("latin-1") == value:
            if valid_name(octets[0]) and valid_value(octets[1]):
                return octets
    raise ValueError(f"the header {name!r} is no field")


def _route(
    target: _Target,
    proxy: str | Mapping[str, Any] | None,
    no_proxy: str | Iterable[str],
    tls: Mapping[str, Any] | None,
    environment: Mapping[str, str],
) -> Route:
    way = _read_proxy(proxy)
    exempted = NoProxy.parse(no_proxy) if isinstance(no_proxy, str) else NoProxy(no_proxy)
    if exempted.malformed:
        raise ValueError(f"no_proxy holds {exempted.malformed[0]!r}, which is no host, address or block")
    settings: ProxySettings | PacRoute | None = None
    if not exempted.exempts(target.host, target.port):
        settings = _checked(
            "", lambda: proxy_for(way, target.scheme, target.host, target.port, environment, ProxyTLS())
        )
    secure = None
    options = _read_options("tls", tls, ("ca", "verify", "certificate", "key", "serverName"))
    name = options.pop("serverName", None)
    if target.scheme in _SECURE:
        secure = TLSSettings(name or target.host, **options)
    return Route(target.host, target.port, tls=secure, proxy=settings)


def _read_proxy(proxy: str | Mapping[str, Any] | None) -> Proxy:
    if proxy is None:
        return Way.DIRECT
    if isinstance(proxy, str):
        text = proxy
        return _checked("the proxy ", lambda: parse_proxy(text))
    if not isinstance(proxy, Mapping):
        raise ValueError("the proxy is neither a string nor a mapping")
    if set(proxy) == {"pac"}:
        if not isinstance(proxy["pac"], str | os.PathLike):
            raise ValueError("pac must be the name of a file or a URL")
        source = _checked("pac ", lambda: parse_pac(os.fspath(proxy["pac"])))
        return source if source.is_url else PacSource(os.path.abspath(source.location))
    unknown = set(proxy) - {"url", "headers", "tls"}
    if unknown or not isinstance(proxy.get("url"), str):
        raise ValueError("the proxy must be a mapping of url, and perhaps headers and tls; or of pac alone")
    headers = proxy.get("headers") or {}
    if not isinstance(headers, Mapping) or not all(isinstance(one, str) for pair in headers.items() for one in pair):
        raise ValueError("the proxy's headers must be a mapping of strings")
    settings = _checked("the proxy ", lambda: parse_proxy_url(proxy["url"]))
    options = _read_options("the proxy's tls", proxy.get("tls"), ("ca", "verify", "certificate", "key"))
    fields = _checked("of the proxy, ", lambda: connect_headers(headers))
    return replace(settings, headers=fields, tls=ProxyTLS(**options))


def _checked(what: str, make: Callable[[], _T]) -> _T:
    """
    Make something of an argument.

    @raise ValueError: it is wrong; the error within, which may hold credentials, is let go.
    """
    problem = ""
    try:
        return make()
    except (ValueError, RuleUnusable) as error:
        problem = f"{what}{error}"
    raise ValueError(problem)


def _read_options(what: str, options: Mapping[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or set(options) - set(known):
        raise ValueError(f"{what} must be a mapping; it may hold {', '.join(known)}")
    found = {}
    for name, value in options.items():
        if name == "verify":
            if not isinstance(value, bool):
                raise ValueError(f"{what}: verify must be true or false")
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif value is not None and not isinstance(value, str):
            raise ValueError(f"{what}: {name} must be a string")
        found[name] = value
    if found.get("key") is not None and found.get("certificate") is None:
        raise ValueError(f"{what} has a key without a certificate")
    return found
