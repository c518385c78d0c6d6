"""
The proxies that targets are reached through: what people write, and what it means.

@see: RFC 3986 section 3.2 (authority), RFC 7617 (Basic)
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import idna

from proxyd.http.fields import Fields, valid_name, valid_value

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
"""The schemes of proxies, with the port that goes without saying."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:([^/?#]*)@)?(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]*)(?::([0-9]*))?/?")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")


class Way(Enum):
    """The ways to a target that name no proxy."""

    DIRECT = "direct"
    ENVIRONMENT = "env"


@dataclass(frozen=True, slots=True)
class ProxyTLS:
    """
    TLS to a proxy itself; the target's is another matter.

    @ivar ca: a PEM file of the authorities to trust in place of the system's.
    @ivar verify: whether its certificate must be good.
    @ivar certificate: a PEM file with our own certificate.
    @ivar key: a PEM file with its key.
    """

    ca: str | None = None
    verify: bool = True
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """
    One proxy, and how it is spoken to.

    Credentials are not shown: neither in C{repr} nor in L{name}.

    @ivar scheme: one of L{DEFAULT_PORTS}.
    @ivar host: an ASCII host name or an address, without brackets.
    @ivar user: percent-decoded, as is C{password}; L{None} for none.
    @ivar headers: further fields of the CONNECT request.
    @ivar no_proxy: hosts that are reached without it.
    @ivar tls: TLS to the proxy itself; L{None} is as the service has it.
    """

    scheme: str
    host: str
    port: int
    user: bytes | None = field(default=None, repr=False)
    password: bytes = field(default=b"", repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    no_proxy: tuple[str, ...] = ()
    tls: ProxyTLS | None = None

    @property
    def url(self) -> str:
        """The URL that names it, credentials included: for the one who wrote it, not for logs."""
        if self.user is None:
            return self.name
        password = f":{quote(self.password, safe='')}" if self.password else ""
        return self.name.replace("://", f"://{quote(self.user, safe='')}{password}@")

    @property
    def name(self) -> str:
        """How logs and errors call it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS and no HTTP."""
        return self.scheme.startswith("socks")

    def connect_fields(self) -> Fields:
        """
        @return: the fields of the CONNECT request; a C{Proxy-Authorization} among the headers beats the URL's
            credentials.
        """
        fields = list(self.headers)
        if self.user is not None and not any(name.lower() == b"proxy-authorization" for name, _ in fields):
            fields.append((b"Proxy-Authorization", b"Basic " + b64encode(self.user + b":" + self.password)))
        return fields


def parse_proxy_url(text: str) -> ProxySettings:
    """
    Read the URL of a proxy.

    @raise ValueError: what is wrong with it, without its credentials.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ValueError("is no proxy URL; one such as http://proxy.example:3128 would be right")
    if scheme.lower() not in DEFAULT_PORTS:
        raise ValueError(f"has the scheme {scheme!r}; a proxy's is one of {', '.join(DEFAULT_PORTS)}")
    found = _URL.fullmatch(text)
    if found is None or not found[3]:
        raise ValueError("is no proxy URL: it must be scheme://[user:password@]host[:port], percent-encoded")
    scheme = scheme.lower()
    port = int(found[4]) if found[4] else DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:
        raise ValueError(f"has the port {port}; it must be from 1 to 65535")
    user, password = _credentials(found[2], scheme)
    return ProxySettings(scheme, _host(found[3]), port, user, password)


@dataclass(frozen=True, slots=True)
class PacSource:
    """
    A proxy auto-config script, which names the proxies for each target.

    @ivar location: its C{http} or C{https} URL, or the name of its file.
    """

    location: str

    @property
    def is_url(self) -> bool:
        """Whether it is fetched and not read."""
        return self.location.lower().startswith(("http://", "https://"))


def parse_pac(text: str) -> PacSource:
    """
    Read where a script is.

    @raise ValueError: it is nowhere.
    """
    source = PacSource(text)
    if not text or any(ord(character) < 0x20 for character in text):
        raise ValueError("must be the name of a file or an http or https URL")
    if source.is_url:
        host = text.partition("://")[2].partition("/")[0]
        if not host or "@" in host or not text.isascii() or " " in text or "#" in text:
            raise ValueError("is no URL of a script: http:// or https://, percent-encoded, without credentials")
    elif "://" in text:
        raise ValueError("must be the name of a file or an http or https URL")
    return source


Proxy = Way | ProxySettings | PacSource
"""How a target is reached."""


def parse_proxy(text: str) -> Proxy:
    """
    Read C{direct}, nothing (which is the same), C{env}, or the URL of a proxy.

    @raise ValueError: it is none of these.
    """
    if text in ("", "direct"):
        return Way.DIRECT
    return Way.ENVIRONMENT if text == "env" else parse_proxy_url(text)


def _credentials(text: str | None, scheme: str) -> tuple[bytes | None, bytes]:
    if not text:
        return None, b""
    if _BROKEN_ESCAPE.search(text) or not text.isascii():
        raise ValueError("has credentials that are not percent-encoded")
    user, _, password = (unquote_to_bytes(part) for part in text.partition(":"))
    if scheme.startswith("socks"):
        if scheme.startswith("socks4") and (password or b"\0" in user):
            raise ValueError("has a password, which SOCKS4 does not know; use socks5")
        if not user or len(user) > 255 or len(password) > 255:
            raise ValueError("has credentials that SOCKS cannot hold: 1 to 255 octets each")
    elif b":" in user or set(user + password) & {0, 10, 13}:
        raise ValueError("has credentials that Basic cannot hold: no colon in the user, no control characters")
    return user, password


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(IPv6Address(text[1:-1]))
        except AddressValueError as error:
            raise ValueError(f"has {text}, which is no IPv6 address") from error
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"has the host {text!r}, which is no host name") from error
    if not _HOST.fullmatch(text) or len(text) > 253:
        raise ValueError(f"has {text!r} where a host would be right")
    return text.lower()


def connect_headers(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """
    Fields for the CONNECT request.

    @raise ValueError: one is none, or is the request's own framing.
    """
    fields = []
    for name, value in headers.items():
        try:
            pair = name.encode("ascii"), value.encode("latin-1")
        except UnicodeEncodeError as error:
            raise ValueError(f"the header {name!r} has characters that a field cannot hold") from error
        if not valid_name(pair[0]) or not valid_value(pair[1]):
            raise ValueError(f"the header {name!r} is no field")
        if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise ValueError(f"the header {name!r} is proxyd's own in a CONNECT request")
        fields.append(pair)
    return tuple(fields)
