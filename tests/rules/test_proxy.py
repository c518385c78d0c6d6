"""L{proxyd.rules.proxy}: what people write of proxies, and that nobody else reads their passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.rules.proxy import ProxySettings, Way, connect_headers, parse_proxy, parse_proxy_url


@pytest.mark.parametrize(
    ("text", "settings", "name"),
    [
        ("http://p", ProxySettings("http", "p", 80), "http://p:80"),
        ("HTTP://P.Test:3128/", ProxySettings("http", "p.test", 3128), "http://p.test:3128"),
        ("https://p", ProxySettings("https", "p", 443), "https://p:443"),
        ("socks4://p", ProxySettings("socks4", "p", 1080), "socks4://p:1080"),
        ("socks4a://me@p", ProxySettings("socks4a", "p", 1080, b"me"), "socks4a://p:1080"),
        ("socks5://u:p@h:1", ProxySettings("socks5", "h", 1, b"u", b"p"), "socks5://h:1"),
        ("socks5h://[::1]", ProxySettings("socks5h", "::1", 1080), "socks5h://[::1]:1080"),
        ("http://[FE80::1]:8080", ProxySettings("http", "fe80::1", 8080), "http://[fe80::1]:8080"),
        ("http://us%40er:p%3A%2F@p", ProxySettings("http", "p", 80, b"us@er", b"p:/"), "http://p:80"),
        ("http://user@p", ProxySettings("http", "p", 80, b"user"), "http://p:80"),
        ("http://@p", ProxySettings("http", "p", 80), "http://p:80"),
        ("http://b\xfccher.test", ProxySettings("http", "xn--bcher-kva.test", 80), "http://xn--bcher-kva.test:80"),
    ],
)
def test_urls(text: str, settings: ProxySettings, name: str) -> None:
    """A URL is read whole, with its credentials percent-decoded, which its name leaves out."""
    assert parse_proxy_url(text) == settings
    assert settings.name == name
    assert parse_proxy_url(settings.url) == settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("p:3128", "is no proxy URL"),
        ("ftp://secret@p", "has the scheme 'ftp'"),
        ("http://", "is no proxy URL"),
        ("http://u:secret@", "is no proxy URL"),
        ("http://u:secret@p/path", "is no proxy URL"),
        ("http://p?secret", "is no proxy URL"),
        ("http://u:sec ret@p:x", "is no proxy URL"),
        ("http://p:0", "has the port 0"),
        ("http://p:65536", "has the port 65536"),
        ("http://u:secret%2@p", "percent-encoded"),
        ("http://u:secr\xe9t@p", "percent-encoded"),
        ("http://u%3Asecret:x@p", "that Basic cannot hold"),
        ("http://u:secret%0d%0a@p", "that Basic cannot hold"),
        ("socks4://u:secret@p", "has a password, which SOCKS4 does not know"),
        ("socks4://u%00secret@p", "has a password, which SOCKS4"),
        ("socks5://:secret@p", "that SOCKS cannot hold"),
        ("socks5://u:" + "secret" * 50 + "@p", "that SOCKS cannot hold"),
        ("http://[::1::]", "is no IPv6 address"),
        ("http://-p", "where a host would be right"),
        ("http://\xad", "is no host name"),
    ],
)
def test_what_is_no_proxy(text: str, problem: str) -> None:
    """It is said what is wrong, and no secret is."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_proxy_url(text)
    assert "secr" not in str(caught.value)


def test_ways() -> None:
    """Some ways name no proxy."""
    assert parse_proxy("") is parse_proxy("direct") is Way.DIRECT
    assert parse_proxy("env") is Way.ENVIRONMENT
    assert parse_proxy("http://p") == ProxySettings("http", "p", 80)


def test_credentials() -> None:
    """Basic credentials are a field of the CONNECT request (RFC 7617), unless there is a better one."""
    proxy = parse_proxy_url("http://Aladdin:open%20sesame@p")
    assert proxy.connect_fields() == [(b"Proxy-Authorization", b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
    headers = connect_headers({"proxy-authorization": "Bearer x", "X-A": "\xe9"})
    better = ProxySettings("http", "p", 80, b"u", b"p", headers)
    assert better.connect_fields() == [(b"proxy-authorization", b"Bearer x"), (b"X-A", b"\xe9")]
    assert not proxy.is_socks and parse_proxy_url("socks4://p").is_socks


@pytest.mark.parametrize(
    "headers",
    [{"A B": "c"}, {"A": "b\r\nC: d"}, {"A": "\0"}, {"A": "\u20ac"}, {"\xe9": "a"}, {"Host": "a"}, {"Connection": "b"}],
)
def test_headers(headers: dict[str, str]) -> None:
    """What would break out of the request, or change its framing, is refused."""
    with pytest.raises(ValueError, match="the header"):
        connect_headers(headers)


@given(st.text(max_size=30))
def test_nothing_is_shown(secret: str) -> None:
    """Neither repr nor name hold credentials or header values."""
    secret = f"<{secret}>"
    headers = ((b"X", secret.encode()),)
    proxy = ProxySettings("http", "p", 80, secret.encode(), secret.encode(), headers)
    assert secret not in repr(proxy) + proxy.name + str(proxy)
    assert repr(secret.encode())[2:-1] not in repr(proxy)
