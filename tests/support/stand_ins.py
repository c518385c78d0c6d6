"""What stands in for the servers that the documentation names, and asking through the proxy in front of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.wire import Message, Wire

Answer = Callable[[Message], tuple[str, str, tuple[str, ...]]]
"""From a request to the status line's end, the body, and further fields."""


def echo(request: Message, port: int = 0) -> tuple[str, str, tuple[str, ...]]:
    """The request, as JSON, and the port that it came to."""
    seen = {"line": request.line, "port": port, "fields": {name.lower(): value for name, value in request.fields}}
    return "200 OK", json.dumps(seen), ("Content-Type: application/json",)


def ask(port: int, path: str, *fields: str, method: str = "GET", body: bytes = b"", host: str = "h.test") -> Message:
    """The answer to one request."""
    with Wire.to(port) as wire:
        wire.request(method, path, *fields, body=body, host=host)
        return wire.read_message()


def sent(port: int, path: str, *fields: str, host: str = "h.test") -> Any:
    """What a stand-in that echoes got of one request."""
    answer = ask(port, path, *fields, host=host)
    assert answer.status == 200, answer
    return json.loads(answer.body)
