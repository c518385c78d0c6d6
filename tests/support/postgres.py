"""A real PostgreSQL, started by the tests on loopback from Debian's package."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import quote

import psycopg

from tests.support.proxies import free_port

USER, PASSWORD = "proxyd", "p@ss:w/r%d 5ecret"
"""Credentials that have to be percent-encoded in a URL."""

_PATIENCE_S = 60


def _programs() -> Path:
    """The newest version's."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))


def _owner() -> pwd.struct_passwd:
    """Who the server runs as: it refuses to be root."""
    return pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())


class Postgres:
    """
    A server that starts, ends and crashes when it is told to.

    @ivar port: where it listens on 127.0.0.1; there is a Unix socket in C{folder}, too.
    """

    def __init__(self) -> None:
        self._owner = _owner()
        self.folder = Path(mkdtemp(prefix="pg"))
        os.chown(self.folder, self._owner.pw_uid, self._owner.pw_gid)
        self.port = free_port()
        self._names = itertools.count()
        password = self.folder / "password"
        password.write_text(PASSWORD)
        os.chown(password, self._owner.pw_uid, self._owner.pw_gid)
        self._run(
            *("initdb", "--pgdata", str(self._cluster), "--username", USER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )

    @property
    def _cluster(self) -> Path:
        return self.folder / "cluster"

    def start(self) -> None:
        """Start it, if it does not run; at the end it answers."""
        if self.is_running:
            return
        options = (
            f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off -c shared_buffers=16MB -c max_connections=60"
        )
        self._run("pg_ctl", "start", "-w", "-D", str(self._cluster), "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """End it; clients are told."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._cluster))

    def crash(self) -> None:
        """End it as a crash would, without a word and without writing anything down."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._cluster))

    def remove(self) -> None:
        """End it for good."""
        if self.is_running:
            self.crash()
        shutil.rmtree(self.folder)

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and not ended since."""
        return (self._cluster / "postmaster.pid").exists()

    def database(self) -> str:
        """
        Make an empty database.

        @return: its URL.
        """
        name = f"test{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, values: tuple[Any, ...] = (), url: str | None = None) -> list[tuple[Any, ...]]:
        """
        Make a statement, in whatever database.

        @return: its rows.
        """
        place: Mapping[str, Any] = {"conninfo": url} if url is not None else {
            "host": str(self.folder), "port": self.port, "user": USER, "password": PASSWORD, "dbname": "postgres"
        }
        with psycopg.connect(**place, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def sessions(self, url: str) -> list[int]:
        """
        @return: the processes that serve proxyd in a database.
        """
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'proxyd' AND datname = %s"
        return [pid for (pid,) in self.execute(query, (url.rpartition("/")[2],))]

    def _run(self, program: str, *arguments: str) -> None:
        options: dict[str, Any] = {}
        if os.getuid() == 0:
            options = {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        with (self.folder / "output").open("ab") as output:
            done = subprocess.run(
                [_programs() / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, timeout=_PATIENCE_S, **options,
            )
        assert done.returncode == 0, (self.folder / "output").read_text()
