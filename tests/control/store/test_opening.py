"""L{proxyd.control.store.opening}: from a URL to a store."""

from __future__ import annotations

import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from proxyd.control.store.memory import MemoryStore
from proxyd.control.store.opening import store_for, store_problem
from proxyd.control.store.postgres import PostgresStore
from proxyd.control.store.sqlite import SqliteStore
from proxyd.errors import StoreUnusable

GOOD = [
    "memory:",
    "sqlite:rules.db",
    "sqlite:/var/lib/proxyd/rules.db",
    "sqlite:a b.db",
    "postgresql://u:p@h:5432/db",
    "postgres://u:p@h/db",
    "postgresql://h",
    "postgresql://u:p@%2Frun%2Fpostgresql/db",
    "postgresql:///db?host=/run/postgresql",
    "postgresql://u:p%40%2F@[::1]:5432/db?sslmode=require",
    "postgresql://u@one:1,two:2/db?target_session_attrs=read-write",
]

BAD = [
    "",
    "memory",
    "memory:x",
    "sqlite",
    "sqlite:",
    "sqlite:a\0b",
    "mysql://u:secret@h/db",
    "postgresql:u:secret@h/db",
    "postgresql://u:secret@more@h/db",
    "postgresql://u:secret/more@h/db",
    "postgresql://u:secret?more@h/db",
    "postgresql://u:secret#more@h/db",
    "postgresql://u:secret%zz@h/db",
    "postgresql://u:secret:more@h/db",
    "postgresql://u:secret@h:port/db",
    "postgresql://u:secret @h/db",
    "POSTGRESQL://u:secret@h/db",
]


@pytest.mark.parametrize("url", GOOD)
def test_good(url: str) -> None:
    """There is nothing wrong with it."""
    assert store_problem(url) is None


@pytest.mark.parametrize("url", BAD)
def test_bad(url: str) -> None:
    """The text says what would be right, and nothing that was in the URL; no store is made of it."""
    problem = store_problem(url)
    assert problem is not None and problem.startswith("must be ")
    assert "secret" not in problem and "more" not in problem
    with pytest.raises(StoreUnusable, match="the store must be "):
        store_for(Clock(), url, "/")


@pytest.mark.parametrize(
    ("url", "kind"),
    [("memory:", MemoryStore), ("sqlite:a.db", SqliteStore), ("postgres://h/", PostgresStore)],
)
def test_kinds(url: str, kind: type) -> None:
    """Every kind of URL has its store."""
    assert type(store_for(Clock(), url, "/")) is kind


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:rules.db", "/folder/rules.db"), ("sqlite:/var/rules.db", "/var/rules.db")]
)
def test_file(url: str, path: str) -> None:
    """A file's name begins where it is told to."""
    store = store_for(Clock(), url, "/folder")
    assert isinstance(store, SqliteStore)
    assert store._path == path


WITHOUT_PSYCOPG = """
import sys
sys.modules["psycopg"] = None
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from proxyd.control.store.opening import store_for

async def main(reactor):
    store = store_for(reactor, "postgresql://u:secret@127.0.0.1:1/db", "/")
    try:
        await store.open(lambda: None)
    except Exception as error:
        print(type(error).__name__, error)

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def test_without_psycopg() -> None:
    """Without the extra the error says how to install it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_PSYCOPG], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (
        "StoreUnusable a store in PostgreSQL needs psycopg: pip install 'proxyd[postgres]'\n", ""
    )
