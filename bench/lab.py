"""Servers on their cores: started, waited for, measured, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
NODE_MODULES = HERE / "peers" / "node_modules"
PROGRAMS = HERE.parent / "build" / "bench"
"""Where C{make bench} compiles the C programs to."""

_CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, LOAD_CORE = _CORES[0], _CORES[-1]

_START_S = 20.0
_END_S = 10.0
_POLL_S = 0.005


class ServerFailed(Exception):
    """A server ended, or did not listen in time; with what it has written."""


@dataclass(frozen=True)
class Lab:
    """
    What all rows are measured with.

    @ivar folder: where everything goes that servers write.
    @ivar rounds: how often each proxy is measured.
    @ivar seconds: how long each time.
    @ivar http_origin: the port of the HTTP origin server; C{ws_origin} that of the WebSocket origin server.
    @ivar certificate: a PEM file with a certificate for 127.0.0.1 and its key, which is its own authority.
    """

    folder: Path
    rounds: int
    seconds: float
    http_origin: int
    ws_origin: int
    certificate: Path


class Server:
    """
    A server process on one core.

    @ivar port: where it listens, on 127.0.0.1.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process
        self._psutil = psutil.Process(process.pid)

    def _tree(self) -> list[psutil.Process]:
        return [self._psutil, *self._psutil.children(recursive=True)]

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        try:
            return sum(figure(process) for process in self._tree())
        except (psutil.Error, OSError) as error:
            raise ServerFailed("it has ended") from error

    def cpu(self) -> float:
        """Seconds of CPU, user and system, that the process and its children have used."""
        # Linux keeps nanoseconds on a clock for each process; the times in /proc are in steps of 10 ms.  The
        # number of that clock is what clock_getcpuclockid(3) makes of a process id.
        return self._sum(lambda process: time.clock_gettime((~process.pid << 3) | 2))

    def rss(self) -> float:
        """Octets of memory that the process and its children hold."""
        return self._sum(lambda process: process.memory_info().rss)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def pinned(core: int, command: list[str]) -> list[str]:
    """The command that runs another one on one core only."""
    return ["taskset", "-c", str(core), *command]


def ended(process: subprocess.Popen[Any], seconds: float = _POLL_S) -> bool:
    """Wait for the end of a process, but not longer than this."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.poll() is not None


@contextlib.contextmanager
def running(command: list[str], port: int, core: int, folder: Path) -> Iterator[Server]:
    """
    Run a server until the end of the block; at its beginning it listens.

    @raise ServerFailed: it ended, or does not listen in time.
    """
    output = folder / f"{Path(command[0]).name}-{port}.out"
    with output.open("wb") as out:
        process = subprocess.Popen(
            pinned(core, command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=folder
        )
    try:
        _wait_for(port, process, output)
        yield Server(process, port)
    finally:
        process.terminate()
        if not ended(process, _END_S):
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and not ended(process):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
    raise ServerFailed(output.read_text(errors="replace"))
