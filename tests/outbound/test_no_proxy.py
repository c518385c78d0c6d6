"""L{proxyd.outbound.no_proxy}: which hosts are exempted, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.outbound.no_proxy import NoProxy, normal_host

VECTORS = [
    # value, host, port, exempted, why
    ("", "a.test", 80, False, "nothing exempts nothing"),
    ("*", "a.test", 80, True, "a star is everything"),
    ("*", "192.0.2.1", 80, True, "addresses too"),
    ("*", "2001:db8::1", 80, True, "of both families"),
    ("b.test,*", "a.test", 80, True, "a star among others is one"),
    ("a.test", "a.test", 80, True, "the name itself"),
    ("a.test", "A.TEST", 80, True, "case does not matter"),
    ("A.Test", "a.test", 80, True, "on either side"),
    ("a.test", "b.a.test", 80, True, "a name covers its subdomains"),
    ("a.test", "c.b.a.test", 80, True, "at any depth"),
    ("a.test", "xa.test", 80, False, "but not other names with the same end"),
    ("a.test", "a.test.evil", 80, False, "nor with the same beginning"),
    ("a.test", "test", 80, False, "nor its parent"),
    (".a.test", "b.a.test", 80, True, "a leading dot covers subdomains"),
    (".a.test", "a.test", 80, True, "and the name itself"),
    (".a.test", "xa.test", 80, False, "but not other names"),
    ("*.a.test", "b.a.test", 80, True, "star and dot cover subdomains"),
    ("*.a.test", "a.test", 80, False, "and not the name itself"),
    ("*.a.test", "c.b.a.test", 80, True, "at any depth"),
    ("a.test.", "a.test", 80, True, "a last dot is ignored"),
    ("a.test", "a.test.", 80, True, "on either side"),
    (".a.test.", "b.a.test.", 80, True, "on both"),
    ("test", "a.test", 80, True, "a single label covers its subdomains"),
    ("localhost", "localhost", 80, True, "a single label itself"),
    ("localhost", "127.0.0.1", 80, False, "a name is no address"),
    ("", "localhost", 80, False, "loopback gets no special treatment"),
    ("", "127.0.0.1", 80, False, "neither by address"),
    ("", "::1", 80, False, "of either family"),
    ("a.test:8080", "a.test", 8080, True, "with its port"),
    ("a.test:8080", "a.test", 80, False, "and no other"),
    ("a.test:8080", "b.a.test", 8080, True, "subdomains have the same port"),
    (".a.test:443", "b.a.test", 443, True, "after a leading dot"),
    ("*.a.test:443", "b.a.test", 80, False, "after star and dot"),
    ("a.test", "a.test", 8080, True, "without a port any"),
    ("a.test:0", "a.test", 80, True, "0 is any"),
    ("192.0.2.1", "192.0.2.1", 80, True, "an IPv4 address"),
    ("192.0.2.1", "192.0.2.10", 80, False, "is not the beginning of another"),
    ("192.0.2.1:80", "192.0.2.1", 80, True, "with its port"),
    ("192.0.2.1:80", "192.0.2.1", 81, False, "and no other"),
    ("192.0.2.0/24", "192.0.2.200", 80, True, "a block"),
    ("192.0.2.0/24", "192.0.3.1", 80, False, "and not the next"),
    ("192.0.2.77/24", "192.0.2.1", 80, True, "a block by any address in it"),
    ("192.0.2.0/24:80", "192.0.2.1", 80, True, "a block with a port"),
    ("192.0.2.0/24:80", "192.0.2.1", 81, False, "and no other port"),
    ("0.0.0.0/0", "192.0.2.1", 80, True, "all of IPv4"),
    ("0.0.0.0/0", "a.test", 80, False, "is no names: they are not looked up"),
    ("1.2.3", "9.1.2.3", 80, False, "half an address is no end of another"),
    ("2.3", "a.2.3", 80, False, "nor of a name"),
    (".1.2.3", "9.1.2.3", 80, False, "with a dot neither"),
    ("2001:db8::1", "2001:db8::1", 80, True, "an IPv6 address"),
    ("2001:DB8:0::1", "2001:db8::1", 80, True, "in any spelling"),
    ("[2001:db8::1]", "2001:db8::1", 80, True, "in brackets"),
    ("2001:db8::1", "[2001:db8::1]", 80, True, "on either side"),
    ("[2001:db8::1]:443", "2001:db8::1", 443, True, "with its port"),
    ("[2001:db8::1]:443", "2001:db8::1", 80, False, "and no other"),
    ("2001:db8::/32", "2001:db8:ffff::1", 80, True, "a block"),
    ("[2001:db8::]/32", "2001:db8::1", 80, True, "a block in brackets"),
    ("2001:db8::/32", "2001:db9::1", 80, False, "and not the next"),
    ("::ffff:192.0.2.1", "192.0.2.1", 80, True, "an IPv4-mapped address is that address"),
    ("192.0.2.1", "::ffff:192.0.2.1", 80, True, "on either side"),
    ("::ffff:192.0.2.0/120", "192.0.2.9", 80, True, "an IPv4-mapped block is that block"),
    ("fe80::1", "fe80::1%eth0", 80, True, "a zone is not compared"),
    ("b\xfccher.test", "xn--bcher-kva.test", 80, True, "a U-label is its A-label"),
    ("xn--bcher-kva.test", "b\xfccher.test", 80, True, "on either side"),
    ("B\xdcCHER.test", "b\xfccher.test", 80, True, "in any case"),
    (".b\xfccher.test", "a.xn--bcher-kva.test", 80, True, "with subdomains"),
    ("a.test,b.test", "b.test", 80, True, "commas separate"),
    ("a.test b.test", "b.test", 80, True, "spaces separate"),
    ("a.test\tb.test", "b.test", 80, True, "tabs separate"),
    (" a.test ,\t b.test,, ", "b.test", 80, True, "and all of them together"),
    ("a_b.test", "a_b.test", 80, True, "an underscore is no reason to refuse a name"),
    ("a.test", "\xad", 80, False, "a host that is none is not exempted"),
]


@pytest.mark.parametrize(("value", "host", "port", "exempted", "why"), VECTORS)
def test_vectors(value: str, host: str, port: int, exempted: bool, why: str) -> None:
    """Each host is exempted or not, for a reason."""
    assert NoProxy.parse(value).exempts(host, port) is exempted, why


@pytest.mark.parametrize(
    "entry",
    [
        *("1.2.3", "a.test:x", "a.test:70000", "192.0.2.1:70000", "a*.test", "*a.test", "**", "a..test", "[::1"),
        *("192.0.2.0/33", "http://a.test", "a/b", ".", "*.", "[a.test]", "-a.test", "\xad.test", ":80"),
        *("1.2.3.4.5", "::1]"),
    ],
)
def test_malformed(entry: str) -> None:
    """What means nothing exempts nothing, is told, and does not disturb the others."""
    exempted = NoProxy.parse(f"{entry},b.test")
    assert exempted.malformed == (entry,)
    assert exempted.exempts("b.test", 80)
    assert not exempted.exempts("a.test", 80)


def test_normal_host() -> None:
    """A host has one spelling."""
    assert normal_host("[FE80::1]") == "fe80::1"
    assert normal_host("B\xfccher.Test.") == "xn--bcher-kva.test"


@given(st.text(max_size=20), st.text(max_size=12), st.integers(0, 65535))
def test_whatever_is_written(value: str, host: str, port: int) -> None:
    """Nothing in a value or a host is an error."""
    NoProxy.parse(value).exempts(host, port)
