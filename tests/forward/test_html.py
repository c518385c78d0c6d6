"""L{proxyd.forward.html}: what is changed in pages, and what never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.forward.html import MAX_TAG, Rewriter


def change(page: bytes, base: str | None = None, relative: bool = False, cuts: tuple[int, ...] = ()) -> bytes:
    """The page, changed as it comes in pieces."""
    rewriter = Rewriter(base, relative)
    edges = [0, *sorted(cut for cut in cuts if cut < len(page)), len(page)]
    pieces = [page[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    return b"".join(map(rewriter.feed, pieces)) + rewriter.finish()


RELATIVE = [
    (b'<a href="/x">', b'<a href="./x">'),
    (b"<a href='/x?a=/y'>", b"<a href='./x?a=/y'>"),
    (b"<A HREF=/x>", b"<A HREF=./x>"),
    (b"<img src = /x>", b"<img src = ./x>"),
    (b'<img src="\n/x">', b'<img src="./x">'),
    (b'<form action="/x"><button formaction="/y">', b'<form action="./x"><button formaction="./y">'),
    (b'<video poster="/x"><object data="/y">', b'<video poster="./x"><object data="./y">'),
    (b'<script src="/x"></script>', b'<script src="./x"></script>'),
    (b'<link rel=icon href="/"/>', b'<link rel=icon href="./"/>'),
    (b'<img srcset="/a.png 1x, /b.png 2x">', b'<img srcset="./a.png 1x, ./b.png 2x">'),
    (b'<img srcset="/a,b.png, //h/c.png 2x,/d.png 3x">', b'<img srcset="./a,b.png, //h/c.png 2x,./d.png 3x">'),
    (b'<a download href="/x" hidden>', b'<a download href="./x" hidden>'),
    (b'<a title="a > b" href="/x">', b'<a title="a > b" href="./x">'),
]

UNCHANGED = [
    b'<a href="//host/x">',
    b'<a href="/\\host/x">',
    b'<a href="x"><a href="./x"><a href="http://h/x"><a href="#/x">',
    b'<a title=" href=/x" data-href="/x" xhref="/x">',
    b'<!-- <a href="/x"> --> <!---><!--a-->',
    b'<!DOCTYPE html SYSTEM "/x">',
    b"<script>'<a href=\"/x\">'; if (a </b/.c) {}</script>",
    b'<style><a href="/x"></style><title><a href="/x"></title><textarea><a href="/x"></textarea>',
    b'</a href="/x">',
    b"a < b, c<3, <",
    b'<a href="/never ends',
    b"<",
    b"<!",
    b"<!-",
    b"<script>never ends",
    b"<!-- never ends",
    b"<a href>",
    b"<?php href=/x ?>",
]


@pytest.mark.parametrize(("page", "changed"), RELATIVE)
def test_relative(page: bytes, changed: bytes) -> None:
    """Paths from the root become relative to the page."""
    assert change(page, relative=True) == changed
    assert change(page, relative=True, cuts=tuple(range(1, len(page)))) == changed


@pytest.mark.parametrize("page", UNCHANGED)
def test_unchanged(page: bytes) -> None:
    """Other hosts, text, comments, scripts and what is no tag stay."""
    assert change(page, relative=True) == page
    assert change(page, relative=True, cuts=tuple(range(1, len(page)))) == page


@pytest.mark.parametrize(
    ("page", "changed"),
    [
        (b"<html><head lang=a><title>", b'<html><head lang=a><base href="/b/"><title>'),
        (b"<HEAD>", b'<HEAD><base href="/b/">'),
        (b"<!-- <head> --><html a><title>t</title>", b'<!-- <head> --><html a><base href="/b/"><title>t</title>'),
        (b"<p>no head", b'<base href="/b/"><p>no head'),
        (b"<head></head><body><head>", b'<head><base href="/b/"></head><body><head>'),
        (b"only text", b"only text"),
    ],
)
def test_base(page: bytes, changed: bytes) -> None:
    """The base is the first child of the head, wherever that begins, and there is one."""
    assert change(page, base="/b/") == changed
    assert change(page, base="/b/", cuts=tuple(range(1, len(page)))) == changed


def test_base_is_escaped() -> None:
    """A base cannot break out of its attribute."""
    assert change(b"<head>", base='"><script>&') == b'<head><base href="&quot;&gt;&lt;script&gt;&amp;">'


def test_base_itself_stays() -> None:
    """The base is not made relative to itself."""
    assert change(b'<head><a href="/x">', base="/b/", relative=True) == b'<head><base href="/b/"><a href="./x">'


@pytest.mark.parametrize(
    "page",
    [
        b"<head>" + b"<a" * 300000,
        b"<head>" + b"<a " * 300000 + b'><a href="/x">',
        b'<head><img srcset="a' + b"," * 60000 + b'b">',
        b'<head><img srcset="' + b" " * 60000 + b'">',
        b"<head><img " + b"a " * 30000 + b">",
        b"<head><img a" + b" " * 60000 + b">",
        b'<head><img a="' + b"'" * 60000 + b'">',
    ],
)
def test_pages_that_are_hard_to_read(page: bytes) -> None:
    """Pages that would keep a naive reader busy for minutes pass, read once."""
    assert change(page, base="/b/", relative=True).replace(b'<base href="/b/">', b"").replace(b"./x", b"/x") == page


def test_endless_tag() -> None:
    """A tag of any length is read, or passes unchanged; it is not kept for ever."""
    rewriter = Rewriter(None, True)
    out = b""
    for _ in range(100):
        out += rewriter.feed(b"<a " + b"a" * 10000)
        assert len(rewriter._kept) <= MAX_TAG + 10003
    assert (out + rewriter.finish()) == (b"<a " + b"a" * 10000) * 100


PIECES = st.sampled_from(
    [
        *(b"<a href='/x'", b">", b"<", b'"', b"'", b"<!--", b"-->", b"<script>", b"</script>"),
        *(b"/", b" ", b"<head>", b"x", b"srcset=/a,"),
    ]
)


@given(st.lists(PIECES, max_size=20).map(b"".join), st.lists(st.integers(0, 80), max_size=6))
def test_cutting_does_not_matter(page: bytes, cuts: list[int]) -> None:
    """However a page arrives, the same page comes out; without anything to do, the page itself."""
    assert change(page, "/b/", True, tuple(cuts)) == change(page, "/b/", True)
    assert change(page, cuts=tuple(cuts)) == page
