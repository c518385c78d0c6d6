"""
Who may call the admin API.

A token says who calls.  Without tokens the place of a listener does: whoever
reaches a UNIX socket of mode 0600 could change the configuration as well and
may write; whoever reaches a loopback address may only read, because every
program and every page in a browser on this machine does.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IReactorTime

from proxyd.control.api.calls import Caller, CallError
from proxyd.control.auth.tokens import Tokens
from proxyd.control.settings import Admin
from proxyd.http import authority
from proxyd.http.fields import values
from proxyd.http.request import RequestHead

MAX_FAILURES: Final = 10
"""How often one address may be wrong about a token in L{FAILURES_S}."""

FAILURES_S: Final = 60.0
"""Seconds in which L{MAX_FAILURES} count."""

MAX_ADDRESSES: Final = 4096
"""Addresses whose failures are remembered; beyond, the one that failed longest ago is forgotten."""

_CHALLENGE = (b"WWW-Authenticate", b'Bearer realm="proxyd admin"')


class Access:
    """
    Decides who calls, and whether from where they may.

    @ivar needs_token: whether callers have to show one.
    @ivar tokens: the ones that are good.
    """

    def __init__(self, admin: Admin, clock: IReactorTime) -> None:
        """
        @raise proxyd.errors.ConfigError: the file of a token cannot be read, or holds none.
        """
        self._hosts = frozenset(host.lower() for host in admin.hosts)
        self.needs_token = bool(admin.tokens)
        self.tokens = Tokens(admin.tokens)
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._clock = clock

    def check_place(self, head: RequestHead, here: IAddress) -> None:
        """
        See to it that no page of another site calls, under whatever name it knows us (DNS rebinding).

        @param here: our end of the connection.

        @raise CallError: the C{Host} is not ours, or the C{Origin} is not that host.
        """
        asked = head.host_value.decode("latin-1").lower()
        host = head.host.host.lower() if head.host is not None else ""
        ours = here.host if isinstance(here, IPv4Address | IPv6Address) else ""
        if not (authority.is_loopback(host) or (host and host == ours) or host in self._hosts or asked in self._hosts):
            raise CallError(403, "This Host is not the admin API's; add it to admin.hosts if it should be.", "Host")
        for origin in values(head.fields, b"origin"):
            scheme, _, rest = origin.decode("latin-1").lower().partition("://")
            if scheme not in ("http", "https") or _without_port(rest, scheme) != _without_port(asked, scheme):
                raise CallError(403, "A page of another origin may not call the admin API.", "Origin")

    def caller(self, head: RequestHead, address: str, here: IAddress) -> Caller:
        """
        Who calls.

        @param address: the caller's.
        @param here: our end of the connection.

        @raise CallError: 401 without a good token; 429 after too many bad ones.
        """
        if not self.needs_token:
            return Caller("unix socket", "write") if isinstance(here, UNIXAddress) else Caller("loopback", "read")
        lines = values(head.fields, b"authorization")
        scheme, _, presented = (lines[0] if len(lines) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise CallError(401, "A token is needed: Authorization: Bearer TOKEN.", fields=[_CHALLENGE])
        self._check_failures(address)
        found = self.tokens.find(presented.strip())
        if found is None:
            self._note_failure(address)
            raise CallError(401, "This token is not known here.", fields=[_CHALLENGE])
        return Caller(found.name, found.role)

    def _check_failures(self, address: str) -> None:
        failures = self._failures.get(address, [])
        if len(failures) < MAX_FAILURES:
            return
        left = failures[0] + FAILURES_S - self._clock.seconds()
        if left > 0:
            wait = b"%d" % (int(left) + 1)
            raise CallError(429, "Too many wrong tokens from this address.", fields=[(b"Retry-After", wait)])

    def _note_failure(self, address: str) -> None:
        failures = self._failures.setdefault(address, [])
        failures.append(self._clock.seconds())
        del failures[:-MAX_FAILURES]
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _without_port(text: str, scheme: str) -> str:
    """C{host[:port]} without the port that goes without saying."""
    try:
        found = authority.parse(text.encode("latin-1"))
    except ValueError:
        return text
    return found.to_bytes(443 if scheme == "https" else 80).decode("ascii")
