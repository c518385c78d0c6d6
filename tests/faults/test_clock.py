"""
The wall clock is set, by a day and by a year, to later and back: what is measured goes on as if nothing had happened,
and what is written says the new time.

libfaketime says what time it is to the process under test alone, and reads from a file how far it is off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.support.admin import TOKENS
from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire

DAYS = [pytest.param(1, id="a day later"), pytest.param(-1, id="a day back"), pytest.param(365, id="a year later")]


def library() -> str:
    """Where Debian keeps libfaketime: by architecture."""
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")))


class Jumping:
    """A proxy whose wall clock can be set."""

    def __init__(self, start: Callable[..., Proxy], file: Path, **config: object) -> None:
        self._file = file
        self.set(0)
        self.proxy = start(
            environment={
                "LD_PRELOAD": library(),
                "FAKETIME_TIMESTAMP_FILE": str(file),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            },
            **config,
        )

    def set(self, days: int) -> None:
        """From now on it is so many days later than it is."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{days:+d}d")
        fresh.replace(self._file)
        self.now = datetime.now(UTC) + timedelta(days=days)

    def is_now(self, said: datetime) -> None:
        """What was said is the time that the process was told."""
        assert abs(said - self.now) < timedelta(minutes=1)


@pytest.fixture
def jumping(start, tmp_path: Path, own_origin: Origin, request: pytest.FixtureRequest) -> Jumping:
    """With these keys of the configuration."""
    rule = {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    return Jumping(start, tmp_path / "offset", rules=[rule], **getattr(request, "param", {}))


def ask(client: Wire, server: Wire) -> None:
    """One exchange."""
    client.request("GET", "/")
    server.read_message()
    server.respond("ok")
    assert client.read_message().body == b"ok"


def moment_passes(proxy: Proxy, port: int) -> None:
    """Something that takes 0.3 s of the reactor's time: whatever was due has been done before."""
    with Wire.to(port) as silent:
        silent.send("G")
        assert silent.read_head().status == 408


@pytest.mark.parametrize("jumping", [{"timeouts": {"header": 0.3}}], indirect=True)
@pytest.mark.parametrize("days", DAYS)
def test_nothing_fires_early_or_never(jumping: Jumping, own_origin: Origin, days: int) -> None:
    """Requests under way, connections that are kept on both sides, and time-outs take no notice."""
    proxy = jumping.proxy
    with proxy.connect() as client, proxy.connect() as other:
        client.request("GET", "/")
        waiting = own_origin.accept()
        waiting.read_message()
        other.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("ok")
        assert other.read_message().body == b"ok"
        jumping.set(days)
        # Still within its time, by the clock that counts; and the time-out of another does come.
        moment_passes(proxy, proxy.port)
        jumping.set(0)
        moment_passes(proxy, proxy.port)
        waiting.respond("late")
        assert client.read_message().body == b"late"
        # Neither connection was given up: the one used last serves again.
        ask(other, waiting)


@pytest.mark.parametrize("jumping", [{"timeouts": {"response": 0.3}}], indirect=True)
@pytest.mark.parametrize("days", DAYS)
def test_time_out_under_way(jumping: Jumping, own_origin: Origin, days: int) -> None:
    """A time-out that runs while the clock is set fires in its own time."""
    with jumping.proxy.connect() as client:
        client.request("GET", "/")
        own_origin.accept().read_message()
        jumping.set(days)
        assert client.read_message().status == 504
    (line,) = jumping.proxy.output.wait_for(r"time=(\d+\.\d+) origin_time=- failed=\"origin http_response_timeout")
    assert 0.2 < float(line[1]) < 5


@pytest.mark.parametrize("days", DAYS)
def test_dates(jumping: Jumping, own_origin: Origin, days: int) -> None:
    """What is written says the time that it is now, and a request takes as long as it takes."""
    own_origin.close()
    with jumping.proxy.connect() as client:
        for number, offset in enumerate((0, days, 0)):
            jumping.set(offset)
            client.request("GET", f"/{number}")
            answer = client.read_message()
            assert answer.status == 502
            jumping.is_now(parsedate_to_datetime(answer.get("Date") or ""))
            (line, *_) = jumping.proxy.output.wait_for(rf'\[([^]]+)\] "GET /{number} .* time=(\d+\.\d+) ')
            assert float(line[2]) < 5
    stamps = re.findall(r'\[([^]]+)\] "GET /', jumping.proxy.output.text)
    first, jumped, last = (datetime.strptime(stamp, "%d/%b/%Y:%H:%M:%S %z") for stamp in stamps)
    assert timedelta(days=days) - timedelta(minutes=1) < jumped - first < timedelta(days=days) + timedelta(minutes=1)
    jumping.is_now(last)


@pytest.mark.parametrize("jumping", [{"limits": {"rate": "2/h"}}], indirect=True)
@pytest.mark.parametrize("days", DAYS)
def test_rates(jumping: Jumping, own_origin: Origin, days: int) -> None:
    """Who has used up an hour's requests gets no new ones from the clock, and none is taken away."""
    own_origin.answer_all()
    with jumping.proxy.connect() as client:

        def status() -> int:
            client.request("GET", "/")
            return client.read_message().status

        assert status() == 200
        jumping.set(days)
        assert status() == 200
        client.request("GET", "/")
        refused = client.read_message()
        assert refused.status == 429
        assert 1 <= int(refused.get("Retry-After") or 0) <= 1800


ADMIN = {"admin": {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}, "store": "memory:"}


@pytest.mark.parametrize("jumping", [ADMIN], indirect=True)
@pytest.mark.parametrize("days", DAYS)
def test_admin(jumping: Jumping, days: int) -> None:
    """Uptime goes on, a change has the date of its day, and who has tried too many tokens waits as long as before."""
    admin = jumping.proxy.admin
    before = admin.call("GET", "/api/status").json["uptime"]
    stranger = admin.with_token("wrong-token-0123456789")
    assert stranger.call("GET", "/api/status").status == 401
    jumping.set(days)
    assert before <= admin.call("GET", "/api/status").json["uptime"] < before + 60
    admin.add(pattern="^/new", target="http://127.0.0.1:1")
    (change,) = admin.call("GET", "/api/history").json
    jumping.is_now(datetime.fromisoformat(change["at"]))
    while (refused := stranger.call("GET", "/api/status")).status == 401:
        pass
    assert refused.status == 429
    assert 1 <= int(refused.fields["Retry-After"]) <= 61
