"""The configuration as frozen values, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from proxyd.control.settings import Admin
from proxyd.errors import Problem
from proxyd.rules.auth import Auth
from proxyd.rules.model import Rule
from proxyd.rules.proxy import Proxy, ProxyTLS, Way
from proxyd.rules.rate import Rate

STDOUT: Final = "-"
"""The name of standard output in C{log.access}."""


@dataclass(frozen=True, slots=True)
class ListenerTLS:
    """File names: certificates with their keys, chosen by SNI, and the CA that clients must have one from."""

    certificates: tuple[str, ...]
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """A Twisted server endpoint string, and TLS where it needs more than a string can say."""

    endpoint: str
    tls: ListenerTLS | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 is never."""

    header: float = 10
    body: float = 60
    connect: float = 10
    response: float = 60
    keep_alive: float = 75
    websocket_idle: float = 0
    websocket_ping: float = 0
    drain: float = 30


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Numbers of connections and of octets; 0 is no limit where it is allowed.

    @ivar rate: how many requests one client may make of all rules that have no rate of their own.
    """

    connections: int = 10000
    per_client: int = 0
    per_host: int = 256
    header: int = 32768
    response_header: int = 65536
    uri: int = 8192
    body: int = 0
    max_message: int = 0
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """
    The access log.

    @ivar access: a file name, C{-} for standard output, C{None} for no log.
    @ivar query: whether query strings are written.
    """

    access: str | None = STDOUT
    format: Literal["combined", "json"] = "combined"
    query: bool = True


@dataclass(frozen=True, slots=True)
class Outbound:
    """
    How targets are reached, unless their rules say otherwise.

    @ivar tls: TLS to proxies.
    """

    proxy: Proxy = Way.DIRECT
    tls: ProxyTLS = ProxyTLS()


@dataclass(frozen=True, slots=True)
class Config:
    """
    A whole configuration.

    @ivar auth: how requests are authenticated, unless their rules say otherwise; L{None} is not at all.
    @ivar admin_listen: where the admin API listens.
    @ivar store: the URL of where rules that change at run time are kept.
    @ivar store_folder: where the name of its file begins.
    @ivar traceparent: whether requests without a trace get one.
    @ivar workers: how many processes serve; 1 is the one that reads this.
    @ivar text: what its file says.
    @ivar source: the name of its file.
    @ivar base: the folder where its file names begin.
    @ivar warnings: what is allowed but seldom meant.
    """

    listen: tuple[Listener, ...]
    timeouts: Timeouts
    limits: Limits
    trusted_proxies: tuple[str, ...]
    forwarded: bool
    log: Log
    outbound: Outbound
    rules: tuple[Rule, ...]
    source: str
    base: str
    traceparent: bool = False
    admin_listen: tuple[Listener, ...] = ()
    admin: Admin = Admin()
    store: str = field(default="memory:", repr=False)
    store_folder: str = ""
    warnings: tuple[Problem, ...] = ()
    auth: Auth | None = None
    workers: int = 1
    text: str = field(default="", repr=False, compare=False)
