"""
The proxy that the environment names: C{https_proxy}, C{NO_PROXY} and their kin.

Pure: the environment is a value.

@see: https://curl.se/docs/manpage.html#ENVIRONMENT, https://httpoxy.org (why C{HTTP_PROXY} is not for CGI)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from proxyd.outbound.no_proxy import NoProxy

_VARIABLES = {
    "wss": ("wss_proxy", "https_proxy", "all_proxy"),
    "https": ("https_proxy", "all_proxy"),
    "ws": ("ws_proxy", "http_proxy", "all_proxy"),
    "http": ("http_proxy", "all_proxy"),
}


class Named(NamedTuple):
    """
    What the environment says.

    @ivar variable: the name of the variable that decides, as it is spelled there; empty if none does.
    @ivar url: the proxy's URL; empty for none.
    """

    variable: str
    url: str


def proxy_named(scheme: str, environment: Mapping[str, str]) -> Named:
    """
    The proxy for targets of one scheme.

    Of each name the lower-case spelling decides when it is set, even to
    nothing, which means none; only then the upper-case one is asked.

    @param scheme: C{http}, C{https}, C{ws} or C{wss}.
    """
    for name in _VARIABLES[scheme]:
        for variable in (name, name.upper()):
            if variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment:
                # To a CGI program this is the client's own field "Proxy".
                continue
            if variable in environment:
                url = environment[variable].strip()
                return Named(variable, url if not url or "://" in url else f"http://{url}")
    return Named("", "")


def exempted(environment: Mapping[str, str]) -> NoProxy:
    """
    The hosts that the environment exempts from its proxies.
    """
    return NoProxy.parse(environment.get("no_proxy", environment.get("NO_PROXY", "")))
