"""
Rules as mappings, such as YAML and JSON hold, and back.

Everything that is wrong with a mapping is reported at once, each problem with
its path and with what would be right.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from proxyd.errors import ConfigError, Problem
from proxyd.http.fields import HOP_BY_HOP, valid_name, valid_value
from proxyd.rules.auth import AuthField, auth_from, mapping_from_auth
from proxyd.rules.globs import PublicRoutes, compile_glob, host_globs
from proxyd.rules.model import OriginTemplate, Rule, RuleLimits, RuleTimeouts, TargetTLS, variables_in
from proxyd.rules.pattern import Pattern, Template
from proxyd.rules.problems import Document, kind_of, problems_in
from proxyd.rules.proxy import (
    PacSource,
    Proxy,
    ProxyTLS,
    Way,
    connect_headers,
    parse_pac,
    parse_proxy,
    parse_proxy_url,
)
from proxyd.rules.rate import parse_rate

MAX_MEMBERS: Final = 256
"""The most members of a rule's list or mapping."""

MAX_ORDER: Final = 1_000_000_000
"""The largest C{order}, and the smallest below zero."""

MAX_NAME: Final = 200
"""The longest name of a rule, characters."""

Duration = Annotated[float, Field(ge=0)]
"""Seconds."""

Size = Annotated[int, Field(ge=0)]
"""Octets."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHOD = re.compile(r"[A-Z][A-Z-]*")
_HOST_GLOB = re.compile(r"[A-Za-z0-9._*?-]+|[0-9A-Fa-f.*?]*:[0-9A-Fa-f.*?]*:[0-9A-Fa-f:.*?]*")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:(?![/?#@\\])[!-~])+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNTOUCHABLE = HOP_BY_HOP | {b"content-length", b"trailer"}
"""Fields that say how messages are framed or that belong to a connection; proxyd sets them itself."""

_pattern = lru_cache(maxsize=16)(Pattern)
"""A pattern is compiled to be checked, then to make the rule and its template: once is enough."""


def _id(text: str) -> str:
    # The last three are no segments of a path that would be a rule's.
    if not _ID.fullmatch(text) or text in ("reorder", ".", ".."):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-', and not 'reorder', '.' or '..'")
    return text


def _one_line(text: str) -> str:
    if not text.strip() or _CONTROL.search(text):
        raise ValueError("must be one line of text that is not blank")
    return text


def _valid_pattern(text: str) -> str:
    return _pattern(text).source


def _valid_target(text: str) -> str:
    return OriginTemplate(text).source


def _valid_glob(text: str) -> str:
    if text and text[0] not in "/*?":
        raise ValueError(f"{text!r} matches no path: paths begin with a slash")
    return compile_glob(text).sources[0]


def _valid_host(text: str) -> str:
    if not _HOST_GLOB.fullmatch(text):
        raise ValueError("must be a host or a glob of hosts, without port or brackets; write names in ASCII (xn--…)")
    return text


def _compiled_hosts(hosts: list[str]) -> list[str]:
    host_globs(tuple(hosts))
    return hosts


def _compiled_routes(routes: list[str] | dict[str, list[str]]) -> list[str] | dict[str, list[str]]:
    PublicRoutes(routes)
    return routes


def _valid_origin(text: str) -> str:
    if text != "null" and not _ORIGIN.fullmatch(text):
        raise ValueError("must be scheme://host[:port] without a path, as browsers send it, or null in quotes")
    return text


def _valid_field_name(name: str) -> str:
    octets = name.encode("utf-8")
    if not valid_name(octets):
        raise ValueError("is no name of a header field")
    if octets.lower() in _UNTOUCHABLE or octets.lower().startswith(b"sec-websocket-"):
        raise ValueError("cannot be set by a rule: it belongs to the connection, the framing or the handshake")
    return name


def _valid_field_value(value: str | None) -> str | None:
    if value is not None:
        variables_in(value)
        if not valid_value(value.encode("utf-8")):
            raise ValueError("must have no line breaks or other control characters, and no space at its ends")
    return value


def _distinct(headers: dict[str, str | None]) -> dict[str, str | None]:
    seen: dict[str, str] = {}
    for name in headers:
        if name.lower() in seen:
            raise ValueError(f"{seen[name.lower()]} and {name} are the same field; keep one")
        seen[name.lower()] = name
    return headers


def _valid_method(method: str) -> str:
    if not _METHOD.fullmatch(method):
        raise ValueError("must be a method in capitals, or ALL")
    return method


def _valid_proxy(text: str) -> str:
    parse_proxy(text)
    return text


def _valid_proxy_url(text: str) -> str:
    parse_proxy_url(text)
    return text


def _valid_pac(text: str) -> str:
    parse_pac(text)
    return text


def _valid_connect_headers(headers: dict[str, str]) -> dict[str, str]:
    connect_headers(headers)
    return headers


def _valid_exemption(text: str) -> str:
    if not text or any(character in " ,\t" for character in text):
        raise ValueError("must be one host, address or block, with or without a port")
    return text


def _proxy_kind(value: object) -> str:
    if isinstance(value, PacDocument) or (isinstance(value, dict) and "pac" in value):
        return "<pac>"
    return "<mapping>" if isinstance(value, dict | ProxyDocument) else "<text>"


def _valid_rate(text: str) -> str:
    return parse_rate(text).source


def _file_name(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("must be the name of a file")
    return text


def _list_or_mapping(value: object) -> str | None:
    return {"a list": "<list>", "a mapping": "<mapping>"}.get(kind_of(value))


Located = Callable[[str | None], str | None]
"""From the name of a file as it is written to where it is."""

FileName = Annotated[str, AfterValidator(_file_name)]
RateField = Annotated[str, AfterValidator(_valid_rate)] | None
"""Such as C{10/s}; C{none}; null is as the service has it."""

_Glob = Annotated[str, AfterValidator(_valid_glob)]
_Globs = Annotated[list[_Glob], Field(max_length=MAX_MEMBERS)]
_Routes = Annotated[
    Annotated[_Globs, Tag("<list>")]
    | Annotated[dict[Annotated[str, AfterValidator(_valid_method)], _Globs], Tag("<mapping>")],
    Discriminator(_list_or_mapping),
    AfterValidator(_compiled_routes),
]
_Origins = list[Annotated[str, AfterValidator(_valid_origin)]]
_Hosts = list[Annotated[str, AfterValidator(_valid_host)]]
_Headers = Annotated[
    dict[Annotated[str, AfterValidator(_valid_field_name)], Annotated[str | None, AfterValidator(_valid_field_value)]],
    AfterValidator(_distinct),
    Field(max_length=MAX_MEMBERS),
]


class _TLS(Document):
    ca: FileName | None = None
    """A PEM file to trust in place of the system's authorities."""
    certificate: FileName | None = None
    """Our own certificate, a PEM file that may hold the key, too."""
    key: FileName | None = None
    """Its key, a PEM file."""
    server_name: Annotated[str, AfterValidator(_one_line)] | None = None
    """The name to send as SNI and to expect, in place of the target's host."""

    @model_validator(mode="after")
    def _key_has_certificate(self) -> _TLS:
        if self.key is not None and self.certificate is None:
            raise ValueError("has a key without a certificate; name both, or one file with both as the certificate")
        return self


class ProxyTLSDocument(Document):
    """TLS to a proxy, as users write it."""

    ca: FileName | None = None
    """A PEM file to trust in place of the system's authorities."""
    verify: bool = True
    """Verify the proxy's certificate and its name."""
    certificate: FileName | None = None
    """Our own certificate, a PEM file that may hold the key, too."""
    key: FileName | None = None
    """Its key, a PEM file."""


class ProxyDocument(Document):
    """A proxy, as users write it where a URL does not say enough."""

    url: Annotated[str, AfterValidator(_valid_proxy_url)]
    """Its URL: C{http}, C{https}, C{socks4}, C{socks4a}, C{socks5} or C{socks5h}."""
    headers: Annotated[dict[str, str], AfterValidator(_valid_connect_headers)] = {}
    """Fields of the CONNECT request."""
    no_proxy: list[Annotated[str, AfterValidator(_valid_exemption)]] = []
    """Hosts, addresses and blocks that are reached without it."""
    tls: ProxyTLSDocument | None = None
    """TLS to this proxy, in place of C{outbound.tls}."""


class PacDocument(Document):
    """A proxy auto-config script, as users write it."""

    pac: Annotated[str, AfterValidator(_valid_pac)]
    """A proxy auto-config script: its file, or its C{http} or C{https} URL."""

    @model_validator(mode="before")
    @classmethod
    def _either(cls, value: Any) -> Any:
        if isinstance(value, dict) and "url" in value:
            raise ValueError("has both url and pac; keep one")
        return value


ProxyField = (
    Annotated[
        Annotated[str, AfterValidator(_valid_proxy), Tag("<text>")]
        | Annotated[ProxyDocument, Tag("<mapping>")]
        | Annotated[PacDocument, Tag("<pac>")],
        Discriminator(_proxy_kind),
    ]
    | None
)
"""C{direct}, C{env}, a URL, or a mapping; null is as the service has it."""


def proxy_tls_from(document: ProxyTLSDocument | None, located: Located) -> ProxyTLS | None:
    """
    @return: TLS to a proxy, with file names where they are.
    """
    if document is None:
        return None
    return ProxyTLS(located(document.ca), document.verify, located(document.certificate), located(document.key))


def proxy_from(document: str | ProxyDocument | PacDocument | None, located: Located) -> Proxy | None:
    """
    @return: the way to a target that was written down.
    """
    if document is None or isinstance(document, str):
        return None if document is None else parse_proxy(document)
    if isinstance(document, PacDocument):
        source = parse_pac(document.pac)
        return source if source.is_url else PacSource(located(document.pac) or "")
    return replace(
        parse_proxy_url(document.url),
        headers=connect_headers(document.headers),
        no_proxy=tuple(document.no_proxy),
        tls=proxy_tls_from(document.tls, located),
    )


def _mapping_from_proxy(proxy: Proxy | None) -> str | dict[str, Any] | None:
    if proxy is None or isinstance(proxy, Way):
        return None if proxy is None else proxy.value
    if isinstance(proxy, PacSource):
        return {"pac": proxy.location}
    tls = proxy.tls
    if not proxy.headers and not proxy.no_proxy and tls is None:
        return proxy.url
    mapping: dict[str, Any] = {
        "url": proxy.url,
        "headers": {name.decode("ascii"): value.decode("latin-1") for name, value in proxy.headers},
        "noProxy": list(proxy.no_proxy),
    }
    if tls is not None:
        mapping["tls"] = {"ca": tls.ca, "verify": tls.verify, "certificate": tls.certificate, "key": tls.key}
    return mapping


class _Timeouts(Document):
    connect: Duration | None = None
    """To reach the origin server."""
    response: Duration | None = None
    """From the request's last octet to the answer's head."""
    body: Duration | None = None
    """The longest silence of a side that is waited for."""
    websocket_idle: Duration | None = None
    """A WebSocket without data and pongs."""


class _Limits(Document):
    body: Size | None = None
    """Octets of a request's body."""
    rate: RateField = None
    """Requests of a client's address, such as C{10/s}; C{none} is no limit."""


class RuleDocument(Document):
    """A rule as users write it (the reference is its documentation)."""

    id: Annotated[str, AfterValidator(_id)] | None = None
    """What logs call it: letters, digits, dots, underscores and hyphens; C{static-<index>} by default."""
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_one_line)]
    """For people."""
    pattern: Annotated[str, AfterValidator(_valid_pattern)]
    """What the path must match: an ECMAScript regular expression."""
    hosts: Annotated[_Hosts, Field(min_length=1, max_length=MAX_MEMBERS), AfterValidator(_compiled_hosts)] | None = None
    """Globs for the request's host without its port."""
    target: Annotated[str, AfterValidator(_valid_target)]
    """The origin server: C{http}, C{https}, C{ws}, C{wss} or C{http+unix}; its path is a prefix."""
    rewrite: str | None = None
    """The whole new path, such as C{/v2/$1}; without it the path goes on as it came."""
    change_origin: bool = False
    """C{Host}, and an C{Origin} that is there, become the target's."""
    origins: Annotated[_Origins, Field(min_length=1, max_length=MAX_MEMBERS)] | None = None
    """The C{Origin} values that may open a WebSocket; C{null} is any."""
    secure: bool = True
    """Verify the target's certificate and its name."""
    ws: bool = True
    """Take WebSocket upgrades."""
    headers: _Headers = {}
    """Fields to set on the request to the target; C{null} removes."""
    public_routes: _Routes | None = None
    """Globs of paths that need no authentication, for all methods or by method."""
    auth: AuthField = None
    """Who may ask, in place of the service's; C{none} is anybody."""
    enabled: bool = True
    """A rule that is not matches nothing."""
    order: Annotated[int, Field(ge=-MAX_ORDER, le=MAX_ORDER)] | None = None
    """The place among the rules that change at run time."""
    base: Annotated[str, AfterValidator(_one_line)] | None = None
    """Put C{<base href="…">} first into the C{<head>} of pages."""
    relative_paths: bool = False
    """Make root-relative URLs in pages relative."""
    proxy: ProxyField = None
    """How the target is reached, in place of C{outbound.proxy}."""
    tls: _TLS = _TLS.model_construct()
    """TLS to the target."""
    endpoint: Annotated[str, AfterValidator(_one_line)] | None = None
    """A Twisted client endpoint string to connect with."""
    timeouts: _Timeouts = _Timeouts.model_construct()
    """In place of the service's."""
    limits: _Limits = _Limits.model_construct()
    """In place of the service's."""

    @field_validator("rewrite")
    @classmethod
    def _fits_the_pattern(cls, rewrite: str | None, info: ValidationInfo) -> str | None:
        # Without a valid pattern nothing can be said about the groups; that problem is reported already.
        if rewrite and "pattern" in info.data:
            Template(rewrite, _pattern(info.data["pattern"]))
        return rewrite


def rule_from_mapping(mapping: object, index: int | None = None, *, folder: str = "") -> Rule:
    """
    Return the rule that a mapping describes.

    @param index: its place in C{rules} of the file: the rule is called
        C{static-<index>} unless it says otherwise, and problems are at C{rules.<index>}.
    @param folder: where its file names begin.

    @raise ConfigError: everything that is wrong with it.
    """
    prefix = () if index is None else ("rules", index)
    name = mapping.get("name") if isinstance(mapping, dict) else None
    label = name[:MAX_NAME] if isinstance(name, str) and name else None
    try:
        document = RuleDocument.model_validate(mapping)
    except ValidationError as error:
        found = problems_in(error, RuleDocument, prefix)
        raise ConfigError(tuple(Problem(one.path, one.message, rule=label) for one in found)) from error
    if document.id is None and index is None:
        raise ConfigError((Problem(("id",), "is required", rule=label),))
    return _rule(document, document.id or f"static-{index}", lambda name: name and posixpath.join(folder, name))


def _rule(document: RuleDocument, rule_id: str, located: Located) -> Rule:
    pattern = _pattern(document.pattern)
    tls, timeouts = document.tls, document.timeouts
    return Rule(
        id=rule_id,
        name=document.name,
        pattern=pattern,
        target=OriginTemplate(document.target),
        hosts=tuple(document.hosts or ()),
        rewrite=Template(document.rewrite, pattern) if document.rewrite else None,
        change_origin=document.change_origin,
        origins=tuple(document.origins or ()),
        secure=document.secure,
        ws=document.ws,
        headers=tuple(document.headers.items()),
        public_routes=None if document.public_routes is None else PublicRoutes(document.public_routes),
        auth=auth_from(document.auth, lambda name: located(name) or ""),
        enabled=document.enabled,
        order=document.order,
        base=document.base,
        relative_paths=document.relative_paths,
        proxy=proxy_from(document.proxy, located),
        tls=TargetTLS(located(tls.ca), located(tls.certificate), located(tls.key), tls.server_name),
        endpoint=document.endpoint,
        timeouts=RuleTimeouts(timeouts.connect, timeouts.response, timeouts.body, timeouts.websocket_idle),
        limits=RuleLimits(
            document.limits.body, None if document.limits.rate is None else parse_rate(document.limits.rate)
        ),
    )


def mapping_from_rule(rule: Rule) -> dict[str, Any]:
    """Return the mapping that describes a rule, with every default filled in."""
    return {
        "id": rule.id,
        "name": rule.name,
        "pattern": rule.pattern.source,
        "hosts": list(rule.hosts) or None,
        "target": rule.target.source,
        "rewrite": None if rule.rewrite is None else rule.rewrite.source,
        "changeOrigin": rule.change_origin,
        "origins": list(rule.origins) or None,
        "secure": rule.secure,
        "ws": rule.ws,
        "headers": dict(rule.headers),
        "publicRoutes": None if rule.public_routes is None else rule.public_routes.to_mapping(),
        "auth": mapping_from_auth(rule.auth),
        "enabled": rule.enabled,
        "order": rule.order,
        "base": rule.base,
        "relativePaths": rule.relative_paths,
        "proxy": _mapping_from_proxy(rule.proxy),
        "tls": {
            "ca": rule.tls.ca,
            "certificate": rule.tls.certificate,
            "key": rule.tls.key,
            "serverName": rule.tls.server_name,
        },
        "endpoint": rule.endpoint,
        "timeouts": {
            "connect": rule.timeouts.connect,
            "response": rule.timeouts.response,
            "body": rule.timeouts.body,
            "websocketIdle": rule.timeouts.websocket_idle,
        },
        "limits": {
            "body": rule.limits.body,
            "rate": None if rule.limits.rate is None else rule.limits.rate.source,
        },
    }
