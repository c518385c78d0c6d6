"""What tests of the control plane share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import Postgres


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
