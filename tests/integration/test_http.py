"""HTTP through a real twistd: what clients and origin servers see, octet by octet."""

from __future__ import annotations

import pytest

from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire


def test_there_and_back(client: Wire, origin: Origin) -> None:
    """A request reaches the origin server, and its answer the client, fields in order and with their duplicates."""
    client.request("GET", f"{origin.prefix}/a?b=c", "X-Own: 1")
    server = origin.accept()
    request = server.read_message()
    assert request.line == "GET /a?b=c HTTP/1.1"
    assert request.get("X-Own") == "1"
    server.respond("hello", "X-Answer: 2", "x-answer: 3", "date: then", "Content-Encoding: odd")
    response = client.read_message()
    assert response.line == "HTTP/1.1 200 OK"
    assert response.fields == [
        ("X-Answer", "2"), ("x-answer", "3"), ("date", "then"), ("Content-Encoding", "odd"), ("Content-Length", "5"),
    ]  # fmt: skip
    assert response.body == b"hello"


@pytest.mark.parametrize("status", ["200 Fine by me", "404 ", "599 Ours", "301 Moved"])
def test_status_and_reason(client: Wire, origin: Origin, status: str) -> None:
    """The status line stays, redirects are passed on."""
    client.request("GET", f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.respond("", "Location: http://elsewhere.test/", status=status)
    response = client.read_message()
    assert response.line == f"HTTP/1.1 {status}"
    assert response.get("Location") == "http://elsewhere.test/"


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/a%2Fb//c+d;e=f", "/a%2Fb//c+d;e=f"),
        ("/%61%7e", "/%61%7e"),
        ("/a/../b/./c", "/b/c"),
        ("/a/%2e%2E/b", "/b"),
        ("/x?a=/../&b=%2e%2e&c=%zz", "/x?a=/../&b=%2e%2e&c=%zz"),
        ("//evil.test/x", "//evil.test/x"),
    ],
)
def test_paths(start, own_origin: Origin, path: str, seen: str) -> None:
    """Without a rewrite the client's octets go on, but for dot segments; the query as it is."""
    proxy = start(rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}])
    with proxy.connect() as client:
        client.request("GET", path)
        assert own_origin.accept().read_head().line == f"GET {seen} HTTP/1.1"


def test_hop_by_hop_fields(client: Wire, origin: Origin) -> None:
    """What belongs to a connection goes no further, in both directions (RFC 9110 section 7.6.1)."""
    client.request(
        "GET", f"{origin.prefix}/",
        "Connection: X-Gone, keep-alive, Host, X-Forwarded-For", "X-Gone: 1", "Keep-Alive: 5", "Proxy-Connection: a",
        "Proxy-Authorization: Basic eA==", "TE: gzip", "Upgrade: h2c", "Proxy: http://evil.test", "X-Stays: 1",
    )
    server = origin.accept()
    request = server.read_message()
    names = {name.lower() for name, _ in request.fields}
    assert names == {
        "host", "x-stays", "x-forwarded-for", "x-real-ip", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
        "via",
    }
    server.respond(
        "", "Connection: X-Odd", "X-Odd: 1", "Proxy-Authenticate: Basic", "Keep-Alive: timeout=5", "X-Stays: 1",
        "Date: then",
    )
    response = client.read_message()
    assert response.fields == [("X-Stays", "1"), ("Date", "then"), ("Content-Length", "0")]


def test_te_trailers(client: Wire, origin: Origin) -> None:
    """A client that takes trailers is passed on as our own wish for them."""
    client.request("GET", f"{origin.prefix}/", "TE: trailers, deflate;q=0.5", "Connection: TE")
    request = origin.accept().read_message()
    assert (request.get("TE"), request.get("Connection")) == ("trailers", "TE")


def test_forwarding_fields(client: Wire, origin: Origin, proxy: Proxy) -> None:
    """The origin server learns who asks; what an untrusted client says of it is dropped."""
    client.request(
        "GET", f"{origin.prefix}/",
        "X-Forwarded-For: 9.9.9.9", "X-Real-IP: 9.9.9.9", "Forwarded: for=9.9.9.9", "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.test", "X-Forwarded-Port: 1", "X_Forwarded_For: 9.9.9.9", "Via: 1.0 first",
        host="site.test:99",
    )
    request = origin.accept().read_message()
    assert request.get("Host") == "site.test:99"
    assert request.get("X-Forwarded-For") == "127.0.0.1"
    assert request.get("X-Real-IP") == "127.0.0.1"
    assert request.get("X-Forwarded-Proto") == "http"
    assert request.get("X-Forwarded-Host") == "site.test:99"
    assert request.get("X-Forwarded-Port") == str(proxy.port)
    assert request.all("Forwarded") == request.all("X_Forwarded_For") == []
    assert request.all("Via") == ["1.0 first", "1.1 proxyd"]


def test_trusted_proxies(start, own_origin: Origin) -> None:
    """Behind a trusted proxy the client is the right-most address that is not trusted."""
    proxy = start(
        rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}],
        trustedProxies=["127.0.0.0/8", "10.0.0.0/8"],
        forwarded=True,
    )
    with proxy.connect() as client:
        client.request("GET", "/", "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1", "X-Forwarded-Proto: https")
        server = own_origin.accept()
        request = server.read_message()
        server.respond()
        client.read_message()
    assert request.get("X-Forwarded-For") == "6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.1"
    assert request.get("X-Real-IP") == "192.0.2.7"
    assert request.get("X-Forwarded-Proto") == "https"
    assert request.get("Forwarded") == "for=127.0.0.1;host=example.test;proto=http"
    proxy.output.wait_for(r"192\.0\.2\.7 - - ")


def test_connections_are_kept(client: Wire, origin: Origin) -> None:
    """One connection on either side serves one request after another."""
    client.request("GET", f"{origin.prefix}/1")
    server = origin.accept()
    for number in (1, 2, 3):
        assert server.read_message().line == f"GET /{number} HTTP/1.1"
        server.respond(str(number))
        assert client.read_message().body == b"%d" % number
        client.request("GET", f"{origin.prefix}/{number + 1}")
    origin.assert_idle()


def test_repeated_fields(client: Wire, origin: Origin) -> None:
    """Requests whose fields are those of the one before are read like any other, and so are those that differ."""
    server = None
    for number, field in enumerate(["X-A: 1", "X-A: 1", "X-A: 2", "X-A: 1", "X-A: 1"]):
        client.request("POST", f"{origin.prefix}/{number}", field, body=b"%d" % number)
        server = server or origin.accept()
        request = server.read_message()
        assert request.line == f"POST /{number} HTTP/1.1"
        assert (f"X-A: {request.get('X-A')}", request.body) == (field, b"%d" % number)
        assert request.all("X-Forwarded-For") == ["127.0.0.1"]
        server.respond()
        client.read_message()
    client.send(f"GET {origin.prefix}/ HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    assert server.read_message().get("Via") == "1.0 proxyd"
    server.respond()
    client.read_message()
    client.send(f"GET {origin.prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    assert server.read_message().get("Via") == "1.1 proxyd"
    server.respond()
    client.read_message()
    client.send(f"GET http://b.test{origin.prefix}/ HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    assert server.read_message().get("Host") == "b.test"


def test_pipelining(client: Wire, origin: Origin) -> None:
    """Requests that come at once are answered in their order."""
    for number in range(20):
        client.request("GET", f"{origin.prefix}/{number}")
    server = origin.accept()
    for number in range(20):
        assert server.read_message().line == f"GET /{number} HTTP/1.1"
        server.respond(str(number))
    assert [client.read_message().body for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_pipelined_bodies(client: Wire, origin: Origin) -> None:
    """A body ends where it says, and the next request begins there."""
    client.send(
        f"POST {origin.prefix}/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        f"POST {origin.prefix}/2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
        f"GET {origin.prefix}/3 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    server = origin.accept()
    for body in (b"abc", b"de", b""):
        assert server.read_message().body == body
        server.respond(body)
        assert client.read_message().body == body


def test_chunks_both_ways(client: Wire, origin: Origin) -> None:
    """Chunks go as they come, sizes in one form, extensions gone; trailers pass (RFC 9112 section 7.1)."""
    client.request("POST", f"{origin.prefix}/", "Transfer-Encoding: Chunked", "Trailer: X-End")
    client.send(b"00005;name=value\r\nhello\r\n")
    server = origin.accept()
    head = server.read_head()
    assert head.get("Transfer-Encoding") == "chunked"
    assert server.read(10) == b"5\r\nhello\r\n"
    client.send(b"A\r\n0123456789\r\n0\r\nX-End: yes\r\nHost: evil.test\r\nContent-Length: 5\r\nCookie: a\r\n\r\n")
    assert server.read_to(b"\r\n\r\n") == b"a\r\n0123456789\r\n0\r\nX-End: yes\r\n\r\n"
    server.send(b"HTTP/1.1 200 OK\r\nDate: then\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    head = client.read_head()
    assert head.fields == [("Date", "then"), ("Transfer-Encoding", "chunked")]
    assert client.read(8) == b"3\r\nabc\r\n"
    server.send(b"0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert client.read_to(b"\r\n\r\n") == b"0\r\nX-Sum: 1\r\n\r\n"


def test_first_octet_at_once(client: Wire, origin: Origin) -> None:
    """Server-sent events arrive when they are sent, not when the answer is complete."""
    client.request("GET", f"{origin.prefix}/events")
    server = origin.accept()
    server.read_message()
    server.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    client.read_head()
    for number in range(5):
        event = b"data: %d\n\n" % number
        server.send(event)
        size = int(client.read_to(b"\r\n"), 16)
        assert client.read(size + 2) == event + b"\r\n"


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        ("HEAD", "200 OK", ["Content-Length: 100"]),
        ("HEAD", "200 OK", ["Transfer-Encoding: chunked"]),
        ("GET", "304 Not Modified", ["Content-Length: 100", "ETag: \"a\""]),
        ("GET", "204 No Content", []),
    ],
)
def test_answers_without_body(client: Wire, origin: Origin, method: str, status: str, fields: list[str]) -> None:
    """HEAD, 204 and 304 have no body, whatever their fields say, and the connection goes on (RFC 9112 section 6.3)."""
    client.request(method, f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.send("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]))
    response = client.read_message(bodiless=True)
    assert response.status == int(status[:3])
    assert response.all("Content-Length") == [field[16:] for field in fields if field.startswith("Content-Length")]
    client.request("GET", f"{origin.prefix}/next")
    assert server.read_message().line == "GET /next HTTP/1.1"


def test_interim_answers(client: Wire, origin: Origin) -> None:
    """1xx answers reach the client before the final one (RFC 9110 section 15.2)."""
    client.request("GET", f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    hints = client.read_message()
    assert hints.line == "HTTP/1.1 103 Early Hints"
    assert hints.fields == [("Link", "</a.css>")]
    server.respond("done")
    assert client.read_message().body == b"done"


def test_expect_continue(client: Wire, origin: Origin) -> None:
    """The origin server says whether the client is to go on (RFC 9110 section 10.1.1)."""
    client.request("PUT", f"{origin.prefix}/", "Expect: 100-continue", "Content-Length: 4")
    server = origin.accept()
    assert server.read_head().get("Expect") == "100-continue"
    client.assert_silent()
    server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.read_message().status == 100
    client.send(b"body")
    assert server.read(4) == b"body"
    server.respond("thanks")
    assert client.read_message().body == b"thanks"


def test_expect_refused(client: Wire, origin: Origin) -> None:
    """A refusal in place of a 100 reaches the client, whose body is then not wanted."""
    client.request("PUT", f"{origin.prefix}/", "Expect: 100-continue", "Content-Length: 4")
    server = origin.accept()
    server.read_head()
    server.respond("too large", status="413 Content Too Large")
    response = client.read_message()
    assert (response.status, response.get("Connection")) == (413, "close")
    client.assert_ended()
    server.assert_cut()


def test_http_1_0(proxy: Proxy, origin: Origin) -> None:
    """A client of HTTP/1.0 gets no chunks and no 1xx, and the end of the connection as the end of the body."""
    with proxy.connect() as client:
        client.send(f"GET {origin.prefix}/ HTTP/1.0\r\n\r\n")
        server = origin.accept()
        request = server.read_message()
        assert request.line == "GET / HTTP/1.1"
        assert request.get("Host") == f"127.0.0.1:{origin.port}"
        assert request.get("Via") == "1.0 proxyd"
        server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nDate: then\r\nTransfer-Encoding: chunked\r\n\r\n")
        server.send(b"3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n")
        response = client.read_message()
        assert response.fields == [("Date", "then"), ("Connection", "close")]
        assert response.body == b"abc"


def test_http_1_0_kept(proxy: Proxy, origin: Origin) -> None:
    """A client of HTTP/1.0 may ask for the connection to be kept."""
    with proxy.connect() as client:
        for number in (1, 2):
            client.send(f"GET {origin.prefix}/{number} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            if number == 1:
                server = origin.accept()
            server.read_message()
            server.respond("ok")
            response = client.read_message()
            assert (response.get("Connection"), response.body) == ("keep-alive", b"ok")


def test_connection_close(client: Wire, origin: Origin) -> None:
    """A client that wants to close is told so and gets its whole answer."""
    client.request("GET", f"{origin.prefix}/", "Connection: close")
    server = origin.accept()
    assert server.read_message().all("Connection") == []
    server.respond("bye")
    response = client.read_message()
    assert (response.get("Connection"), response.body) == ("close", b"bye")
    client.assert_ended()


def test_absolute_form(client: Wire, origin: Origin) -> None:
    """The host of an absolute-form replaces Host (RFC 9112 section 3.2.2); it never says who is asked."""
    client.request("GET", f"http://other.test:81{origin.prefix}/x", host="ignored.test")
    request = origin.accept().read_message()
    assert request.line == "GET /x HTTP/1.1"
    assert request.get("Host") == "other.test:81"


def test_early_answer(client: Wire, origin: Origin) -> None:
    """An answer that comes before the upload's end is passed on at once."""
    client.request("POST", f"{origin.prefix}/", "Content-Length: 1000000")
    server = origin.accept()
    server.read_head()
    client.send(b"some of it")
    assert server.read(10) == b"some of it"
    server.respond("no more", status="403 Forbidden")
    response = client.read_message()
    assert (response.status, response.body) == (403, b"no more")
    client.assert_ended()


def test_early_answer_with_upload_going_on(client: Wire, origin: Origin) -> None:
    """An answer may stream while the request still does."""
    client.request("POST", f"{origin.prefix}/", "Transfer-Encoding: chunked")
    server = origin.accept()
    server.read_head()
    server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.read_head()
    for letter in (b"a", b"b", b"c"):
        client.send(b"1\r\n" + letter + b"\r\n")
        assert server.read(6) == b"1\r\n" + letter + b"\r\n"
        server.send(b"1\r\n" + letter + b"\r\n")
        assert client.read(6) == b"1\r\n" + letter + b"\r\n"
    client.send(b"0\r\n\r\n")
    assert server.read(5) == b"0\r\n\r\n"
    server.send(b"0\r\n\r\n")
    assert client.read(5) == b"0\r\n\r\n"


def test_client_goes_away(proxy: Proxy, origin: Origin) -> None:
    """The request is cancelled at once when nobody waits for its answer."""
    with proxy.connect() as client:
        client.request("GET", f"{origin.prefix}/slow")
        server = origin.accept()
        server.read_message()
    assert server.assert_cut() == b""
    proxy.output.wait_for(rf'"GET {origin.prefix}/slow HTTP/1.1" - 0 .*failed="client went away"')


def test_client_goes_away_while_uploading(proxy: Proxy, origin: Origin) -> None:
    """Half a body is never taken for a whole one."""
    with proxy.connect() as client:
        client.request("POST", f"{origin.prefix}/", "Transfer-Encoding: chunked")
        client.send(b"3\r\nabc\r\n")
        server = origin.accept()
        server.read_head()
        server.read(8)
    server.assert_cut()


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 10", b"half"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n0\r\n"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalfway\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n+1\r\na\r\n0\r\n\r\n"),
    ],
)
def test_truncated_answers(client: Wire, origin: Origin, framing: bytes, body: bytes) -> None:
    """An answer that ends early, or turns out malformed, never looks complete."""
    client.request("GET", f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    client.read_head()
    server.send(body)
    server.close()
    assert not client.assert_cut().endswith(b"0\r\n\r\n")


def test_close_delimited_answer(client: Wire, origin: Origin) -> None:
    """The end of the origin's connection ends the body, which the client gets in chunks."""
    client.request("GET", f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    server.close()
    assert client.read_message().body == b"until the end"


def test_close_delimited_answer_reset(client: Wire, origin: Origin) -> None:
    """A reset is no end."""
    client.request("GET", f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.send(b"HTTP/1.0 200 OK\r\n\r\nuntil")
    client.read_head()
    server.reset()
    client.assert_cut()


def test_sent_again_once(client: Wire, origin: Origin) -> None:
    """A kept connection that the origin closes just then costs nobody a request (RFC 9112 section 9.3.1)."""
    client.request("GET", f"{origin.prefix}/1")
    first = origin.accept()
    first.read_message()
    first.respond("1")
    client.read_message()
    client.request("GET", f"{origin.prefix}/2")
    first.read_message()
    first.close()
    second = origin.accept()
    assert second.read_message().line == "GET /2 HTTP/1.1"
    second.close()
    assert client.read_message().status == 502
    origin.assert_idle()


@pytest.mark.parametrize("request_line", ["POST {}/2 HTTP/1.1", "PUT {}/2 HTTP/1.1"])
def test_not_sent_again(client: Wire, origin: Origin, request_line: str) -> None:
    """What is not idempotent, or whose body has been read, is never repeated."""
    client.request("GET", f"{origin.prefix}/1")
    first = origin.accept()
    first.read_message()
    first.respond("1")
    client.read_message()
    client.send(request_line.format(origin.prefix) + "\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
    first.read_message()
    first.close()
    response = client.read_message()
    assert response.status == 502
    assert response.get("Proxy-Status") == "proxyd; error=connection_terminated"
    origin.assert_idle()


def test_octets_after_the_answer(client: Wire, origin: Origin) -> None:
    """An origin that sends more than its answer is not asked again on that connection."""
    client.request("GET", f"{origin.prefix}/1")
    first = origin.accept()
    first.read_message()
    first.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert client.read_message().body == b"1"
    client.request("GET", f"{origin.prefix}/2")
    second = origin.accept()
    second.read_message()
    second.respond("2")
    assert client.read_message().body == b"2"


def test_no_rule(client: Wire) -> None:
    """A path that no rule takes is 404, and the connection goes on."""
    client.request("GET", "/nowhere")
    response = client.read_message()
    assert response.status == 404
    assert response.get("Proxy-Status") == "proxyd; error=destination_not_found"
    assert response.body == b'{"error": "No rule matches this path.", "status": 404}\n'
    client.request("HEAD", "/nowhere", "Accept: text/html")
    response = client.read_message(bodiless=True)
    assert (response.status, response.get("Content-Type")) == (404, "text/html; charset=utf-8")
    client.request("GET", "/nowhere", "Accept: text/html,*/*")
    assert b"<h1>404 Not Found</h1>" in client.read_message().body


def test_origin_away(client: Wire, origin: Origin) -> None:
    """An origin server that refuses connections is 502; its address stays with us."""
    origin.close()
    client.request("GET", f"{origin.prefix}/")
    response = client.read_message()
    assert response.status == 502
    assert response.get("Proxy-Status") == "proxyd; error=connection_refused"
    assert str(origin.port).encode() not in response.body


def test_options_for_the_proxy(client: Wire) -> None:
    """OPTIONS * asks proxyd itself (RFC 9110 section 9.3.7)."""
    client.request("OPTIONS", "*")
    response = client.read_message()
    assert response.status == 204
    assert "GET" in (response.get("Allow") or "")


def test_max_forwards(client: Wire, origin: Origin) -> None:
    """TRACE and OPTIONS go no further than they may (RFC 9110 section 7.6.2)."""
    client.request("TRACE", f"{origin.prefix}/", "Max-Forwards: 0", "Cookie: secret", "X-Own: 1")
    response = client.read_message()
    assert (response.status, response.get("Content-Type")) == (200, "message/http")
    assert b"X-Own: 1" in response.body
    assert b"secret" not in response.body
    server = None
    for method, seen in [("GET", "2"), ("OPTIONS", "1"), ("OPTIONS", "1"), ("GET", "2"), ("TRACE", "1")]:
        client.request(method, f"{origin.prefix}/", "Max-Forwards: 2")
        server = server or origin.accept()
        assert server.read_message().get("Max-Forwards") == seen
        server.respond()
        client.read_message()
