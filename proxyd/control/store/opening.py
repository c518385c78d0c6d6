"""From the configuration's C{store} to a store."""

from __future__ import annotations

import os
import re
from typing import Any, Final

from proxyd.control.store.memory import MemoryStore
from proxyd.errors import StoreUnusable
from proxyd.interfaces import IRuleStore

_WORD: Final = r"(?:[^\s:/?#\[\]@%]|%[0-9A-Fa-f]{2})*"
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|(?:[^\s:/?#\[\]@%,]|%[0-9A-Fa-f]{2})*)(?::[0-9]{1,5})?"

_POSTGRES: Final = re.compile(
    rf"postgres(?:ql)?://(?:{_WORD}(?::{_WORD})?@)?{_HOST}(?:,{_HOST})*(?:/{_WORD})?(?:\?[^\s#]*)?"
)
"""
Stricter than PostgreSQL's own library.

That takes a password with an C{@} in it for a password and a host, and says so wherever it names the host.
"""


def store_problem(url: str) -> str | None:
    """
    @return: what is wrong with a store's URL, without anything of it; C{None} if nothing is.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon:
        return "must be 'memory:' and nothing else" if rest else None
    if scheme == "sqlite" and colon:
        return None if rest and "\0" not in rest else "must be 'sqlite:' and the name of a file"
    if scheme in ("postgresql", "postgres") and colon:
        if _POSTGRES.fullmatch(url):
            return None
        return (
            "must be 'postgresql://user:password@host:port/database', whose parts are percent-encoded"
            " where they have other characters than letters and digits"
        )
    return "must be 'sqlite:FILE', 'postgresql://…' or 'memory:'"


def store_for(reactor: Any, url: str, folder: str) -> IRuleStore:
    """
    Make a store, which is not open yet.

    @param folder: where the names of files begin.

    @raise StoreUnusable: there is a L{store_problem}.
    """
    problem = store_problem(url)
    if problem is not None:
        raise StoreUnusable(f"the store {problem}")
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return MemoryStore()
    # Nobody waits for the library of another store.
    if scheme == "sqlite":
        from proxyd.control.store.sqlite import SqliteStore

        return SqliteStore(reactor, os.path.join(folder, rest))
    from proxyd.control.store.postgres import PostgresStore

    return PostgresStore(reactor, url)
