"""The root of the Resource tree: the rules, and what is mounted beside them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from proxyd.control.auth.roles import Authenticator, Granted, Verdict
from proxyd.errors import ExchangeError, NoRuleMatches
from proxyd.forward.channel import Channel
from proxyd.forward.exchange import Exchange
from proxyd.http.forwarded import forwarding
from proxyd.http.request import RequestHead
from proxyd.http.trace import is_traced, traced
from proxyd.interfaces import IHeadResource
from proxyd.rules.model import Match, Rule
from proxyd.rules.outgoing import Outgoing, outgoing_head
from proxyd.service.asking import NOBODY, Asking, judge
from proxyd.service.last_hop import LIMITED_BY_HOPS, answer_options, answer_trace, is_last_hop
from proxyd.service.rates import Rates
from proxyd.service.snapshot import Snapshot
from proxyd.websocket.relays import Relays

if TYPE_CHECKING:
    from twisted.web.iweb import IRequest

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
        self._rates = Rates(clock)

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return self

    def head_received(self, head: RequestHead, channel: Channel) -> None:
        try:
            if self.children and unquote_to_bytes(head.target.path[1:].partition(b"/")[0]) in self.children:
                self._mounted(head, channel)
            else:
                self._serve(head, channel)
        except Exception as error:
            self._failed(error, head, channel)

    def _mounted(self, head: RequestHead, channel: Channel) -> None:
        self._identify(head, channel)
        channel.site.resources.serve(self, head, channel, partial(self._attempt, self._serve))

    def _attempt(self, serve: Callable[[RequestHead, Channel], None], head: RequestHead, channel: Channel) -> None:
        try:
            serve(head, channel)
        except Exception as error:
            self._failed(error, head, channel)

    def _failed(self, error: Exception, head: RequestHead, channel: Channel) -> None:
        if not isinstance(error, ExchangeError):
            log.failure("serving {path} failed", path=head.target.path)
            error = ExchangeError("an error in proxyd itself, see its log")
        else:
            self._report(error)
        channel.send_error(error)

    def _identify(self, head: RequestHead, channel: Channel) -> _Memo:
        """
        Find out which client asks, and count the request towards it.

        @raise proxyd.errors.LimitExceeded: it has too many already.
        """
        snapshot, record = self.snapshot, channel.record
        memo: _Memo | None = head.memo
        if memo is None or memo.token is not snapshot.token:
            memo = head.memo = _Memo(snapshot, head, channel)
        record.client = memo.client
        limit = snapshot.config.limits.per_client
        if limit:
            channel.site.admit(record, limit)
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
        if snapshot.config.traceparent and not is_traced(head.fields):
            head.section, head.memo = b"", None
            head.fields = traced(head.fields, os.urandom(24))
        answer: Callable[[Channel], None] | None = None
        if head.method in LIMITED_BY_HOPS and is_last_hop(head):
            answer = answer_trace if head.method == b"TRACE" else answer_options
        memo = self._identify(head, channel)
        if target.form == "asterisk":
            answer_options(channel)
            return
        authentication = snapshot.authentication
        if answer is not None and authentication is None:
            answer(channel)
            return
        try:
            match = snapshot.table.match(target.normal_path, memo.host, self._now)
        except NoRuleMatches as error:
            if snapshot.is_rated:
                self._rates.admit(memo.client, snapshot.config.limits.rate, None)
            if authentication is None:
                raise
            # Which paths there are is not for everybody to know.
            self._ask(authentication.service, head, channel, memo, partial(_end, answer, error))
            return
        rule = match.rule
        record.rule_id = rule.id
        if snapshot.is_rated:
            # Before anybody is asked who this is: guessing passwords is what it is for, too.
            self._rates.admit(memo.client, snapshot.config.limits.rate, rule)
        if authentication is None:
            self._forward(snapshot, match, memo, None, head, channel)
            return
        authenticator = authentication.of(rule)
        if authenticator is not None and _is_public(rule, head):
            authenticator = None
        if answer is not None:
            self._ask(authenticator, head, channel, memo, partial(_end, answer, None))
        else:
            self._ask(authenticator, head, channel, memo, partial(self._forward, snapshot, match, memo))

    def _ask(
        self,
        authenticator: Authenticator | None,
        head: RequestHead,
        channel: Channel,
        memo: _Memo,
        go_on: Callable[[Granted, RequestHead, Channel], None],
    ) -> None:
        """
        Find out whether the request may go on.  Nothing of its body is read before that.

        @param go_on: called when it may.
        """
        if authenticator is None:
            go_on(NOBODY, head, channel)
            return
        verdict = authenticator.check(head, memo.forwarding)
        if isinstance(verdict, Granted):
            channel.record.user = verdict.user
            go_on(verdict, head, channel)
            return
        asking = Asking(verdict)
        channel.serve(asking)

        def answered(result: Verdict | Failure) -> None:
            if not asking.cancelled:
                self._attempt(partial(judge, result, go_on), head, channel)

        verdict.addBoth(answered)

    def _forward(
        self,
        snapshot: Snapshot,
        match: Match,
        memo: _Memo,
        granted: Granted | None,
        head: RequestHead,
        channel: Channel,
    ) -> None:
        """
        Send the request to its origin server.

        @param granted: what that is told of who asks; L{None} where no request is asked.
        """
        target, record, rule = head.target, channel.record, match.rule
        in_use = snapshot.rule_in_use(rule)
        outgoing, upstream = in_use.outgoing, in_use.upstream
        record.origin = upstream.name
        request_target = outgoing.request_target(match, target)
        switch = None
        if channel.upgrading:
            if not rule.ws:
                raise NoRuleMatches(f"rule {rule.id} takes no upgrades")
            switch = self._relays.upgrade(head, in_use.relaying)
            fields = outgoing.upgrade_fields(head, memo.forwarding, switch.handshake)
        else:
            fields = memo.fields_by(outgoing, head)
        if granted is not None and granted.fields:
            fields = outgoing.with_granted(fields, granted.fields)
        octets = outgoing_head(head, request_target, fields)
        exchange = Exchange(channel, upstream, octets, in_use, switch)
        channel.serve(exchange, in_use.body_limit)
        exchange.start()


def _is_public(rule: Rule, head: RequestHead) -> bool:
    routes = rule.public_routes
    return routes is not None and routes.is_public(head.target.normal_path, head.method.decode("ascii"))


def _end(
    answer: Callable[[Channel], None] | None,
    error: ExchangeError | None,
    granted: Granted,
    head: RequestHead,
    channel: Channel,
) -> None:
    """Answer what goes no further than to here, now that it may."""
    if answer is not None:
        answer(channel)
    elif error is not None:
        raise error


class _Memo:
    """
    What follows from a connection and from a request's fields, whatever its request line.

    @ivar token: of the snapshot in which it follows, and not that itself: connections may be unused for long.
    @ivar host: the name of the host that is asked.
    @ivar client: the client's address.
    @ivar forwarding: what the origin server is told of it.
    """

    __slots__ = ("_fields", "_outgoing", "client", "forwarding", "host", "token")

    def __init__(self, snapshot: Snapshot, head: RequestHead, channel: Channel) -> None:
        self.token = snapshot.token
        self.host = head.host.host if head.host else None
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
