"""The root of the Resource tree: the rules, and what is mounted beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from proxyd.errors import ExchangeError, NoRuleMatches, RequestError
from proxyd.forward.channel import Channel
from proxyd.forward.exchange import Exchange
from proxyd.forward.resources import serve_resource
from proxyd.forward.roles import Body
from proxyd.http.fields import serialize, values
from proxyd.http.forwarded import forwarding
from proxyd.http.head import METHODS, RequestHead
from proxyd.http.upgrade import is_upgrade
from proxyd.interfaces import IHeadResource
from proxyd.rules.outgoing import Outgoing
from proxyd.service.snapshot import Snapshot
from proxyd.websocket.relays import Relays

log = Logger()


@implementer(IHeadResource)
class RulesResource(Resource):
    """
    Gives each request to the rule that takes it.

    C{putChild} mounts ordinary Resources beside the rules: a request whose
    first path segment is a child's name is the child's.

    @ivar snapshot: the rules and settings for the next request; a reload assigns a new one.
    """

    def __init__(self, snapshot: Snapshot, relays: Relays, clock: Any) -> None:
        Resource.__init__(self)
        self.snapshot = snapshot
        self._relays = relays
        self._now: Callable[[], float] = clock.seconds

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return self

    def head_received(self, head: RequestHead, channel: Channel) -> None:
        if self.children and unquote_to_bytes(head.target.path[1:].partition(b"/")[0]) in self.children:
            channel.record.client = self._memo(head, channel).client
            serve_resource(self, head, channel, self._take)
        else:
            self._take(head, channel)

    def _take(self, head: RequestHead, channel: Channel) -> None:
        try:
            self._serve(head, channel)
        except ExchangeError as error:
            self._report(error)
            channel.send_error(error)
        except Exception:
            log.failure("serving {path} failed", path=head.target.path)
            channel.send_error(ExchangeError("an error in proxyd itself, see its log"))

    def _memo(self, head: RequestHead, channel: Channel) -> _Memo:
        memo: _Memo | None = head.memo
        if memo is None or memo.snapshot is not self.snapshot:
            memo = head.memo = _Memo(self.snapshot, head, channel)
        return memo

    def _report(self, error: ExchangeError) -> None:
        """
        What is the operator's to mend goes into the log, once for each set of
        rules; what is the client's is in the access log already.
        """
        if error.party == "proxyd" and error.status >= 500 and str(error) not in self.snapshot.reported:
            self.snapshot.reported.add(str(error))
            log.error("{error}", error=error)

    def _serve(self, head: RequestHead, channel: Channel) -> None:
        snapshot = self.snapshot
        target, record = head.target, channel.record
        is_last_hop = head.method in _LIMITED_BY_HOPS and _is_last_hop(head)
        memo = self._memo(head, channel)
        record.client = memo.client
        per_client = snapshot.config.limits.per_client
        if per_client:
            channel.site.admit(record, per_client)
        if target.form == "asterisk":
            _answer_options(channel)
            return
        if is_last_hop:
            (_answer_trace if head.method == b"TRACE" else _answer_options)(channel)
            return
        match = snapshot.table.match(target.normal_path, head.host.host if head.host else None, now=self._now)
        rule = match.rule
        record.rule_id = rule.id
        in_use = snapshot.rule_in_use(rule)
        outgoing, upstream = in_use.outgoing, in_use.upstream
        record.origin = upstream.name
        request_target = outgoing.request_target(match, target)
        if head.upgrade and is_upgrade(head):
            if not rule.ws:
                raise NoRuleMatches(f"rule {rule.id} takes no upgrades")
            switch = self._relays.upgrade(head, in_use.relaying)
            fields = outgoing.upgrade_fields(head, memo.forwarding, switch.handshake)
            octets = outgoing.head(head, request_target, fields)
            exchange = Exchange(channel, upstream, octets, in_use.timeouts, None, switch)
            channel.serve(exchange, upgrade=True)
        else:
            octets = outgoing.head(head, request_target, memo.fields_by(outgoing, head))
            exchange = Exchange(channel, upstream, octets, in_use.timeouts, in_use.html, trailers=outgoing.trailers)
            channel.serve(exchange, in_use.body_limit)
        exchange.start()


class _Memo:
    """
    What follows from a connection and from a request's fields, whatever its request line.

    @ivar snapshot: in which it follows.
    @ivar client: the client's address.
    @ivar forwarding: what the origin server is told of it.
    """

    __slots__ = ("_fields", "_outgoing", "client", "forwarding", "snapshot")

    def __init__(self, snapshot: Snapshot, head: RequestHead, channel: Channel) -> None:
        self.snapshot = snapshot
        self.client, self.forwarding = forwarding(
            head.fields,
            peer=channel.peer,
            secure=channel.secure,
            host=head.host_value,
            port=channel.port,
            trusted=snapshot.trusted,
            forwarded=snapshot.config.forwarded,
        )
        self._outgoing: Outgoing | None = None
        self._fields = b""

    def fields_by(self, outgoing: Outgoing, head: RequestHead) -> bytes:
        """The fields that one rule makes of these."""
        if self._outgoing is not outgoing:
            self._outgoing = outgoing
            self._fields = outgoing.fields(head, self.forwarding)
        return self._fields


# Max-Forwards (RFC 9110 section 7.6.2)

_LIMITED_BY_HOPS = (b"TRACE", b"OPTIONS")

_NOT_TRACED = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
"""What an answer to C{TRACE} must not show (RFC 9110 section 9.3.8)."""


def _is_last_hop(head: RequestHead) -> bool:
    """Whether the request must go no further; if it may, it may go one hop less far."""
    lines = values(head.fields, b"max-forwards")
    if not lines:
        return False
    if len(lines) > 1 or not lines[0].isdigit() or len(lines[0]) > 9:
        raise RequestError("Max-Forwards must be one number.")
    hops = int(lines[0])
    if hops:
        head.section, head.memo = b"", None
        head.fields = [
            (name, b"%d" % (hops - 1) if name.lower() == b"max-forwards" else value) for name, value in head.fields
        ]
    return not hops


def _answer_options(channel: Channel) -> None:
    channel.respond(204, b"No Content", [(b"Allow", b", ".join(sorted(METHODS)))], Body.NONE)


def _answer_trace(channel: Channel) -> None:
    head = channel.head
    shown = [field for field in head.fields if field[0].lower() not in _NOT_TRACED]
    body = b"TRACE %b HTTP/1.%d\r\n%b\r\n" % (head.raw_target, head.minor, serialize(shown))
    fields = [(b"Content-Type", b"message/http"), (b"Content-Length", b"%d" % len(body))]
    channel.respond(200, b"OK", fields, Body.LENGTH, body)
