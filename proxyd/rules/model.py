"""What a rule is: frozen values, made by L{proxyd.rules.codec}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import idna
from corvus_regex_ecma262 import Match as Groups

from proxyd.errors import RuleUnusable
from proxyd.rules.globs import PublicRoutes
from proxyd.rules.pattern import Pattern, Template
from proxyd.rules.proxy import Proxy
from proxyd.rules.rate import Rate

if TYPE_CHECKING:
    # The URLs there are read by what is here.
    from proxyd.rules.auth import Auth

DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443, "http+unix": 80}
"""The schemes of targets, with the port that goes without saying."""

MAX_SOCKET_PATH: Final = 107
"""Octets in the name of a UNIX socket, as Linux has it (unix(7))."""

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORBIDDEN_IN_VALUES = re.compile(r"[\r\n\0]")


def variables_in(text: str) -> tuple[str, ...]:
    """
    Return the names of the variables that C{text} uses, in order.

    @raise ValueError: a C{${…}} is not closed, or holds what is no name.
    """
    if "${" in _VARIABLE.sub("", text):
        raise ValueError("has a ${ without its }; write $${ for a literal ${")
    names = [found[1] for found in _VARIABLE.finditer(text) if found[1] is not None]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"${{{name}}} is no variable; write $${{ for a literal ${{")
    return tuple(names)


def expand_variables(text: str, environment: Mapping[str, str]) -> str:
    """
    Return C{text} with each C{${NAME}} replaced from the environment; C{$${} is a literal C{${}.

    @raise RuleUnusable: a variable is not set, or its value would break a
        header field or a URL.  The text names the variable: it is for the log.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "${"
        if name not in environment:
            raise RuleUnusable(f"the variable {name} is not set")
        if _FORBIDDEN_IN_VALUES.search(environment[name]):
            raise RuleUnusable(f"the variable {name} holds a line break or NUL")
        return environment[name]

    return _VARIABLE.sub(value, text) if "${" in text else text


class TargetURL(NamedTuple):
    """
    Where a rule's requests go, whole and checked.

    @ivar scheme: C{http}, C{https}, C{ws}, C{wss} or C{http+unix}.
    @ivar host: lower-case ASCII (A-labels); an IPv6 address is without brackets; C{localhost} for a UNIX socket.
    @ivar path: the target's own path, a prefix; it may be empty.
    @ivar socket: the name of the UNIX socket.
    """

    scheme: str
    host: str
    port: int
    path: bytes
    socket: str | None = None

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in ("https", "wss")

    @property
    def host_value(self) -> bytes:
        """The value of C{Host}: C{host[:port]}, a default port left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    def origin(self, *, websocket: bool) -> bytes:
        """Return the value of C{Origin}: in the scheme as written for upgrades, in C{http} or C{https} for others."""
        scheme = self.scheme if websocket and self.socket is None else "https" if self.secure else "http"
        return scheme.encode("ascii") + b"://" + self.host_value


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(.*)", re.DOTALL)
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]*))(?::([0-9]*))?")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|;|$)", re.IGNORECASE)


def parse_target_url(text: str) -> TargetURL:
    """
    Read the URL of a target.

    @raise ValueError: what is wrong and what would be right.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError("is no URL; one such as http://127.0.0.1:8080 would be right")
    scheme, authority, path, rest = found[1].lower(), found[2], found[3], found[4]
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"has the scheme {scheme}; it must be one of {', '.join(DEFAULT_PORTS)}")
    if rest:
        raise ValueError(f"must have no {'query' if rest.startswith('?') else 'fragment'}")
    if "@" in authority:
        raise ValueError("must have no user or password; set Authorization in headers instead")
    if not _PATH.fullmatch(path):
        raise ValueError("has a path with characters that must be percent-encoded")
    if _DOT_SEGMENT.search(path):
        raise ValueError("has a path with the segment . or ..; write the path without it")
    if scheme == "http+unix":
        return TargetURL(scheme, "localhost", DEFAULT_PORTS[scheme], path.encode("ascii"), _socket(authority))
    host, port = _host_and_port(authority, scheme)
    return TargetURL(scheme, host, port, path.encode("ascii"))


def _socket(authority: str) -> str:
    try:
        name = unquote_to_bytes(authority).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("has a socket path that is not UTF-8") from error
    if not name.startswith("/") or "\0" in name:
        raise ValueError("must name an absolute socket path, percent-encoded: http+unix://%2Frun%2Fapp.sock/")
    if len(name.encode("utf-8")) > MAX_SOCKET_PATH:
        raise ValueError(f"has a socket path of over {MAX_SOCKET_PATH} octets")
    return name


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValueError(f"has {authority!r} where host[:port] would be right; IPv6 addresses go in brackets")
    port = int(found[3]) if found[3] else DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:
        raise ValueError(f"has the port {port}; it must be from 1 to 65535")
    if found[1] is not None:
        if not _is_ipv6(found[1]):
            raise ValueError(f"has [{found[1]}], which is no IPv6 address")
        return found[1].lower(), port
    if not found[2]:
        raise ValueError("has no host")
    return _ascii_host(found[2]), port


def _ascii_host(host: str) -> str:
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"has the host {host!r}, which is no host name: {error}") from error
    if not _HOST.fullmatch(host) or ".." in host or len(host) > 253:
        raise ValueError(f"has {host!r} where a host would be right")
    return host.lower()


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _stand_in(found: re.Match[str]) -> str:
    """What a variable may be: it fits as a host, as a port and in a path, and shows what is wrong with the rest."""
    if found[1] is None:
        return "${"
    if found.start() == 0:
        return "http" if found.string.startswith("://", found.end()) else "http://1"
    # The name of a socket has to begin with a slash.
    return "%2F1" if found.string[: found.start()].lower() == "http+unix://" else "1"


class OriginTemplate:
    """
    The target of a rule, in which C{${NAME}} may stand anywhere.

    @ivar source: as it was written.
    @ivar variables: the names that it uses.
    @ivar url: the target, if it uses none.
    """

    __slots__ = ("_resolved", "source", "url", "variables")

    def __init__(self, source: str) -> None:
        """
        @raise ValueError: it can be no target, whatever its variables are.
        """
        self.source = source
        self.variables = variables_in(source)
        parsed = parse_target_url(_VARIABLE.sub(_stand_in, source))
        self.url = None if self.variables else parsed
        self._resolved: tuple[str, TargetURL] | None = None

    def resolve(self, environment: Mapping[str, str]) -> TargetURL:
        """
        Return the target with its variables replaced.

        @raise RuleUnusable: a variable is not set, or what it makes is no target.
        """
        if self.url is not None:
            return self.url
        text = expand_variables(self.source, environment)
        if self._resolved is None or self._resolved[0] != text:
            try:
                self._resolved = (text, parse_target_url(text))
            except ValueError as error:
                # What is wrong may hold what the variables hold.
                names = ", ".join(self.variables)
                raise RuleUnusable(f"the target {self.source} is no URL with {names} as it is now") from error
        return self._resolved[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OriginTemplate) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"OriginTemplate({self.source!r})"


@dataclass(frozen=True, slots=True)
class TargetTLS:
    """How the target is verified and how proxyd shows who it is: file names, and the name asked for."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class RuleTimeouts:
    """Seconds, 0 is never; C{None} is as the service has it."""

    connect: float | None = None
    response: float | None = None
    body: float | None = None
    websocket_idle: float | None = None


@dataclass(frozen=True, slots=True)
class RuleLimits:
    """
    What requests may have; C{None} is as the service has it.

    @ivar body: octets, 0 is no limit.
    @ivar rate: how many one client may make; L{proxyd.rules.rate.NO_RATE} is no limit.
    """

    body: int | None = None
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """
    Which requests are taken, where they go, and how they are changed.

    @ivar hosts: globs for the request's host, empty for any.
    @ivar rewrite: the template of the new path, or C{None}: the path stays as it came.
    @ivar origins: what C{Origin} may be on upgrades; empty for anything.
    @ivar headers: names and values to set on the request to the target, C{None} to remove.
    @ivar auth: how requests are authenticated, L{None} for the service's way.
    @ivar order: the place among the dynamic rules, C{None} for the last.
    @ivar proxy: how the target is reached, L{None} for the service's way.
    @ivar dynamic: it came at run time, from somebody who may not reach everything that this machine does.
    """

    id: str
    name: str
    pattern: Pattern
    target: OriginTemplate
    hosts: tuple[str, ...] = ()
    rewrite: Template | None = None
    change_origin: bool = False
    origins: tuple[str, ...] = ()
    secure: bool = True
    ws: bool = True
    headers: tuple[tuple[str, str | None], ...] = ()
    public_routes: PublicRoutes | None = None
    auth: Auth | None = None
    enabled: bool = True
    order: int | None = None
    base: str | None = None
    relative_paths: bool = False
    proxy: Proxy | None = None
    tls: TargetTLS = field(default_factory=TargetTLS)
    endpoint: str | None = None
    timeouts: RuleTimeouts = field(default_factory=RuleTimeouts)
    limits: RuleLimits = field(default_factory=RuleLimits)
    dynamic: bool = False

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that the rule needs from the environment, each once."""
        names = [*self.target.variables]
        for _, value in self.headers:
            names += variables_in(value or "")
        return tuple(dict.fromkeys(names))


def header_fields(rule: Rule, environment: Mapping[str, str]) -> list[tuple[bytes, bytes | None]]:
    """
    Return what a rule sets on the request to its target, or removes where the value is C{None}.

    @raise RuleUnusable: a variable is not set or holds a line break.
    """
    fields: list[tuple[bytes, bytes | None]] = []
    for name, value in rule.headers:
        # White space at the ends, which a variable may bring, is no part of a field's value (RFC 9110 section 5.5).
        octets = None if value is None else expand_variables(value, environment).strip(" \t").encode("utf-8")
        fields.append((name.encode("ascii"), octets))
    return fields


@dataclass(slots=True)
class Match:
    """
    The rule that takes a request.

    @ivar groups: what its pattern found; for L{Template.expand} only.
    @ivar path: the path in which it was found.
    """

    rule: Rule
    groups: Groups[str]
    path: str

    def rewritten(self) -> str | None:
        """Return the whole new path, or C{None} where the path stays as it came."""
        template = self.rule.rewrite
        return None if template is None else template.expand(self.groups)
