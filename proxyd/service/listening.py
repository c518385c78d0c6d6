"""Where clients come in: endpoint strings, and TLS with a certificate chosen by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from proxyd.errors import ConfigError, Problem
from proxyd.forward.site import ProxySite
from proxyd.http.authority import is_loopback
from proxyd.outbound.tls import read_certificates
from proxyd.service.accepting import patient
from proxyd.service.proxy_protocol import PREFIX, proxy_protocol
from proxyd.service.settings import Listener, ListenerTLS
from proxyd.tls import PromptTLSFactory

BACKLOG = 1024
"""
Connections that wait to be accepted.  Twisted's default is 50: of a hundred
clients that come at once, half would wait for TCP to try again.  nginx has 511.
"""


class Certificates(NamedTuple):
    """
    Certificates with their keys, as OpenSSL has them.

    @ivar default: for those who ask for no name, or for one that is not known.
    @ivar by_name: for the names that they are for.
    """

    default: SSL.Context
    by_name: dict[str, SSL.Context]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    TLS to clients, with the certificate that fits the name they ask for.

    The first certificate is for those who ask for none that is known.
    """

    def __init__(self, settings: ListenerTLS) -> None:
        """
        @raise ConfigError: a file cannot be read or holds something else.
        """
        self._settings = settings
        self.use(self.read())

    def read(self) -> Certificates:
        """
        @return: what the files hold now.

        @raise ConfigError: a file cannot be read or holds something else.
        """
        authority = None
        if self._settings.client_ca is not None:
            authority = trustRootFromCertificates(_read_certificates(self._settings.client_ca))
        contexts = [_context(name, authority) for name in self._settings.certificates]
        by_name: dict[str, SSL.Context] = {}
        for names, context in contexts:
            for name in names:
                by_name.setdefault(name, context)
        return Certificates(contexts[0][1], by_name)

    def use(self, certificates: Certificates) -> None:
        """Show these to new connections; those that are open keep what they have."""
        certificates.default.set_tlsext_servername_callback(self._choose)
        self._certificates = certificates

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._certificates.default, None)

    def _choose(self, connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("latin-1").lower().removesuffix(".")
        by_name = self._certificates.by_name
        context = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if context is not None:
            connection.set_context(context)


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError((Problem((), f"cannot be read: {error.strerror}"),), name) from error


def _read_certificates(name: str) -> list[Certificate]:
    try:
        return read_certificates(Path(name))
    except OSError as error:
        raise ConfigError((Problem((), f"cannot be read: {error.strerror}"),), name) from error
    except ValueError as error:
        raise ConfigError((Problem((), "must hold certificates in PEM form"),), name) from error


def _context(name: str, authority: Any) -> tuple[list[str], SSL.Context]:
    """
    @return: the names that a certificate is for, and the context that shows it.
    """
    octets = _read(name)
    try:
        own = PrivateCertificate.loadPEM(octets)
        chain = [other.original for other in _read_certificates(name)[1:]]
        options = CertificateOptions(
            privateKey=own.privateKey.original,
            certificate=own.original,
            extraCertChain=chain or None,
            trustRoot=authority,
            # The context that SNI chooses needs them, too, not only the one that Twisted sets them on.
            acceptableProtocols=[b"http/1.1"],
        )
        return _names(own.original.to_cryptography()), options.getContext()
    except (SSL.Error, crypto.Error, ValueError) as error:
        raise ConfigError((Problem((), "must hold a certificate and its private key in PEM form"),), name) from error


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]


_INTERFACE = re.compile(r":interface=((?:[^:\\]|\\.)*)")


def is_private(endpoint: str) -> bool:
    """
    Whether a listener is reached from this machine only, as far as its string says: what cannot be told
    before it listens (C{systemd:}) counts as well.
    """
    kind = endpoint.partition(":")[0]
    if kind in ("tcp", "tcp6", "ssl"):
        found = _INTERFACE.search(endpoint)
        return found is not None and is_loopback(found[1].replace("\\:", ":"))
    return kind in ("unix", "systemd")


def only_ours(endpoint: str) -> str:
    """
    @return: the endpoint string, with its UNIX socket for nobody else unless it says for whom.
    """
    if endpoint.startswith("unix:") and ":mode=" not in endpoint:
        return f"{endpoint}:mode=600"
    return endpoint


def with_backlog(endpoint: str) -> str:
    """
    @return: the endpoint string, with room for L{BACKLOG} connections that wait to be accepted unless it says how many.
    """
    kind = endpoint.partition(":")[0]
    if kind not in ("tcp", "tcp6", "ssl", "unix") or ":backlog=" in endpoint:
        return endpoint
    return f"{endpoint}:backlog={BACKLOG}"


def listen(
    reactor: Any, listener: Listener, site: ProxySite, tls: ServerTLS | None, trusts: Callable[[str], bool]
) -> Deferred[IListeningPort]:
    """
    Listen on one endpoint.

    @param trusts: whether an address is that of a proxy whose word is believed.

    @return: fails with whatever makes that impossible.
    """
    factory: IProtocolFactory = site
    if tls is not None:
        factory = PromptTLSFactory(tls, False, site)
    wrap = partial(proxy_protocol, trusts=trusts) if listener.endpoint.startswith(PREFIX) else None
    return bind(reactor, listener, factory, wrap).addCallback(patient, reactor, lambda: site.accepts)


def bind(
    reactor: Any,
    listener: Listener,
    factory: IProtocolFactory,
    wrap: Callable[[IStreamServerEndpoint], IStreamServerEndpoint] | None = None,
) -> Deferred[IListeningPort]:
    """
    Listen on the endpoint that a listener names, and on nothing around it.

    @param wrap: what is to be around it.

    @return: fails with whatever makes that impossible.
    """
    try:
        endpoint = serverFromString(reactor, with_backlog(listener.endpoint.removeprefix(PREFIX)))
    except (IndexError, KeyError):
        # The configuration has been checked: only what systemd was to hand over can be missing now.
        return fail(LookupError("systemd has not handed this socket over"))
    listening: Deferred[IListeningPort] = (endpoint if wrap is None else wrap(endpoint)).listen(factory)
    return listening
