"""The request-target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import BadTarget
from proxyd.http import target as module
from proxyd.http.authority import Authority
from proxyd.http.target import check_rewritten, parse_target


@pytest.mark.parametrize(
    ("raw", "path", "normal_path", "query"),
    [
        (b"/", b"/", "/", b""),
        (b"/a/b", b"/a/b", "/a/b", b""),
        (b"/a?b=c?d", b"/a", "/a", b"?b=c?d"),
        (b"/a?", b"/a", "/a", b"?"),
        # The query is forwarded byte for byte.
        (b"/a?/../%zz\\%2e|", b"/a", "/a", b"?/../%zz\\%2e|"),
        (b"/a%20b?/../%zz", b"/a%20b", "/a%20b", b"?/../%zz"),
        # What clients send although RFC 3986 would have it encoded goes on.
        (b'/"<>^`{|}', b'/"<>^`{|}', '/"<>^`{|}', b""),
        # These mean something to the origin server and stay as they came.
        (b"/a%2Fb%2fc", b"/a%2Fb%2fc", "/a%2Fb%2fc", b""),
        (b"//a//b", b"//a//b", "//a//b", b""),
        (b"/a+b;c=d;e", b"/a+b;c=d;e", "/a+b;c=d;e", b""),
        (b"/a%00%25", b"/a%00%25", "/a%00%25", b""),
        # RFC 3986 section 6.2.2.2: unreserved characters, and no others, are decoded, once.
        (b"/%61%2D%5f%7E%2e%30z", b"/%61%2D%5f%7E%2e%30z", "/a-_~.0z", b""),
        (b"/%252e%252e/a", b"/%252e%252e/a", "/%252e%252e/a", b""),
        (b"/%3A%40%80", b"/%3A%40%80", "/%3A%40%80", b""),
        # RFC 3986 section 5.2.4
        (b"/a/./b", b"/a/b", "/a/b", b""),
        (b"/a/../b", b"/b", "/b", b""),
        (b"/a/b/..", b"/a/", "/a/", b""),
        (b"/a/b/.", b"/a/b/", "/a/b/", b""),
        (b"/.", b"/", "/", b""),
        (b"/..", b"/", "/", b""),
        (b"/../../a", b"/a", "/a", b""),
        (b"/a//../b", b"/a/b", "/a/b", b""),
        (b"/a/b/c/./../../g", b"/a/g", "/a/g", b""),
        (b"/a/../b?/../c", b"/b", "/b", b"?/../c"),
        # WHATWG URL, path state: percent-encoded dots are dots.
        (b"/a/%2e%2E/b", b"/b", "/b", b""),
        (b"/a/.%2e/b", b"/b", "/b", b""),
        (b"/a/%2e/b%2e", b"/a/b%2e", "/a/b.", b""),
        (b"/%61/%62/..", b"/%61/", "/a/", b""),
        # Dots that are no dot segments
        (b"/.well-known/x", b"/.well-known/x", "/.well-known/x", b""),
        (b"/...", b"/...", "/...", b""),
        (b"/..a/.b/c..", b"/..a/.b/c..", "/..a/.b/c..", b""),
        (b"/..a;b", b"/..a;b", "/..a;b", b""),
        (b"/a;..", b"/a;..", "/a;..", b""),
    ],
)
def test_origin_form(raw: bytes, path: bytes, normal_path: str, query: bytes) -> None:
    """The client's octets without dot segments for the origin server, the normalised path for the rules."""
    target = parse_target(b"GET", raw)
    assert (target.form, target.path, target.normal_path, target.query) == ("origin", path, normal_path, query)
    assert (target.authority, target.scheme) == (None, None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a",
        b"?a",
        b"/a#b",
        b"/a?b#c",
        b"/a\\b",
        b"/..\\a",
        b"/a b",
        b"/a?b c",
        b"/a\tb",
        b"/a\0",
        b"/a\x7f",
        b"/a\n",
        b"/a?\n",
        b"/a\r\nX: y",
        b"/caf\xc3\xa9",
        b"/?caf\xe9",
        b"/a%",
        b"/a%4",
        b"/a%zz",
        b"/a%%41",
        b"/a/..;/b",
        b"/..;a",
        b"/.;/b",
        b"/%2e%2e;/b",
        b"/%2e;/b",
        b"/..%2f",
        b"/a/..%2Fb",
        b"/%2f../a",
        b"/a%5c..",
        b"/%2e%2e%5Ca",
        b"/a%2f%2e%2e%2fb",
        b"/x..%2Fb",
    ],
)
def test_targets_that_mean_two_things(raw: bytes) -> None:
    """What a rule and an origin server could read differently is 400."""
    with pytest.raises(BadTarget) as caught:
        parse_target(b"GET", raw)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "scheme", "authority", "path", "query"),
    [
        # RFC 9112 section 3.2.2
        (b"http://h/a?b", "http", Authority("h"), b"/a", b"?b"),
        (b"HTTPS://h:8443/", "https", Authority("h", 8443), b"/", b""),
        (b"ws://[::1]:80/x", "ws", Authority("::1", 80), b"/x", b""),
        (b"wss://h", "wss", Authority("h"), b"/", b""),
        (b"http://h?q", "http", Authority("h"), b"/", b"?q"),
        (b"http://h/a/../b", "http", Authority("h"), b"/b", b""),
        (b"http://h//evil/x", "http", Authority("h"), b"//evil/x", b""),
    ],
)
def test_absolute_form(raw: bytes, scheme: str, authority: Authority, path: bytes, query: bytes) -> None:
    """The host is in the target; an empty path is a slash."""
    target = parse_target(b"GET", raw)
    assert (target.form, target.scheme, target.authority) == ("absolute", scheme, authority)
    assert (target.path, target.normal_path, target.query) == (path, path.decode(), query)


@pytest.mark.parametrize(
    "raw",
    [
        b"http:///a",
        b"http://",
        b"http:/a",
        b"http:a",
        b"h:443",
        b"http://u@h/",
        b"http://u:p@h/",
        b"http://a b/",
        b"http://h:99999/",
        b"http://h\\@evil/",
        b"http://h#f",
        b"http://h/a#f",
        b"ftp://h/",
        b"file:///etc/passwd",
        b"1http://h/",
        b"http://h/%2e%2e%2f",
    ],
)
def test_absolute_forms_that_are_refused(raw: bytes) -> None:
    """No user information, no other scheme, no authority-form (RFC 9110 section 4.2.4, RFC 9112 section 3.2.3)."""
    with pytest.raises(BadTarget):
        parse_target(b"GET", raw)


def test_asterisk_form() -> None:
    """It is for OPTIONS alone, which may say it with a URL without a path, too (RFC 9112 section 3.2.4)."""
    target = parse_target(b"OPTIONS", b"*")
    assert (target.form, target.path, target.query) == ("asterisk", b"/", b"")
    target = parse_target(b"OPTIONS", b"http://h")
    assert (target.form, target.authority) == ("asterisk", Authority("h"))
    assert parse_target(b"OPTIONS", b"http://h/").form == "absolute"
    with pytest.raises(BadTarget):
        parse_target(b"GET", b"*")


@pytest.mark.parametrize("path", [b"/", b"/a/b", b"//evil/x", b"/a;b", b"/%41%2F", b"/...", b"/.a/b..", b"/a..b"])
def test_rewritten_paths_that_pass(path: bytes) -> None:
    """A path that starts with two slashes is still a path."""
    check_rewritten(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/a/../b",
        b"/a/..",
        b"/.",
        b"/./",
        b"/a/%2e%2E/b",
        b"/..;/x",
        b"/..%2fx",
        b"/x%5c..",
        b"/a\\b",
        b"/a?b",
        b"/a#b",
        b"/a b",
        b"/a\n",
        b"/a\0",
        b"/\xc3\xa9",
    ],
)
def test_rewritten_paths_that_are_refused(path: bytes) -> None:
    """A rewrite cannot make what a client must not send."""
    with pytest.raises(BadTarget):
        check_rewritten(path)


PIECES = [b"/", b".", b"..", b"%2e", b"%2E", b"a", b"%61", b";", b"%2f", b"%5C", b"%25", b"?", b"\\", b"#", b"\n", b" "]
RAW = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


@given(RAW)
def test_what_is_accepted_is_unambiguous(raw: bytes) -> None:
    """It is stable when read again, holds no dot segment in either reading, and would pass as a rewrite."""
    try:
        target = parse_target(b"GET", raw)
    except BadTarget:
        return
    again = parse_target(b"GET", target.path + target.query)
    assert (again.path, again.normal_path, again.query) == (target.path, target.normal_path, target.query)
    assert not {".", ".."} & set(target.normal_path.split("/"))
    assert target.path.startswith(b"/")
    check_rewritten(target.path)
    check_rewritten(target.normal_path.encode())
    assert raw.partition(b"?")[2] == target.query[1:]


@given(st.one_of(RAW, st.binary(max_size=12).map(lambda octets: b"/" + octets)))
def test_the_short_way_finds_what_the_long_one_finds(raw: bytes) -> None:
    """An ordinary path is not looked at octet by octet, yet read as if it were."""
    try:
        expected = module._read_path(raw)
    except BadTarget:
        with pytest.raises(BadTarget):
            parse_target(b"GET", raw)
    else:
        target = parse_target(b"GET", raw)
        assert (target.path, target.normal_path, target.query) == expected


@given(st.binary(max_size=16))
def test_anything_is_read_or_refused(raw: bytes) -> None:
    """No octets make it fail in another way, and none that breaks a line gets through."""
    try:
        target = parse_target(b"OPTIONS", raw)
    except BadTarget:
        return
    assert not set(target.path + target.query) - set(range(0x21, 0x7F))
