"""
What would happen to a request, without making it.

It is read, matched and turned into the origin server's by the very functions
that serve requests; only nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from corvus_regex_ecma262 import Match as Groups
from corvus_regex_ecma262 import MatchLimitError
from typing_extensions import TypedDict

from proxyd.control.api.masks import MASK
from proxyd.errors import ExchangeError, MatchTooSlow, NoRuleMatches, RequestError
from proxyd.http.fields import Fields, serialize, valid_name, valid_value, values
from proxyd.http.forwarded import TrustedProxies, forwarding
from proxyd.http.request import RequestHead, parse_request
from proxyd.http.upgrade import is_upgrade, request_handshake_fields
from proxyd.outbound.environment import exempted, proxy_named
from proxyd.outbound.guard import Guard
from proxyd.outbound.pac import PacRoute
from proxyd.outbound.route import Route
from proxyd.rules.auth import NO_AUTH, Auth, BasicAuth, BearerAuth, ForwardAuth
from proxyd.rules.globs import host_globs
from proxyd.rules.model import DEFAULT_PORTS, Match, Rule
from proxyd.rules.outgoing import Outgoing
from proxyd.rules.proxy import Proxy, ProxySettings, Way
from proxyd.rules.table import MATCH_BUDGET_S, RuleTable

_KEY: Final = b"ZXhwbGFpbiBvbmx5Li4uLg=="
"""A C{Sec-WebSocket-Key} for handshakes that are not made."""

_SCHEMES: Final = ("http", "https", "ws", "wss")


class InUse(Protocol):
    """A rule as requests are served by it."""

    outgoing: Outgoing
    route: Route


class Snapshot(Protocol):
    """What requests are served by."""

    table: RuleTable
    trusted: TrustedProxies

    @property
    def guard(self) -> Guard:
        """Where rules that change at run time must not lead."""

    @property
    def forwarded(self) -> bool:
        """Whether C{Forwarded} is sent."""

    @property
    def proxy(self) -> Proxy:
        """The way to targets whose rules name none."""

    @property
    def auth(self) -> Auth | None:
        """Authentication for rules that say nothing of it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Where variables are taken from."""

    def rule_in_use(self, rule: Rule) -> Any:
        """
        What serving a request needs of a rule.

        @raise proxyd.errors.RuleUnusable: it cannot be followed at present.
        """


class Tried(TypedDict):
    """A rule that does not take the request, and why not."""

    rule: str
    name: str
    why: str


class Matched(TypedDict):
    """The rule that takes the request, and what its pattern found."""

    rule: str
    name: str
    groups: list[str | None]
    named: dict[str, str | None]


class Sent(TypedDict):
    """The request that would be sent: fields in their order, and how they differ from the client's."""

    method: str
    url: str
    fields: list[list[str]]
    added: list[list[str]]
    removed: list[list[str]]


class ProxyUsed(TypedDict):
    """How the target would be reached, and why."""

    used: str
    why: str


class Explanation(TypedDict):
    """
    What would happen.

    C{status} and C{error} are those of proxyd's own answer, where the request would go no further.
    """

    method: str
    path: str | None
    host: str | None
    upgrade: bool
    tried: list[Tried]
    matched: Matched | None
    authentication: str
    sent: Sent | None
    proxy: ProxyUsed | None
    status: int | None
    error: str | None


def explain(
    snapshot: Snapshot, now: Callable[[], float], method: str, url: str, headers: Mapping[str, str], secrets: bool
) -> Explanation:
    """
    What would happen to a request.

    @param url: whole, or a path; C{ws} and C{wss} ask for an upgrade.
    @param headers: of the request, beyond those that every client sends.
    @param secrets: whether the values that a rule sets are shown.
    """
    told = Explanation(
        method=method, path=None, host=None, upgrade=False, tried=[], matched=None, authentication="none", sent=None,
        proxy=None, status=None, error=None,
    )
    try:
        head, secure, port = _head(method, url, headers)
        told["path"] = head.target.normal_path
        told["host"] = head.host.host if head.host else None
        told["upgrade"] = bool(head.upgrade) and is_upgrade(head)
        try:
            match = _match(snapshot.table, head, now, told["tried"])
        except NoRuleMatches:
            told["authentication"] = _authentication(snapshot.auth, None, head)
            raise
        rule = match.rule
        told["matched"] = _matched(match)
        told["authentication"] = _authentication(snapshot.auth if rule.auth is None else rule.auth, rule, head)
        if told["upgrade"] and not rule.ws:
            raise NoRuleMatches(f"rule {rule.id} takes no upgrades")
        in_use = snapshot.rule_in_use(rule)
        told["proxy"] = _proxy(in_use.route, rule, in_use.outgoing.url.scheme, snapshot)
        told["sent"] = _sent(snapshot, in_use.outgoing, match, head, secure, port, secrets)
        if in_use.route.guarded:
            snapshot.guard.check_host(in_use.route.host, in_use.route.port)
    except ExchangeError as error:
        told["status"], told["error"] = error.status, str(error)
    return told


def _head(method: str, url: str, headers: Mapping[str, str]) -> tuple[RequestHead, bool, int]:
    """
    The head of the request that a client would send; whether it comes over TLS, and to which port.

    @raise RequestError: no client could send it.
    """
    if url.startswith("/"):
        scheme, authority, target = "http", "localhost", url
    else:
        scheme, separator, rest = url.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in _SCHEMES:
            raise RequestError("The URL must be a path, or begin with http://, https://, ws:// or wss://.")
        end = next((index for index, character in enumerate(rest) if character in "/?#"), len(rest))
        authority, target = rest[:end], rest[end:] if rest[end : end + 1] == "/" else "/" + rest[end:]
    target = target.partition("#")[0]
    try:
        fields: Fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        request_line = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
    except UnicodeEncodeError as error:
        raise RequestError("What is not ASCII must be percent-encoded.") from error
    bad = next((name for name, value in fields if not valid_name(name) or not valid_value(value)), None)
    if bad is not None:
        raise RequestError(f"{bad.decode('ascii')!r} is no header field.")
    if not values(fields, b"host"):
        fields.insert(0, (b"Host", authority.encode("latin-1", "replace")))
    if scheme in ("ws", "wss") and not values(fields, b"upgrade"):
        fields += [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Version", b"13"),
                   (b"Sec-WebSocket-Key", _KEY)]
    head = parse_request(request_line + serialize(fields) + b"\r\n")
    try:
        port = urlsplit(url).port or DEFAULT_PORTS[scheme]
    except ValueError:
        port = DEFAULT_PORTS[scheme]
    return head, scheme in ("https", "wss"), port


def _match(table: RuleTable, head: RequestHead, now: Callable[[], float], tried: list[Tried]) -> Match:
    """
    The rule that takes a request; the ones before it are put into C{tried}.

    @raise NoRuleMatches: there is none.
    @raise MatchTooSlow: the patterns took too long.
    """
    path = head.target.normal_path
    host = (head.host.host if head.host else "").lower().removesuffix(".")
    deadline = now() + MATCH_BUDGET_S
    for rule in table.rules:
        left = deadline - now()
        if left <= 0:
            raise MatchTooSlow(rule.id)
        groups = None
        if not rule.enabled:
            why = "it is disabled"
        elif rule.hosts and not _is_for(rule.hosts, host):
            why = f"the host {host or 'that is not said'} is none of {', '.join(rule.hosts)}"
        else:
            try:
                groups = rule.pattern.search(path, timeout=left)
            except MatchLimitError as error:
                raise MatchTooSlow(rule.id) from error
            why = f"the pattern {rule.pattern.source} is not in the path"
        if groups is not None:
            return Match(rule, groups, path)
        tried.append(Tried(rule=rule.id, name=rule.name, why=why))
    raise NoRuleMatches(f"no rule matches {path}")


def _is_for(globs: tuple[str, ...], host: str) -> bool:
    return bool(host) and host_globs(globs).matches(host)


def _matched(match: Match) -> Matched:
    groups: Groups[str] = match.groups
    return Matched(
        rule=match.rule.id, name=match.rule.name, groups=[groups.group(0), *groups.groups()], named=groups.groupdict()
    )


def _authentication(auth: Auth | None, rule: Rule | None, head: RequestHead) -> str:
    if auth is None or auth == NO_AUTH:
        return "none"
    routes = None if rule is None else rule.public_routes
    if routes is not None and routes.is_public(head.target.normal_path, head.method.decode("ascii")):
        return "none: the path is one of publicRoutes"
    kinds = {BasicAuth: "basic", BearerAuth: "bearer", ForwardAuth: "forward"}
    return kinds[type(auth)]


def _sent(
    snapshot: Snapshot, outgoing: Outgoing, match: Match, head: RequestHead, secure: bool, port: int, secrets: bool
) -> Sent:
    target = outgoing.request_target(match, head.target)
    _, told = forwarding(
        head.fields,
        peer="127.0.0.1",
        secure=secure,
        host=head.host_value,
        port=port,
        trusted=snapshot.trusted,
        forwarded=snapshot.forwarded,
    )
    if head.upgrade and is_upgrade(head):
        octets = outgoing.upgrade_fields(head, told, request_handshake_fields(head.fields, _KEY))
    else:
        octets = outgoing.fields(head, told)
    own = {name.lower() for name, value in match.rule.headers if value is not None}
    sent = []
    for line in octets.decode("latin-1").split("\r\n")[:-2]:
        name, _, value = line.partition(": ")
        sent.append([name, MASK if name.lower() in own and not secrets else value])
    came = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in head.fields]
    base = outgoing.url
    scheme = "https" if base.secure else "http"
    url = f"{scheme}://{base.host_value.decode('ascii')}{target.decode('latin-1')}"
    if match.rule.target.variables and not secrets:
        # What a variable holds is not for everybody, wherever it has got to.
        url = match.rule.target.source
        hidden = base.host_value.decode("ascii")
        sent = [[name, MASK if hidden in value else value] for name, value in sent]
    return Sent(
        method=head.method.decode("ascii"),
        url=url,
        fields=sent,
        added=_without(sent, came),
        removed=_without(came, sent),
    )


def _without(these: list[list[str]], those: list[list[str]]) -> list[list[str]]:
    left = {(name.lower(), value) for name, value in those}
    return [[name, value] for name, value in these if (name.lower(), value) not in left]


def _proxy(route: Route, rule: Rule, scheme: str, snapshot: Snapshot) -> ProxyUsed:
    if route.endpoint is not None:
        return ProxyUsed(used="direct", why=f"the rule connects by the endpoint {route.endpoint}")
    if route.socket is not None:
        return ProxyUsed(used="direct", why="the target is a UNIX socket")
    by = "the rule's proxy" if rule.proxy is not None else "outbound.proxy"
    way = snapshot.proxy if rule.proxy is None else rule.proxy
    used = route.proxy
    if isinstance(used, PacRoute):
        return ProxyUsed(used="pac", why=f"{by} is the script {used.source.location}, which is asked when connecting")
    name = "direct" if used is None else used.name
    if way is Way.DIRECT:
        return ProxyUsed(used=name, why=f"{by} is direct")
    if isinstance(way, ProxySettings):
        return ProxyUsed(used=name, why=f"{by} names it" if used is not None else f"noProxy of {by} exempts the target")
    named = proxy_named(scheme, snapshot.environment)
    if not named.url:
        why = f"the variable {named.variable} is empty" if named.variable else "no variable names a proxy"
    elif used is None and exempted(snapshot.environment).exempts(route.host, route.port):
        why = "NO_PROXY exempts the target"
    else:
        why = f"the variable {named.variable} names it"
    return ProxyUsed(used=name, why=f"{by} is env: {why}")
