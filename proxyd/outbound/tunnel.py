"""
The way through one proxy, over any endpoint.

A handshake without I/O (CONNECT: L{proxyd.http.connect}, SOCKS:
L{proxyd.outbound.socks}) is driven here over whatever endpoint reaches the
proxy.  One attempt goes down this list, and from everywhere to failed::

    connecting          the endpoint's own: DNS, TCP, TLS to the proxy
    proxy handshake     what the proxy sends is given to the handshake
    open                the transport is the target's: nothing of ours stays between
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.errors import ProxyAuthenticationRequired, ProxyConnectFailed, ProxyError, ProxyTunnelFailed, Refusal
from proxyd.http.authority import Authority
from proxyd.http.connect import MAX_REFUSAL_BODY, ConnectHandshake, Malformed, State
from proxyd.http.fields import Fields, values
from proxyd.outbound.socks import Socks4Handshake, Socks5Handshake
from proxyd.transports import give_to


class GivenUp(CancelledError):
    """
    An attempt was cancelled.

    @ivar stage: where it was.
    """

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


class Handshake(Protocol):
    """A conversation with a proxy that ends with a connection to the target."""

    @property
    def established(self) -> bool:
        """Whether the connection is there."""

    def begin(self) -> bytes:
        """The octets that open the conversation."""

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Read on.

        @return: octets to send now; and those of the target.

        @raise ProxyError: the proxy refuses, or makes no sense.
        """


class _Connect:
    """L{ConnectHandshake} as a L{Handshake}: a refusal waits for its explanation."""

    def __init__(self, authority: Authority, fields: Fields) -> None:
        self._handshake = ConnectHandshake(authority, fields)

    @property
    def established(self) -> bool:
        return self._handshake.state is State.ESTABLISHED

    def begin(self) -> bytes:
        return self._handshake.request()

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        one = self._handshake
        try:
            rest = one.receive(data)
        except Malformed as error:
            raise ProxyTunnelFailed(str(error), stage="reading", error_type="proxy_internal_response") from error
        if one.state is State.REFUSED and self._is_explained():
            raise self.refusal()
        return b"", rest

    def _is_explained(self) -> bool:
        """Whether as much of the refusal's body is there as will be kept; of unknown length, what came with it."""
        lengths = values(self._handshake.fields, b"content-length")
        announced = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() and len(lengths[0]) < 19 else 0
        return len(self._handshake.body) >= min(announced, MAX_REFUSAL_BODY)

    @property
    def is_refused(self) -> bool:
        """Whether the proxy has refused, explained or not."""
        return self._handshake.state is State.REFUSED

    def refusal(self) -> ProxyError:
        """The refusal, as far as it has come."""
        one = self._handshake
        reason = one.reason.decode("latin-1")
        kind = ProxyAuthenticationRequired if one.status == 407 else ProxyConnectFailed
        return kind(
            f"the proxy refused the tunnel: {one.status} {reason}".rstrip(),
            stage="proxy_handshake",
            refusal=Refusal(one.status, reason, tuple(one.challenges()), one.body),
        )


class _Handshaking(protocol.Protocol):
    """Drives a handshake, then steps out of the target's way."""

    transport: Any  # ITransport, whatever wraps it

    def __init__(self, handshake: Handshake, factory: IProtocolFactory, address: IAddress) -> None:
        self._handshake: Any = handshake
        self._factory = factory
        self._address = address
        self.opened: Deferred[IProtocol] = Deferred(self._cancelled)

    def _cancelled(self, opened: Deferred[IProtocol]) -> None:
        self.transport.abortConnection()
        handshake = self._handshake
        is_refused = isinstance(handshake, _Connect) and handshake.is_refused
        opened.errback(handshake.refusal() if is_refused else GivenUp("proxy_handshake"))

    def connectionMade(self) -> None:
        self.transport.write(self._handshake.begin())

    def dataReceived(self, data: bytes) -> None:
        if self.opened.called:
            return
        try:
            to_send, rest = self._handshake.receive(data)
        except ProxyError as error:
            self._fail(error)
            return
        if to_send:
            self.transport.write(to_send)
        if self._handshake.established:
            self._open(rest)

    def _open(self, rest: bytes) -> None:
        target = self._factory.buildProtocol(self._address)
        if target is None:
            self.transport.abortConnection()
            self.opened.errback(GivenUp("proxy_handshake"))
            return
        give_to(self.transport, target)
        target.makeConnection(self.transport)
        self.opened.callback(target)
        if rest:
            target.dataReceived(rest)

    def _fail(self, error: ProxyError) -> None:
        self.transport.abortConnection()
        self.opened.errback(error)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self.opened.called:
            return
        handshake = self._handshake
        if isinstance(handshake, _Connect) and handshake.is_refused:
            self.opened.errback(handshake.refusal())
            return
        ended_by_tls = reason.check(SSL.Error) is not None
        error = ProxyTunnelFailed(
            "the proxy ended the connection before the tunnel was there",
            stage="proxy_handshake",
            error_type="tls_protocol_error" if ended_by_tls else "connection_terminated",
        )
        error.__cause__ = reason.value
        self.opened.errback(error)


class _HandshakingFactory(Factory):
    noisy = False

    def __init__(self, handshake: Handshake, factory: IProtocolFactory) -> None:
        self._handshake = handshake
        self._factory = factory

    def buildProtocol(self, addr: Any) -> _Handshaking:
        return _Handshaking(self._handshake, self._factory, addr)


@implementer(IStreamClientEndpoint)
class _ThroughProxy:
    """What the endpoints through a proxy have in common."""

    def __init__(self, proxy: IStreamClientEndpoint, handshake: Callable[[], Handshake]) -> None:
        self._proxy = proxy
        self._handshake = handshake

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._proxy.connect(_HandshakingFactory(self._handshake(), protocolFactory))
        return connecting.addCallback(lambda handshaking: handshaking.opened)


class TunnelEndpoint(_ThroughProxy):
    """
    A target through the C{CONNECT} tunnel of an HTTP proxy.

    Its Deferred fails with L{ProxyError}s for all that happens once the proxy
    is reached, and as the proxy's endpoint does before.
    """

    def __init__(self, proxy: IStreamClientEndpoint, host: str, port: int, fields: Fields | None = None) -> None:
        """
        @param proxy: reaches the proxy.
        @param host: the target's name, which the proxy resolves, or its address.
        @param fields: further fields of the request.

        @raise ValueError: a field is none.
        """
        authority = Authority(host, port)
        _Connect(authority, fields or [])
        super().__init__(proxy, lambda: _Connect(authority, fields or []))


class SocksEndpoint(_ThroughProxy):
    """
    A target through a SOCKS proxy, which resolves its name (4A, 5H) if it is not an address.

    Its Deferred fails as that of L{TunnelEndpoint} does.
    """

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        host: str,
        port: int,
        *,
        version: int = 5,
        user: bytes | None = None,
        password: bytes = b"",
    ) -> None:
        """
        @param version: 4 or 5.

        @raise ValueError: this version cannot ask for this host.
        """

        def handshake() -> Handshake:
            if version == 4:
                return Socks4Handshake(host, port, user)
            return Socks5Handshake(host, port, user, password)

        handshake()
        super().__init__(proxy, handshake)
