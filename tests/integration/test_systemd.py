"""proxyd as systemd runs it: its units, socket activation, notification, and a restart that nobody notices."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.proxies import free_port
from tests.support.proxy import Output
from tests.support.wire import Origin, Wire

UNITS = Path(__file__).parent.parent.parent / "etc" / "systemd"
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "proxyd"]


class Notified:
    """The socket on which systemd is told, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.name = str(folder / "notify")
        self.socket.bind(self.name)
        self.socket.settimeout(20)

    def wait_for(self, line: str) -> str:
        """Wait until a message with this line comes; the whole message."""
        while True:
            message = self.socket.recv(4096).decode()
            if line in message.split("\n"):
                return message


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[Notified]:
    """Where systemd listens."""
    one = Notified(tmp_path)
    yield one
    one.socket.close()


@pytest.fixture
def config(tmp_path: Path, own_origin: Origin) -> Path:
    """A configuration whose socket systemd opens; all goes to the test's own origin server."""
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    file = tmp_path / "proxyd.yaml"
    file.write_text(yaml.safe_dump({"listen": ["systemd:domain=INET:index=0"], "rules": [rule]}))
    return file


@pytest.fixture
def run(config: Path, notified: Notified) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Output]]]:
    """Start proxyd as systemd does, with a socket that is open already."""
    with contextlib.ExitStack() as stack:

        def run(held: socket.socket) -> tuple[subprocess.Popen[bytes], Output]:
            # systemd gives sockets from descriptor 3 on, and says to which process.
            script = f'export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=proxyd.socket; exec "$@" 3<&{held.fileno()}'
            process = subprocess.Popen(
                ["bash", "-c", script, "bash", *TWISTD, "--config", config],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=config.parent,
                pass_fds=[held.fileno()],
                env={**os.environ, "NOTIFY_SOCKET": notified.name, "WATCHDOG_USEC": "400000", "PYTHONUNBUFFERED": "1"},
            )
            output = Output(process)
            stack.callback(_end, process, output)
            return process, output

        yield run


def _end(process: subprocess.Popen[bytes], output: Output) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(20)
    text = output.join()
    assert process.stdout is not None
    process.stdout.close()
    assert "Traceback" not in text, text


def exchange(port: int, origin: Origin) -> None:
    """One request and its answer."""
    with Wire.to(port) as client:
        client.request("GET", "/", "Connection: close")
        with origin.accept() as server:
            server.read_message()
            server.respond("ok")
            assert client.read_message().body == b"ok"


def test_life(
    run: Callable[..., tuple[subprocess.Popen[bytes], Output]], notified: Notified, own_origin: Origin
) -> None:
    """Ready when it serves, watched, reloading on SIGHUP and ready again, stopping on SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        process, _ = run(held)
        assert "STATUS=serving by 1 rules" in notified.wait_for("READY=1")
        exchange(held.getsockname()[1], own_origin)
        notified.wait_for("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        notified.wait_for("RELOADING=1")
        notified.wait_for("READY=1")
        process.send_signal(signal.SIGTERM)
        notified.wait_for("STOPPING=1")
        process.wait(20)


def test_socket_activation(config: Path, notified: Notified, own_origin: Origin) -> None:
    """systemd's own tool: the first connection starts proxyd, and is served by it."""
    port = free_port()
    process = subprocess.Popen(
        ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=proxyd.socket", "-E", "PATH",
         "-E", f"NOTIFY_SOCKET={notified.name}", *TWISTD, "--config", config],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=config.parent,
    )
    output = Output(process)
    try:
        output.wait_for("Listening on")
        exchange(port, own_origin)
        notified.wait_for("READY=1")
    finally:
        _end(process, output)


def test_restart_with_the_socket_held(
    run: Callable[..., tuple[subprocess.Popen[bytes], Output]], notified: Notified, own_origin: Origin
) -> None:
    """While the service is restarted again and again, every connection of many clients is served."""
    own_origin.answer_all()
    served: list[int] = []
    failed: list[str] = []
    over = threading.Event()
    another = threading.Semaphore(0)

    def ask(port: int) -> None:
        while not over.is_set():
            try:
                with Wire.to(port) as client:
                    client.request("GET", "/", "Connection: close")
                    served.append(client.read_message().status)
                    another.release()
            except (OSError, AssertionError) as error:
                failed.append(repr(error))

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as held:
        process, _ = run(held)
        notified.wait_for("READY=1")
        clients = [threading.Thread(target=ask, args=(held.getsockname()[1],)) for _ in range(8)]
        for client in clients:
            client.start()
        for _ in range(5):
            assert all(another.acquire(timeout=20) for _ in range(50))
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            process, _ = run(held)
            notified.wait_for("READY=1")
        over.set()
        for client in clients:
            client.join(20)
    assert not failed
    assert len(served) >= 250 and set(served) == {200}


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, for a machine on which proxyd is installed."""
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    service = folder / "proxyd.service"
    service.write_text(service.read_text().replace("/opt/proxyd/bin/twistd", "/bin/true"))
    return folder


def test_units_are_valid(units: Path) -> None:
    """systemd has nothing to say about them."""
    checked = subprocess.run(
        ["systemd-analyze", "verify", units / "proxyd.service", units / "proxyd.socket"],
        capture_output=True, text=True,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_sandbox(units: Path) -> None:
    """The exposure that systemd works out is 1.5 or less (0 is none, 10 everything)."""
    analysed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", units / "proxyd.service"],
        capture_output=True, text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", analysed.stdout)
    assert found is not None and float(found[1]) <= 1.5, analysed.stdout


def test_without_systemd(config: Path) -> None:
    """A socket that nobody hands over ends the start with one line that says so."""
    ended = subprocess.run([*TWISTD, "--config", config], capture_output=True, text=True, cwd=config.parent, timeout=30)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1 and "systemd has not handed this socket over" in said and "Traceback" not in said
