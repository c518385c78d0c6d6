"""A proxyd started by twistd, as users start it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.admin import Admin
from tests.support.wire import Wire

_LISTENS = re.compile(r"proxyd listens on \S*Address\(.*?port=(\d+)|proxyd listens on UNIXAddress\(")

_ADMIN_LISTENS = re.compile(r"admin API listens on (?:\S*Address\(.*?port=(\d+)|UNIXAddress\()")

PATIENCE_S = 20.0
"""Seconds within which what a test waits for must have come."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    asking = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        if condition():
            return
        asking.wait(0.05)
    raise AssertionError("it never came true")


class Output:
    """What a process prints, line by line, for tests that wait for a line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.text = ""
        self._process = process
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self.text += line.decode("utf-8", "replace")
                self._changed.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """
        Wait until a pattern was printed so many times.

        @return: its matches.
        """
        searched = re.compile(pattern)
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while len(found := list(searched.finditer(self.text))) < count:
                left = deadline - time.monotonic()
                if left <= 0 or (self._process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"{pattern!r} was not printed {count} times:\n{self.text}")
                self._changed.wait(min(left, 0.5))
            return found

    def join(self) -> str:
        """
        Wait for the process's end, and for that of all who could print in its place.

        @return: all that it printed.
        """
        self._reader.join(PATIENCE_S)
        # Closing what somebody still reads from would wait for ever.
        assert not self._reader.is_alive(), f"a process that it started is still there:\n{self.text}"
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self.text


class Proxy:
    """
    One twistd process that runs proxyd.

    @ivar ports: what it listens on, in the order of its configuration.
    @ivar admin_ports: what its admin API listens on, likewise.
    @ivar folder: where its configuration is.
    @ivar output: what it prints: twistd's log, and the access log unless the configuration says otherwise.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        reactor: str | None = None,
        environment: Mapping[str, str] | None = None,
        unset: Container[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "proxyd.yaml"
        whole = self.write(config)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="),
                *(() if reactor is None else (f"--reactor={reactor}",)),
                *("proxyd", "--config", str(self.config)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if name not in unset},
                "PYTHONUNBUFFERED": "1",
                **(environment or {}),
            },
        )
        self.output = Output(self.process)
        self.ports = [int(found[1] or 0) for found in self.output.wait_for(_LISTENS.pattern, len(whole["listen"]))]
        admin = len(whole.get("admin", {}).get("listen", []))
        self.admin_ports = [int(found[1] or 0) for found in self.output.wait_for(_ADMIN_LISTENS.pattern, admin)]

    def write(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """
        Write the configuration.

        @return: the same, with what every test has.
        """
        whole = {"listen": ["tcp:0:interface=127.0.0.1"], **config}
        self.config.write_text(yaml.safe_dump(whole, allow_unicode=True))
        return whole

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    @property
    def admin(self) -> Admin:
        """A caller of the admin API that may write."""
        return Admin(self.admin_ports[0])

    def url(self, path: str = "/") -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self) -> Wire:
        """A client's connection."""
        return Wire.to(self.port)

    def reload(self, config: Mapping[str, Any]) -> None:
        """Write another configuration and have it loaded."""
        before = len(re.findall(r"configuration was (?:not )?reloaded", self.output.text))
        self.write(config)
        self.process.send_signal(signal.SIGHUP)
        self.output.wait_for(r"configuration was (?:not )?reloaded", before + 1)

    def descriptors(self) -> int:
        """How many descriptors are open."""
        return int(psutil.Process(self.process.pid).num_fds())

    def memory(self) -> int:
        """Octets of memory in use."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def terminate(self) -> None:
        """Ask it to end, as systemd does."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> str:
        """
        End it and all that it has started, at once.

        @return: all that it printed.
        """
        if self.process.poll() is None:
            # One that is stopped would not notice that it is alone.
            started = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for one in started:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait(PATIENCE_S)
        return self.output.join()
