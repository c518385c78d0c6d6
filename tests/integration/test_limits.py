"""Every limit and time-out of SPEC section 4, reached."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from functools import partial

import pytest
import yaml

from tests.support.proxy import Proxy, until
from tests.support.wire import Message, Origin


@pytest.fixture
def rule(own_origin: Origin) -> dict[str, object]:
    """A rule that sends all to the test's own origin server."""
    return {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}


def test_head_too_slow(start, rule) -> None:
    """A head that is not whole in time is 408 (timeouts.header)."""
    proxy = start(rules=[rule], timeouts={"header": 0.3})
    with proxy.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a")
        response = client.read_message()
        assert (response.status, response.get("Connection")) == (408, "close")
        client.assert_ended()
    with proxy.connect() as client:
        client.assert_ended()


def test_second_head_too_slow(start, rule, own_origin: Origin) -> None:
    """The time runs from a head's first octet, not from the answer before it."""
    proxy = start(rules=[rule], timeouts={"header": 0.3, "keepAlive": 60})
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("ok")
        client.read_message()
        client.send(b"GET / HT")
        assert client.read_message().status == 408
        client.assert_ended()


def test_idle_connection(start, rule, own_origin: Origin) -> None:
    """A connection without a request is closed (timeouts.keepAlive)."""
    proxy = start(rules=[rule], timeouts={"keepAlive": 0.3})
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.respond("ok")
        assert client.read_message().get("Connection") is None
        client.assert_ended()


def test_body_too_slow(start, rule, own_origin: Origin) -> None:
    """A client that falls silent within its body is 408 (timeouts.body), and the origin server never sees an end."""
    proxy = start(rules=[rule], timeouts={"body": 0.3})
    with proxy.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"1\r\na\r\n")
        server = own_origin.accept()
        server.read_head()
        response = client.read_message()
        assert (response.status, response.get("Connection")) == (408, "close")
        assert server.assert_cut() == b"1\r\na\r\n"


def test_origin_too_slow(start, rule, own_origin: Origin) -> None:
    """An answer whose head does not come in time is 504 (timeouts.response)."""
    proxy = start(rules=[rule], timeouts={"response": 0.3})
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        response = client.read_message()
        assert response.status == 504
        assert response.get("Proxy-Status") == "proxyd; error=http_response_timeout"
        server.assert_cut()
        client.request("GET", "/again")
        own_origin.accept().read_message()


def test_rule_has_its_own_timeouts(start, rule, own_origin: Origin) -> None:
    """A rule's time-outs stand in place of the service's."""
    proxy = start(rules=[{**rule, "timeouts": {"response": 0.3}}])
    with proxy.connect() as client:
        client.request("GET", "/")
        own_origin.accept().read_message()
        assert client.read_message().status == 504


def test_origin_pauses(start, rule, own_origin: Origin) -> None:
    """An origin server that falls silent within its answer is cut off, and so is the client (timeouts.body)."""
    proxy = start(rules=[rule], timeouts={"body": 0.3})
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        assert client.assert_cut().endswith(b"half")
        server.assert_cut()
    proxy.output.wait_for("failed=\"origin connection_read_timeout")


def test_events_may_pause(start, rule, own_origin: Origin) -> None:
    """Server-sent events may pause for as long as they like; nothing else may."""
    proxy = start(rules=[rule], timeouts={"body": 0.3})
    with proxy.connect() as client, proxy.connect() as other:
        client.request("GET", "/events")
        events = own_origin.accept()
        events.read_message()
        events.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
        client.read_head()
        other.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        other.assert_cut()
        events.send(b"data: late\n\n")
        assert client.read(17) == b"c\r\ndata: late\n\n\r\n"


def test_origin_takes_nothing(start, rule, own_origin: Origin) -> None:
    """An origin server that takes nothing of an upload for too long is 504."""
    proxy = start(rules=[rule], timeouts={"body": 0.5})
    with proxy.connect() as client:
        client.request("POST", "/", "Content-Length: 1000000000")
        own_origin.accept().read_head()
        client.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                client.send(bytes(1000000))
        client.socket.settimeout(10)
        assert client.read_message().status == 504


def test_client_takes_nothing(start, rule, own_origin: Origin) -> None:
    """A client that takes nothing of its answer for too long is cut off, and the origin server with it."""
    proxy = start(rules=[rule], timeouts={"body": 0.5})
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        with pytest.raises(ConnectionError):
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + bytes(200000000))
        proxy.output.wait_for("failed=\"client took nothing for too long")


def test_connect_too_slow(start, rule, own_origin: Origin) -> None:
    """A target that does not even finish TLS is 504 (timeouts.connect)."""
    proxy = start(rules=[{**rule, "target": f"https://127.0.0.1:{own_origin.port}", "timeouts": {"connect": 0.3}}])
    with proxy.connect() as client:
        client.request("GET", "/")
        response = client.read_message()
        assert response.status == 504
        assert response.get("Proxy-Status") == "proxyd; error=connection_timeout"
    own_origin.accept().assert_cut()


@pytest.mark.parametrize("where", ["service", "rule"])
def test_body_too_large(start, rule, own_origin: Origin, where: str) -> None:
    """A body of more than limits.body is 413: at once when it says so, else when it gets there."""
    limits = {"limits": {"body": 10}}
    proxy = start(rules=[{**rule, **limits}]) if where == "rule" else start(rules=[rule], **limits)
    with proxy.connect() as client:
        client.request("POST", "/", "Content-Length: 11")
        response = client.read_message()
        assert (response.status, response.get("Connection")) == (413, "close")
        client.assert_ended()
    own_origin.assert_idle()
    with proxy.connect() as client:
        client.request("POST", "/", "Transfer-Encoding: chunked")
        client.send(b"a\r\n0123456789\r\n")
        server = own_origin.accept()
        server.read_head()
        server.read(15)
        client.send(b"1\r\n0\r\n")
        assert client.read_message().status == 413
        server.assert_cut()


def test_per_client(start, rule, own_origin: Origin) -> None:
    """One address may have so many requests at once, and no more (limits.perClient)."""
    proxy = start(rules=[rule], limits={"perClient": 1})
    with proxy.connect() as first, proxy.connect() as second:
        first.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        second.request("GET", "/")
        assert second.read_message().status == 429
        server.respond("ok")
        first.read_message()
        second.request("GET", "/")
        server.read_message()
        server.respond("ok")
        assert second.read_message().status == 200


def test_silent_connections(start, rule, own_origin: Origin) -> None:
    """One address may have so many connections without a request, and no more; those of proxies are many clients'."""
    own_origin.answer_all()

    def is_served(proxy: Proxy) -> bool:
        with proxy.connect() as wire:
            try:
                wire.request("GET", "/")
                return wire.read_message().status == 200
            except (ConnectionError, AssertionError):
                return False

    for trusted in ([], ["127.0.0.1"]):
        proxy = start(rules=[rule], limits={"perClient": 20}, trustedProxies=trusted)
        with ExitStack() as stack:
            silent = [stack.enter_context(proxy.connect()) for _ in range(20)]
            assert is_served(proxy) is bool(trusted)
            silent[0].request("GET", "/")
            assert silent[0].read_message().status == 200
            assert is_served(proxy)
            stack.enter_context(proxy.connect())
            assert is_served(proxy) is bool(trusted)
            silent[1].close()
            until(partial(is_served, proxy))


def test_per_host(start, rule, own_origin: Origin) -> None:
    """Over limits.perHost requests wait for a connection; the first one that becomes free is theirs."""
    proxy = start(rules=[rule], limits={"perHost": 1})
    with proxy.connect() as first, proxy.connect() as second:
        first.request("GET", "/1")
        server = own_origin.accept()
        server.read_message()
        second.request("GET", "/2")
        server.respond("1")
        assert first.read_message().body == b"1"
        assert server.read_message().line == "GET /2 HTTP/1.1"
        server.respond("2")
        assert second.read_message().body == b"2"
    own_origin.assert_idle()


def test_per_host_in_vain(start, rule, own_origin: Origin) -> None:
    """Who waits for a connection longer than timeouts.connect gets a 503."""
    proxy = start(rules=[rule], limits={"perHost": 1}, timeouts={"connect": 0.3})
    with proxy.connect() as first, proxy.connect() as second:
        first.request("GET", "/1")
        server = own_origin.accept()
        server.read_message()
        second.request("GET", "/2")
        assert second.read_message().status == 503
        server.close()
        assert first.read_message().status == 502
        second.request("GET", "/3")
        assert own_origin.accept().read_message().line == "GET /3 HTTP/1.1"


def test_connections(start, rule, own_origin: Origin) -> None:
    """Over limits.connections nobody is served until another has gone."""
    proxy = start(rules=[rule], limits={"connections": 2})
    wires = [proxy.connect() for _ in range(4)]
    for number, wire in enumerate(wires):
        wire.request("GET", f"/{number}", "Connection: close")
    served = [own_origin.accept(), own_origin.accept()]
    lines = {server.read_message().line for server in served}
    assert lines == {"GET /0 HTTP/1.1", "GET /1 HTTP/1.1"}
    own_origin.assert_idle()
    for server in served:
        server.respond("ok")
    for number in (0, 1):
        assert wires[number].read_message().body == b"ok"
        wires[number].close()
    for _ in (2, 3):
        server = served.pop()
        lines.add(server.read_message().line)
        server.respond("ok")
    assert lines == {f"GET /{number} HTTP/1.1" for number in range(4)}
    for wire in wires:
        wire.close()


def test_sending_ahead(start, rule, own_origin: Origin) -> None:
    """A client may send requests ahead, but we keep only so many octets of them."""
    proxy = start(rules=[rule])
    before = proxy.memory()
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        client.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 40000)
        assert proxy.memory() - before < 10 * 1024 * 1024



def test_reading_slowly(start, rule, own_origin: Origin) -> None:
    """A client that reads slowly is not one that reads nothing."""
    proxy = start(rules=[rule], timeouts={"body": 1})
    size = 30000000
    with proxy.connect() as client:
        client.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        server.socket.setblocking(False)
        answer = memoryview(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        received = 0
        while received < size:
            with contextlib.suppress(BlockingIOError):
                while answer:
                    answer = answer[server.socket.send(answer) :]
            received += len(client.read_some())
    assert received >= size


def test_client_goes_away_while_connecting(start, rule, own_origin: Origin) -> None:
    """An attempt to connect is given up with its request, and the log has one line of it."""
    proxy = start(rules=[{**rule, "target": f"https://127.0.0.1:{own_origin.port}"}])
    with proxy.connect() as client:
        client.request("GET", "/gone")
        server = own_origin.accept()
        server.read(5)
    assert server.assert_cut()
    proxy.output.wait_for('"GET /gone HTTP/1.1" - 0 .*failed="client went away"')
    assert proxy.output.text.count("GET /gone") == 1


def test_client_goes_away_while_waiting(start, rule, own_origin: Origin) -> None:
    """Who waits for a connection and leaves is not served in another's place."""
    proxy = start(rules=[rule], limits={"perHost": 1})
    with proxy.connect() as first, proxy.connect() as last:
        first.request("GET", "/first")
        server = own_origin.accept()
        server.read_message()
        with proxy.connect() as gone:
            gone.request("GET", "/gone")
        proxy.output.wait_for('"GET /gone HTTP/1.1" - 0 .*failed="client went away"')
        last.request("GET", "/last")
        server.respond("1")
        assert first.read_message().body == b"1"
        assert server.read_message().line == "GET /last HTTP/1.1"
        server.respond("2")
        assert last.read_message().body == b"2"


def test_more_connections_by_reload(start, rule, own_origin: Origin) -> None:
    """A larger limit lets those in who wait, at once, and others after them."""
    proxy = start(rules=[rule], limits={"connections": 1})
    with proxy.connect() as first, proxy.connect() as second:
        first.request("GET", "/1")
        server = own_origin.accept()
        server.read_message()
        second.request("GET", "/2")
        own_origin.assert_idle()
        proxy.reload({"rules": [rule], "limits": {"connections": 10}})
        other = own_origin.accept()
        assert other.read_message().line == "GET /2 HTTP/1.1"
        with proxy.connect() as third:
            third.request("GET", "/3")
            assert own_origin.accept().read_message().line == "GET /3 HTTP/1.1"


def test_client_goes_away_after_a_large_body(start, rule, own_origin: Origin) -> None:
    """A client whose whole body was kept while it waited for a connection is seen to go, too."""
    proxy = start(rules=[rule], limits={"perHost": 1})
    with proxy.connect() as first:
        first.request("GET", "/")
        server = own_origin.accept()
        server.read_message()
        with proxy.connect() as second:
            second.request("POST", "/large", "Content-Length: 40000")
            second.send(bytes(40000))
            server.respond("1")
            first.read_message()
            assert len(server.read_message().body) == 40000
            second.close()
            assert server.assert_cut() == b""


def test_rates(start, own_origin: Origin) -> None:
    """A client that makes too many requests is told to wait; other clients, and rules without a limit, are not."""
    target = f"http://127.0.0.1:{own_origin.port}"
    own_origin.answer_all()
    proxy = start(
        trustedProxies=["127.0.0.1"],
        limits={"rate": "3/h"},
        rules=[
            {"name": "own", "pattern": "^/own", "target": target, "limits": {"rate": "1/m"}},
            {"name": "free", "pattern": "^/free", "target": target, "limits": {"rate": "none"}},
            {"name": "one", "pattern": "^/one", "target": target},
            {"name": "two", "pattern": "^/two", "target": target},
        ],
    )
    with proxy.connect() as client:

        def ask(path: str, address: str = "192.0.2.1") -> Message:
            client.request("GET", path, f"X-Forwarded-For: {address}")
            return client.read_message()

        assert [ask(path).status for path in ("/one", "/two", "/none", "/one", "/none")] == [200, 200, 404, 429, 429]
        refused = ask("/two")
        assert refused.status == 429 and 1 <= int(refused.get("Retry-After") or 0) <= 1200
        assert "http_request_denied" in (refused.get("Proxy-Status") or "")
        assert ask("/one", "192.0.2.2").status == 200
        assert [ask("/own").status for _ in range(2)] == [200, 429]
        assert [ask("/free").status for _ in range(9)] == [200] * 9
        proxy.reload({**yaml.safe_load(proxy.config.read_text())})
        assert (ask("/one").status, ask("/own").status) == (429, 429)
