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
    client_ca: _File | None = Field(default=None, alias="clientCA")


class ListenerDocument(Document):
    endpoint: _Endpoint
    tls: _ListenerTLS | None = None


_Listen = Annotated[
    Annotated[_Endpoint, Tag("<string>")] | Annotated[ListenerDocument, Tag("<mapping>")], Discriminator(_listen_kind)
]


_TIMEOUTS, _LIMITS, _LOG = Timeouts(), Limits(), Log()


class _Timeouts(Document):
    header: _Seconds = _TIMEOUTS.header
    body: _Seconds = _TIMEOUTS.body
    connect: _Seconds = _TIMEOUTS.connect
    response: _Seconds = _TIMEOUTS.response
    keep_alive: _Seconds = _TIMEOUTS.keep_alive
    websocket_idle: _Seconds = _TIMEOUTS.websocket_idle
    websocket_ping: _Seconds = _TIMEOUTS.websocket_ping
    drain: _Seconds = _TIMEOUTS.drain


class _Limits(Document):
    connections: Annotated[_Count, Field(ge=1)] = _LIMITS.connections
    per_client: Annotated[_Count, Field(ge=0)] = _LIMITS.per_client
    per_host: Annotated[_Count, Field(ge=1)] = _LIMITS.per_host
    header: Annotated[_Count, Field(ge=MIN_HEAD)] = _LIMITS.header
    response_header: Annotated[_Count, Field(ge=MIN_HEAD)] = _LIMITS.response_header
    uri: Annotated[_Count, Field(ge=MIN_URI)] = _LIMITS.uri
    body: Annotated[_Count, Field(ge=0)] = _LIMITS.body
    max_message: Annotated[_Count, Field(ge=0)] = _LIMITS.max_message
    rate: Annotated[RateField, BeforeValidator(_plain)] = None


class _Log(Document):
    access: _File | None = _LOG.access
    format: Annotated[Literal["combined", "json"], BeforeValidator(_plain)] = _LOG.format
    query: bool = _LOG.query


class _Outbound(Document):
    proxy: Annotated[ProxyField, BeforeValidator(_plain)] = None
    tls: ProxyTLSDocument = ProxyTLSDocument()


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


class _Admin(Document):
    listen: list[_Listen] = []
    base: Annotated[_Text, AfterValidator(_base)] = "/"
    tokens: Annotated[list[_AdminToken], AfterValidator(distinct_names)] = []
    hosts: list[Annotated[_Text, Field(min_length=1)]] = []
    variables: list[Annotated[_Text, AfterValidator(_variable_glob)]] = []
    allow: list[Literal["endpoint", "http+unix", "files", "pac"]] = []
    metrics: Literal["read", "open"] = "read"


class ConfigDocument(Document):
    """The file as users write it (the reference is its documentation); its rules are read one by one."""

    listen: Annotated[list[_Listen], Field(min_length=1)]
    admin: _Admin = _Admin()
    store: Annotated[_Text, AfterValidator(_store)] | None = None
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers), BeforeValidator(_number)] = 1
    outbound: _Outbound = _Outbound()
    auth: AuthField = None
    timeouts: _Timeouts = _Timeouts()
    limits: _Limits = _Limits()
    trusted_proxies: list[Annotated[_Text, AfterValidator(_network)]] = []
    forwarded: bool = False
    traceparent: bool = False
    log: _Log = _Log()
    rules: list[Any] = []
