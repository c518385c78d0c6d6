"""Which proxy a target is reached through, if any: what was written down, the environment, the exempted hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from twisted.logger import Logger

from proxyd.errors import RuleUnusable
from proxyd.outbound.environment import exempted, proxy_named
from proxyd.outbound.no_proxy import NoProxy
from proxyd.outbound.pac import PacRoute
from proxyd.rules.proxy import PacSource, Proxy, ProxySettings, ProxyTLS, Way, parse_proxy_url

log = Logger()


def proxy_for(
    way: Proxy, scheme: str, host: str, port: int, environment: Mapping[str, str], tls: ProxyTLS
) -> ProxySettings | PacRoute | None:
    """
    The proxy for one target, or the script that names it.

    A proxy that was named beats the environment, its C{NO_PROXY} included; its
    own list of exempted hosts does not.

    @param scheme: of the target: C{http}, C{https}, C{ws} or C{wss}.
    @param tls: TLS to proxies that say nothing of it themselves.

    @return: L{None} for none.

    @raise RuleUnusable: a variable of the environment holds no proxy's URL; the text names it, and no credential.
    """
    if isinstance(way, PacSource):
        return PacRoute(way, scheme, tls)
    if isinstance(way, ProxySettings):
        proxy: ProxySettings | None = None if _is_exempted(NoProxy(way.no_proxy), host, port) else way
    elif way is Way.ENVIRONMENT:
        proxy = _from_environment(scheme, host, port, environment)
    else:
        proxy = None
    if proxy is not None and proxy.tls is None:
        return replace(proxy, tls=tls)
    return proxy


def _from_environment(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> ProxySettings | None:
    named = proxy_named(scheme, environment)
    if not named.url:
        return None
    try:
        proxy = parse_proxy_url(named.url)
    except ValueError as error:
        raise RuleUnusable(f"the variable {named.variable} {error}") from error
    return None if _is_exempted(exempted(environment), host, port) else proxy


def _is_exempted(listed: NoProxy, host: str, port: int) -> bool:
    if listed.malformed:
        log.warn("ignored among the hosts that need no proxy: {entries}", entries=", ".join(listed.malformed))
    return listed.exempts(host, port)
