"""What puts servers under load, from the other core: wrk, curl and the WebSocket client of c/."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lab import HERE, LOAD_CORE, PROGRAMS, ended, pinned

_PATIENCE_S = 120.0
"""How much longer than asked for a load may take."""


class LoadFailed(Exception):
    """A load has done nothing; with what it has written."""


@dataclass(frozen=True)
class Done:
    """
    What a load has done.

    @ivar units: of work: requests, messages, connections or megabytes.
    @ivar errors: how many more failed.
    @ivar median_us: the median latency in microseconds, where that is known.
    """

    units: float
    errors: int = 0
    median_us: float = 0.0


def _run(command: Sequence[str], seconds: float = 0.0) -> subprocess.CompletedProcess[str]:
    """
    Run a load to its end.

    @raise LoadFailed: it does not end.
    """
    try:
        return subprocess.run(
            pinned(LOAD_CORE, list(command)), capture_output=True, text=True, timeout=seconds + _PATIENCE_S
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(str(error)) from error


def _parsed(shown: str, complaints: str = "") -> dict[str, Any]:
    """The JSON on the last line of what a load has written."""
    try:
        answer: dict[str, Any] = json.loads(shown.splitlines()[-1])
    except (IndexError, ValueError):
        raise LoadFailed(f"{shown}{complaints}") from None
    return answer


def _answer(command: Sequence[str], seconds: float) -> dict[str, Any]:
    """Run a load; what it says at its end."""
    shown = _run(command, seconds)
    return _parsed(shown.stdout, shown.stderr)


def wrk(url: str, seconds: float, connections: int, fields: Sequence[str] = (), varied: bool = False) -> Done:
    """
    Requests as fast as answers come, one at a time on each connection.

    @param varied: each has a query of its own; else all are the same.
    """
    answer = _wrk(url, seconds, connections, fields, ("--", "varied") if varied else ())
    return Done(answer["requests"], answer["errors"], answer["median_us"])


def wrk_megabytes(url: str, seconds: float, connections: int) -> Done:
    """As L{wrk}, but counted in megabytes of answers."""
    answer = _wrk(url, seconds, connections)
    return Done(answer["octets"] / 1e6, answer["errors"])


def _wrk(
    url: str, seconds: float, connections: int, fields: Sequence[str] = (), arguments: Sequence[str] = ()
) -> dict[str, Any]:
    headers = [part for line in fields for part in ("-H", line)]
    # wrk knows whole seconds only.
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    answer = _answer(["wrk", *options, *headers, "-s", str(HERE / "peers" / "wrk.lua"), url, *arguments], seconds)
    if not answer["requests"]:
        raise LoadFailed(f"{url}: no answers, {answer['errors']} errors")
    return answer


def _client(port: int, mode: str, size: int, connections: int, seconds: float, count: int) -> list[str]:
    numbers = (size, connections, seconds, count)
    return [str(PROGRAMS / "client"), str(port), mode, *(str(number) for number in numbers)]


def websocket(port: int, mode: str, size: int, connections: int, seconds: float, count: int = 0) -> Done:
    """
    Messages, or connections in the mode C{open}; all that come back are checked.

    @param mode: one of those that c/client.c explains.
    @param count: how many connections to open; 0 is as many as there is time for.
    """
    answer = _answer(_client(port, mode, size, connections, seconds, count), seconds)
    failed = answer["errors"] + answer["bad"]
    if not answer["messages"]:
        raise LoadFailed(f"{mode}: nothing arrived, {failed} errors")
    return Done(answer["messages"], failed)


@contextlib.contextmanager
def held(port: int, connections: int) -> Iterator[int]:
    """
    Hold WebSockets open, each of which has had one message, until the end of the block.

    @return: how many could not be opened.
    """
    command = pinned(LOAD_CORE, _client(port, "idle", 64, connections, 1, 0))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield connections - int(_parsed(process.stdout.readline())["messages"])
        process.stdin.close()


class Flood:
    """
    Messages to who does not read, for some seconds.

    @param mode: C{slow} or C{stall}: it is the client that does not read, or the origin server.
    """

    def __init__(self, port: int, mode: str, connections: int, seconds: float) -> None:
        command = pinned(LOAD_CORE, _client(port, mode, 65536, connections, seconds, 0))
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def ended(self) -> bool:
        """Whether it has ended, or does so within a twentieth of a second."""
        return ended(self._process, 0.05)

    def errors(self) -> int:
        """How many connections failed, at its end."""
        shown, _ = self._process.communicate()
        return int(_parsed(shown)["errors"])


def curl(url: str, upload: Path | None = None) -> Done:
    """
    Fetch a URL once, or send a file there; counted in megabytes.

    @raise LoadFailed: the answer was an error, or broke off.
    """
    command = ["curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download} %{size_upload}"]
    if upload:
        command += ["-T", str(upload), "-H", "Expect:"]
    shown = _run([*command, url])
    if shown.returncode:
        raise LoadFailed(shown.stderr)
    return Done(sum(int(size) for size in shown.stdout.split()) / 1e6)
