"""
The request that a rule makes of a client's: where it goes, and its head.

What depends on the rule alone is worked out once, in L{Outgoing}; what is left
for each request is one pass over its fields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from proxyd.errors import UpgradeForbidden
from proxyd.http.fields import HOP_BY_HOP, Fields, canonical, serialize, tokens, trailers_to_forward, values
from proxyd.http.forwarded import FORWARDING, via
from proxyd.http.request import RequestHead
from proxyd.http.target import Target, check_rewritten
from proxyd.http.upgrade import HANDSHAKE
from proxyd.rules.model import Match, Rule, TargetURL, header_fields

_NEVER = HOP_BY_HOP | FORWARDING | {b"host", b"content-length", b"proxy"}
"""Fields that a client's request never brings to the origin server as they are."""

_VIAS = tuple(b"Via: %b\r\n" % via(minor) for minor in range(10))


def outgoing_head(request: RequestHead, request_target: bytes, fields: bytes) -> bytes:
    """The whole head of a request to the origin server."""
    return b"".join((request.method, b" ", request_target, b" HTTP/1.1\r\n", fields))


class Outgoing:
    """
    What one rule, in one environment, makes of requests.

    @ivar rule: the rule.
    @ivar url: its target, variables replaced.
    """

    __slots__ = (
        "_changed", "_dropped", "_host", "_origin", "_own", "_prefix", "_set", "_upgrade_origin", "_withheld", "rule",
        "url",
    )  # fmt: skip

    def __init__(
        self, rule: Rule, environment: Mapping[str, str], withheld: frozenset[bytes] = frozenset()
    ) -> None:
        """
        @param withheld: further fields that clients' requests never bring to
            the origin server in any spelling, in the form of L{canonical}.

        @raise proxyd.errors.RuleUnusable: a variable is not set, or its value cannot be used.
        """
        self.rule = rule
        self._withheld = withheld
        self.url: TargetURL = rule.target.resolve(environment)
        # One slash between it and the path of a request, which starts with one; one that starts with two keeps both.
        self._prefix = self.url.path.removesuffix(b"/")
        own = header_fields(rule, environment)
        names = {name.lower() for name, _ in own}
        self._own = serialize((name, value) for name, value in own if value is not None and name.lower() != b"host")
        hosts = [value for name, value in own if name.lower() == b"host"]
        # A Host of null is the target's: HTTP/1.1 does not do without one.
        self._host: bytes | None = None
        if hosts:
            self._host = hosts[0] or self.url.host_value
        elif rule.change_origin:
            self._host = self.url.host_value
        self._set = frozenset(name.replace(b"_", b"-") for name in names)
        self._dropped = _NEVER | names
        if rule.base is not None or rule.relative_paths:
            # Only what is not encoded, and whole, can be changed on its way back.
            self._dropped |= {b"accept-encoding", b"range", b"if-range"}
            if b"accept-encoding" not in names:
                self._own += b"Accept-Encoding: identity\r\n"
        self._origin = self._upgrade_origin = b""
        if rule.change_origin and b"origin" not in names:
            self._origin = self.url.origin(websocket=False)
            self._upgrade_origin = self.url.origin(websocket=True)
        self._changed = frozenset(names & FORWARDING)

    def request_target(self, match: Match, target: Target) -> bytes:
        """
        The request-target for the origin server, in origin-form.

        @raise proxyd.errors.BadTarget: the rewrite made a path that is not acceptable.
        """
        if self.rule.rewrite is None:
            return self._prefix + target.path + target.query
        path = self._prefix + (match.rewritten() or "/").encode("ascii")
        check_rewritten(path)
        return path + target.query

    def fields(self, request: RequestHead, forwarding: Fields) -> bytes:
        """
        The fields of the request to the origin server, and the empty line: all
        of its head but the request line, and made of the fields alone.

        @param forwarding: C{X-Forwarded-For} and the like.
        """
        lines = self._lines(request, forwarding, self._dropped, self._origin)
        if request.length is not None:
            lines.append(b"Content-Length: %d\r\n" % request.length)
        elif request.chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if request.connection and b"te" in request.connection and b"trailers" in tokens(values(request.fields, b"te")):
            # As our own (RFC 9110 section 10.1.4): we do pass trailers on.
            lines.append(b"TE: trailers\r\nConnection: TE\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def upgrade_fields(self, request: RequestHead, forwarding: Fields, handshake: Fields) -> bytes:
        """
        The same for an upgrade request.

        @param handshake: the fields of our own opening handshake.

        @raise UpgradeForbidden: the rule does not accept the C{Origin}.
        """
        accepted = self.rule.origins
        if accepted and any(origin.decode("latin-1") not in accepted for origin in values(request.fields, b"origin")):
            raise UpgradeForbidden("the Origin of the upgrade is not among the rule's origins")
        lines = self._lines(request, forwarding, self._dropped | HANDSHAKE, self._upgrade_origin)
        lines.append(serialize(handshake))
        lines.append(b"\r\n")
        return b"".join(lines)

    def trailers(self, trailers: Fields, connection: Collection[bytes]) -> Fields:
        """
        The trailers of the request to the origin server: none under a name
        that the rule sets or removes.

        @param connection: the members of the request's C{Connection}.
        """
        kept = trailers_to_forward(trailers, connection)
        if self._withheld:
            kept = [field for field in kept if canonical(field[0]) not in self._withheld]
        return [field for field in kept if field[0].lower().replace(b"_", b"-") not in self._set]

    def with_granted(self, fields: bytes, granted: Fields) -> bytes:
        """
        The same fields, and those that say who was let in; what the rule itself sets or removes stays as it is.

        @param fields: of L{fields} or L{upgrade_fields}.
        """
        added = serialize(field for field in granted if canonical(field[0]) not in self._set)
        return fields[:-2] + added + b"\r\n"

    def _lines(
        self, request: RequestHead, forwarding: Fields, dropped: frozenset[bytes], origin: bytes
    ) -> list[bytes]:
        connection = request.connection
        if connection and not dropped.issuperset(connection):
            dropped = dropped.union(connection)
        given = request.fields
        if self._withheld:
            given = [field for field in given if canonical(field[0]) not in self._withheld]
        host = self._host
        if host is None:
            host = request.host_value or self.url.host_value
        kept = [field for field in given if field[0].lower() not in dropped]
        if origin:
            kept = [(name, origin if name.lower() == b"origin" else value) for name, value in kept]
        if self._changed:
            forwarding = [field for field in forwarding if field[0].lower() not in self._changed]
        return [b"Host: ", host, b"\r\n", serialize(kept + forwarding), _VIAS[request.minor], self._own]
