"""
The request-target: what a client asks for, and what may be made of it.

Two readings of one path are kept apart.  L{Target.path} is what goes on: the
client's own octets with the dot segments taken out.  L{Target.normal_path} is
what rules see: percent-encoded unreserved characters are decoded as well, so
that C{/%61dmin} cannot slip past a rule for C{/admin}.

@see: RFC 9112 section 3.2, RFC 3986 sections 5.2.4 and 6.2.2, WHATWG URL (path state)
"""

from __future__ import annotations

import re

from proxyd.errors import BadTarget
from proxyd.http import authority
from proxyd.http.authority import Authority

_QUERY = bytes(range(0x21, 0x7F)).replace(b"#", b"")
_PATH = _QUERY.replace(b"?", b"").replace(b"\\", b"")
ORDINARY = rb"((?:/(?!\.)[!\"$&-.0-9:->@-\[\]-~]*+)+)(\?[!\"$-~]*+)?"
"""
Path and query of a target that is what it seems to be: no segment starts with
a dot, and nothing is encoded.
"""

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DOT = re.compile(rb"%2[Ee]")
_DOT_SEGMENT = re.compile(rb"/\.\.?(?:/|$)")
# Some servers cut parameters off before they look for dot segments, some decode %2F and %5C (RFC 3986
# section 7.3 forbids, Tomcat and IIS did): to them these are dot segments.
_DISGUISED = re.compile(rb"/\.\.?;|\.\.%(?:2[Ff]|5[Cc])|%(?:2[Ff]|5[Cc])\.\.")
_UNRESERVED = re.compile(rb"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
_SCHEMES = frozenset((b"http", b"https", b"ws", b"wss"))


class Target:
    """
    What a request asks for.

    @ivar form: C{"origin"}, C{"absolute"} or C{"asterisk"}.
    @ivar path: the client's octets without dot segments; it starts with a
        slash (of C{*} it is one).
    @ivar normal_path: the path that patterns and globs see.
    @ivar query: empty, or the query with its question mark, byte for byte.
    @ivar authority: of an absolute-form.
    @ivar scheme: of an absolute-form, in lower case.
    """

    __slots__ = ("authority", "form", "normal_path", "path", "query", "scheme")

    def __init__(
        self,
        path: bytes,
        normal_path: str,
        query: bytes,
        form: str = "origin",
        authority: Authority | None = None,
        scheme: str | None = None,
    ) -> None:
        self.path = path
        self.normal_path = normal_path
        self.query = query
        self.form = form
        self.authority = authority
        self.scheme = scheme


def parse_target(method: bytes, raw: bytes) -> Target:
    """
    Read a request-target.

    @raise BadTarget: it is of no form that this method may have, or its path
        could mean one thing to a rule and another to the origin server.
    """
    if raw.startswith(b"/"):
        return Target(*_read_path(raw))
    if raw == b"*":
        if method != b"OPTIONS":
            raise BadTarget("Only OPTIONS may ask for *.")
        return Target(b"/", "/", b"", "asterisk")
    return _read_absolute(method, raw)


def _read_absolute(method: bytes, raw: bytes) -> Target:
    found = _ABSOLUTE.fullmatch(raw)
    if found is None:
        raise BadTarget("The request-target is neither a path nor a URL.")
    scheme = found[1].lower()
    if scheme not in _SCHEMES:
        raise BadTarget("The scheme of the request-target is not served here.")
    try:
        host = authority.parse(found[2])
    except ValueError as error:
        raise BadTarget("The request-target names no valid host.") from error
    rest = found[3]
    # OPTIONS for a host without a path is how * is said in absolute-form (RFC 9112 section 3.2.4).
    form = "asterisk" if method == b"OPTIONS" and not rest else "absolute"
    return Target(*_read_path(rest if rest.startswith(b"/") else b"/" + rest), form, host, scheme.decode("ascii"))


def _read_path(raw: bytes) -> tuple[bytes, str, bytes]:
    """Path, normal path and query of a target that starts with a slash, examined octet by octet."""
    path, mark, rest = raw.partition(b"?")
    if path.translate(None, _PATH) or rest.translate(None, _QUERY):
        raise BadTarget("The request-target holds an octet that it must not.")
    if _BROKEN_ESCAPE.search(path):
        raise BadTarget("The path holds a percent sign without two hexadecimal digits.")
    dotted = _DOT.sub(b".", path)
    if _DISGUISED.search(dotted):
        raise BadTarget("The path holds a disguised dot segment.")
    if _DOT_SEGMENT.search(dotted):
        path = _remove_dot_segments(path)
    normal = _UNRESERVED.sub(_decode, path) if b"%" in path else path
    return path, normal.decode("ascii"), mark + rest


def _decode(escape: re.Match[bytes]) -> bytes:
    return bytes((int(escape[0][1:], 16),))


def _remove_dot_segments(path: bytes) -> bytes:
    """
    Follow C{.} and C{..}, percent-encoded ones too, and leave every other segment as it is.

    @see: RFC 3986 section 5.2.4; the empty segments of C{//} count as segments there.
    """
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        plain = _DOT.sub(b".", segment)
        if plain == b"..":
            del kept[-1:]
        elif plain != b".":
            kept.append(segment)
    # "/a/.." and "/a/." name a folder: their last slash stays.
    if plain in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def check_rewritten(path: bytes) -> None:
    """
    Examine a path that a rewrite has made, joined to its prefix.

    @raise BadTarget: it holds a dot segment, disguised or not, or what no path may hold.
    """
    if path.translate(None, _PATH):
        raise BadTarget("The rewritten path holds an octet that it must not.")
    dotted = _DOT.sub(b".", path)
    if _DOT_SEGMENT.search(dotted) or _DISGUISED.search(dotted):
        raise BadTarget("The rewritten path holds a dot segment.")
