"""L{proxyd.outbound.proxies}: which proxy a target is reached through."""

from __future__ import annotations

import pytest

from proxyd.errors import RuleUnusable
from proxyd.outbound.pac import PacRoute
from proxyd.outbound.proxies import proxy_for
from proxyd.rules.proxy import PacSource, Proxy, ProxySettings, ProxyTLS, Way, parse_proxy_url

ENVIRONMENT = {"https_proxy": "http://env.test", "no_proxy": "a.test,nonsense*"}
TLS = ProxyTLS(ca="ca.pem")


def chosen(
    way: Proxy, host: str = "b.test", environment: dict[str, str] = ENVIRONMENT
) -> ProxySettings | PacRoute | None:
    """The proxy for a target over TLS."""
    return proxy_for(way, "https", host, 443, environment, TLS)


def test_direct() -> None:
    """Direct is direct, whatever the environment says."""
    assert chosen(Way.DIRECT) is None


def test_environment() -> None:
    """The environment's proxy, but for what it exempts; without one, none."""
    found = chosen(Way.ENVIRONMENT)
    assert found is not None and found.name == "http://env.test:80"
    assert chosen(Way.ENVIRONMENT, "a.test") is None
    assert chosen(Way.ENVIRONMENT, environment={}) is None
    assert chosen(Way.ENVIRONMENT, environment={"https_proxy": ""}) is None


def test_bad_environment() -> None:
    """A value that is no proxy is an error that names the variable, and never a direct connection."""
    with pytest.raises(RuleUnusable, match="the variable ALL_PROXY has the scheme 'gopher'") as caught:
        chosen(Way.ENVIRONMENT, environment={"ALL_PROXY": "gopher://hidden@a"})
    assert "hidden" not in str(caught.value)


def test_named() -> None:
    """A named proxy beats the environment and its exemptions; its own exemptions count."""
    named = ProxySettings("http", "p.test", 80, no_proxy=("c.test",))
    found = chosen(named, "a.test")
    assert found is not None and found.name == "http://p.test:80"
    assert chosen(named, "c.test") is None


def test_script() -> None:
    """A script is asked with the target's scheme."""
    source = PacSource("/a.pac")
    assert chosen(source) == PacRoute(source, "https", TLS)


def test_tls() -> None:
    """A proxy that says nothing of TLS has the service's; one that does has its own."""
    found = chosen(parse_proxy_url("https://p"))
    assert found is not None and found.tls == TLS
    own = ProxySettings("https", "p", 443, tls=ProxyTLS(verify=False))
    assert chosen(own) == own
