"""
Tokens.

@see: RFC 6750 sections 2.1 (the field) and 3 (the challenge)
"""

from __future__ import annotations

from proxyd.control.auth.roles import AUTHORIZATION, REALM, Granted, credentials
from proxyd.control.auth.tokens import Tokens
from proxyd.errors import Unauthorized
from proxyd.http.fields import Fields
from proxyd.http.request import RequestHead
from proxyd.rules.auth import BearerAuth

_CHALLENGE = f'Bearer realm="{REALM}"'.encode("ascii")
_INVALID = _CHALLENGE + b', error="invalid_token"'


class BearerAuthenticator:
    """Lets in who shows a token."""

    def __init__(self, auth: BearerAuth) -> None:
        """
        @raise proxyd.errors.ConfigError: a file cannot be read, or holds no token.
        """
        self.withheld = frozenset() if auth.pass_on else AUTHORIZATION
        self._tokens = Tokens(auth.tokens)

    def check(self, head: RequestHead, forwarding: Fields) -> Granted:
        shown = credentials(head, b"bearer")
        if shown is None:
            raise Unauthorized(_CHALLENGE)
        token = self._tokens.find(shown)
        if token is None:
            raise Unauthorized(_INVALID)
        return Granted(token.name)
