"""
Descriptors run out, and the disk is full: what can be done is done, once it is said, and then all goes on.

Limits of the process are lowered while it runs, and raised again: no other process takes notice.
"""

from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Iterator

import psutil
import pytest
import yaml

from tests.support.admin import TOKENS
from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire


@contextlib.contextmanager
def limited(proxy: Proxy, what: int, limit: int) -> Iterator[None]:
    """For as long as this lasts the process has so much of something."""
    pid = proxy.process.pid
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def answered(client: Wire, origin: Wire) -> None:
    """The request that the client has sent is served by this connection."""
    origin.read_message()
    origin.respond("ok")
    assert client.read_message().body == b"ok"


def served(client: Wire, origin: Wire) -> None:
    """One exchange, by this connection."""
    client.request("GET", "/")
    answered(client, origin)


# Descriptors

SPARE = 10
"""Descriptors that the process may still open."""

WAIT_S = 1
"""Seconds that a request of the test takes, in which nothing else is to be done."""


@pytest.fixture
def narrow(start, own_origin: Origin) -> Iterator[Proxy]:
    """A proxy in front of an origin server."""
    rule = {"name": "all", "id": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    yield start(rules=[rule], timeouts={"response": WAIT_S}, log={"access": None})


def test_clients_use_up_all_descriptors(narrow: Proxy, own_origin: Origin) -> None:
    """Who comes then waits, which costs nothing, and is served as soon as others have gone; nobody is turned away."""
    with contextlib.ExitStack() as stack:
        ordinary = stack.enter_context(narrow.connect())
        ordinary.request("GET", "/")
        origin = own_origin.accept()
        answered(ordinary, origin)
        with limited(narrow, resource.RLIMIT_NOFILE, narrow.descriptors() + SPARE):
            clients = [stack.enter_context(narrow.connect()) for _ in range(3 * SPARE)]
            narrow.output.wait_for("accepts nobody until there is room")
            process = psutil.Process(narrow.process.pid)
            before = process.cpu_times()
            # Who has a connection is served; and while it is waited for an origin server there is nothing to do.
            served(ordinary, origin)
            ordinary.request("GET", "/silent")
            assert ordinary.read_message().status == 504
            after = process.cpu_times()
            assert after.user + after.system - before.user - before.system < WAIT_S / 4
            for client in clients[: 2 * SPARE]:
                client.close()
            for client in clients[2 * SPARE :]:
                client.request("OPTIONS", "*")
                assert client.read_message().status == 204
            narrow.output.wait_for("accepts connections again")
        ordinary.request("GET", "/")
        answered(ordinary, own_origin.accept())
    text = narrow.output.text
    assert text.count("IPv4Address(type='TCP', host='127.0.0.1'") == 3, text
    assert text.count("accepts nobody until there is room: Too many open files (ulimit -n)") == 1
    assert text.count("EMFILE") == 0


def test_no_descriptor_for_the_origin(narrow: Proxy, own_origin: Origin) -> None:
    """A request that needs a new connection is 503; one for which there is one is served."""
    with narrow.connect() as one, narrow.connect() as other:
        one.request("GET", "/")
        origin = own_origin.accept()
        other.request("OPTIONS", "*")
        assert other.read_message().status == 204
        with limited(narrow, resource.RLIMIT_NOFILE, narrow.descriptors()):
            other.request("GET", "/")
            answer = other.read_message()
            assert (answer.status, answer.get("Proxy-Status")) == (503, "proxyd; error=connection_limit_reached")
            answered(one, origin)
            # The one connection that there is serves both.
            served(other, origin)
            one.request("GET", "/")
            origin.read_message()
        other.request("GET", "/")
        answered(other, own_origin.accept())
    narrow.output.wait_for(
        rf" rule all, 127\.0\.0\.1:{own_origin.port}: proxyd connection_limit_reached: no connection is possible: "
        r"Too many open files \(ulimit -n\) \(0\.\d+ s after the request\)"
    )
    assert narrow.output.text.count(" rule all, ") == 1


# The disk


ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}


@pytest.mark.parametrize("is_reopened", [False, True], ids=["", "reopened meanwhile"])
def test_full_disk_under_the_access_log(start, own_origin: Origin, is_reopened: bool) -> None:
    """Requests are served all the same; lines are lost, which is said once; then they are written again, and whole."""
    own_origin.answer_all()
    target = f"http://127.0.0.1:{own_origin.port}"
    proxy = start(rules=[{"name": "all", "pattern": "^/", "target": target}], log={"access": "access.log"})
    file = proxy.folder / "access.log"
    with proxy.connect() as client:

        def ask(path: str) -> None:
            client.request("GET", path)
            assert client.read_message().body == b"ok"

        def ask_and_see(path: str) -> None:
            """Its line is written when another request has been served."""
            ask(path)
            ask("/behind")

        for times in range(1, 3):
            ask_and_see(f"/before/{times}")
            with limited(proxy, resource.RLIMIT_FSIZE, file.stat().st_size):
                for number in range(200):
                    ask(f"/meanwhile/{number}")
                if is_reopened:
                    proxy.reload(yaml.safe_load(proxy.config.read_text()))
                    ask("/reopened")
            ask_and_see(f"/after/{times}")
            said = r"the access log \S+/access\.log cannot be written: \[Errno 27\] File too large"
            proxy.output.wait_for(said, times)
            # A file that is opened again is found full again.
            assert proxy.output.text.count("cannot be written") == times
    lines = file.read_text().splitlines()
    assert [line for line in lines if not WHOLE.fullmatch(line)] == []
    for wanted in ("/before/1", "/after/1", "/before/2", "/after/2"):
        assert sum(f"GET {wanted} " in line for line in lines) == 1


WHOLE = re.compile(r'127\.0\.0\.1 - - \[[^]]+\] "GET /\S+ HTTP/1\.1" 200 2 .* time=\d\.\d{3} origin_time=\d\.\d{3}')
"""A line of the access log."""


def test_full_disk_under_the_store(start) -> None:
    """What is there stays in force; changes are 503, and the log says why, once; with room again they are kept."""
    proxy = start(admin={"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}, store="sqlite:rules.db")
    admin = proxy.admin
    kept = admin.add(pattern="^/kept", target="http://127.0.0.1:1")
    new = {"name": "new", "pattern": "^/new", "target": "http://127.0.0.1:1"}
    calls = [
        ("POST", "/api/rules", new),
        ("PUT", f"/api/rules/{kept['id']}", {"pattern": "^/changed"}),
        ("DELETE", f"/api/rules/{kept['id']}", None),
    ]
    with limited(proxy, resource.RLIMIT_FSIZE, 1), proxy.connect() as client:
        for method, path, body in calls * 10:
            refused = admin.call(method, path, body)
            assert refused.status == 503
            assert re.fullmatch(r"The store of rules is away, .*: \S+/rules\.db: disk I/O error", refused.error)
            assert admin.call("GET", "/api/rules").json == [kept]
            client.request("GET", "/kept")
            assert client.read_message().status == 502
    proxy.output.wait_for("the store of rules .* is back")
    assert admin.call("GET", "/api/rules").json == [kept]
    assert admin.call("POST", "/api/rules", new).status == 201
    assert [change["action"] for change in admin.call("GET", "/api/history").json] == ["create", "create"]
    assert len(re.findall("the store of rules is away: .*disk I/O error", proxy.output.text)) == 1
    assert proxy.output.text.count("is back") == 1
