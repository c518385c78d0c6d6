"""Requests that two servers could read differently, and answers that make no sense: what comes of them."""

from __future__ import annotations

import pytest

from tests.support.wire import Origin, Wire

HOST = "Host: a\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"

REFUSED = [
    ("length and chunks", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: 4\r\n" + CHUNKED + "\r\n0\r\n\r\n", 400),
    ("differing lengths", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400),
    ("list of lengths", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: 4, 4\r\n\r\nabcd", 400),
    ("signed length", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: +4\r\n\r\nabcd", 400),
    ("negative length", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: -4\r\n\r\nabcd", 400),
    ("hexadecimal length", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: 0x4\r\n\r\nabcd", 400),
    ("empty length", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length:\r\n\r\n", 400),
    ("length of over 2^63", "POST {} HTTP/1.1\r\n" + HOST + "Content-Length: 9223372036854775808\r\n\r\n", 400),
    ("unknown coding", "POST {} HTTP/1.1\r\n" + HOST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked twice", "POST {} HTTP/1.1\r\n" + HOST + CHUNKED + CHUNKED + "\r\n", 400),
    ("chunked in disguise", "POST {} HTTP/1.1\r\n" + HOST + "Transfer-Encoding: xchunked\r\n\r\n", 400),
    ("chunked with tab", "POST {} HTTP/1.1\r\n" + HOST + "Transfer-Encoding:\x0bchunked\r\n\r\n", 400),
    ("identity", "POST {} HTTP/1.1\r\n" + HOST + "Transfer-Encoding: identity\r\n\r\n", 400),
    ("chunks in HTTP/1.0", "POST {} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("space before the colon", "GET {} HTTP/1.1\r\n" + HOST + "Content-Length : 4\r\n\r\nabcd", 400),
    ("folded line", "GET {} HTTP/1.1\r\n" + HOST + "X-A: 1\r\n 2\r\n\r\n", 400),
    ("bare line feed", "GET {} HTTP/1.1\r\n" + HOST + "X-A: 1\nX-B: 2\r\n\r\n", 400),
    ("bare line feeds only", "GET {} HTTP/1.1\nHost: a\n\n", 400),
    ("bare carriage return", "GET {} HTTP/1.1\r\n" + HOST + "X-A: 1\rX-B: 2\r\n\r\n", 400),
    ("NUL", "GET {} HTTP/1.1\r\n" + HOST + "X-A: 1\x002\r\n\r\n", 400),
    ("no name", "GET {} HTTP/1.1\r\n" + HOST + ": 1\r\n\r\n", 400),
    ("no colon", "GET {} HTTP/1.1\r\n" + HOST + "X-A\r\n\r\n", 400),
    ("no host", "GET {} HTTP/1.1\r\n\r\n", 400),
    ("two hosts", "GET {} HTTP/1.1\r\n" + HOST + HOST + "\r\n", 400),
    ("odd host", "GET {} HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("host with user", "GET {} HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    ("two spaces", "GET  {} HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("tab", "GET\t{} HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("fragment", "GET {}#a HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("backslash", "GET {}\\a HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("octets over 127", "GET {}\xe9 HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("hidden dots", "GET {}..;/a HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("dots by a slash", "GET {}..%2Fa HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("many empty lines", "\r\n\r\n\r\nGET {} HTTP/1.1\r\n" + HOST + "\r\n", 400),
    ("no HTTP", "EHLO example.test\r\n\r\n", 400),
    ("HTTP/0.9", "GET {}\r\n\r\n", 400),
    ("HTTP/2", "GET {} HTTP/2.0\r\n" + HOST + "\r\n", 505),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("another protocol", "GET {} RTSP/1.0\r\n" + HOST + "\r\n", 400),
    ("unknown method", "BREW {} HTTP/1.1\r\n" + HOST + "\r\n", 501),
    ("CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405),
    ("long request line", "GET {}" + "a" * 9000 + " HTTP/1.1\r\n" + HOST + "\r\n", 414),
    ("endless request line", "GET {}" + "a" * 40000, 414),
    ("large head", "GET {} HTTP/1.1\r\n" + HOST + "X-A: " + "a" * 33000 + "\r\n\r\n", 431),
    ("endless head", "GET {} HTTP/1.1\r\n" + HOST + "X-A: a\r\n" * 5000, 431),
]


@pytest.mark.parametrize(("request_", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(client: Wire, origin: Origin, request_: str, status: int) -> None:
    """It is refused with a reason, the connection ends, and no origin server ever sees a request behind it."""
    smuggled = f"GET {origin.prefix}/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    client.send(request_.replace("{}", f"{origin.prefix}/") + smuggled)
    response = client.read_message()
    assert response.status == status
    assert response.get("Connection") == "close"
    assert (response.get("Proxy-Status") or "").startswith("proxyd; error=http_request_")
    client.assert_ended()
    origin.assert_idle()


@pytest.mark.parametrize(
    "body",
    [
        "5 \r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "11111111111111111\r\nhello",
        "5;" + "a" * 2000 + "\r\nhello",
        "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 1000,
        "0\r\nX-A: 1\r\n 2\r\n\r\n",
        "0\r\nX-A: " + "a" * 20000 + "\r\n\r\n",
    ],
)
def test_malformed_chunks(client: Wire, origin: Origin, body: str) -> None:
    """A body whose end two servers could see in different places is 400, and the origin server never gets its end."""
    client.request("POST", f"{origin.prefix}/", "Transfer-Encoding: chunked")
    server = origin.accept()
    server.read_head()
    client.send(body)
    response = client.read_message()
    assert (response.status, response.get("Connection")) == (400, "close")
    assert b"0\r\n\r\n" not in server.assert_cut()


CANONICAL = [
    ("empty line before", "\r\nGET {}/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1", {"Host": "a"}),
    ("white space", "GET {}/ HTTP/1.1\r\nHost:a\r\nX-A: \t 1 \t \r\n\r\n", "GET / HTTP/1.1", {"X-A": "1"}),
    ("no body", "POST {}/ HTTP/1.1\r\nHost:a\r\nContent-Length: 0\r\n\r\n", "POST / HTTP/1.1", {"Content-Length": "0"}),
]


@pytest.mark.parametrize(
    ("request_", "line", "fields"), [row[1:] for row in CANONICAL], ids=[row[0] for row in CANONICAL]
)
def test_canonical(client: Wire, origin: Origin, request_: str, line: str, fields: dict[str, str]) -> None:
    """What may be written in several ways is sent on in one."""
    client.send(request_.replace("{}", origin.prefix))
    request = origin.accept().read_message()
    assert request.line == line
    for name, value in fields.items():
        assert request.get(name) == value


NONSENSE = [
    ("no HTTP", b"220 mail.test ESMTP\r\n\r\n"),
    ("HTTP/2", b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("length and chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("differing lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"),
    ("signed length", b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nabcd"),
    ("unknown coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd"),
    ("unknown coding and chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("folded line", b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"),
    ("bare line feed", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("NUL", b"HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n"),
    ("large head", b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70000 + b"\r\n\r\n"),
    ("endless interim answers", b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n" * 3000),
    ("a switch that nobody asked for", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    ("status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
]


@pytest.mark.parametrize("answer", [row[1] for row in NONSENSE], ids=[row[0] for row in NONSENSE])
def test_answers_without_sense(client: Wire, origin: Origin, answer: bytes) -> None:
    """The client gets a 502, or the interim answers and then that, and the origin's connection is not used again."""
    client.request("GET", f"{origin.prefix}/")
    server = origin.accept()
    server.read_message()
    server.send(answer)
    while (response := client.read_message()).status < 200:
        pass
    assert response.status == 502
    assert (response.get("Proxy-Status") or "").startswith("proxyd; error=http_")
    client.request("GET", f"{origin.prefix}/")
    origin.accept().read_message()
