"""What tests with real sockets share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.postgres import Postgres
from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire

ORIGINS = 160
"""How many tests of a session can have an origin server of their own."""

# The machines that run this share their cores: no example has to be ready within a time.
settings.register_profile("proxyd", deadline=None)
settings.load_profile("proxyd")

# A shell that runs the tests in the background has SIGINT ignored, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class _Shared:
    """One proxy for all tests that need no special configuration, with an origin server for each of them."""

    def __init__(self, folder: Path) -> None:
        self.origins = [Origin(f"/o{number}") for number in range(ORIGINS)]
        rules = [
            {"name": origin.prefix, "pattern": f"^{origin.prefix}(/.*)$", "target": f"http://127.0.0.1:{origin.port}",
             "rewrite": "$1"}
            for origin in self.origins
        ]
        self.proxy = Proxy(folder, {"rules": rules})
        self.unused = iter(self.origins)

    def close(self) -> None:
        text = self.proxy.stop()
        for origin in self.origins:
            origin.close()
        assert "Traceback" not in text, text


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Shared]:
    """The one proxy of this session."""
    one = _Shared(tmp_path_factory.mktemp("shared"))
    yield one
    one.close()


@pytest.fixture
def proxy(shared: _Shared) -> Proxy:
    """A proxy; a path below C{origin.prefix} goes to C{origin}, without that prefix."""
    return shared.proxy


@pytest.fixture
def origin(shared: _Shared) -> Iterator[Origin]:
    """An origin server that no other test uses."""
    one = next(shared.unused)
    yield one
    one.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Wire]:
    """A client's connection to the proxy."""
    with proxy.connect() as wire:
        yield wire


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Start a proxy with a configuration of its own: C{start(rules=[...], limits={...})}."""
    started: list[Proxy] = []

    def start(
        *,
        reactor: str | None = None,
        environment: dict[str, str] | None = None,
        unset: Container[str] = (),
        **config: Any,
    ) -> Proxy:
        folder = tmp_path / f"proxy{len(started)}"
        one = Proxy(folder, config, reactor=reactor, environment=environment, unset=unset)
        started.append(one)
        return one

    yield start
    for one in started:
        text = one.stop()
        assert "Traceback" not in text, text


@pytest.fixture
def own_origin() -> Iterator[Origin]:
    """An origin server for a proxy with a configuration of its own."""
    one = Origin()
    yield one
    one.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The one PostgreSQL of this session."""
    one = Postgres()
    yield one
    one.remove()


@pytest.fixture
def postgres(postgres_server: Postgres) -> Postgres:
    """A PostgreSQL that runs, whatever the test before has done to it."""
    postgres_server.start()
    return postgres_server
