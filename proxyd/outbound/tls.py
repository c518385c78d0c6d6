"""
TLS over any endpoint.

Twisted's C{wrapClientTLS} says "connected" when TCP is; a bad certificate is
then a lost connection like any other.  Here the Deferred fires when the
handshake is done and the certificate is good, and fails with the reason when
it is not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.tls import PromptTLSFactory

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """Holds the wrapped protocol back until TLS is established, then steps out of its way."""

    transport: Any  # a TLSMemoryBIOProtocol

    def __init__(self, wrapped: IProtocol) -> None:
        self._wrapped = wrapped
        self.established: Deferred[IProtocol] = Deferred(self._cancelled)

    def _cancelled(self, _: object) -> None:
        self.transport.abortConnection()

    def handshakeCompleted(self) -> None:
        transport = self.transport
        transport.wrappedProtocol = self._wrapped
        self._wrapped.makeConnection(transport)
        self.established.callback(self._wrapped)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.established.called:
            self.established.errback(reason)


class _HandshakeFactory(Factory):
    noisy = False

    def __init__(self, wrapped: IProtocolFactory) -> None:
        self._wrapped = wrapped

    def buildProtocol(self, addr: Any) -> _Handshake | None:
        wrapped = self._wrapped.buildProtocol(addr)
        return None if wrapped is None else _Handshake(wrapped)


@implementer(IStreamClientEndpoint)
class TLSEndpoint:
    """An endpoint that is reached over TLS, which another endpoint carries."""

    def __init__(self, endpoint: IStreamClientEndpoint, creator: IOpenSSLClientConnectionCreator) -> None:
        self._endpoint = endpoint
        self._creator = creator

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = PromptTLSFactory(self._creator, True, _HandshakeFactory(protocolFactory))
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(_established)


def _established(tls: TLSMemoryBIOProtocol) -> Deferred[IProtocol]:
    handshake = tls.wrappedProtocol
    return handshake.established if isinstance(handshake, _Handshake) else succeed(handshake)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """TLS to whoever answers, with the server's name all the same: it may choose its certificate, or site, by it."""

    def __init__(self, name: str, options: CertificateOptions) -> None:
        self._name = name.encode("ascii")
        self._named = not (isIPAddress(name) or isIPv6Address(name))
        self._context = options.getContext()

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if self._named:
            connection.set_tlsext_host_name(self._name)
        return connection


def client_tls(
    name: str,
    *,
    verify: bool = True,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> IOpenSSLClientConnectionCreator:
    """
    How TLS to a server is to be made.

    @param name: its host name or IP address: sent as SNI (names only) and
        found in its certificate, unless C{verify} is false.
    @param ca: a PEM file of the authorities to trust in place of the system's.
    @param certificate: a PEM file with our own certificate, and its chain.
    @param key: a PEM file with its key, if that is not in C{certificate}.

    @raise OSError: a file cannot be read.
    @raise ValueError: a file holds something else, or the name cannot be in a certificate.
    """
    name = name.removesuffix(".")
    own: PrivateCertificate | None = None
    chain: list[object] = []
    if certificate is not None:
        own, chain = _own_certificate(Path(certificate), Path(key or certificate))
    extra: dict[str, Any] = {"extraCertChain": chain} if chain else {}
    if not verify:
        if own is not None:
            extra.update(privateKey=own.privateKey.original, certificate=own.original)
        return _Unverified(name, CertificateOptions(verify=False, **extra))
    trust = platformTrust() if ca is None else trustRootFromCertificates(read_certificates(Path(ca)))
    try:
        return optionsForClientTLS(name, trustRoot=trust, clientCertificate=own, extraCertificateOptions=extra)
    except UnicodeError as error:
        raise ValueError(f"{name} cannot be in a certificate; say tls.serverName, or secure: false") from error


def read_certificates(path: Path) -> list[Certificate]:
    """
    Read all certificates of a PEM file, in their order.

    @raise OSError: it cannot be read.
    @raise ValueError: it holds none, or one that is none.
    """
    blocks = _PEM_CERTIFICATE.findall(path.read_bytes())
    if not blocks:
        raise ValueError(f"{path} holds no certificate in PEM form")
    try:
        return [Certificate.loadPEM(block) for block in blocks]
    except crypto.Error as error:
        raise ValueError(f"{path} holds a certificate that cannot be read") from error


def _own_certificate(path: Path, key: Path) -> tuple[PrivateCertificate, list[object]]:
    certificates = read_certificates(path)
    try:
        own = PrivateCertificate.loadPEM(key.read_bytes() + b"\n" + certificates[0].dumpPEM())
        SSL.Context(SSL.TLS_METHOD).use_privatekey(own.privateKey.original)
    except (SSL.Error, crypto.Error, ValueError) as error:
        raise ValueError(f"{key} holds no private key that can be read") from error
    return own, [other.original for other in certificates[1:]]
