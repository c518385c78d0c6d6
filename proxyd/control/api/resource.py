"""
The admin API on our channel: each request is checked, read whole, and given to its operation.

The order of checks: the place (C{Host} and C{Origin}), the token, the role,
what is asked for, and then what the operation itself looks at.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from zope.interface import implementer

from proxyd.control.api.access import Access
from proxyd.control.api.calls import JSON, MAX_BODY, Answer, Call, Caller, CallError, Operation, parse_json
from proxyd.errors import RequestError, StoreAway
from proxyd.forward.answers import reason_phrase
from proxyd.forward.channel import Channel
from proxyd.forward.roles import Body
from proxyd.http.fields import Fields, values
from proxyd.http.forwarded import TrustedProxies, forwarding
from proxyd.http.request import RequestHead
from proxyd.interfaces import IHeadResource

log = Logger()

_COMMON: Fields = [
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
]


class Open(NamedTuple):
    """
    What anybody may read who reaches the listener.

    @ivar read: makes the answer.
    """

    read: Callable[[], Answer | Awaitable[Answer]]


@implementer(IHeadResource)
class AdminResource(Resource):
    """The root of an admin listener."""

    isLeaf = True

    def __init__(
        self,
        base: str,
        access: Access,
        trusted: Callable[[], TrustedProxies],
        operations: Iterable[Operation],
        open_paths: dict[str, Open],
    ) -> None:
        """
        @param base: the path that all is under: it begins and ends with a slash.
        @param trusted: the proxies whose word on who calls is believed.
        @param open_paths: what needs no token, by its path below the base.
        """
        Resource.__init__(self)
        self._base = base.removesuffix("/")
        self._access = access
        self._trusted = trusted
        self._open = open_paths
        self._routes = [(_expression(one.path), one) for one in operations]

    def head_received(self, head: RequestHead, channel: Channel) -> None:
        channel.record.client = self._client(head, channel)
        responder = _Responder(channel)
        try:
            run, limit = self._find(head, channel)
            # Not before: a request without a good token has no body that is read.
            channel.serve(responder, limit)
            if head.expects_continue:
                channel.send_interim(100, b"Continue", [])
            responder.read(run)
        except CallError as error:
            responder.answer(error.answer())
        except RequestError as error:
            channel.send_error(error)

    def _client(self, head: RequestHead, channel: Channel) -> str:
        client, _ = forwarding(
            head.fields,
            peer=channel.peer,
            secure=channel.secure,
            host=head.host_value,
            port=channel.port,
            trusted=self._trusted(),
            forwarded=False,
        )
        return client

    def _find(self, head: RequestHead, channel: Channel) -> tuple[Callable[[bytes], Any], int]:
        """
        What answers a request, given its body; and how many octets that may have.

        @raise CallError: nothing does.
        """
        here = channel.transport.getHost()
        self._access.check_place(head, here)
        path = head.target.normal_path
        if path != self._base and not path.startswith(self._base + "/"):
            raise CallError(404, f"There is nothing here; the admin API is under {self._base}/.")
        path = path[len(self._base) :]
        if path == "":
            # The page names its parts relative to where it is.
            location = f"{self._base}/".encode("ascii")
            raise CallError(308, f"The admin API is under {self._base}/.", fields=[(b"Location", location)])
        if path in self._open:
            if head.method not in (b"GET", b"HEAD"):
                raise CallError(405, "This can only be read.", fields=[(b"Allow", b"GET, HEAD")])
            read = self._open[path].read
            return lambda octets: read(), MAX_BODY
        caller = self._access.caller(head, channel.record.client, here)
        operation, parameters = self._operation(path, head, caller)
        return lambda octets: _run(operation, Call(head, caller, parameters, octets)), operation.limit

    def _operation(self, path: str, head: RequestHead, caller: Caller) -> tuple[Operation, dict[str, str]]:
        method = "GET" if head.method == b"HEAD" else head.method.decode("ascii")
        found = [(one, match) for expression, one in self._routes if (match := expression.fullmatch(path))]
        # /api/rules/reorder is no rule.
        found = [pair for pair in found if "{" not in pair[0].path] or found
        chosen = next((pair for pair in found if pair[0].method == method), None)
        # Who may not write learns nothing of what could be written.
        if caller.role != "write" and (chosen[0].role == "write" if chosen else method not in ("GET", "OPTIONS")):
            needed = "a token of the role write" if self._access.needs_token else "admin.tokens, or the UNIX socket"
            raise CallError(403, f"You may only read here; to write needs {needed}.")
        if chosen is None:
            if not found:
                raise CallError(404, "There is no such call.")
            allowed = sorted({name for one, _ in found for name in (one.method, one.method.replace("GET", "HEAD"))})
            raise CallError(405, "This method is not known here.", fields=[(b"Allow", ", ".join(allowed).encode())])
        operation, match = chosen
        if method == "POST" or head.has_body:
            _check_media_type(head)
        return operation, {name: unquote(part) for name, part in match.groupdict().items()}


def _expression(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))


def _check_media_type(head: RequestHead) -> None:
    """
    @raise CallError: the body is not said to be JSON: what a page of another site may send without asking, is not.
    """
    media_type = b"".join(values(head.fields, b"content-type")).partition(b";")[0].strip().lower()
    if media_type != JSON.encode("ascii"):
        raise CallError(415, f"Content-Type must be {JSON}.", "Content-Type")


def _run(operation: Operation, call: Call) -> Any:
    if operation.body is None and call.octets and parse_json(call.octets) != {}:
        raise CallError(400, "This call takes no body.")
    answer = operation.run(call)
    return answer if isinstance(answer, Answer) else Deferred.fromCoroutine(answer)  # type: ignore[arg-type]


class _Responder:
    """
    One request to the API: its body is collected, its answer sent.

    A client that goes away does not undo what it asked for.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pieces: list[bytes] = []
        self._run: Callable[[bytes], Any] | None = None
        self._is_over = False

    def read(self, run: Callable[[bytes], Any]) -> None:
        """
        Collect the body, then give it to C{run}.

        @raise RequestError: it is malformed or too long.
        """
        self._run = run
        self.body_received(*self._channel.read_body())

    def body_received(self, payload: bytes, ended: bool) -> None:
        self._pieces.append(payload)
        if ended:
            assert self._run is not None
            maybeDeferred(self._run, b"".join(self._pieces)).addErrback(_failed).addCallback(self.answer)

    def answer(self, answer: Answer) -> None:
        """Send the answer, to whoever is still there."""
        if self._is_over:
            return
        head = self._channel.head
        tag = next((value for name, value in answer.fields if name == b"ETag"), None)
        if tag is not None and answer.status == 200 and head.method in (b"GET", b"HEAD") and _has(head, tag):
            self._channel.respond(304, b"Not Modified", [*_COMMON, (b"ETag", tag)], Body.NONE)
            return
        octets = answer.octets
        fields = [
            *_COMMON,
            (b"Content-Type", answer.media_type.encode("ascii")),
            (b"Content-Length", b"%d" % len(octets)),
            *answer.fields,
        ]
        reason = reason_phrase(answer.status).encode("ascii")
        self._channel.respond(answer.status, reason, fields, Body.LENGTH, b"" if head.method == b"HEAD" else octets)

    def cancel(self) -> None:
        self._is_over = True

    def pause(self) -> None:
        """An answer is written at once: there is nothing to pause."""

    def resume(self) -> None:
        """See L{pause}."""


def _has(head: RequestHead, tag: bytes) -> bool:
    tags = b",".join(values(head.fields, b"if-none-match")).split(b",")
    return tag in (one.strip().removeprefix(b"W/") for one in tags)


def _failed(failure: Failure) -> Answer:
    error = failure.value
    if isinstance(error, CallError):
        return error.answer()
    if isinstance(error, StoreAway):
        answer = CallError(503, f"The store of rules is away, nothing was changed: {error}").answer()
        answer.fields.append((b"Retry-After", b"5"))
        return answer
    if not failure.check(CancelledError):
        log.failure("a call of the admin API failed", failure)
    return CallError(500, "An error in proxyd itself, see its log.").answer()
