"""
The way to an origin server, as one endpoint.

A route says where a target is and how it is reached; equal routes share their
connections, different ones never do.  An endpoint made from it keeps one
deadline over everything (resolving, TCP, TLS) and reports what went wrong as
L{UpstreamError<proxyd.errors.UpstreamError>}.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
    UnknownHostError,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.errors import (
    ConnectFailed,
    OutOfDescriptors,
    ProxyConnectionRefused,
    ProxyTunnelFailed,
    RuleUnusable,
    TLSFailed,
    UpstreamError,
    UpstreamTimeout,
)
from proxyd.outbound.address import AddressEndpoint
from proxyd.outbound.guard import Guard, GuardedEndpoint
from proxyd.outbound.pac import PacEvaluator, PacRoute, pac_error
from proxyd.outbound.pac_endpoint import GivenUpOn, PacEndpoint
from proxyd.outbound.resolving import ResolvingEndpoint
from proxyd.outbound.tls import TLSEndpoint, client_tls
from proxyd.outbound.tunnel import GivenUp, SocksEndpoint, TunnelEndpoint
from proxyd.rules.proxy import PacSource, ProxySettings, ProxyTLS
from proxyd.timer import Timer, Timers

FOREVER_S = 10 * 365 * 24 * 3600.0
"""Seconds, for Twisted's endpoints that know no "never"."""


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """
    How the target proves who it is, and we who we are.

    @ivar name: the name that is sent as SNI and must be in the certificate.
    @ivar verify: whether it must be.
    @ivar ca: a PEM file of the authorities to trust in place of the system's.
    @ivar certificate: a PEM file with our own certificate.
    @ivar key: a PEM file with its key.
    """

    name: str
    verify: bool = True
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """
    Where an origin server is, and the way to it.

    @ivar host: a host name or an IP address.
    @ivar socket: the name of a UNIX socket in place of both.
    @ivar endpoint: a client endpoint string in place of all three.
    @ivar tls: L{None} is plain text.
    @ivar proxy: what it is reached through; L{None} is nothing.
    @ivar guarded: it must not lead to where L{proxyd.outbound.guard} says.
    """

    host: str
    port: int
    socket: str | None = None
    endpoint: str | None = None
    tls: TLSSettings | None = None
    proxy: ProxySettings | PacRoute | None = None
    guarded: bool = False

    @property
    def name(self) -> str:
        """How logs call the origin server."""
        if self.socket is not None:
            return f"unix:{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@implementer(IStreamClientEndpoint)
class OriginEndpoint:
    """The endpoint of a route, with a deadline and errors of our own."""

    def __init__(
        self,
        reactor: Any,
        route: Route,
        timeout: float,
        evaluator: Callable[[PacSource], PacEvaluator] | None = None,
        guard: Guard | None = None,
    ) -> None:
        """
        @param evaluator: gives what evaluates a script, for routes that a script says.
        @param guard: for routes that are guarded.
        @param timeout: seconds for everything; 0 is never.

        @raise RuleUnusable: the endpoint string, or a file for TLS, is bad.
        """
        self._timers = Timers(reactor)
        self._name = route.name
        self._timeout = timeout
        self._proxy = route.proxy
        guard = guard if route.guarded else None
        if isinstance(route.proxy, PacRoute):
            if evaluator is None:
                raise RuleUnusable(f"nothing evaluates {route.proxy.source.location} here")
            self._endpoint = _pac_endpoint(
                reactor, route, route.proxy, timeout or FOREVER_S, evaluator(route.proxy.source), guard
            )
        else:
            # On a direct way the deadline over everything is that of its connections, too.
            of_each = None if route.proxy is None else timeout or FOREVER_S
            self._endpoint = _endpoint(reactor, route, of_each, guard)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        if self._timeout:
            timer = Timer(self._timers, connecting.cancel)
            timer.start(self._timeout)
            # Not addTimeout, which makes three closures and two callbacks of it.
            connecting.addBoth(self._done, timer)
        return connecting

    def _done(self, result: IProtocol | Failure, timer: Timer) -> Any:
        if timer.is_running:
            timer.cancel()
            return result
        return self._too_slow(result)

    def _too_slow(self, result: IProtocol | Failure) -> Any:
        cause = result.value if isinstance(result, Failure) else None
        if isinstance(cause, GivenUp):
            error_type, what = "connection_timeout", "reached"
        elif isinstance(cause, UpstreamError) and cause.error_type == "dns_error":
            # To Twisted's endpoint a name whose look-up is given up is one that there is not.
            error_type, what = "dns_timeout", "resolved"
        else:
            return result
        stage = cause.stage
        proxy = cause.candidate if isinstance(cause, GivenUpOn) else self._proxy
        if isinstance(proxy, PacRoute):
            raise pac_error(proxy.source, f"it took longer than the {self._timeout:g} s to connect")
        if proxy is None:
            raise UpstreamTimeout(
                f"{self._name} could not be {what} in {self._timeout:g} s", stage="connect", error_type=error_type
            )
        if stage == "initializing":
            raise ProxyConnectionRefused(
                f"the proxy {proxy.name} could not be {what} in {self._timeout:g} s",
                stage=stage,
                error_type=error_type,
                timed_out=True,
            )
        raise ProxyTunnelFailed(
            f"no tunnel to {self._name} through {proxy.name} in {self._timeout:g} s",
            stage=stage,
            error_type="connection_timeout",
            timed_out=True,
        )


@implementer(IStreamClientEndpoint)
class _Hop:
    """One hop of the way: what goes wrong on it is said in our words."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, stage: str, translate: Callable[[BaseException], UpstreamError]
    ) -> None:
        self._endpoint = endpoint
        self._stage = stage
        self._translate = translate

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        cause = failure.value
        if cause is None or isinstance(cause, GivenUp | UpstreamError):
            return failure  # of a hop before this one
        if isinstance(cause, ConnectingCancelledError | CancelledError):
            return Failure(GivenUp(self._stage))
        error = _out_of_descriptors(cause, self._stage) or self._translate(cause)
        error.__cause__ = cause
        return Failure(error)


def _pac_endpoint(
    reactor: Any, route: Route, way: PacRoute, timeout: float, evaluator: PacEvaluator, guard: Guard | None
) -> IStreamClientEndpoint:
    def candidate(proxy: ProxySettings | None, count: int) -> IStreamClientEndpoint:
        # A candidate that is silent leaves the others their share of the time.
        return _endpoint(reactor, replace(route, proxy=proxy), timeout / count, guard)

    return PacEndpoint(evaluator, way, route.host, route.port, candidate)


def _endpoint(reactor: Any, route: Route, timeout: float | None, guard: Guard | None) -> IStreamClientEndpoint:
    name, proxy, tls = route.name, route.proxy, route.tls
    if not isinstance(proxy, ProxySettings):
        is_tcp = route.endpoint is None and route.socket is None
        target = (route.host, route.port) if is_tcp else None
        plain = _guarded(_directly(reactor, route, timeout), guard, target)
        if tls is None:
            return _Hop(plain, "connect", lambda cause: _direct_error(cause, name))
        creator = _creator(name, tls.name, tls.verify, tls.ca, tls.certificate, tls.key)
        return _Hop(TLSEndpoint(plain, creator), "connect", lambda cause: _direct_error(cause, name))
    tunnel = through(reactor, proxy, route.host, route.port, timeout, guard)
    if tls is None:
        return tunnel
    creator = _creator(name, tls.name, tls.verify, tls.ca, tls.certificate, tls.key)
    inside = TLSEndpoint(tunnel, creator)
    return _Hop(inside, "proxy_tls_handshake", lambda cause: _tls_inside_error(cause, name))


def _directly(reactor: Any, route: Route, timeout: float | None) -> IStreamClientEndpoint:
    if route.endpoint is not None:
        try:
            endpoint: IStreamClientEndpoint = clientFromString(reactor, route.endpoint)
        except Exception as error:
            # Parsers of endpoint strings are plugins; each raises what it likes.
            raise RuleUnusable(f"the endpoint {route.endpoint!r} cannot be used: {error!r}") from error
        return endpoint
    if route.socket is not None:
        return UNIXClientEndpoint(reactor, route.socket, timeout=timeout)
    return host_endpoint(reactor, route.host, route.port, timeout)


def host_endpoint(reactor: Any, host: str, port: int, timeout: float | None) -> IStreamClientEndpoint:
    """
    TCP to a host.

    @param timeout: seconds for each of its addresses; L{None} where whoever connects keeps the time.
    """
    if isIPAddress(host) or isIPv6Address(host):
        # HostnameEndpoint would ask a thread to resolve the address: a third of a connection's cost.
        return AddressEndpoint(reactor, host, port, timeout)
    return HostnameEndpoint(reactor, host, port, timeout=timeout or FOREVER_S)


def _guarded(
    endpoint: IStreamClientEndpoint, guard: Guard | None, target: tuple[str, int] | None = None
) -> IStreamClientEndpoint:
    return endpoint if guard is None else GuardedEndpoint(endpoint, guard, target)


def through(
    reactor: Any, proxy: ProxySettings, host: str, port: int, timeout: float | None, guard: Guard | None = None
) -> IStreamClientEndpoint:
    """
    A target through a proxy, without TLS of its own.

    @param guard: says where neither the proxy nor a target that is an address may be.

    @raise RuleUnusable: a file for TLS to the proxy is bad, or the proxy cannot be asked for this target.
    """
    called = proxy.name
    to_proxy: IStreamClientEndpoint = _Hop(
        _guarded(host_endpoint(reactor, proxy.host, proxy.port, timeout), guard, (proxy.host, proxy.port)),
        "initializing",
        lambda cause: ProxyConnectionRefused(
            f"the proxy {called} could not be reached: {cause}", stage="initializing", error_type=_tcp_type(cause)
        ),
    )
    if proxy.scheme == "https":
        tls = proxy.tls or ProxyTLS()
        creator = _creator(called, proxy.host, tls.verify, tls.ca, tls.certificate, tls.key)
        to_proxy = _Hop(
            TLSEndpoint(to_proxy, creator),
            "proxy_handshake",
            lambda cause: ProxyTunnelFailed(
                f"TLS to the proxy {called} failed: {_tls_text(cause)}",
                stage="proxy_handshake",
                error_type=_tls_type(cause),
            ),
        )
    try:
        if not proxy.is_socks:
            return _guarded(TunnelEndpoint(to_proxy, host, port, proxy.connect_fields()), guard, (host, port))
        return _socks(reactor, to_proxy, proxy, host, port, guard)
    except ValueError as error:
        raise RuleUnusable(f"{host}:{port} cannot be asked for through {called}: {error}") from error


def _socks(
    reactor: Any, to_proxy: IStreamClientEndpoint, proxy: ProxySettings, host: str, port: int, guard: Guard | None
) -> IStreamClientEndpoint:
    version = 4 if proxy.scheme.startswith("socks4") else 5

    def endpoint(host: str) -> IStreamClientEndpoint:
        through = SocksEndpoint(to_proxy, host, port, version=version, user=proxy.user, password=proxy.password)
        return _guarded(through, guard, (host, port))

    if proxy.scheme in ("socks4a", "socks5h") or isIPAddress(host) or isIPv6Address(host):
        return endpoint(host)
    return _Hop(
        ResolvingEndpoint(reactor, host, version == 4, endpoint),
        "initializing",
        lambda cause: ConnectFailed(f"the name {host} could not be resolved: {cause}", error_type="dns_error"),
    )


def _creator(
    called: str, name: str, verify: bool, ca: str | None, certificate: str | None, key: str | None
) -> IOpenSSLClientConnectionCreator:
    try:
        return client_tls(name, verify=verify, ca=ca, certificate=certificate, key=key)
    except (OSError, ValueError) as error:
        raise RuleUnusable(f"TLS to {called} cannot be set up: {error}") from error


def _out_of_descriptors(cause: BaseException, stage: str) -> UpstreamError | None:
    """The error of a connection for which the system has no descriptor, if it is that."""
    # A ConnectError has the system's number in a place of its own.
    number = getattr(cause, "osError", None) or getattr(cause, "errno", None)
    if number not in (errno.EMFILE, errno.ENFILE):
        return None
    return OutOfDescriptors(f"no connection is possible: {os.strerror(number)} (ulimit -n)", stage=stage)


def _tcp_type(cause: BaseException) -> str:
    """The RFC 9209 error type of a TCP connection that did not come about."""
    if isinstance(cause, DNSLookupError | UnknownHostError):
        return "dns_error"
    if isinstance(cause, ConnectionRefusedError):
        return "connection_refused"
    if isinstance(cause, TimeoutError):
        return "connection_timeout"
    return "destination_ip_unroutable" if isinstance(cause, NoRouteError) else "destination_unavailable"


def _tls_type(cause: BaseException) -> str:
    """The same of TLS."""
    is_certificate = isinstance(cause, VerificationError) or "certificate verify failed" in _tls_text(cause)
    return "tls_certificate_error" if is_certificate else "tls_protocol_error"


def _tls_text(cause: BaseException) -> str:
    if isinstance(cause, VerificationError):
        return "its certificate is for another name"
    if isinstance(cause, SSL.Error):
        return ", ".join(str(reason[-1]) for reason in (cause.args[0] if cause.args else ())) or _ENDED
    return f"{_ENDED}: {cause}"


_ENDED = "the connection ended during the handshake"


def _direct_error(cause: BaseException, name: str) -> UpstreamError:
    """A target that is reached without a proxy."""
    # TCP that does not come up has other errors: what is lost has got as far as TLS.
    if isinstance(cause, VerificationError | SSL.Error | ConnectionClosed):
        return TLSFailed(f"TLS to {name} failed: {_tls_text(cause)}", error_type=_tls_type(cause))
    kind = _tcp_type(cause)
    if kind == "connection_timeout":
        return UpstreamTimeout(f"{name} could not be reached in time", stage="connect", error_type=kind)
    return ConnectFailed(f"{name} could not be reached: {cause}", error_type=kind)


def _tls_inside_error(cause: BaseException, name: str) -> UpstreamError:
    """TLS to the target inside a tunnel."""
    return ProxyTunnelFailed(
        f"TLS to {name} inside the tunnel failed: {_tls_text(cause)}",
        stage="proxy_tls_handshake",
        error_type=_tls_type(cause),
        hop="target",
    )
