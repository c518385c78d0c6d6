"""Several processes on the same sockets: they share the load, the rules and the end, and replace one another."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.admin import TOKENS
from tests.support.certificates import Authority, client_context
from tests.support.proxy import PATIENCE_S, Proxy, until
from tests.support.wire import Message, Origin, Wire

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}


def rule(origin: Origin, **more: Any) -> dict[str, Any]:
    """All requests go to an origin server."""
    return {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{origin.port}", **more}


@pytest.fixture
def pair(start: Callable[..., Proxy], own_origin: Origin) -> Proxy:
    """A service of two workers."""
    return start(workers=2, admin=ADMIN, store="memory:", rules=[rule(own_origin)])


def pids(proxy: Proxy) -> set[int]:
    """The processes of all workers."""
    return {one.pid for one in psutil.Process(proxy.process.pid).children()}


def is_ready(pid: int) -> bool:
    """Whether a process has done what it does at its start, and waits."""
    process = psutil.Process(pid)
    return process.cpu_times().user > 0.2 and process.status() == psutil.STATUS_SLEEPING


def states(proxy: Proxy) -> list[str]:
    """What the workers are at."""
    return sorted(one["state"] for one in proxy.admin.call("GET", "/api/status").json["workers"])


def test_connections_are_shared(pair: Proxy, own_origin: Origin) -> None:
    """Of connections that all come in one go, each worker takes its part, and so of their requests."""
    own_origin.answer_all()
    with ExitStack() as stack:
        wires = [stack.enter_context(pair.connect()) for _ in range(60)]
        for wire in wires:
            wire.request("GET", "/")
        for wire in wires:
            assert wire.read_message().status == 200
        workers = pair.admin.call("GET", "/api/status").json["workers"]
        assert sum(one["requests"] for one in workers) == 60
        for one in workers:
            assert 24 <= one["connections"] <= 36, workers
            assert 24 <= one["requests"] <= 36, workers


@pytest.mark.parametrize("kind", ["unix", "tls", "ssl", "haproxy"])
def test_all_kinds_of_listeners(start: Callable[..., Proxy], own_origin: Origin, tmp_path: Path, kind: str) -> None:
    """Workers share UNIX sockets and TLS, by mapping and by string, and listeners for the PROXY protocol."""
    authority = Authority(tmp_path)
    certificate = authority.sign("localhost")
    name = str(tmp_path / "proxyd.sock")
    listen: Any = {
        "unix": f"unix:{name}:mode=600",
        "tls": {"endpoint": "tcp:0:interface=127.0.0.1", "tls": {"certificates": [str(certificate)]}},
        "ssl": f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}",
        "haproxy": "haproxy:tcp:0:interface=127.0.0.1",
    }[kind]
    proxy = start(workers=2, listen=[listen], rules=[rule(own_origin)], trustedProxies=["127.0.0.1"])
    own_origin.answer_all()
    for _ in range(4):
        if kind == "unix":
            wire = Wire(socket.socket(socket.AF_UNIX))
            wire.socket.connect(name)
        else:
            wire = proxy.connect()
        if kind in ("tls", "ssl"):
            wire = wire.over_tls(client_context(authority.file), "localhost")
        elif kind == "haproxy":
            wire.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n")
        with wire:
            wire.request("GET", "/")
            assert wire.read_message().body == b"ok"
    if kind == "haproxy":
        proxy.output.wait_for("(?m)^192.0.2.7 - - ", 4)
    if kind == "unix":
        assert os.stat(name).st_mode & 0o777 == 0o600
        for pid in pids(proxy):
            os.kill(pid, signal.SIGTERM)
        proxy.output.wait_for("worker .* has ended", 2)
        assert os.path.exists(name)


def test_one_admin_api(pair: Proxy, own_origin: Origin) -> None:
    """A change is in force on every worker when it is answered; live connections and metrics are those of all."""
    admin = pair.admin
    made = admin.add(pattern="^/", target="http://127.0.0.1:1")
    assert admin.call("PUT", f"/api/rules/{made['id']}", {"name": "m"}).status == 200
    with ExitStack() as stack:
        wires = [stack.enter_context(pair.connect()) for _ in range(8)]
        for wire in wires:
            wire.request("GET", "/slow")
        connections = [stack.enter_context(own_origin.accept()) for _ in wires]
        live = admin.call("GET", "/api/connections").json
        assert len(live) == 8 == len({one["id"] for one in live})
        assert admin.call("DELETE", f"/api/connections/{live[0]['id']}").json == {"closing": 1}
        assert admin.call("DELETE", f"/api/connections/{live[0]['id']}").status == 404
        until(lambda: len(admin.call("GET", "/api/connections").json) == 7)
        assert admin.call("DELETE", "/api/connections?rule=static-0").json == {"closing": 7}
        for wire in wires:
            wire.assert_cut()
        assert connections
    text = admin.call("GET", "/metrics").octets.decode()
    assert 'proxyd_failures_total{party="operator",stage="connection"} 8.0' in text
    assert 'proxyd_workers{state="serving"} 2.0' in text
    own_origin.answer_all()
    with pair.connect() as wire:
        wire.request("GET", "/")
        assert wire.read_message().status == 200
    assert 'status="2xx"} 1.0' in admin.call("GET", "/metrics").octets.decode()


def test_rules_are_everywhere(start: Callable[..., Proxy]) -> None:
    """The first request after a change is served by it, on whichever worker it comes."""
    proxy = start(workers=2, admin=ADMIN, store="memory:")
    admin = proxy.admin

    def answers() -> Counter[int]:
        with ExitStack() as stack:
            wires = [stack.enter_context(proxy.connect()) for _ in range(8)]
            for wire in wires:
                wire.request("GET", "/", "Connection: close")
            return Counter(wire.read_message().status for wire in wires)

    assert answers() == {404: 8}
    made = admin.add(pattern="^/", target="http://127.0.0.1:1")
    for _ in range(3):
        assert answers() == {502: 8}
        assert admin.call("PATCH", f"/api/rules/{made['id']}/toggle").json["enabled"] is False
        assert answers() == {404: 8}
        assert admin.call("PATCH", f"/api/rules/{made['id']}/toggle").json["enabled"] is True
    assert admin.call("DELETE", f"/api/rules/{made['id']}").status == 200
    assert answers() == {404: 8}


def test_crash(pair: Proxy, own_origin: Origin) -> None:
    """A worker that is killed is replaced, with the rules of the moment; the other one serves; no count goes back."""
    admin = pair.admin
    admin.add(id="late", pattern="^/", target="http://127.0.0.1:1")
    own_origin.answer_all()
    with pair.connect() as wire:
        wire.request("GET", "/")
        wire.read_message()
    assert admin.call("GET", "/api/status").json["totals"]["requests"] == 1
    before = pids(pair)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    pair.output.wait_for(r"was ended by SIGKILL after \d", 2)
    until(lambda: states(pair) == ["serving", "serving"])
    assert not pids(pair) & before
    status = admin.call("GET", "/api/status").json
    assert (status["totals"]["requests"], status["rules"]["dynamic"]) == (1, 1)
    admin.call("PUT", "/api/rules/late", {"enabled": False})
    with pair.connect() as wire:
        wire.request("GET", "/")
        assert wire.read_message().status == 200


def test_changes_while_joining(start: Callable[..., Proxy]) -> None:
    """A worker that joins while rules change and the file is read again has all of it."""
    config = {"workers": 2, "admin": ADMIN, "store": "memory:"}
    proxy = start(**config)
    made = proxy.admin.add(pattern="^/", target="http://127.0.0.1:1")
    before = pids(proxy)
    proxy.process.send_signal(signal.SIGUSR2)
    while not proxy.output.text.count("all workers are replaced"):
        changed = proxy.admin.call("PATCH", f"/api/rules/{made['id']}/toggle").json
        proxy.reload({**config, "timeouts": {"drain": 3}})
    until(lambda: not pids(proxy) & before)
    expected = 502 if changed["enabled"] else 404
    with ExitStack() as stack:
        wires = [stack.enter_context(proxy.connect()) for _ in range(12)]
        for wire in wires:
            wire.request("GET", "/")
        assert Counter(wire.read_message().status for wire in wires) == {expected: 12}


def test_crashes_back_off(pair: Proxy) -> None:
    """One that dies soon is replaced later and later."""
    for _ in range(3):
        (victim, _) = sorted(pids(pair))
        os.kill(victim, signal.SIGKILL)
        until(lambda gone=victim: gone not in pids(pair) and states(pair) == ["serving", "serving"])  # type: ignore[misc]
    delays = [found[1] for found in pair.output.wait_for(r"another worker is started in (\S+) s", 3)]
    assert delays == ["0.5", "1", "2"]


def test_reload(pair: Proxy, own_origin: Origin) -> None:
    """All workers take a changed file, or none does; what only a start reads is said."""
    pair.reload({"workers": 3, "admin": ADMIN, "store": "memory:", "rules": [rule(own_origin, enabled=False)]})
    pair.output.wait_for("changes to workers need a restart")
    for _ in range(4):
        with pair.connect() as wire:
            wire.request("GET", "/")
            assert wire.read_message().status == 404
    pair.reload({"workers": 2, "admin": ADMIN, "store": "memory:", "rules": [{"name": "bad"}]})
    assert "rules.0.pattern (rule 'bad'): is required" in pair.admin.call("GET", "/api/status").json["reloadError"]
    missing = {"basic": {"htpasswd": "missing"}}
    pair.reload({"workers": 2, "admin": ADMIN, "store": "memory:", "auth": missing})
    assert "missing" in pair.admin.call("GET", "/api/status").json["reloadError"]
    with pair.connect() as wire:
        wire.request("GET", "/")
        assert wire.read_message().status == 404


def test_joining_by_what_is_in_force(pair: Proxy, own_origin: Origin) -> None:
    """A worker that joins serves by the configuration in force, whatever the file says meanwhile."""
    own_origin.answer_all()
    pair.config.write_text("this is: [no configuration")
    for pid in pids(pair):
        os.kill(pid, signal.SIGTERM)
    pair.output.wait_for("worker .* has ended", 2)
    until(lambda: states(pair) == ["serving", "serving"])
    with pair.connect() as wire:
        wire.request("GET", "/")
        assert wire.read_message().status == 200


@pytest.mark.parametrize("how", ["signal", "API"])
def test_restart(pair: Proxy, own_origin: Origin, how: str) -> None:
    """Workers are replaced: a request under way is finished by the old one, the next one is a new one's."""
    before = pids(pair)

    def serve(client: Wire) -> Message:
        client.request("GET", "/")
        with own_origin.accept() as server:
            server.read_head()
            server.respond("ok")
            return client.read_message()

    with pair.connect() as wire, pair.connect() as idle:
        assert serve(idle).status == 200
        wire.request("GET", "/")
        with own_origin.accept() as connection:
            connection.read_head()
            if how == "signal":
                pair.process.send_signal(signal.SIGUSR2)
            else:
                assert pair.admin.call("POST", "/api/restart", {}).json == {"restarting": 2}
                assert pair.admin.call("POST", "/api/restart", {}).status == 409
            # Nobody is turned away who may have a request on its way: it is answered, and is the last one.
            while serve(idle).get("Connection") != "close":
                pass
            idle.assert_ended()
            pair.output.wait_for("all workers are replaced")
            connection.respond("ok")
            answer = wire.read_message()
        assert (answer.status, answer.get("Connection")) == (200, "close")
    pair.output.wait_for("worker .* has ended", 2)
    assert len(pids(pair)) == 2 and not pids(pair) & before
    own_origin.answer_all()
    with pair.connect() as wire:
        wire.request("GET", "/")
        assert wire.read_message().status == 200


def test_one_process_has_no_workers(start: Callable[..., Proxy]) -> None:
    """C{workers: 1} is the process itself: no other is started, and there is none to replace."""
    proxy = start(admin=ADMIN, store="memory:", workers=1)
    assert proxy.admin.call("GET", "/api/status").json["workers"] == []
    assert proxy.admin.call("POST", "/api/restart", {}).status == 409
    assert pids(proxy) == set()


def test_end(pair: Proxy, own_origin: Origin) -> None:
    """SIGTERM: requests finish on every worker, then all end; nobody is left behind."""
    children = psutil.Process(pair.process.pid).children()
    with ExitStack() as stack:
        wires = [stack.enter_context(pair.connect()) for _ in range(4)]
        for wire in wires:
            wire.request("GET", "/")
        connections = [stack.enter_context(own_origin.accept()) for _ in wires]
        for connection in connections:
            connection.read_head()
        pair.terminate()
        pair.output.wait_for("draining: . connections? are open", 2)
        for connection in connections:
            connection.respond("ok")
        for wire in wires:
            assert wire.read_message().status == 200
    pair.process.wait(PATIENCE_S)
    assert not any(one.is_running() for one in children)


def test_second_signal(pair: Proxy, own_origin: Origin) -> None:
    """A second SIGTERM cuts off what is still open."""
    with pair.connect() as wire:
        wire.request("GET", "/")
        with own_origin.accept() as connection:
            connection.read_head()
            pair.terminate()
            pair.output.wait_for("draining: 1 connections are open")
            pair.terminate()
            wire.assert_cut()
    pair.process.wait(PATIENCE_S)


def test_parent_is_killed(pair: Proxy) -> None:
    """Workers whose supervising process is gone end, too."""
    children = psutil.Process(pair.process.pid).children()
    assert len(children) == 2
    pair.process.kill()
    gone, alive = psutil.wait_procs(children, PATIENCE_S)
    assert len(gone) == 2 and not alive


def test_stopped_worker_holds_nobody_up(pair: Proxy, own_origin: Origin) -> None:
    """While a worker is stuck, those who come are served by the other one."""
    own_origin.answer_all()
    victim = sorted(pids(pair))[0]
    os.kill(victim, signal.SIGSTOP)
    for _ in range(30):
        with pair.connect() as wire:
            wire.request("GET", "/", "Connection: close")
            assert wire.read_message().status == 200
    os.kill(victim, signal.SIGCONT)


def test_rule_made_while_one_joins(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A rule that is made while a worker joins is that one's, too."""
    pair = start(workers=2, admin=ADMIN, store="memory:", rules=[])
    admin = pair.admin
    victim, stopped = sorted(pids(pair))
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as threads:
        # It waits for the one that is stopped, the worker that joins for it, and the next rule for both.
        first = threads.submit(admin.call, "POST", "/api/rules", {"name": "1", "pattern": "^/1", "target": "http://a"})
        os.kill(victim, signal.SIGKILL)
        until(lambda: any(map(is_ready, pids(pair) - {victim, stopped})))
        document = {"id": "late", "name": "late", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
        second = threads.submit(admin.call, "POST", "/api/rules", document)
        os.kill(stopped, signal.SIGCONT)
        assert first.result().status == second.result().status == 201
    until(lambda: states(pair) == ["serving", "serving"])
    own_origin.answer_all()
    ways: Counter[int] = Counter()
    for _ in range(40):
        with pair.connect() as wire:
            wire.request("GET", "/", "Connection: close")
            ways[wire.read_message().status] += 1
    assert ways == {200: 40}


def test_joining_after_listen_has_changed(pair: Proxy, own_origin: Origin) -> None:
    """A change that needs a restart does not keep workers from being replaced until then."""
    own_origin.answer_all()
    before = pids(pair)
    listen = ["tcp:0:interface=127.0.0.1", "unix:further.sock"]
    pair.reload({"listen": listen, "workers": 3, "admin": ADMIN, "store": "memory:", "rules": [rule(own_origin)]})
    pair.output.wait_for("changes to listen and workers need a restart")
    assert pair.admin.call("POST", "/api/restart", {}).status == 202
    pair.output.wait_for("all workers are replaced")
    pair.output.wait_for("worker .* has ended", 2)
    assert not pids(pair) & before
    with pair.connect() as wire:
        wire.request("GET", "/")
        assert wire.read_message().status == 200


def test_full_workers_accept_nobody(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A worker that is full takes no more connections, by whichever of its listeners it stepped back for others."""
    listen = ["tcp:0:interface=127.0.0.1"] * 2
    limits = {"connections": 20}
    proxy = start(workers=2, listen=listen, limits=limits, admin=ADMIN, store="memory:", rules=[rule(own_origin)])
    with ExitStack() as stack:
        for index in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports[index % 2])))

        def open_now() -> list[int]:
            return [one["connections"] for one in proxy.admin.call("GET", "/api/status").json["workers"]]

        until(lambda: sum(open_now()) >= 20)
        # That was so for a moment in any case.
        for _ in range(50):
            assert open_now() == [10, 10]


def test_silent_names_hold_up_no_others(
    start: Callable[..., Proxy], own_origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker, too, looks each name up for itself: many that nobody answers for stop no other one."""
    (tmp_path / "sitecustomize.py").write_text(_SILENT)
    monkeypatch.syspath_prepend(tmp_path)
    rules = [
        {
            "name": "silent",
            "pattern": "^/silent/([0-9]+)$",
            "target": f"http://silent{number}.test",
            "hosts": [f"h{number}"],
        }
        for number in range(40)
    ]
    rules.append({"name": "found", "pattern": "^/", "target": f"http://found.test:{own_origin.port}"})
    own_origin.answer_all()
    proxy = start(
        workers=2, rules=rules, timeouts={"connect": 5}, environment={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    with ExitStack() as stack:
        for number in range(40):
            wire = stack.enter_context(proxy.connect())
            wire.send(b"GET /silent/1 HTTP/1.1\r\nHost: h%d\r\n\r\n" % number)
        with proxy.connect() as wire:
            wire.request("GET", "/")
            assert wire.read_message().status == 200


_SILENT = """
import socket
import time

_look_up = socket.getaddrinfo

def getaddrinfo(host, *arguments, **more):
    if str(host).startswith("silent"):
        time.sleep(7)
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
    return _look_up("127.0.0.1" if host == "found.test" else host, *arguments, **more)

socket.getaddrinfo = getaddrinfo
"""


def test_second_signal_with_one_that_is_stuck(pair: Proxy) -> None:
    """A worker that does nothing any more does not keep the service from ending."""
    victim = sorted(pids(pair))[0]
    os.kill(victim, signal.SIGSTOP)
    pair.terminate()
    pair.output.wait_for("Received SIGTERM")
    pair.terminate()
    pair.process.wait(PATIENCE_S)
    until(lambda: not psutil.pid_exists(victim))


def test_no_room_for_a_process(pair: Proxy) -> None:
    """When the system has no room for another process, that is tried again, and it keeps nobody from ending."""
    parent = psutil.Process(pair.process.pid)
    before = parent.rlimit(psutil.RLIMIT_NOFILE)
    parent.rlimit(psutil.RLIMIT_NOFILE, (parent.num_fds() - 2, before[1]))
    victim = sorted(pids(pair))[0]
    os.kill(victim, signal.SIGKILL)
    pair.output.wait_for("no worker can be started: ")
    parent.rlimit(psutil.RLIMIT_NOFILE, before)
    until(lambda: victim not in pids(pair) and states(pair) == ["serving", "serving"])
    pair.terminate()
    pair.process.wait(PATIENCE_S)
