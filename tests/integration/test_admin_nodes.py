"""Several proxies with one store: PostgreSQL for many machines, one SQLite file for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.support.admin import TOKENS
from tests.support.postgres import PASSWORD, Postgres
from tests.support.proxy import PATIENCE_S, Proxy
from tests.support.wire import Origin

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}


def status(proxy: Proxy, path: str) -> int:
    """The status of a request that nobody answers but proxyd."""
    with proxy.connect() as client:
        client.request("GET", path)
        return client.read_message().status


def until(condition: Callable[[], bool], what: str) -> None:
    """Ask again and again until something is so that another process does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"


def ready(proxy: Proxy) -> tuple[int, str]:
    """What C{/readyz} says: the status, and of the store."""
    reply = proxy.admin.call("GET", "/readyz")
    return reply.status, reply.json["store"]


@pytest.fixture(params=["postgresql", "sqlite"])
def nodes(
    request: pytest.FixtureRequest, start: Callable[..., Proxy], postgres: Postgres
) -> tuple[Proxy, Proxy]:
    """Two proxies with one store."""
    if request.param == "postgresql":
        store = postgres.database()
        return start(admin=ADMIN, store=store), start(admin=ADMIN, store=store)
    first = start(admin=ADMIN, store="sqlite:shared.db")
    return first, start(admin=ADMIN, store=f"sqlite:{first.folder}/shared.db")


def test_every_node_has_every_change(nodes: tuple[Proxy, Proxy]) -> None:
    """What one node is told is in force on the other."""
    one, other = nodes
    one.admin.add(id="made", pattern="^/made", target="http://127.0.0.1:1")
    assert status(one, "/made") == 502
    until(lambda: status(other, "/made") == 502, "the rule on the other node")
    assert other.admin.call("PUT", "/api/rules/made", {"pattern": "^/changed"}).status == 200
    until(lambda: status(one, "/changed") == 502, "the change on the first node")
    assert status(one, "/made") == 404
    assert one.admin.call("DELETE", "/api/rules/made").status == 200
    until(lambda: status(other, "/changed") == 404, "the end of the rule on the other node")
    until(lambda: other.admin.call("GET", "/api/history").json == one.admin.call("GET", "/api/history").json, "history")


def test_no_update_is_lost_between_nodes(nodes: tuple[Proxy, Proxy]) -> None:
    """Who changes the same rule on two nodes at the same time: each addition is there in the end."""
    nodes[0].admin.add(id="count", pattern="^/x", target="http://127.0.0.1:1", headers={"N": "0"})
    until(lambda: "count" in nodes[1].admin.ids(), "the rule on the other node")
    refused = []

    def add_one(node: Proxy) -> None:
        while True:
            seen = node.admin.call("GET", "/api/rules/count")
            number = int(seen.json["headers"]["N"]) + 1
            change = {"headers": {"N": str(number)}}
            reply = node.admin.call("PUT", "/api/rules/count", change, If_Match=seen.fields["etag"])
            if reply.status == 200:
                return
            assert reply.status == 412, reply
            refused.append(number)

    threads = [threading.Thread(target=add_one, args=(node,)) for node in nodes for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for node in nodes:
        until(lambda node=node: node.admin.call("GET", "/api/rules/count").json["headers"]["N"] == "16", "16 additions")
    assert refused


def test_the_database_goes_and_comes(start: Callable[..., Proxy], postgres: Postgres, own_origin: Origin) -> None:
    """While it is away the last rules serve, writes are a 503, and everybody is told; back, all goes on."""
    store = postgres.database()
    one, other = start(admin=ADMIN, store=store), start(admin=ADMIN, store=store)
    one.admin.add(id="kept", pattern="^/kept", target=f"http://127.0.0.1:{own_origin.port}")
    until(lambda: "kept" in other.admin.ids(), "the rule on the other node")
    assert ready(one) == (200, "ok")
    postgres.crash()
    for node in (one, other):
        until(lambda node=node: ready(node)[0] == 503, "not ready")
        assert ready(node)[1] != "ok"
        node.output.wait_for("the store of rules in PostgreSQL is away")
        assert node.admin.ids() == ["kept"]
        with node.connect() as client:
            client.request("GET", "/kept")
            with own_origin.accept() as server:
                server.read_message()
                server.respond("served")
                assert client.read_message().body == b"served"
        for method, path, body in (
            ("POST", "/api/rules", {"name": "n", "pattern": "^/new", "target": "http://127.0.0.1:1"}),
            ("PUT", "/api/rules/kept", {"name": "new"}),
            ("DELETE", "/api/rules/kept", None),
            ("PATCH", "/api/rules/kept/toggle", None),
            ("POST", "/api/history/1/rollback", None),
        ):
            refused = node.admin.call(method, path, body)
            assert refused.status == 503 and "nothing was changed" in refused.error, refused
            assert refused.fields["retry-after"]
        assert b"proxyd_store_up 0.0" in node.admin.call("GET", "/metrics").octets
        assert node.admin.call("GET", "/api/status").json["store"]["away"]
    postgres.start()
    for node in (one, other):
        until(lambda node=node: ready(node) == (200, "ok"), "ready again")
        node.output.wait_for("the store of rules in PostgreSQL is back")
    one.admin.add(id="after", pattern="^/after", target="http://127.0.0.1:1")
    until(lambda: status(other, "/after") == 502, "a change after the crash")
    for node in (one, other):
        assert PASSWORD not in node.output.text and quote(PASSWORD, safe="") not in node.output.text


def test_started_without_the_database(start: Callable[..., Proxy], postgres: Postgres) -> None:
    """A node that starts while the database is away serves the file's rules, is not ready, and catches up."""
    store = postgres.database()
    rule = {"name": "File", "id": "file", "pattern": "^/file", "target": "http://127.0.0.1:1"}
    start(admin=ADMIN, store=store).admin.add(id="kept", pattern="^/kept", target="http://127.0.0.1:1")
    postgres.stop()
    late = start(admin=ADMIN, store=store, rules=[rule])
    assert status(late, "/file") == 502 and status(late, "/kept") == 404
    assert ready(late)[0] == 503
    assert late.admin.call("POST", "/api/rules", {"name": "n", "pattern": "a", "target": "http://a"}).status == 503
    postgres.start()
    until(lambda: status(late, "/kept") == 502, "the rule of the store")
    assert ready(late) == (200, "ok")
