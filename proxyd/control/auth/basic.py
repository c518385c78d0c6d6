"""
User names and passwords.

@see: RFC 7617
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64

from twisted.internet.defer import Deferred

from proxyd.control.auth.passwords import PasswordChecks, Users
from proxyd.control.auth.roles import AUTHORIZATION, REALM, Granted, Verdict, credentials
from proxyd.errors import Unauthorized
from proxyd.http.fields import Fields
from proxyd.http.request import RequestHead
from proxyd.rules.auth import BasicAuth

_CHALLENGE = f'Basic realm="{REALM}", charset="UTF-8"'.encode("ascii")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BasicAuthenticator:
    """Lets in who knows a password."""

    def __init__(self, auth: BasicAuth, users: Users, checks: PasswordChecks) -> None:
        self.withheld = frozenset() if auth.pass_on else AUTHORIZATION
        self._users = users
        self._checks = checks

    def check(self, head: RequestHead, forwarding: Fields) -> Granted | Deferred[Verdict]:
        shown = _user_and_password(credentials(head, b"basic"))
        if shown is None:
            raise Unauthorized(_CHALLENGE)
        user, password = shown
        is_right = self._checks.check(user.encode(), password.encode(), self._users)
        granted = Granted(user)
        if isinstance(is_right, Deferred):
            return is_right.addCallback(_judged, granted)
        return _judged(is_right, granted)


def _judged(is_right: bool, granted: Granted) -> Granted:
    if not is_right:
        raise Unauthorized(_CHALLENGE)
    return granted


def _user_and_password(shown: bytes | None) -> tuple[str, str] | None:
    """What the credentials say; nothing if they are none (RFC 7617 section 2: no controls in either)."""
    if shown is None:
        return None
    try:
        text = a2b_base64(shown, strict_mode=True).decode("utf-8")
    except (Error, UnicodeDecodeError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon and not _CONTROL.search(text) else None
