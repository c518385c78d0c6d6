"""Starting, reloading, draining and ending, as an operator does it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.wire import Origin, wait_until_refused

TWISTD = "from twisted.scripts.twistd import run; run()"


@pytest.fixture
def rule(own_origin: Origin) -> dict[str, object]:
    """A rule that sends all to the test's own origin server."""
    return {"name": "all", "id": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}


def test_bad_file_stops_the_start(tmp_path: Path) -> None:
    """All that is wrong is said at once, with file and line, and the status is not 0."""
    file = tmp_path / "bad.yaml"
    file.write_text('listen: ["tcp:0"]\nrules:\n  - name: a\n    pattern: "("\n    target: ftp://x\n    nonsense: 1\n')
    ended = subprocess.run(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "proxyd", "--config", file],
        capture_output=True, text=True, cwd=tmp_path, timeout=30,
    )
    assert ended.returncode == 1
    for problem in (f"{file}:4: rules.0.pattern", f"{file}:5: rules.0.target", f"{file}:6: rules.0.nonsense"):
        assert problem in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_in_use_stops_the_start(tmp_path: Path, own_origin: Origin) -> None:
    """A listener that cannot be opened ends the process and is named."""
    file = tmp_path / "taken.yaml"
    file.write_text(f'listen: ["tcp:{own_origin.port}:interface=127.0.0.1"]\n')
    ended = subprocess.run(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "proxyd", "--config", file],
        capture_output=True, text=True, cwd=tmp_path, timeout=30,
    )
    assert ended.returncode != 0
    assert f"cannot listen on tcp:{own_origin.port}" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_no_file() -> None:
    """Without a file there is nothing to run."""
    ended = subprocess.run(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "proxyd"],
        capture_output=True, text=True, timeout=30,
    )
    assert ended.returncode == 1
    assert "--config FILE" in ended.stdout + ended.stderr


def test_reload(start, rule, own_origin: Origin) -> None:
    """New rules hold for the next request; a request under way keeps the ones it began with."""
    proxy = start(rules=[rule])
    with proxy.connect() as client, proxy.connect() as other:
        client.request("GET", "/old")
        server = own_origin.accept()
        server.read_message()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nol")
        client.read_head()
        proxy.reload({"rules": [{**rule, "pattern": "^/(new)", "rewrite": "/really/$1"}]})
        other.request("GET", "/new")
        fresh = own_origin.accept()
        assert fresh.read_message().line == "GET /really/new HTTP/1.1"
        fresh.respond("new")
        assert other.read_message().body == b"new"
        server.send(b"d!")
        assert client.read(4) == b"old!"
        client.request("GET", "/old")
        assert client.read_message().status == 404


def test_bad_reload(start, rule, own_origin: Origin) -> None:
    """A bad file keeps the old rules, and the log says why."""
    proxy = start(rules=[rule])
    proxy.reload({"rules": [{**rule, "pattern": "("}]})
    proxy.output.wait_for(r"not reloaded(.|\n)*proxyd\.yaml:\d+: rules\.0\.pattern")
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("still here")
        assert client.read_message().body == b"still here"


def test_reload_under_load(start, rule, own_origin: Origin) -> None:
    """Not one request is dropped by reloading."""
    proxy = start(rules=[rule])
    own_origin.answer_all()
    statuses: list[int] = []

    def ask() -> None:
        with proxy.connect() as client:
            for _ in range(300):
                client.request("GET", "/")
                statuses.append(client.read_message().status)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for number in range(5):
        proxy.reload({"rules": [{**rule, "name": f"all {number}"}]})
    for thread in asking:
        thread.join()
    assert statuses == [200] * 1200


def test_changed_listeners_need_a_restart(start, rule) -> None:
    """What a reload cannot change is said."""
    proxy = start(rules=[rule])
    proxy.reload({"rules": [rule], "listen": ["tcp:0:interface=127.0.0.1", "tcp:0"]})
    proxy.output.wait_for("changes to listen need a restart")


def test_drain(start, rule, own_origin: Origin) -> None:
    """SIGTERM: no new connections, requests finish, idle connections end, then the process."""
    proxy = start(rules=[rule])
    with proxy.connect() as busy, proxy.connect() as idle:
        idle.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("ok")
        idle.read_message()
        busy.request("GET", "/")
        server.read_message()
        proxy.terminate()
        idle.assert_ended()
        wait_until_refused(proxy.port)
        server.respond("finished")
        response = busy.read_message()
        assert (response.body, response.get("Connection")) == (b"finished", "close")
        busy.assert_ended()
    # twistd ends by the signal that it was sent, which is a good end to systemd.
    assert proxy.process.wait(10) == -signal.SIGTERM


def test_drain_deadline(start, rule, own_origin: Origin) -> None:
    """What has not finished by timeouts.drain is cut off."""
    proxy = start(rules=[rule], timeouts={"drain": 0.3})
    with proxy.connect() as client:
        client.request("GET", "/")
        own_origin.accept().read_message()
        proxy.terminate()
        client.assert_cut()
    assert proxy.process.wait(10) == -signal.SIGTERM
    assert 'failed="proxyd cut the client off"' in proxy.output.join()


def test_second_signal(start, rule, own_origin: Origin) -> None:
    """A second SIGTERM stops at once."""
    proxy = start(rules=[rule])
    with proxy.connect() as client:
        client.request("GET", "/")
        own_origin.accept().read_message()
        proxy.terminate()
        proxy.output.wait_for("draining: 1 connections")
        proxy.terminate()
        client.assert_cut()
    assert proxy.process.wait(10) == -signal.SIGTERM


def test_nothing_is_left_behind(start, rule, own_origin: Origin) -> None:
    """Thousands of requests of every outcome leave no descriptor behind."""
    proxy = start(rules=[rule], timeouts={"response": 0.2})
    before = proxy.descriptors()
    for number in range(600):
        with proxy.connect() as client:
            client.request("GET", "/")
            wire = own_origin.accept()
            wire.read_message()
            if number % 3 == 0:
                client.close()
                wire.assert_cut()
                wire.close()
                continue
            if number % 3 == 1:
                wire.reset()
            else:
                wire.respond("ok", "Connection: close")
                wire.close()
            client.read_message()
    proxy.output.wait_for(r'"GET / HTTP/1.1"', 600)
    with proxy.connect() as client:
        client.request("GET", "/nowhere", "Connection: close", host="a")
        client.read_all()
    assert proxy.descriptors() <= before + 2


def test_combined_log(start, rule, own_origin: Origin) -> None:
    """One line for each request: who, what, how it ended, by which rule, and how long it took."""
    proxy = start(rules=[rule], log={"access": "access.log", "query": False})
    with proxy.connect() as client:
        agent, referer = 'User-Agent: "x\\\x9b', "Referer: http://r.test/?secret=2"
        client.request("GET", "/a?secret=1", agent, referer, "Connection: close")
        server = own_origin.accept()
        server.read_message()
        server.respond("hello")
        client.read_all()
    line = (proxy.folder / "access.log").read_text()
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET /a HTTP/1\.1" 200 5 "http://r\.test/" '
        r'"\\x22x\\x5c\\x9b" rule=all origin=127\.0\.0\.1:\d+ time=\d\.\d{3} origin_time=\d\.\d{3}\n',
        line,
    ), line


def test_json_log(start, rule, own_origin: Origin) -> None:
    """The same for programs."""
    proxy = start(rules=[rule], log={"access": "access.log", "format": "json"})
    with proxy.connect() as client:
        client.request("POST", "/a?b=1", "User-Agent: x", "Connection: close", body=b"four")
        server = own_origin.accept()
        server.read_message()
        server.close()
        client.read_all()
    entry = json.loads((proxy.folder / "access.log").read_text())
    assert entry["client"] == "127.0.0.1"
    assert (entry["method"], entry["target"], entry["version"]) == ("POST", "/a?b=1", "1.1")
    assert entry["host"] == "example.test"
    assert (entry["status"], entry["received"], entry["rule"]) == (502, 4, "all")
    assert entry["failed"].startswith("origin connection_terminated: ")


def test_log_rotation(start, rule) -> None:
    """SIGHUP begins a new file when the old one has been moved away."""
    proxy = start(rules=[rule], log={"access": "access.log"})
    log = proxy.folder / "access.log"

    def ask() -> None:
        with proxy.connect() as client:
            client.request("CONNECT", "a.test:1")
            client.read_all()

    ask()
    log.rename(proxy.folder / "access.log.1")
    proxy.reload({"rules": [rule], "log": {"access": "access.log"}})
    ask()
    assert len((proxy.folder / "access.log.1").read_text().splitlines()) == 1
    assert len(log.read_text().splitlines()) == 1


def test_unset_variable(start, rule, own_origin: Origin) -> None:
    """A variable that is not set is a plain 502; the log names it, the client does not learn it."""
    proxy = start(
        rules=[
            {**rule, "target": "http://${ORIGIN_HOST}", "pattern": "^/a"},
            {**rule, "id": "b", "headers": {"X-B": "${OTHER}"}},
        ],
        environment={"OTHER": "is set"},
    )
    with proxy.connect() as client:
        client.request("GET", "/a")
        response = client.read_message()
        assert response.status == 502
        assert b"ORIGIN_HOST" not in response.body
        proxy.output.wait_for("ORIGIN_HOST is not set")
        client.request("GET", "/b")
        assert own_origin.accept().read_message().get("X-B") == "is set"


def test_slow_pattern(start, rule) -> None:
    """A pattern that would take for ever takes 50 ms, once, and is named in the log."""
    proxy = start(rules=[{**rule, "id": "slow", "pattern": r"^/(.*)*\1x$"}, rule])
    with proxy.connect() as client:
        client.request("GET", "/" + "a" * 8000)
        assert client.read_message().status == 500
    proxy.output.wait_for("the pattern of rule slow took too long")


def test_kept_alive_descriptors(start, rule) -> None:
    """More connections than descriptors allow are not promised."""
    proxy = start(rules=[rule], limits={"connections": 100000000})
    proxy.output.wait_for(r"limits\.connections is lowered from 100000000 to \d+")
    assert proxy.process.poll() is None
    proxy.process.send_signal(signal.SIGINT)
    assert proxy.process.wait(10) == -signal.SIGINT
