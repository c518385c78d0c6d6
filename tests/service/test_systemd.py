"""What systemd is told, and when."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from proxyd.service.systemd import Supervisor


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.settimeout(5)
        yield one


def told(listener: socket.socket) -> list[str]:
    """The next message, line by line."""
    return listener.recv(4096).decode().split("\n")


def is_silent(listener: socket.socket) -> bool:
    """Whether nothing more was said."""
    listener.setblocking(False)
    try:
        listener.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_life(listener: socket.socket) -> None:
    """Ready, reloading with the time that Type=notify-reload asks for, ready again, stopping."""
    one = Supervisor(Clock(), {"NOTIFY_SOCKET": listener.getsockname()})
    one.ready("serving by 2 rules")
    assert told(listener) == ["READY=1", "STATUS=serving by 2 rules"]
    one.reloading()
    first, at, status = told(listener)
    assert first == "RELOADING=1" and status == "STATUS=reloading" and int(at.removeprefix("MONOTONIC_USEC=")) > 0
    one.ready("serving")
    assert told(listener)[0] == "READY=1"
    one.stopping("draining 3 connections")
    assert told(listener) == ["STOPPING=1", "STATUS=draining 3 connections"]


def test_watchdog(listener: socket.socket) -> None:
    """The reactor shows that it turns twice in the time that systemd waits, from the start to the end."""
    clock = Clock()
    environment = {
        "NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()),
    }
    one = Supervisor(clock, environment)
    one.ready("")
    assert told(listener)[0] == "READY=1" and told(listener) == ["WATCHDOG=1"]
    clock.advance(1.5)
    assert told(listener) == ["WATCHDOG=1"]
    one.ready("")
    assert told(listener)[0] == "READY=1"
    clock.advance(1.5)
    assert told(listener) == ["WATCHDOG=1"]
    one.stopped()
    assert not clock.getDelayedCalls() and is_silent(listener)


def test_for_another_process(listener: socket.socket) -> None:
    """The watchdog of another process is none of ours."""
    clock = Clock()
    name = listener.getsockname()
    Supervisor(clock, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).ready("")
    assert told(listener)[0] == "READY=1" and is_silent(listener) and not clock.getDelayedCalls()


def test_abstract_socket() -> None:
    """A name that begins with @ is in no file system."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0proxyd-test-{os.getpid()}")
        listener.settimeout(5)
        Supervisor(Clock(), {"NOTIFY_SOCKET": f"@proxyd-test-{os.getpid()}"}).ready("")
        assert told(listener)[0] == "READY=1"


def test_nobody_listens(tmp_path: Path) -> None:
    """Without systemd nothing is said, and one that has gone stops nothing."""
    clock = Clock()
    Supervisor(clock, {"WATCHDOG_USEC": "3000000"}).ready("")
    assert not clock.getDelayedCalls()
    Supervisor(clock, {"NOTIFY_SOCKET": str(tmp_path / "none")}).ready("")
