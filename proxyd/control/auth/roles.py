"""What authenticators are asked, and what they answer."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from proxyd.http.fields import Fields, values
from proxyd.http.request import RequestHead

REALM: Final = "proxyd"
"""What is protected, as browsers tell their users (RFC 9110 section 11.5)."""


class Granted(NamedTuple):
    """
    The request may go on.

    @ivar user: how the access log calls who asks, or empty.
    @ivar fields: what the origin server is told of it.
    """

    user: str = ""
    fields: Fields = []


class Answered(NamedTuple):
    """
    Another server answers in the origin server's place.

    @ivar origin: who that is, for logs.
    @ivar fields: end-to-end fields, without C{Content-Length}.
    @ivar body: all of it; C{None} is an answer that can have none.
    """

    origin: str
    status: int
    reason: bytes
    fields: Fields
    body: bytes | None


Verdict = Granted | Answered


class Authenticator(Protocol):
    """Finds out who asks."""

    @property
    def withheld(self) -> frozenset[bytes]:
        """Fields that the origin server never gets from a client, in the form of L{proxyd.http.fields.canonical}."""

    def check(self, head: RequestHead, forwarding: Fields) -> Granted | Deferred[Verdict]:
        """
        Find out who asks.  Cancelling the Deferred gives that up.

        @param forwarding: who the client is, as the origin server will be told.

        @raise proxyd.errors.ExchangeError: the request may not go on; the Deferred may fail with it as well.
        """


AUTHORIZATION: Final = frozenset((b"authorization",))
"""What an authenticator withholds that checks this field itself."""


def credentials(head: RequestHead, scheme: bytes) -> bytes | None:
    """
    @param scheme: in lower case.
    @return: what C{Authorization} holds after the scheme; L{None} without one such field, and one only.
    """
    lines = values(head.fields, b"authorization")
    if len(lines) != 1:
        return None
    given, space, rest = lines[0].partition(b" ")
    return rest.strip(b" ") if space and given.lower() == scheme else None
