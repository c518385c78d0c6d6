"""
Secrets that let in who shows them.

What is shown is compared with every token by their digests, in constant time:
neither how much of it is right nor which token it is can be measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Generic, TypeVar

from proxyd.control.auth.files import read_file
from proxyd.errors import ConfigError, Problem
from proxyd.rules.auth import Token, check_token

MAX_TOKEN_FILE: Final = 64 * 1024
"""Octets of a file that holds a token: what is longer is another file."""

_Token = TypeVar("_Token", bound=Token)


def digest_of(token: Token) -> bytes:
    """
    @return: the SHA-256 digest of a token.

    @raise ConfigError: its file cannot be read, or holds no token.
    """
    if token.sha256 is not None:
        return bytes.fromhex(token.sha256)
    text = token.token if token.file is None else _read(token.file)
    assert text is not None
    return sha256(text.encode("ascii")).digest()


def _read(name: str) -> str:
    """
    @return: what a file holds, without the white space around it.

    @raise ConfigError: it names the file, and nothing of what is in it.
    """
    try:
        return check_token(read_file(name, MAX_TOKEN_FILE).strip().decode("latin-1"))
    except ValueError as error:
        raise ConfigError((Problem((), f"{name} holds no token: it {error}"),)) from error


class Tokens(Generic[_Token]):
    """The tokens that are good."""

    __slots__ = ("_known",)

    def __init__(self, tokens: Iterable[_Token]) -> None:
        """
        @raise ConfigError: a file cannot be read, or holds no token.
        """
        self._known = tuple((digest_of(token), token) for token in tokens)

    def find(self, presented: bytes) -> _Token | None:
        """
        @return: the token that was presented, if it is one.
        """
        shown = sha256(presented).digest()
        found: _Token | None = None
        for digest, token in self._known:
            if compare_digest(digest, shown):
                found = token
        return found
