"""
Who may ask: how requests are authenticated, as frozen values and as users write it.

What is secret is in no C{repr}, and in no message about what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from proxyd.http.fields import HOP_BY_HOP, canonical, valid_name
from proxyd.http.forwarded import FORWARDING
from proxyd.rules.model import TargetURL, parse_target_url
from proxyd.rules.problems import Document

MIN_TOKEN: Final = 16
"""The shortest token, characters: what is long and random is not found by trying."""

MAX_TOKEN_NAME: Final = 200
"""The longest name of a token, characters."""

NO_AUTH: Final = "none"
"""What a rule says that asks for nothing although the service does."""

_TOKEN = re.compile(r"[!-~]+")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEVER_COPIED = HOP_BY_HOP | FORWARDING | {b"content-length", b"expect", b"host", b"proxy", b"trailer", b"via"}
"""Fields that belong to proxyd, to the framing or to the connection, whatever an authentication server answers."""


# Values


@dataclass(frozen=True, slots=True)
class Token:
    """
    A secret that lets in who shows it, given in exactly one of three ways.

    @ivar name: how logs call who has it; empty if it has none.
    @ivar token: itself.
    @ivar sha256: the SHA-256 digest of it, in hexadecimal digits.
    @ivar file: the name of a file that holds it.
    """

    name: str = ""
    token: str | None = field(default=None, repr=False)
    sha256: str | None = field(default=None, repr=False)
    file: str | None = None


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """
    User names and passwords (RFC 7617).

    @ivar htpasswd: the name of the file that has them, hashed with bcrypt.
    @ivar pass_on: whether C{Authorization} goes on to the origin server.
    """

    htpasswd: str
    pass_on: bool = False


@dataclass(frozen=True, slots=True)
class BearerAuth:
    """
    Tokens (RFC 6750).

    @ivar pass_on: whether C{Authorization} goes on to the origin server.
    """

    tokens: tuple[Token, ...]
    pass_on: bool = False


@dataclass(frozen=True, slots=True)
class ForwardAuth:
    """
    Another server is asked about each request.

    @ivar url: where it is asked, as it was written.
    @ivar headers: the names of the fields of its answer that the origin server
        is given, in place of what clients send under them.
    @ivar pass_on: of no effect: proxyd itself does not check C{Authorization} then, so that it goes on.
    """

    url: str
    headers: tuple[str, ...] = ()
    pass_on: bool = False

    @property
    def target(self) -> TargetURL:
        """Where that is."""
        return parse_auth_url(self.url)[0]

    @property
    def request_target(self) -> bytes:
        """What is asked for there: path and query."""
        target, query = parse_auth_url(self.url)
        return (target.path or b"/") + query


Auth = BasicAuth | BearerAuth | ForwardAuth | Literal["none"]
"""How requests are authenticated; L{NO_AUTH} is not at all."""


def check_token(text: str) -> str:
    """
    @return: the same.

    @raise ValueError: this can be no token, or is too short for one.  It is not in the text.
    """
    if "${" in text:
        raise ValueError("must be the token itself: ${ is not replaced here; use file")
    if len(text) < MIN_TOKEN or not _TOKEN.fullmatch(text):
        raise ValueError(f"must have at least {MIN_TOKEN} characters, all of them visible ones of ASCII")
    return text


def parse_auth_url(text: str) -> tuple[TargetURL, bytes]:
    """
    Read the URL of an authentication server.

    @return: where it is, and the query with its question mark, or nothing.

    @raise ValueError: what is wrong and what would be right.
    """
    base, mark, query = text.partition("?")
    target = parse_target_url(base)
    if target.scheme in ("ws", "wss"):
        raise ValueError(f"has the scheme {target.scheme}; it must be http, https or http+unix")
    if not _QUERY.fullmatch(query):
        raise ValueError("has a fragment, or a query with characters that must be percent-encoded")
    return target, (mark + query).encode("ascii")


def files_of(auth: Auth | None) -> Iterator[str]:
    """
    @return: the names of all files that this needs.
    """
    if isinstance(auth, BasicAuth):
        yield auth.htpasswd
    elif isinstance(auth, BearerAuth):
        yield from (one.file for one in auth.tokens if one.file is not None)


# As users write them


def _name(text: str) -> str:
    if not text.strip() or len(text) > MAX_TOKEN_NAME or _CONTROL.search(text):
        raise ValueError(f"must be one line of text of at most {MAX_TOKEN_NAME} characters that is not blank")
    return text


def _digest(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("must be a SHA-256 digest: 64 hexadecimal digits")
    return text


def _file(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("must be the name of a file")
    return text


def _url(text: str) -> str:
    parse_auth_url(text)
    return text


def _field_names(names: list[str]) -> list[str]:
    seen: dict[bytes, str] = {}
    for name in names:
        octets = name.encode("utf-8")
        key = canonical(octets)
        if not valid_name(octets):
            raise ValueError(f"{name!r} is no name of a header field")
        if key in _NEVER_COPIED or key.startswith(b"sec-websocket-"):
            raise ValueError(f"{name} cannot be taken from an answer: it belongs to the connection or to proxyd")
        if key in seen:
            raise ValueError(f"{seen[key]} and {name} are the same field; keep one")
        seen[key] = name
    return names


class TokenDocument(Document):
    """A token, as users write it."""

    name: Annotated[str, AfterValidator(_name)]
    """What logs and the history call who has it."""
    token: Annotated[str, AfterValidator(check_token)] | None = Field(default=None, repr=False)
    """Itself: at least 16 visible ASCII characters."""
    sha256: Annotated[str, AfterValidator(_digest)] | None = Field(default=None, repr=False)
    """Its SHA-256 digest: 64 hexadecimal digits."""
    file: Annotated[str, AfterValidator(_file)] | None = None
    """A file that holds it."""

    @model_validator(mode="after")
    def _exactly_one(self) -> TokenDocument:
        if sum(one is not None for one in (self.token, self.sha256, self.file)) != 1:
            raise ValueError("must have exactly one of token, sha256 and file")
        return self


def _token_kind(value: object) -> str:
    return "<mapping>" if isinstance(value, dict | TokenDocument) else "<text>"


def distinct_names(documents: Sequence[Any]) -> Sequence[Any]:
    """
    @return: the same.

    @raise ValueError: two tokens have the same name.
    """
    seen: set[str] = set()
    for one in documents:
        if isinstance(one, TokenDocument):
            if one.name in seen:
                raise ValueError(f"two tokens are called {one.name}; names must differ")
            seen.add(one.name)
    return documents


class BasicDocument(Document):
    """User names and passwords, as users write it."""

    htpasswd: Annotated[str, AfterValidator(_file)]
    """A file of users, as C{htpasswd -B} makes it."""
    pass_on: bool = Field(default=False, alias="pass")
    """Send C{Authorization} on."""


class BearerDocument(Document):
    """Tokens, as users write it."""

    tokens: Annotated[
        list[
            Annotated[
                Annotated[str, AfterValidator(check_token), Tag("<text>")] | Annotated[TokenDocument, Tag("<mapping>")],
                Discriminator(_token_kind),
            ]
        ],
        Field(min_length=1, repr=False),
        AfterValidator(distinct_names),
    ]
    """The tokens that are good: mappings, or the tokens themselves."""
    pass_on: bool = Field(default=False, alias="pass")
    """Send C{Authorization} on."""


class ForwardDocument(Document):
    """A server to ask, as users write it."""

    url: Annotated[str, AfterValidator(_url)]
    """The server to ask: C{http}, C{https} or C{http+unix}; it may have a query."""
    headers: Annotated[list[str], AfterValidator(_field_names)] = []
    """Names of fields of its answer that the target gets."""
    pass_on: bool = Field(default=False, alias="pass")
    """Of no effect: C{Authorization} goes on in any case."""


class AuthDocument(Document):
    """How requests are authenticated, as users write it: exactly one of these."""

    basic: BasicDocument | None = None
    """User names and passwords."""
    bearer: BearerDocument | None = None
    """Tokens."""
    forward: ForwardDocument | None = None
    """Another server is asked about each request."""

    @model_validator(mode="after")
    def _exactly_one(self) -> AuthDocument:
        if sum(one is not None for one in (self.basic, self.bearer, self.forward)) != 1:
            raise ValueError("must have exactly one of basic, bearer and forward")
        return self


def _is_none(value: object) -> object:
    if value != NO_AUTH:
        raise ValueError("must be none, or a mapping with basic, bearer or forward")
    return str(value)


def _auth_kind(value: object) -> str:
    return "<mapping>" if isinstance(value, dict | AuthDocument) else "<text>"


AuthField = (
    Annotated[
        Annotated[Any, AfterValidator(_is_none), Tag("<text>")] | Annotated[AuthDocument, Tag("<mapping>")],
        Discriminator(_auth_kind),
    ]
    | None
)
"""C{none}, or a mapping; null is as the service has it."""

Located = Callable[[str], str]
"""From the name of a file as it is written to where it is."""


def token_from(document: str | TokenDocument, located: Located) -> Token:
    """
    @return: a token that was written down.
    """
    if isinstance(document, str):
        return Token(token=str(document))
    file = None if document.file is None else located(document.file)
    return Token(document.name, document.token, document.sha256, file)


def mapping_from_token(token: Token) -> str | dict[str, str]:
    """
    @return: how a token is written.  It holds the secret.
    """
    if not token.name and token.token is not None:
        return token.token
    parts = (("name", token.name), ("token", token.token), ("sha256", token.sha256), ("file", token.file))
    return {key: value for key, value in parts if value is not None}


def auth_from(document: Any, located: Located) -> Auth | None:
    """
    @param document: a value of L{AuthField}.
    @return: how requests are authenticated; L{None} is as the service has it.
    """
    if not isinstance(document, AuthDocument):
        return None if document is None else NO_AUTH
    if document.basic is not None:
        return BasicAuth(located(document.basic.htpasswd), document.basic.pass_on)
    if document.bearer is not None:
        return BearerAuth(
            tuple(token_from(one, located) for one in document.bearer.tokens), document.bearer.pass_on
        )
    forward = document.forward
    assert forward is not None
    return ForwardAuth(forward.url, tuple(forward.headers), forward.pass_on)


def mapping_from_auth(auth: Auth | None) -> str | dict[str, Any] | None:
    """
    @return: how it is written, with every default filled in.  It holds the secrets.
    """
    if isinstance(auth, BasicAuth):
        return {"basic": {"htpasswd": auth.htpasswd, "pass": auth.pass_on}}
    if isinstance(auth, BearerAuth):
        return {"bearer": {"tokens": [mapping_from_token(one) for one in auth.tokens], "pass": auth.pass_on}}
    if isinstance(auth, ForwardAuth):
        return {"forward": {"url": auth.url, "headers": list(auth.headers), "pass": auth.pass_on}}
    return auth
