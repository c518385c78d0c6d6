"""L{proxyd.outbound.environment}: which variable decides."""

from __future__ import annotations

import pytest

from proxyd.outbound.environment import Named, exempted, proxy_named

LOWER = {name: f"http://{name}.test" for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy")}


@pytest.mark.parametrize(
    ("scheme", "order"),
    [
        ("http", ["http_proxy", "all_proxy"]),
        ("https", ["https_proxy", "all_proxy"]),
        ("ws", ["ws_proxy", "http_proxy", "all_proxy"]),
        ("wss", ["wss_proxy", "https_proxy", "all_proxy"]),
    ],
)
def test_order(scheme: str, order: list[str]) -> None:
    """Each scheme has its variables, one after the other, in lower and then in upper case."""
    environment = {**LOWER, **{name.upper(): f"http://{name.upper()}.test" for name in LOWER}}
    for name in order:
        for variable in (name, name.upper()):
            assert proxy_named(scheme, environment) == Named(variable, f"http://{variable}.test")
            del environment[variable]
    assert proxy_named(scheme, environment) == Named("", "")


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"https_proxy": "", "HTTPS_PROXY": "http://a"}, Named("https_proxy", "")),
        ({"https_proxy": " ", "all_proxy": "http://a"}, Named("https_proxy", "")),
        ({"HTTPS_PROXY": "", "all_proxy": "http://a"}, Named("HTTPS_PROXY", "")),
        ({"https_proxy": "a:3128"}, Named("https_proxy", "http://a:3128")),
        ({"https_proxy": "u:p@a"}, Named("https_proxy", "http://u:p@a")),
        ({"https_proxy": "socks5h://a"}, Named("https_proxy", "socks5h://a")),
        ({"https_proxy": "nonsense://a"}, Named("https_proxy", "nonsense://a")),
    ],
)
def test_values(environment: dict[str, str], named: Named) -> None:
    """Set to nothing is none; without a scheme it is http; what is no proxy is for the caller to refuse, by name."""
    assert proxy_named("https", environment) == named


def test_cgi() -> None:
    """HTTP_PROXY is a client's field under CGI; http_proxy is not (httpoxy)."""
    environment = {"HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"}
    assert proxy_named("http", environment) == Named("", "")
    assert proxy_named("ws", {**environment, "ALL_PROXY": "http://a"}) == Named("ALL_PROXY", "http://a")
    assert proxy_named("http", {**environment, "http_proxy": "http://a"}) == Named("http_proxy", "http://a")


def test_exempted() -> None:
    """The lower-case list decides when it is set, even to nothing."""
    assert exempted({"no_proxy": "a.test", "NO_PROXY": "b.test"}).exempts("a.test", 80)
    assert not exempted({"no_proxy": "", "NO_PROXY": "b.test"}).exempts("b.test", 80)
    assert exempted({"NO_PROXY": "b.test"}).exempts("b.test", 80)
    assert not exempted({}).exempts("b.test", 80)
