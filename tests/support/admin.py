"""A caller of the admin API, as a program is one."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple

WRITER = "writer-token-0123456789"
READER = "reader-token-0123456789"

TOKENS = [{"name": "ops", "role": "write", "token": WRITER}, {"name": "eye", "role": "read", "token": READER}]
"""What C{admin.tokens} of a test's configuration says."""


class Reply(NamedTuple):
    """What was answered."""

    status: int
    fields: http.client.HTTPMessage
    octets: bytes

    @property
    def json(self) -> Any:
        """The body."""
        assert self.fields["content-type"] == "application/json", self
        return json.loads(self.octets)

    @property
    def error(self) -> str:
        """What went wrong."""
        return str(self.json["error"])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


class Admin:
    """Calls one admin listener, with a connection for each call."""

    def __init__(self, port: int = 0, token: str | None = WRITER, path: str = "") -> None:
        """
        @param path: a UNIX socket, in place of the port.
        """
        self._port = port
        self._path = path
        self._token = token

    def as_reader(self) -> Admin:
        """The same, with the token that may only read."""
        return Admin(self._port, READER, self._path)

    def with_token(self, token: str | None) -> Admin:
        """The same, with another token, or none."""
        return Admin(self._port, token, self._path)

    def call(self, method: str, path: str, body: Any = None, **fields: str) -> Reply:
        """
        Make one call.

        @param body: JSON; octets are sent as they are.
        @param fields: further header fields, with underscores for hyphens.
        """
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        octets = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if self._token is not None:
            headers.setdefault("Authorization", f"Bearer {self._token}")
        if octets is not None or method == "POST":
            headers.setdefault("Content-Type", "application/json")
        connection = _UnixConnection(self._path) if self._path else http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=20
        )
        try:
            connection.request(method, path, octets, headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def add(self, **rule: Any) -> dict[str, Any]:
        """
        Add a rule.

        @return: the rule.
        """
        reply = self.call("POST", "/api/rules", {"name": "test", **rule})
        assert reply.status == 201, reply
        return dict(reply.json)

    def ids(self) -> list[str]:
        """The ids of all rules, in their order."""
        return [rule["id"] for rule in self.call("GET", "/api/rules").json]
