"""Stand-ins for the servers behind the configurations of the documentation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.server import ServerConnection, serve

from tests.support.stand_ins import Answer, echo
from tests.support.wire import Origin, Wire


@pytest.fixture
def stand_in() -> Iterator[Callable[..., str]]:
    """Start a server that answers each request with a function, or with what it got; its address."""
    started: list[Origin] = []

    def begin(answer: Answer | None = None) -> str:
        origin = Origin()
        started.append(origin)

        def serve_one(wire: Wire) -> None:
            with contextlib.suppress(OSError, AssertionError):
                while True:
                    request = wire.read_message()
                    status, body, fields = answer(request) if answer else echo(request, origin.port)
                    wire.respond(body, *fields, status=status)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve_one, args=(origin.accept(),), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{origin.port}"

    yield begin
    for origin in started:
        origin.close()


@pytest.fixture
def chat() -> Iterator[str]:
    """A WebSocket server that says what path it was asked for, then echoes; its address."""

    def answer(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(connection.request.path)
        with contextlib.suppress(ConnectionClosedError):
            for message in connection:
                connection.send(message)

    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()
