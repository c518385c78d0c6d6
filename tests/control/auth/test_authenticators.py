"""L{proxyd.control.auth.basic} and L{proxyd.control.auth.bearer}: what is shown, and what is asked for."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import bcrypt
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from proxyd.control.auth.basic import BasicAuthenticator
from proxyd.control.auth.bearer import BearerAuthenticator
from proxyd.control.auth.passwords import PasswordChecks, Users
from proxyd.control.auth.roles import Granted
from proxyd.errors import Unauthorized
from proxyd.http.request import RequestHead, parse_request
from proxyd.rules.auth import BasicAuth, BearerAuth, Token

BASIC = b'Basic realm="proxyd", charset="UTF-8"'
BEARER = b'Bearer realm="proxyd"'


def request(*shown: bytes) -> RequestHead:
    """A request with C{Authorization} fields."""
    fields = b"".join(b"Authorization: %b\r\n" % one for one in shown)
    return parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % fields)


class Here:
    """Hashes are computed at once."""

    size = 1

    def run(self, function: Callable[[], bool]) -> Deferred[bool]:
        return succeed(function())


def shown(text: str | bytes) -> bytes:
    """Credentials for Basic."""
    return b"Basic " + b64encode(text.encode() if isinstance(text, str) else text)


class BasicTests(SynchronousTestCase):
    """A user's name and password."""

    def setUp(self) -> None:
        users = Users({b"ann": bcrypt.hashpw("pä:ss".encode(), bcrypt.gensalt(4))})
        self.basic = BasicAuthenticator(BasicAuth("users"), users, PasswordChecks(Clock(), Here()))

    def test_right(self) -> None:
        """The first time it takes a while, then none; the password may hold colons, and is UTF-8."""
        first = self.basic.check(request(shown("ann:pä:ss")), [])
        assert isinstance(first, Deferred)
        self.assertEqual(self.successResultOf(first), Granted("ann"))
        self.assertEqual(self.basic.check(request(shown("ann:pä:ss")), []), Granted("ann"))

    def test_wrong(self) -> None:
        """The answer is the same for a wrong password, an unknown user, and nonsense."""
        for credentials in ("ann:pass", "bob:pä:ss", "ann:", ":", "ANN:pä:ss"):
            answer = self.basic.check(request(shown(credentials)), [])
            assert isinstance(answer, Deferred)
            error = self.failureResultOf(answer, Unauthorized).value
            self.assertEqual((error.status, error.fields), (401, ((b"WWW-Authenticate", BASIC),)))
        for one in (
            (), (shown("ann"),), (shown("ann:pä:ss\r"),), (shown("ann:pä:ss".encode("latin-1")),), (b"Basic",),
            (b"Basic YQ",), (b"Basic Y Q==",), (b"Bearer x",), (shown("ann:pä:ss"),) * 2,
        ):  # fmt: skip
            with self.assertRaises(Unauthorized) as raised:
                self.basic.check(request(*one), [])
            self.assertEqual(raised.exception.fields, ((b"WWW-Authenticate", BASIC),))


@pytest.mark.parametrize(
    ("lines", "challenge"),
    [
        ((), BEARER),
        ((b"Basic eA==",), BEARER),
        ((b"Bearer",), BEARER),
        ((b"Bearer 0123456789abcdef", b"Bearer 0123456789abcdef"), BEARER),
        ((b"Bearer 0123456789abcde",), BEARER + b', error="invalid_token"'),
        ((b"Bearer 0123456789abcdef x",), BEARER + b', error="invalid_token"'),
    ],
)
def test_bearer_wrong(lines: tuple[bytes, ...], challenge: bytes) -> None:
    """Who shows no token learns that one is needed, who shows a wrong one that it is."""
    bearer = BearerAuthenticator(BearerAuth((Token(token="0123456789abcdef"),)))
    with pytest.raises(Unauthorized) as raised:
        bearer.check(request(*lines), [])
    assert raised.value.fields == ((b"WWW-Authenticate", challenge),)


def test_bearer_right() -> None:
    """The answer comes at once, and says whose token it is."""
    bearer = BearerAuthenticator(BearerAuth((Token("robot", token="0123456789abcdef"),)))
    assert bearer.check(request(b"bearer  0123456789abcdef"), []) == Granted("robot")


def test_withheld() -> None:
    """What proxyd has checked itself stays here, unless it is to be passed."""
    tokens = (Token(token="0123456789abcdef"),)
    assert BearerAuthenticator(BearerAuth(tokens)).withheld == {b"authorization"}
    assert BearerAuthenticator(BearerAuth(tokens, pass_on=True)).withheld == frozenset()
    checks = PasswordChecks(Clock(), Here())
    assert BasicAuthenticator(BasicAuth("f"), Users({}), checks).withheld == {b"authorization"}
    assert BasicAuthenticator(BasicAuth("f", pass_on=True), Users({}), checks).withheld == frozenset()
