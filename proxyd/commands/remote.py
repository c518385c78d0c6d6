"""
The admin API of a running proxyd, as the command line calls it.

Where it is and who calls come from the environment: a token on the command
line could be read by every user of the machine.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from proxyd.commands.table import printable
from proxyd.errors import ProxydError

URL_VARIABLE: Final = "PROXYD_ADMIN_URL"
TOKEN_VARIABLE: Final = "PROXYD_ADMIN_TOKEN"

DEFAULT_URL: Final = "http://127.0.0.1:8081/"

TIMEOUT_S: Final = 30.0
"""Seconds for one answer: a rule among ten thousand takes one."""

_URL = re.compile(r"(https?|http\+unix)://([^/?#@]+)(/[^?#]*)?")


class Refused(ProxydError):
    """
    The API did not do what it was asked for.

    @ivar status: of its answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Unreachable(ProxydError):
    """There is no admin API where it should be."""


class Reply(NamedTuple):
    """
    A good answer.

    @ivar tag: its C{ETag}, or empty.
    """

    content: Any
    tag: str


class Remote:
    """One admin API."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        @raise Unreachable: the environment names no URL of one, or holds no token.
        """
        told = environment.get(URL_VARIABLE)
        url = told or DEFAULT_URL
        self._whence = f"from {URL_VARIABLE}" if told else f"{URL_VARIABLE} would say another"
        found = _URL.fullmatch(url)
        if found is None:
            raise Unreachable(
                f"{URL_VARIABLE} must be http://host:port/, https://host:port/ or http+unix://%2Fpath%2Fto%2Fsocket/"
            )
        self._scheme, self._authority = found[1], found[2]
        self._base = (found[3] or "").removesuffix("/")
        self._token = environment.get(TOKEN_VARIABLE)
        if self._token and not (self._token.isascii() and self._token.isprintable()):
            raise Unreachable(f"{TOKEN_VARIABLE} holds something else than a token")

    def call(self, method: str, path: str, body: Any = None, tag: str = "") -> Reply:
        """
        Make one call.

        @param path: below the base, such as C{/api/rules}.
        @param body: JSON.
        @param tag: the entity tag of what is to be changed.

        @raise Refused: the API says no.
        @raise Unreachable: it says nothing.
        """
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if tag:
            headers["If-Match"] = tag
        if body is not None or method == "POST":
            headers["Content-Type"] = "application/json"
        octets = None if body is None else json.dumps(body).encode()
        try:
            connection = self._connection()
        except http.client.InvalidURL as error:
            raise Unreachable(f"{URL_VARIABLE} has no host and port: {error}") from error
        try:
            connection.request(method, self._base + path, octets, headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except ValueError as error:
            raise Unreachable(f"what is at {self._place} is no admin API") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the admin API at {self._place} cannot be reached: {error}") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise Refused(answer.status, _text(answer.status, content))
        return Reply(content, answer.headers["ETag"] or "")

    @property
    def _place(self) -> str:
        return f"{self._scheme}://{self._authority}{self._base}/ ({self._whence})"

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "http+unix":
            return _UnixConnection(unquote(self._authority))
        if self._scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._authority, timeout=TIMEOUT_S, context=context)
        return http.client.HTTPConnection(self._authority, timeout=TIMEOUT_S)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _text(status: int, content: Any) -> str:
    """Everything that the API says is wrong, a line each."""
    if not isinstance(content, dict) or "error" not in content:
        return f"the admin API answers {status}"
    hint = f" (set {TOKEN_VARIABLE})" if status == 401 else ""
    problems = content.get("problems") or [content]
    return "\n".join(
        printable(f"{one['field']}: {one['error']}" if one.get("field") else f"{one['error']}{hint}")
        for one in problems
    )
