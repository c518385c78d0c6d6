"""What the admin API tells of a running proxy: its state, its connections, what would happen to a request."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.admin import TOKENS, Admin
from tests.support.frames import PING, TEXT
from tests.support.proxy import Proxy, until
from tests.support.websocket import UPGRADE, Pair, pair, switching
from tests.support.wire import Origin, Wire

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}


class Site:
    """
    A proxy with an admin API, its origin server, and the WebSockets that a test opens.

    @ivar proxy: the proxy; its only rule is called C{all}.
    """

    def __init__(self, start: Callable[..., Proxy], origin: Origin, **config: Any) -> None:
        rule = {"name": "Everything", "id": "all", "pattern": "^/", "target": f"http://127.0.0.1:{origin.port}"}
        self.proxy = start(**{"admin": ADMIN, "rules": [rule], **config})
        self.origin = origin
        self.wires: list[Wire] = []

    @property
    def admin(self) -> Admin:
        """A caller who may write."""
        return self.proxy.admin

    def websocket(self, path: str = "/chat?secret=1") -> Pair:
        """Open a WebSocket."""
        client = self.proxy.connect()
        client.request("GET", path, *UPGRADE)
        server = self.origin.accept()
        server.send(switching(server.read_message()))
        assert client.read_head().status == 101
        self.wires += client, server
        return pair(client, server)

    def live(self) -> list[dict[str, Any]]:
        """The connections that are under way."""
        return list(self.admin.call("GET", "/api/connections").json)


@pytest.fixture
def site(start: Callable[..., Proxy], own_origin: Origin) -> Iterator[Site]:
    """A proxy, its API and its origin server."""
    one = Site(start, own_origin)
    yield one
    for wire in one.wires:
        wire.close()


def metric(admin: Admin, name: str, **labels: str) -> float:
    """The value of one time series; 0 where there is none."""
    text = admin.call("GET", "/metrics").octets.decode()
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return 0.0


def exchange(site: Site, path: str = "/", status: str = "200 OK") -> None:
    """One request and its answer."""
    with site.proxy.connect() as client:
        client.request("GET", path)
        with site.origin.accept() as server:
            server.read_message()
            server.respond("answer", status=status)
            client.read_message()


# Connections


def test_list_of_websockets(site: Site) -> None:
    """A WebSocket is listed with who, by which rule, where to, and what went either way."""
    one = site.websocket()
    one.client.sends(TEXT, b"abc")
    one.client.sends(PING)
    one.origin.gets(TEXT, b"abc")
    one.origin.gets(PING)
    one.origin.sends(TEXT, b"answer")
    one.client.gets(TEXT, b"answer")
    [live] = site.live()
    assert live["kind"] == "websocket" and live["state"] == "open" and live["age"] >= 0
    assert (live["client"], live["rule"], live["method"], live["path"]) == ("127.0.0.1", "all", "GET", "/chat")
    assert live["target"] == f"127.0.0.1:{site.origin.port}"
    assert live["fromClient"] == {"octets": 9 + 6, "messages": 1, "paused": False}
    assert live["fromTarget"] == {"octets": 8, "messages": 1, "paused": False}
    one.close()


def test_oldest_first(site: Site) -> None:
    """The list is in the order in which they began, and so are their numbers, whoever is listed first."""
    opened = [site.websocket() for _ in range(10)]
    live = site.live()
    assert [one["age"] for one in live] == sorted((one["age"] for one in live), reverse=True)
    assert [one["id"] for one in live] == list(range(live[0]["id"], live[0]["id"] + 10))
    for one in opened:
        one.close()


def test_list_of_requests(site: Site) -> None:
    """A request is listed while it is served, and no longer."""
    with site.proxy.connect() as client:
        client.request("POST", "/up?token=hush", body=b"12345")
        with site.origin.accept() as server:
            server.read_message()
            [live] = site.live()
            assert (live["kind"], live["state"], live["path"]) == ("http", "waiting", "/up")
            assert live["fromClient"] == {"octets": 5, "messages": None, "paused": False}
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n12")
            client.read_to(b"12")
            [live] = site.live()
            assert live["state"] == "answering" and live["fromTarget"]["octets"] == 2
            server.send("34")
            client.read(2)
    assert site.live() == []


def test_back_pressure_is_shown(site: Site) -> None:
    """Who does not take what the other side sends is seen."""
    one = site.websocket()
    # More than all buffers on the way hold: the origin server's is sent as fast as it is taken.
    one.origin.wire.socket.setblocking(False)
    payload = one.origin.frame(TEXT, b"x" * 65000)
    rest = b""

    def is_shown() -> bool:
        nonlocal rest
        with contextlib.suppress(BlockingIOError):
            while True:
                rest = rest or payload
                rest = rest[one.origin.wire.socket.send(rest) :]
        [live] = site.live()
        return bool(live["fromTarget"]["paused"])

    until(is_shown)


@pytest.mark.parametrize("code", [1001, 1012])
def test_close_one(site: Site, code: int) -> None:
    """One WebSocket is told a code, the others stay."""
    one, other = site.websocket(), site.websocket()
    first, second = site.live()
    assert site.admin.call("DELETE", f"/api/connections/{first['id']}?code={code}").json == {"closing": 1}
    one.client.gets_close(code)
    one.origin.gets_close(code)
    one.client.closes(code)
    one.origin.closes(code)
    one.client.is_over()
    assert [live["id"] for live in site.live() if live["state"] == "open"] == [second["id"]]
    other.close()


def test_close_a_request(site: Site) -> None:
    """A request that is closed is cut off: its answer must not look whole."""
    with site.proxy.connect() as client:
        client.request("GET", "/")
        with site.origin.accept() as server:
            server.read_message()
            [live] = site.live()
            assert site.admin.call("DELETE", f"/api/connections/{live['id']}").json == {"closing": 1}
            assert client.assert_cut() == b""
            server.assert_cut()


def test_close_all_of_a_rule(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """All WebSockets of a rule are closed, one after the other within the time that was given."""
    site = Site(start, own_origin)
    site.admin.add(id="other", pattern="^/other", target=f"http://127.0.0.1:{own_origin.port}", order=0)
    pairs = [site.websocket() for _ in range(5)]
    assert site.admin.call("DELETE", "/api/connections?rule=none").json == {"closing": 0}
    assert site.admin.call("DELETE", "/api/connections?rule=all&code=1012&spread=0.5").json == {"closing": 5}
    for one in pairs:
        one.client.gets_close(1012)
        one.origin.gets_close(1012)
    for one in pairs:
        one.client.closes(1012)
        one.origin.closes(1012)
        one.client.is_over()
    for wire in site.wires:
        wire.close()


def test_bad_closes(site: Site) -> None:
    """What cannot be closed, or not like that, is said."""
    admin = site.admin
    for path in ("/api/connections", "/api/connections?rule=all&code=1000", "/api/connections?rule=all&spread=-1",
                 "/api/connections?rule=all&spread=x", "/api/connections?rule=all&other=1", "/api/connections?rule="):
        assert admin.call("DELETE", path).status == 400, path
    for number in ("0", "99999", "x", "-1"):
        assert admin.call("DELETE", f"/api/connections/{number}").status == 404


@pytest.mark.parametrize("kind", ["websocket", "idle"])
def test_old_rules_are_let_go(start: Callable[..., Proxy], own_origin: Origin, kind: str) -> None:
    """
    A connection that lasts does not keep the rules that it began with.

    Two thousand of them are 0.8 MB; 60 connections that each began with other
    ones would hold about 45 MB.
    """
    target = f"http://127.0.0.1:{own_origin.port}"
    rules = [{"name": "r", "pattern": f"^/{number}$", "target": target} for number in range(2000)]
    site = Site(start, own_origin, rules=[*rules, {"name": "all", "id": "all", "pattern": "^/", "target": target}])
    site.admin.add(id="one", pattern="^/one", target="http://127.0.0.1:1")

    def hold(count: int) -> None:
        for number in range(count):
            site.admin.call("PUT", "/api/rules/one", {"name": f"n{number}-{len(site.wires)}"})
            if kind == "websocket":
                site.websocket()
            else:
                client = site.proxy.connect()
                site.wires.append(client)
                client.request("GET", "/")
                with own_origin.accept() as server:
                    server.read_message()
                    server.respond("", "Connection: close")
                client.read_message()

    hold(20)
    before = site.proxy.memory()
    hold(60)
    assert site.proxy.memory() - before < 20_000_000
    for wire in site.wires:
        wire.close()


# State


def test_status(site: Site) -> None:
    """Counts are those of what happened; two readings make a rate."""
    exchange(site)
    site.proxy.output.wait_for('"GET / HTTP/1.1" 200')
    one = site.websocket()
    status = site.admin.call("GET", "/api/status").json
    assert status["listening"] == [f"127.0.0.1:{site.proxy.port}"]
    assert status["rules"] == {"static": 1, "dynamic": 0, "unusable": 0}
    assert status["store"] == {"kind": "sqlite", "revision": 0, "away": None}
    assert (status["websockets"], status["draining"], status["role"]) == (1, False, "write")
    assert status["totals"]["requests"] == 1 and sum(count for _, count in status["totals"]["latency"]) == 1
    assert site.admin.as_reader().call("GET", "/api/status").json["role"] == "read"
    one.close()


def test_health(site: Site) -> None:
    """Alive and ready without a token; while it drains it is not ready."""
    admin = site.admin.with_token(None)
    assert admin.call("GET", "/healthz").json == {"status": "ok"}
    ready = admin.call("GET", "/readyz")
    assert ready.status == 200
    assert ready.json == {"ready": True, "listening": True, "draining": False, "store": "ok"}


def test_metrics(site: Site) -> None:
    """Requests, failures, latencies, frames and connections are counted where they belong."""
    admin = site.admin
    exchange(site)
    exchange(site, status="404 Not Found")
    with site.proxy.connect() as client:
        client.request("GET", "/")
        with site.origin.accept() as server:
            server.read_message()
        assert client.read_message().status == 502
    one = site.websocket()
    one.client.sends(TEXT, b"abc")
    one.origin.gets(TEXT, b"abc")
    assert metric(admin, "proxyd_websocket_bytes_total", sender="client") == 9
    assert metric(admin, "proxyd_websockets") == 1
    one.close()
    site.proxy.output.wait_for('" 101 ')
    assert metric(admin, "proxyd_requests_total", rule="all", method="GET", status="2xx") == 1
    assert metric(admin, "proxyd_requests_total", rule="all", method="GET", status="4xx") == 1
    assert metric(admin, "proxyd_requests_total", rule="all", method="GET", status="5xx") == 1
    assert metric(admin, "proxyd_requests_total", rule="all", method="GET", status="1xx") == 1
    assert metric(admin, "proxyd_request_duration_seconds_count", rule="all") == 3
    assert metric(admin, "proxyd_origin_head_seconds_count", rule="all") == 2
    assert metric(admin, "proxyd_failures_total", party="origin", stage="response") == 1
    assert metric(admin, "proxyd_websocket_frames_total", sender="client") == 2
    assert metric(admin, "proxyd_websocket_bytes_total", sender="client") == 9 + 8
    assert metric(admin, "proxyd_websockets_closed_total") == 1 and metric(admin, "proxyd_websockets") == 0
    assert metric(admin, "proxyd_outbound_connects_total", proxy="direct", outcome="ok") >= 4
    assert metric(admin, "proxyd_store_up") == 1 and metric(admin, "proxyd_rules", kind="static") == 1
    assert metric(admin, "proxyd_start_time_seconds") > 1e9


def test_metrics_are_bounded(start: Callable[..., Proxy]) -> None:
    """However many rules there are and whatever clients send, the number of time series is bounded."""
    rules = [{"name": "r", "id": f"r{number}", "pattern": f"^/r{number}$", "target": "http://127.0.0.1:1", "ws": False}
             for number in range(230)]
    proxy = start(admin=ADMIN, rules=rules)
    with proxy.connect() as client:
        for number in range(230):
            client.request("PROPFIND" if number % 2 else "GET", f"/r{number}", *(UPGRADE if not number % 2 else ()))
            assert client.read_message().status in (404, 502)
    proxy.output.wait_for("/r229 ")
    text = proxy.admin.call("GET", "/metrics").octets.decode()
    assert len(set(re.findall(r'proxyd_requests_total\{.*?rule="([^"]*)"', text))) <= 201
    assert 'rule="other"' in text and 'method="other"' in text and "PROPFIND" not in text


# What would happen


def explained(admin: Admin, url: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    """What would happen to a request."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = admin.call("POST", "/api/explain", {"url": url, "method": method, "headers": headers})
    assert reply.status == 200, reply
    return dict(reply.json)


@pytest.fixture
def rules(start: Callable[..., Proxy]) -> Admin:
    """The API of a proxy with a rule of each kind."""
    target = "http://origin.test:9000/base"
    return start(
        admin=ADMIN,
        environment={"https_proxy": "http://user:hush@squid.test:3128", "NO_PROXY": "exempt.test"},
        unset=("HTTPS_PROXY", "no_proxy", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
        rules=[
            {"name": "Off", "id": "off", "pattern": "^/", "target": target, "enabled": False},
            {"name": "Host", "id": "host", "pattern": "^/", "hosts": ["only.test"], "target": target},
            {"name": "Users", "id": "users", "pattern": "^/v(?<version>\\d)/(.*)$", "target": target,
             "rewrite": "/u/$2", "changeOrigin": True, "headers": {"X-Key": "s3cret", "Cookie": None}},
            {"name": "No ws", "id": "no-ws", "pattern": "^/plain", "target": target, "ws": False},
            {"name": "Env", "id": "env", "pattern": "^/env", "target": "https://a.test", "proxy": "env"},
            {"name": "Exempt", "id": "exempt", "pattern": "^/exempt", "target": "https://exempt.test", "proxy": "env"},
            {"name": "Named", "id": "named", "pattern": "^/named", "target": target, "proxy": "socks5://p.test"},
            {"name": "Unset", "id": "unset", "pattern": "^/unset", "target": "http://${NO_SUCH_HOST}"},
        ],
    ).admin


def test_explain_a_match(rules: Admin) -> None:
    """Each rule before the one that takes it, and why not; what that found; what would be sent."""
    told = explained(rules, "https://app.test/v2/a%20b?q=1", Cookie="c=1", Accept="*/*")
    assert [(one["rule"], one["why"]) for one in told["tried"]] == [
        ("off", "it is disabled"), ("host", "the host app.test is none of only.test"),
    ]
    assert told["matched"] == {"rule": "users", "name": "Users", "groups": ["/v2/a%20b", "2", "a%20b"],
                               "named": {"version": "2"}}
    sent = told["sent"]
    assert sent["url"] == "http://origin.test:9000/base/u/a%20b?q=1"
    assert ["Host", "origin.test:9000"] in sent["added"] and ["X-Key", "s3cret"] in sent["added"]
    assert ["X-Forwarded-Proto", "https"] in sent["added"]
    assert ["Cookie", "c=1"] in sent["removed"] and ["Accept", "*/*"] in sent["fields"]
    assert told["proxy"] == {"used": "direct", "why": "outbound.proxy is direct"}
    assert told["status"] is None and told["error"] is None


def test_explain_says_what_is_sent(site: Site) -> None:
    """What is explained is what the origin server gets, field by field."""
    told = explained(site.admin, f"http://127.0.0.1:{site.proxy.port}/a/../b?x", Accept="text/html")
    with site.proxy.connect() as client:
        client.request("GET", "/a/../b?x", "Accept: text/html", host=f"127.0.0.1:{site.proxy.port}")
        with site.origin.accept() as server:
            request = server.read_message()
            server.respond()
    assert request.line == "GET /b?x HTTP/1.1"
    assert told["sent"]["url"] == f"http://127.0.0.1:{site.origin.port}/b?x"
    assert [tuple(field) for field in told["sent"]["fields"]] == request.fields


def test_explain_what_goes_no_further(rules: Admin) -> None:
    """No rule, no upgrades, no such request, a variable that is not set: proxyd's own answer, and why."""
    nothing = explained(rules, "/nothing")
    assert nothing["status"] == 404 and nothing["matched"] is None and len(nothing["tried"]) == 8
    upgrade = explained(rules, "ws://app.test/plain")
    assert upgrade["upgrade"] is True and upgrade["status"] == 404 and upgrade["matched"]["rule"] == "no-ws"
    assert explained(rules, "/plain")["status"] is None
    unset = explained(rules, "/unset")
    assert unset["status"] == 502 and "NO_SUCH_HOST" in unset["error"]
    for url, method in (("/a\\b", "GET"), ("/a b", "GET"), ("ftp://x/", "GET"), ("/\u00e4", "GET"), ("/", "G T"),
                        ("http://a b/", "GET"), ("/x\r\ny", "GET")):
        assert explained(rules, url, method)["status"] == 400, url
    assert explained(rules, "/", "PURGE")["status"] == 501
    assert explained(rules, "/", Content_Length="x")["status"] == 400


def test_explain_the_proxy(rules: Admin) -> None:
    """Which proxy, and who says so, without its credentials."""
    env = explained(rules, "/env")["proxy"]
    assert env["used"] == "http://squid.test:3128" and "https_proxy" in env["why"] and "hush" not in str(env)
    assert explained(rules, "/exempt")["proxy"] == {
        "used": "direct", "why": "the rule's proxy is env: NO_PROXY exempts the target",
    }
    assert explained(rules, "/named")["proxy"] == {"used": "socks5://p.test:1080", "why": "the rule's proxy names it"}


# Trace context


def parents(proxy: Proxy, origin: Origin, *fields: str) -> list[str]:
    """The C{traceparent} that the origin server gets for each of two requests on one connection."""
    found = []
    with proxy.connect() as client, contextlib.ExitStack() as stack:
        server = None
        for _ in range(2):
            client.request("GET", "/", *fields)
            server = server or stack.enter_context(origin.accept())
            found.append(server.read_message().get("traceparent") or "")
            server.respond()
            client.read_message()
    return found


def test_traces(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A trace passes; without one a request gets its own only where that is switched on."""
    rule = {"name": "n", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    plain = start(rules=[rule])
    assert parents(plain, own_origin, f"traceparent: {given}") == [given, given]
    assert parents(plain, own_origin) == ["", ""]
    tracing = start(rules=[rule], traceparent=True)
    assert parents(tracing, own_origin, f"traceparent: {given}") == [given, given]
    for fields in ((), ("traceparent: bad",)):
        first, second = parents(tracing, own_origin, *fields)
        assert first != second
        assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", one) for one in (first, second))


def test_seen_while_draining(site: Site) -> None:
    """While it drains it is not ready, and what it waits for can be seen and closed."""
    one = site.websocket()
    with site.proxy.connect() as client:
        client.request("GET", "/slow")
        with site.origin.accept() as server:
            server.read_message()
            site.proxy.terminate()
            one.client.is_closed(1001)
            reply = site.admin.call("GET", "/readyz")
            assert reply.status == 503 and reply.json["draining"] is True
            assert [live["path"] for live in site.live() if live["kind"] == "http"] == ["/slow"]
            server.respond("done")
            assert client.read_message().body == b"done"
    one.origin.gets_close(1001)
    one.origin.closes(1001)
    assert site.proxy.process.wait(20) == -signal.SIGTERM  # as twistd ends
