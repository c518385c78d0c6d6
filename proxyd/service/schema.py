"""The file as users write it, for pydantic: what each section may hold."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from twisted.internet.endpoints import serverFromString

from proxyd.control.store.opening import store_problem
from proxyd.rules.auth import AuthField, TokenDocument, distinct_names
from proxyd.rules.codec import FileName, ProxyField, ProxyTLSDocument, RateField
from proxyd.rules.problems import Document
from proxyd.service.settings import Limits, Log, Timeouts

MIN_HEAD: Final = 1024
"""The smallest C{limits.header} and C{limits.responseHeader}, octets: a browser's head has to fit."""

MAX_WORKERS: Final = 256
"""The largest number of C{workers}."""

MIN_URI: Final = 64
"""The smallest C{limits.uri}, octets."""


_BASE = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*(?:[A-Za-z0-9._~-]+)?")
_VARIABLES = re.compile(r"[A-Za-z0-9_*?]+")


class Expanded(str):
    """A string that a variable made: a number may be meant."""


def _number(value: object) -> object:
    if isinstance(value, Expanded):
        try:
            return int(value)
        except ValueError:
            try:
                return float(value)
            except ValueError:
                return value
    return value


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Expanded) else value


def _endpoint(text: str) -> str:
    # What systemd hands over is only there when proxyd runs under it.
    if text.partition(":")[0] != "systemd":
        try:
            serverFromString(object(), text)
        except Exception as error:
            # Each plugin has its own ways to refuse a string.
            raise ValueError(f"is no server endpoint, such as tcp:8080:interface=127.0.0.1: {error}") from error
    return text


def _network(text: str) -> str:
    if text != "unix":
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"must be an address, a network such as 10.0.0.0/8, or unix: {error}") from error
    return text


def _workers(value: object) -> object:
    # True is an int.
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_WORKERS):
        return value
    raise ValueError(f"must be a number of processes from 1 to {MAX_WORKERS}, or auto: one for each processor")


def _listen_kind(value: object) -> str:
    return "<mapping>" if isinstance(value, dict) else "<string>"


_Text = Annotated[str, BeforeValidator(_plain)]
_Seconds = Annotated[float, Field(ge=0), BeforeValidator(_number)]
_Count = Annotated[int, BeforeValidator(_number)]
_Endpoint = Annotated[str, BeforeValidator(_plain), AfterValidator(_endpoint)]
_File = Annotated[FileName, BeforeValidator(_plain)]


class _ListenerTLS(Document):
    certificates: Annotated[list[_File], Field(min_length=1)]
    """PEM files, each with a certificate, its chain and its key; chosen by SNI, else the first."""
    client_ca: _File | None = Field(default=None, alias="clientCA")
    """A PEM file: clients must have a certificate of one of these authorities."""


class ListenerDocument(Document):
    endpoint: _Endpoint
    """A Twisted server endpoint string, without TLS."""
    tls: _ListenerTLS | None = None
    """TLS on it."""


_Listen = Annotated[
    Annotated[_Endpoint, Tag("<string>")] | Annotated[ListenerDocument, Tag("<mapping>")], Discriminator(_listen_kind)
]


_TIMEOUTS, _LIMITS, _LOG = Timeouts(), Limits(), Log()


class _Timeouts(Document):
    header: _Seconds = _TIMEOUTS.header
    """Until a request's head is whole."""
    body: _Seconds = _TIMEOUTS.body
    """The longest silence of a side that is waited for."""
    connect: _Seconds = _TIMEOUTS.connect
    """To reach the origin server: its name, TCP and TLS; and to wait for a free connection."""
    response: _Seconds = _TIMEOUTS.response
    """From the request's last octet to the answer's head."""
    keep_alive: _Seconds = _TIMEOUTS.keep_alive
    """A client's connection without a request."""
    websocket_idle: _Seconds = _TIMEOUTS.websocket_idle
    """A WebSocket without data and pongs."""
    websocket_ping: _Seconds = _TIMEOUTS.websocket_ping
    """Between pings of proxyd's own."""
    drain: _Seconds = _TIMEOUTS.drain
    """From C{SIGTERM} until what is left is cut off."""


class _Limits(Document):
    connections: Annotated[_Count, Field(ge=1)] = _LIMITS.connections
    """Clients' connections, WebSockets included."""
    per_client: Annotated[_Count, Field(ge=0)] = _LIMITS.per_client
    """Requests and WebSockets of one client's address at once."""
    per_host: Annotated[_Count, Field(ge=1)] = _LIMITS.per_host
    """Connections to one origin server by one way, WebSockets excepted."""
    header: Annotated[_Count, Field(ge=MIN_HEAD)] = _LIMITS.header
    """Octets of a request's head."""
    response_header: Annotated[_Count, Field(ge=MIN_HEAD)] = _LIMITS.response_header
    """Octets of an answer's head, its C{1xx} included."""
    uri: Annotated[_Count, Field(ge=MIN_URI)] = _LIMITS.uri
    """Octets of a request-target."""
    body: Annotated[_Count, Field(ge=0)] = _LIMITS.body
    """Octets of a request's body."""
    max_message: Annotated[_Count, Field(ge=0)] = _LIMITS.max_message
    """Octets of a WebSocket message on the wire."""
    rate: Annotated[RateField, BeforeValidator(_plain)] = None
    """Requests of a client's address: C{10/s}, C{100/m} or C{1000/h}."""


class _Log(Document):
    access: _File | None = _LOG.access
    """A file; C{-} is standard output, C{null} no log."""
    format: Annotated[Literal["combined", "json"], BeforeValidator(_plain)] = _LOG.format
    """How a line is written."""
    query: bool = _LOG.query
    """Whether query strings are written."""


class _Outbound(Document):
    proxy: Annotated[ProxyField, BeforeValidator(_plain)] = None
    """How targets are reached by rules that do not say so themselves: C{direct}, C{env} or a proxy."""
    tls: ProxyTLSDocument = ProxyTLSDocument.model_construct()
    """TLS to proxies."""


def _base(text: str) -> str:
    if not _BASE.fullmatch(text):
        raise ValueError("must be a path such as / or /admin/, of letters, digits and . _ ~ -")
    return text if text.endswith("/") else text + "/"


def _variable_glob(text: str) -> str:
    if not _VARIABLES.fullmatch(text):
        raise ValueError("must be the name of a variable, or a glob of names such as APP_*")
    return text


def _store(text: str) -> str:
    problem = store_problem(text)
    if problem is not None:
        raise ValueError(problem)
    return text


class _AdminToken(TokenDocument):
    role: Literal["read", "write"]
    """What the token is good for."""


class _Admin(Document):
    listen: list[_Listen] = []
    """Where the admin API listens; empty is nowhere."""
    base: Annotated[_Text, AfterValidator(_base)] = "/"
    """The path that all of it is under."""
    tokens: Annotated[list[_AdminToken], AfterValidator(distinct_names)] = []
    """Who may call."""
    hosts: list[Annotated[_Text, Field(min_length=1)]] = []
    """Values of C{Host} that are answered besides the listener's own and loopback names."""
    variables: list[Annotated[_Text, AfterValidator(_variable_glob)]] = []
    """Globs of the variables that rules which change at run time may name."""
    allow: list[Literal["endpoint", "http+unix", "files", "pac"]] = []
    """What else rules that change at run time may hold."""
    metrics: Literal["read", "open"] = "read"
    """C{open}: C{/metrics} needs no token."""


class ConfigDocument(Document):
    """The file as users write it (the reference is its documentation); its rules are read one by one."""

    listen: Annotated[list[_Listen], Field(min_length=1)]
    """Where clients connect."""
    admin: _Admin = _Admin.model_construct()
    """Where rules are changed at run time."""
    store: Annotated[_Text, AfterValidator(_store)] | None = None
    """Where rules that change at run time are kept: C{sqlite:FILE}, C{postgresql://…} or C{memory:}."""
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers), BeforeValidator(_number)] = 1
    """How many processes serve, at most 256; C{auto} is one for each processor."""
    outbound: _Outbound = _Outbound.model_construct()
    """How targets are reached."""
    auth: AuthField = None
    """Who may ask; without it anybody."""
    timeouts: _Timeouts = _Timeouts.model_construct()
    """Seconds; 0 is never. They end up to an eighth of a second late."""
    limits: _Limits = _Limits.model_construct()
    """Numbers and octets; 0 is no limit."""
    trusted_proxies: list[Annotated[_Text, AfterValidator(_network)]] = []
    """Whose forwarding fields are believed: addresses, networks, C{unix} for UNIX sockets."""
    forwarded: bool = False
    """Send Forwarded (RFC 7239), too."""
    traceparent: bool = False
    """Give requests a trace that have none."""
    log: _Log = _Log.model_construct()
    """The access log."""
    rules: list[Any] = []
    """The rules, in matching order."""
