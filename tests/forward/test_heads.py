"""L{proxyd.forward.heads}: cutting heads, within their limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.errors import LimitExceeded, RequestError
from proxyd.forward.heads import cut_head

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "head", "rest"),
    [
        (b"", b"", b""),
        (b"G", b"", b"G"),
        (HEAD[:-1], b"", HEAD[:-1]),
        (HEAD, HEAD, b""),
        (HEAD + b"GET", HEAD, b"GET"),
        (b"\r\n" + HEAD, HEAD, b""),
        (b"\r\n\r\n" + HEAD, HEAD, b""),
        (b"\r\n\r\n", b"", b"\r\n\r\n"),
    ],
)
def test_cut(data: bytes, head: bytes, rest: bytes) -> None:
    """A head ends with its empty line; up to two before it are nothing (RFC 9112 section 2.2)."""
    assert cut_head(data, 1000, 1000) == (head, rest)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\r\n" + HEAD, 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
        (b"GET /" + b"a" * 50, 414),
        (b"GET /" + b"a" * 50 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 200, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 200 + b"\r\n\r\n", 431),
    ],
)
def test_refused(data: bytes, status: int) -> None:
    """What will never be a head that is served is refused as soon as that is certain."""
    with pytest.raises(RequestError) as caught:
        cut_head(data, 200, 50)
    assert caught.value.status == status
    assert isinstance(caught.value, LimitExceeded) is (status != 400)


@given(st.lists(st.integers(0, len(HEAD) * 2), max_size=6))
def test_cutting_does_not_matter(cuts: list[int]) -> None:
    """However two heads arrive, the same two come out."""
    stream = HEAD + HEAD
    edges = [0, *sorted(cuts), len(stream)]
    kept, heads = b"", []
    for start, end in zip(edges, edges[1:], strict=False):
        kept += stream[start:end]
        while True:
            head, kept = cut_head(kept, 1000, 1000)
            if not head:
                break
            heads.append(head)
    assert heads == [HEAD, HEAD]
    assert kept == b""
