"""Under load, whatever an operator does: no request fails, no message is lost, no WebSocket is closed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.admin import TOKENS
from tests.support.certificates import Authority
from tests.support.proxy import Proxy, until

ROOT = Path(__file__).parent.parent.parent


class Counts(NamedTuple):
    """How much of everything."""

    rate: int
    websockets: int
    times: int


REDUCED = Counts(rate=300, websockets=50, times=4)
STATED = Counts(rate=2000, websockets=500, times=20)

COUNTS = pytest.mark.parametrize(
    "counts", [pytest.param(REDUCED, id="reduced"), pytest.param(STATED, id="stated", marks=pytest.mark.soak)]
)


def run(*arguments: str) -> subprocess.Popen[str]:
    """Run one part of the load in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.load", *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )


@pytest.fixture
def echoing() -> Iterator[int]:
    """The port of an origin server that answers requests and messages with the same."""
    with run("origin") as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


class Load:
    """Clients that ask while the test does something."""

    def __init__(self, **plan: Any) -> None:
        self._process = run("clients", json.dumps(plan))

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def end(self) -> dict[str, Any]:
        """End the clients in good order; what they have seen."""
        text, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        seen: dict[str, Any] = json.loads(text)
        return seen


class Setting:
    """A proxy with a certificate, a page of rules, and the load on it."""

    def __init__(self, start: Callable[..., Proxy], folder: Path, port: int, workers: int, drain: float) -> None:
        self.authority = Authority(folder / "ca")
        self.certificate = folder / "current.pem"
        self.renew()
        self.config: dict[str, Any] = {
            "listen": [
                "tcp:0:interface=127.0.0.1",
                {"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(self.certificate)]}},
            ],
            "workers": workers,
            "admin": {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS},
            "store": "memory:",
            "timeouts": {"drain": drain},
            "log": {"access": None},
            "rules": [{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{port}"}],
        }
        self.proxy = start(**self.config)

    def renew(self) -> None:
        """Put another certificate in the place of the present one, as a renewal does."""
        fresh = self.authority.sign("localhost")
        shutil.copy(fresh, self.certificate.with_suffix(".new"))
        os.replace(self.certificate.with_suffix(".new"), self.certificate)

    def load(self, counts: Counts) -> Load:
        """Clients of all kinds."""
        return Load(
            ports=[self.proxy.ports[0]], tls_port=self.proxy.ports[1], ca=str(self.authority.file),
            rate=counts.rate, websockets=counts.websockets,
        )

    def served(self, more: int) -> None:
        """Wait until so many more requests have been served."""
        def served() -> int:
            return int(self.proxy.admin.call("GET", "/api/status").json["totals"]["requests"])

        goal = served() + more
        until(lambda: served() >= goal)

    def disturb(self, counts: Counts) -> None:
        """Reload, change rules, renew the certificate."""
        admin, times = self.proxy.admin, counts.times
        for number in range(times):
            self.config["timeouts"]["body"] = 30 + number
            self.proxy.reload(self.config)
            made = admin.add(pattern=f"^/never/{number}", target="http://127.0.0.1:9")
            self.served(counts.rate // 5)
            assert admin.call("PATCH", f"/api/rules/{made['id']}/toggle").status == 200
            if number == times // 2:
                self.renew()
        text = self.proxy.output.text
        assert text.count("the configuration was reloaded") == times


def check(seen: dict[str, Any], counts: Counts, certificates: int = 2) -> None:
    """Nothing was lost; and there was enough that could have been."""
    assert seen["failed"] == []
    assert seen["wrong"] == []
    assert seen["closed"] == {"1000": counts.websockets}
    assert seen["requests"] > counts.rate
    assert seen["messages"] >= counts.websockets
    assert len(seen["certificates"]) == certificates
    sys.stdout.write(
        f"{seen['requests']} requests on {seen['connections']} connections, {seen['messages']} messages: 0 lost\n"
    )


@COUNTS
@pytest.mark.parametrize("workers", [1, 2])
def test_changes(start: Callable[..., Proxy], echoing: int, tmp_path: Path, counts: Counts, workers: int) -> None:
    """Reloads, changes of rules and the renewal of a certificate."""
    setting = Setting(start, tmp_path, echoing, workers, 0)
    with setting.load(counts) as load:
        setting.served(counts.rate)
        setting.disturb(counts)
        setting.served(counts.rate)
        check(load.end(), counts)


@COUNTS
def test_rolling_restart(start: Callable[..., Proxy], echoing: int, tmp_path: Path, counts: Counts) -> None:
    """Every worker is replaced; with no limit to draining the old ones keep their WebSockets."""
    setting = Setting(start, tmp_path, echoing, 2, 0)
    with setting.load(counts) as load:
        setting.served(2 * counts.rate)
        setting.proxy.process.send_signal(signal.SIGUSR2)
        setting.proxy.output.wait_for("all workers are replaced")
        setting.served(2 * counts.rate)
        states = [one["state"] for one in setting.proxy.admin.call("GET", "/api/status").json["workers"]]
        assert sorted(states) == ["draining", "draining", "serving", "serving"]
        check(load.end(), counts, certificates=1)
    setting.proxy.output.wait_for("worker .* has ended", 2)


@COUNTS
def test_restart_within_a_time(start: Callable[..., Proxy], echoing: int, tmp_path: Path, counts: Counts) -> None:
    """With a limit to draining they are told 1012, one after the other; requests do not notice."""
    setting = Setting(start, tmp_path, echoing, 2, 3)
    with setting.load(counts) as load:
        setting.served(2 * counts.rate)
        setting.proxy.process.send_signal(signal.SIGUSR2)
        setting.proxy.output.wait_for("worker .* has ended", 2)
        seen = load.end()
    assert seen["failed"] == []
    assert seen["wrong"] == []
    assert seen["closed"] == {"1012": counts.websockets}
    moments = sorted(seen["closed_at"])
    # Two thirds of the three seconds, for each worker; never many at once.
    assert moments[-1] - moments[0] > 1.0
    assert max(by_tenths(moments)) <= counts.websockets // 3


def by_tenths(moments: list[float]) -> list[int]:
    """How many came within each tenth of a second."""
    tenths = [int(one * 10) for one in moments]
    return [tenths.count(tenth) for tenth in set(tenths)]
