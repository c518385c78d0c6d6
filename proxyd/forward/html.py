"""
Pages changed on their way to the client: C{<base>}, and relative paths.

A page is read as it streams, tag by tag; what is no start tag passes as it
is.  Octets are compared as ASCII, which every encoding of the Web but UTF-16
agrees with.

@see: the HTML standard, sections 4.2.3 (base), 13.2.5 (tokenization)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

MAX_TAG = 64 * 1024
"""The most octets of one tag that are kept to read it; a longer one passes unchanged.  C{data:} URLs are long."""

_RAW = frozenset((b"script", b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes"))
"""Elements in which there are no tags but their own end."""

_URLS = frozenset((b"src", b"href", b"action", b"formaction", b"poster", b"data"))
"""Attributes that hold one URL."""

_TAG_NAME = re.compile(rb"<([A-Za-z][^\s/>]*)")
_TAG_END = re.compile(rb"""(?:[^"'>]++|"[^"]*+"|'[^']*+')*>""")
# Possessive throughout: whatever a page holds, it is read in one go.
_ATTRIBUTE = re.compile(rb"""([^\s"'<>/=]++)(\s*+=\s*+)("[^"]*+"|'[^']*+'|[^\s"'>][^\s>]*+)|[^\s"'<>/=]++""")
# White space and commas; then a URL that ends with a comma, or one with what describes it.
_CANDIDATE = re.compile(rb"([\s,]*+)(?:(\S++)(?<=,)|(\S++)([^,]*+))?")


class Rewriter:
    """Changes one page."""

    def __init__(self, base: str | None, relative: bool) -> None:
        """
        @param base: the C{href} of a C{<base>} to put first into C{<head>}.
        @param relative: make paths from the root relative to the page's base.
        """
        self._base = b"" if base is None else f'<base href="{escape(base)}">'.encode()
        self._relative = relative
        self._kept = b""
        self._step: Callable[[bytes, int], int] = self._text
        self._raw = b""
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """
        @return: what is certain of the changed page so far.
        """
        data = self._kept + data
        position = 0
        while position < len(data):
            after = self._step(data, position)
            if after < 0:
                break
            position = after
        self._kept = data[position:]
        return self._taken()

    def finish(self) -> bytes:
        """
        @return: the rest, after the page's last octet.
        """
        rest, self._kept = self._kept, b""
        return rest

    def _taken(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    # Each step takes octets from a position on; it returns where it has got to, or -1 if it needs more of them.

    def _text(self, data: bytes, position: int) -> int:
        """Up to the next tag or comment."""
        start = data.find(b"<", position)
        if start < 0:
            self._out.append(data[position:])
            return len(data)
        self._out.append(data[position:start])
        if start > position:
            return start
        opening = data[start : start + 4]
        if len(opening) < 4 and b"<!--".startswith(opening):
            return -1
        if opening == b"<!--":
            # From two octets before its content on: "<!-->" is a whole comment.
            self._out.append(b"<!")
            self._step = self._comment
            return start + 2
        if opening[1:2].isalpha():
            return self._tag(data, start)
        self._out.append(b"<")
        return start + 1

    def _comment(self, data: bytes, position: int) -> int:
        return self._until(data, position, b"-->", self._text)

    def _raw_text(self, data: bytes, position: int) -> int:
        """Within an element that holds no tags, up to its end tag."""
        end = data.lower().find(b"</" + self._raw, position)
        return self._pass(data, position, end, len(self._raw) + 1, self._text)

    def _until(self, data: bytes, position: int, mark: bytes, then: Callable[[bytes, int], int]) -> int:
        end = data.find(mark, position)
        return self._pass(data, position, end, len(mark) - 1, then)

    def _pass(self, data: bytes, position: int, end: int, kept: int, then: Callable[[bytes, int], int]) -> int:
        """Pass octets on up to C{end}; without one, all but C{kept} that may be the beginning of the mark."""
        if end < 0:
            end = max(position, len(data) - kept)
            self._out.append(data[position:end])
            return end if end > position else -1
        self._out.append(data[position:end])
        self._step = then
        return end

    def _tag(self, data: bytes, start: int) -> int:
        """A start tag, whole."""
        found = _TAG_END.match(data, start)
        if found is None:
            if len(data) - start <= MAX_TAG:
                return -1
            self._step = self._long_tag
            return start
        tag = found[0]
        name = _TAG_NAME.match(tag)
        assert name is not None
        element = name[1].lower()
        if self._base and element not in (b"html", b"head"):
            # A head without a tag of its own begins with the first element that belongs into it.
            self._out.append(self._base)
            self._base = b""
        self._out.append(self._relative_tag(tag, name.end()) if self._relative else tag)
        if element == b"head":
            self._out.append(self._base)
            self._base = b""
        elif element in _RAW:
            self._raw = element
            self._step = self._raw_text
        return found.end()

    def _long_tag(self, data: bytes, position: int) -> int:
        """A tag that is too long to be read, up to its end: it is not looked at again."""
        return self._until(data, position, b">", self._text)

    def _relative_tag(self, tag: bytes, attributes: int) -> bytes:
        return tag[:attributes] + _ATTRIBUTE.sub(_relative_attribute, tag[attributes:])


def _relative_attribute(found: re.Match[bytes]) -> bytes:
    name, equals, value = found.groups()
    if name is None:
        return found[0]
    lower = name.lower()
    if lower not in _URLS and lower != b"srcset":
        return found[0]
    quote = value[:1] if value[:1] in (b'"', b"'") else b""
    content = value[1:-1] if quote else value
    changed = _CANDIDATE.sub(_relative_candidate, content) if lower == b"srcset" else _relative(content)
    return b"%b%b%b%b%b" % (name, equals, quote, changed, quote)


def _relative_candidate(found: re.Match[bytes]) -> bytes:
    separators, alone, url, description = found.groups()
    return separators + _relative(alone or url or b"") + (description or b"")


def _relative(url: bytes) -> bytes:
    """C{/x} as C{./x}; a URL of another host stays."""
    stripped = url.lstrip()
    # Browsers take a backslash for a slash.
    return b"." + stripped if stripped.startswith(b"/") and stripped[1:2] not in (b"/", b"\\") else url
