"""Authentication through a real twistd: who gets in, who does not, and what the origin server learns."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bcrypt
import pytest

from tests.support.certificates import Authority, server_context
from tests.support.proxy import Proxy
from tests.support.wire import Message, Origin, Wire

TOKEN = "a-token-that-is-long-enough"
OTHER_TOKEN = "another-one-that-is-long-enough"
UPGRADE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip

Start = Callable[..., Proxy]


def hashed(password: str, cost: int = 4) -> str:
    """A line of a password file, without the user."""
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode().replace("$2b$", "$2y$")


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    """A password file."""
    file = tmp_path / "htpasswd"
    file.write_text(f"# who may\n\nann:{hashed('open sesame')}\nbob:{hashed('b' * 80)}:comment\n")
    return file


def basic(user: str, password: str) -> str:
    """A field that shows a password."""
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def bearer(token: str) -> str:
    """A field that shows a token."""
    return f"Authorization: Bearer {token}"


ANN = basic("ann", "open sesame")


def rule(origin: Origin, **fields: Any) -> dict[str, Any]:
    """A rule for all paths."""
    return {"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{origin.port}", **fields}


def ask(proxy: Proxy, target: str, *fields: str, method: str = "GET") -> Message:
    """One request on a connection of its own that is not let through."""
    with proxy.connect() as client:
        client.request(method, target, *fields)
        return client.read_message(bodiless=method == "HEAD")


def reaches(proxy: Proxy, origin: Origin, target: str, *fields: str, method: str = "GET") -> Message:
    """The request as the origin server gets it."""
    with proxy.connect() as client:
        client.request(method, target, *fields)
        with origin.accept() as server:
            request = server.read_message()
            server.respond("ok", "Connection: close")
            assert client.read_message(bodiless=method == "HEAD").status == 200
        return request


def assert_refused(answer: Message, challenge: str) -> None:
    """It is proxyd's own 401."""
    assert answer.status == 401
    assert answer.get("WWW-Authenticate") == challenge
    assert answer.get("Proxy-Status") == "proxyd; error=http_request_denied"
    assert answer.get("Cache-Control") == "no-store"
    assert answer.get("Connection") is None


BASIC = 'Basic realm="proxyd", charset="UTF-8"'
BEARER = 'Bearer realm="proxyd"'


# Basic


def test_basic(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """Who knows a password gets in, and nobody else; the origin server does not learn it."""
    proxy = start(auth={"basic": {"htpasswd": str(htpasswd)}}, rules=[rule(own_origin)])
    request = reaches(proxy, own_origin, "/a", ANN)
    assert request.get("Authorization") is None
    for fields in (
        (),
        (basic("ann", "wrong"),),
        (basic("nobody", "open sesame"),),
        (basic("ann", ""),),
        (basic("ann", "open sesame\x00"),),
        (ANN, ANN),
        ("Authorization: Basic",),
        ("Authorization: Basic ???",),
        ("Authorization: Basic " + base64.b64encode(b"ann").decode(),),
        ("Authorization: Basic " + base64.b64encode(b"ann:\xff").decode(),),
        (bearer(TOKEN),),
    ):
        assert_refused(ask(proxy, "/a", *fields), BASIC)
    own_origin.assert_idle()
    assert reaches(proxy, own_origin, "/a", ANN.replace("Basic", "bAsIc  ")).line == "GET /a HTTP/1.1"


def test_long_password(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """The first 72 octets count, as with other servers."""
    proxy = start(auth={"basic": {"htpasswd": str(htpasswd)}}, rules=[rule(own_origin)])
    reaches(proxy, own_origin, "/", basic("bob", "b" * 72))
    reaches(proxy, own_origin, "/", basic("bob", "b" * 80))
    assert ask(proxy, "/", basic("bob", "b" * 71)).status == 401


def test_connection_stays_usable(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """After a 401 the same connection serves the next request, also one that was sent ahead."""
    proxy = start(auth={"basic": {"htpasswd": str(htpasswd)}}, rules=[rule(own_origin)])
    with proxy.connect() as client:
        client.request("GET", "/1", basic("ann", "wrong"))
        client.request("GET", "/2", ANN)
        assert client.read_message().status == 401
        server = own_origin.accept()
        assert server.read_message().line == "GET /2 HTTP/1.1"
        server.respond("ok")
        assert client.read_message().body == b"ok"
        client.request("HEAD", "/3")
        assert client.read_message(bodiless=True).status == 401
        client.request("GET", "/4", ANN)
        assert server.read_message().line == "GET /4 HTTP/1.1"


def test_bodies_of_answers(start: Start, own_origin: Origin) -> None:
    """Programs get JSON, people a page."""
    proxy = start(auth={"bearer": {"tokens": [TOKEN]}}, rules=[rule(own_origin)])
    assert json.loads(ask(proxy, "/").body) == {"error": "Authentication is required.", "status": 401}
    assert b"<h1>401 Unauthorized</h1>" in ask(proxy, "/", "Accept: text/html").body


def test_pass(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """With pass the origin server gets what was shown."""
    proxy = start(
        rules=[
            rule(own_origin, pattern="^/a", auth={"basic": {"htpasswd": str(htpasswd), "pass": True}}),
            rule(own_origin, pattern="^/b", auth={"bearer": {"tokens": [TOKEN], "pass": True}}),
        ]
    )
    assert reaches(proxy, own_origin, "/a", ANN).get("Authorization") == ANN.partition(": ")[2]
    assert reaches(proxy, own_origin, "/b", bearer(TOKEN)).get("Authorization") == f"Bearer {TOKEN}"


def test_rule_sets_authorization(start: Start, own_origin: Origin) -> None:
    """What the rule itself sets reaches the origin server in place of what the client showed."""
    proxy = start(auth={"bearer": {"tokens": [TOKEN]}}, rules=[rule(own_origin, headers={"Authorization": "Own x"})])
    assert reaches(proxy, own_origin, "/", bearer(TOKEN)).all("Authorization") == ["Own x"]


def test_body_is_not_read(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """An upload without authentication is refused before its body, and no 100 asks for it."""
    proxy = start(auth={"basic": {"htpasswd": str(htpasswd)}}, rules=[rule(own_origin)])
    for shown in ((), (basic("ann", "wrong"),)):
        with proxy.connect() as client:
            client.request("POST", "/", "Content-Length: 100000000", "Expect: 100-continue", *shown)
            answer = client.read_message()
            assert (answer.status, answer.get("Connection")) == (401, "close")
            client.assert_ended()
    own_origin.assert_idle()
    with proxy.connect() as client:
        client.request("POST", "/", ANN, body=b"x" * 100_000)
        server = own_origin.accept()
        assert server.read_message().body == b"x" * 100_000


def test_hashing_holds_nobody_up(start: Start, own_origin: Origin, tmp_path: Path) -> None:
    """While passwords are hashed, other requests are served: they overtake."""
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{hashed('open sesame', 13)}\n")
    auth = {"basic": {"htpasswd": str(file)}}
    proxy = start(auth=auth, rules=[rule(own_origin, publicRoutes=["/public"])])
    slow = [proxy.connect() for _ in range(4)]
    for number, one in enumerate(slow):
        one.request("GET", f"/{number}", ANN if number == 3 else basic("ann", f"wrong {number}"))
    with proxy.connect() as quick:
        quick.request("GET", "/public")
        server = own_origin.accept()
        assert server.read_message().line == "GET /public HTTP/1.1"
        server.respond("ok")
        assert quick.read_message().body == b"ok"
    assert [one.read_message().status for one in slow[:3]] == [401] * 3
    assert server.read_message().line == "GET /3 HTTP/1.1"
    for one in slow:
        one.close()


def test_client_goes_while_hashing(start: Start, own_origin: Origin, tmp_path: Path) -> None:
    """The origin server never hears of the request of a client that has gone."""
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{hashed('open sesame', 12)}\n")
    proxy = start(auth={"basic": {"htpasswd": str(file)}}, rules=[rule(own_origin)])
    gone = proxy.connect()
    gone.request("GET", "/gone", ANN)
    gone.close()
    proxy.output.wait_for("client went away")
    assert reaches(proxy, own_origin, "/here", ANN).line == "GET /here HTTP/1.1"


def test_reload(start: Start, own_origin: Origin, tmp_path: Path) -> None:
    """Passwords change with a reload, also those that were right a moment ago; a bad file changes nothing."""
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{hashed('old')}\n")
    config = {"auth": {"basic": {"htpasswd": str(file)}}, "rules": [rule(own_origin)]}
    proxy = start(**config)
    reaches(proxy, own_origin, "/", basic("ann", "old"))
    file.write_text(f"ann:{hashed('new')}\n")
    reaches(proxy, own_origin, "/", basic("ann", "old"))
    proxy.reload(config)
    assert ask(proxy, "/", basic("ann", "old")).status == 401
    reaches(proxy, own_origin, "/", basic("ann", "new"))
    file.write_text("ann:{SHA}secret-of-ann\n")
    proxy.reload(config)
    reaches(proxy, own_origin, "/", basic("ann", "new"))
    assert f"{file}, line 1 has no bcrypt hash" in proxy.output.text
    assert "secret-of-ann" not in proxy.output.text


# Bearer


def test_bearer(start: Start, own_origin: Origin, tmp_path: Path) -> None:
    """Tokens are in the file, in files of their own, or there as digests."""
    (tmp_path / "token").write_text(f"{OTHER_TOKEN}\n")
    digest = hashlib.sha256(b"the-third-token-of-all").hexdigest()
    tokens = [
        TOKEN, {"name": "from file", "file": str(tmp_path / "token")}, {"name": "digest", "sha256": digest.upper()}
    ]
    proxy = start(auth={"bearer": {"tokens": tokens}}, rules=[rule(own_origin)])
    for token in (TOKEN, OTHER_TOKEN, "the-third-token-of-all"):
        assert reaches(proxy, own_origin, "/", bearer(token)).get("Authorization") is None
    assert_refused(ask(proxy, "/"), BEARER)
    assert_refused(ask(proxy, "/", ANN), BEARER)
    for wrong in (TOKEN + "x", TOKEN[:-1], digest, "x"):
        assert_refused(ask(proxy, "/", bearer(wrong)), BEARER + ', error="invalid_token"')
    assert ask(proxy, f"/?access_token={TOKEN}").status == 401


# Where


def test_service_and_rules(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """A rule's own authentication takes the place of the service's; "none" is none."""
    proxy = start(
        auth={"bearer": {"tokens": [TOKEN]}},
        rules=[
            rule(own_origin, pattern="^/basic", auth={"basic": {"htpasswd": str(htpasswd)}}),
            rule(own_origin, pattern="^/open", auth="none"),
            rule(own_origin, pattern="^/service", auth=None),
        ],
    )
    reaches(proxy, own_origin, "/basic", ANN)
    assert_refused(ask(proxy, "/basic", bearer(TOKEN)), BASIC)
    assert reaches(proxy, own_origin, "/open", ANN).get("Authorization") == ANN.partition(": ")[2]
    reaches(proxy, own_origin, "/service", bearer(TOKEN))
    assert ask(proxy, "/service", ANN).status == 401
    # A path that no rule takes asks as well.
    assert_refused(ask(proxy, "/unknown"), BEARER)
    assert ask(proxy, "/unknown", bearer(TOKEN)).status == 404


def test_rules_only(start: Start, own_origin: Origin) -> None:
    """Without the service's, only the rules that say so ask."""
    proxy = start(
        rules=[
            rule(own_origin, pattern="^/a", auth={"bearer": {"tokens": [TOKEN]}}),
            rule(own_origin, pattern="^/b"),
        ]
    )
    assert ask(proxy, "/a").status == 401
    reaches(proxy, own_origin, "/b")
    assert ask(proxy, "/c").status == 404


def test_before_anything_else_is_told(start: Start, own_origin: Origin) -> None:
    """Unset variables, refused upgrades and limits show only to those who may ask."""
    proxy = start(
        auth={"bearer": {"tokens": [TOKEN]}},
        rules=[
            rule(own_origin, pattern="^/unset", target="http://${PROXYD_TEST_UNSET}/"),
            rule(own_origin, pattern="^/http", ws=False),
            rule(own_origin, pattern="^/rewritten", rewrite="/a/../b"),
            rule(own_origin, pattern="^/small", limits={"body": 1}),
        ],
    )
    for target, fields, status in (
        ("/unset", (), 502),
        ("/http", UPGRADE, 404),
        ("/rewritten", (), 400),
        ("/small", ("Content-Length: 9",), 413),
    ):
        assert ask(proxy, target, *fields).status == 401
        assert ask(proxy, target, *fields, bearer(TOKEN)).status == status


def test_options_and_trace(start: Start, own_origin: Origin) -> None:
    """What proxyd answers itself for a path asks as well; OPTIONS for proxyd as such does not."""
    proxy = start(auth={"bearer": {"tokens": [TOKEN]}}, rules=[rule(own_origin, pattern="^/a")])
    assert ask(proxy, "*", method="OPTIONS").status == 204
    for target in ("/a", "/unknown"):
        for method, status in (("OPTIONS", 204), ("TRACE", 200)):
            assert ask(proxy, target, "Max-Forwards: 0", method=method).status == 401
            assert ask(proxy, target, "Max-Forwards: 0", bearer(TOKEN), method=method).status == status
    assert ask(proxy, "/a", method="OPTIONS").status == 401
    own_origin.assert_idle()


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_upgrades(start: Start, own_origin: Origin, htpasswd: Path, kind: str) -> None:
    """A WebSocket needs the same; the refusal is an ordinary answer, and the connection stays usable."""
    auth = {"basic": {"htpasswd": str(htpasswd)}} if kind == "basic" else {"bearer": {"tokens": [TOKEN]}}
    shown, wrong = (ANN, basic("ann", "x")) if kind == "basic" else (bearer(TOKEN), bearer(OTHER_TOKEN))
    proxy = start(auth=auth, rules=[rule(own_origin)])
    with proxy.connect() as client:
        for fields in ((), (wrong,)):
            client.request("GET", "/", *UPGRADE, *fields)
            answer = client.read_message()
            assert (answer.status, answer.get("Connection")) == (401, None)
        own_origin.assert_idle()
        client.request("GET", "/", *UPGRADE, shown)
        with own_origin.accept() as server:
            request = server.read_message()
            assert request.get("Upgrade") == "websocket"
            assert request.get("Authorization") is None
            server.send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept_for(request)}\r\n\r\n"
            )
            assert client.read_head().status == 101


def accept_for(request: Message) -> str:
    """What answers a handshake."""
    key = (request.get("Sec-WebSocket-Key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()


# Public routes


def test_public_routes(start: Start, own_origin: Origin) -> None:
    """Public are the paths that are named, with the methods that are named; GET covers HEAD."""
    routes = {"GET": ["/docs/**", "/health"], "ALL": ["/open/*"]}
    proxy = start(auth={"bearer": {"tokens": [TOKEN]}}, rules=[rule(own_origin, publicRoutes=routes)])
    for method, target in (
        ("GET", "/docs/a/b"), ("HEAD", "/docs/a"), ("GET", "/health?x"), ("POST", "/open/a"),
        ("GET", "/%64ocs/a"), ("GET", "/secret/../docs/a"), ("GET", "/secret/%2e%2E/health"),
    ):  # fmt: skip
        reaches(proxy, own_origin, target, method=method)
    for method, target in (
        ("POST", "/docs/a"), ("OPTIONS", "/docs/a"), ("GET", "/docs"), ("GET", "/open/a/b"), ("GET", "/Docs/a"),
        ("GET", "/health/"), ("GET", "/secret?/docs/a"),
    ):  # fmt: skip
        assert ask(proxy, target, method=method).status == 401, target
    # Whatever is public, credentials for proxyd stay here.
    assert reaches(proxy, own_origin, "/health", bearer("something else")).get("Authorization") is None


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/public/../secret", 401),
        ("/public/%2e%2e/secret", 401),
        ("/public/.%2E/secret", 401),
        ("/public/%2E./secret", 401),
        ("/public/x/../../secret", 401),
        ("//public/x", 401),
        ("/./secret/public/x", 401),
        ("/public%2Fx", 401),
        ("/public/%2Fsecret", 401),
        ("/public/a%2f..%2fsecret", 400),
        ("/public/..%2fsecret", 400),
        ("/public/..%5csecret", 400),
        ("/public/a%5cb", 401),
        ("/public/%00", 401),
        ("/public/%252e%252e/secret", 401),
        ("/public/x;y", 401),
        ("/public/..;/secret", 400),
        ("/public/\\..\\secret", 400),
        ("/public/x#/secret", 400),
        ("/Public/x", 401),
        ("http://example.test/public/../secret", 401),
        ("http://public/secret", 401),
        ("/secret/%2e%2e%2fpublic/x", 400),
    ],
)
def test_encodings_open_no_door(start: Start, own_origin: Origin, target: str, status: int) -> None:
    """What an origin server may take for another path is not public."""
    proxy = start(auth={"bearer": {"tokens": [TOKEN]}}, rules=[rule(own_origin, publicRoutes=["/public/**"])])
    assert ask(proxy, target).status == status
    own_origin.assert_idle()


def test_public_routes_of_the_rule_that_matches(start: Start, own_origin: Origin) -> None:
    """Only the rule that takes the request says what is public; an upgrade is public where a GET is."""
    proxy = start(
        auth={"bearer": {"tokens": [TOKEN]}},
        rules=[
            rule(own_origin, pattern="^/a", hosts=["example.test"]),
            rule(own_origin, pattern="^/", publicRoutes={"GET": ["/a", "/b"]}),
        ],
    )
    assert ask(proxy, "/a").status == 401
    reaches(proxy, own_origin, "/b")
    with proxy.connect() as client:
        client.request("GET", "/b", *UPGRADE)
        assert own_origin.accept().read_message().get("Upgrade") == "websocket"


# Forward


@pytest.fixture
def judge() -> Any:
    """An authentication server."""
    one = Origin()
    yield one
    one.close()


def forward(judge: Origin, *headers: str, path: str = "/check", **fields: Any) -> dict[str, Any]:
    """How it is asked."""
    return {"forward": {"url": f"http://127.0.0.1:{judge.port}{path}", "headers": list(headers), **fields}}


def test_forward_asks(start: Start, own_origin: Origin, judge: Origin) -> None:
    """The authentication server is told of the request, and never gets it."""
    proxy = start(auth=forward(judge, path="/check?a=b"), rules=[rule(own_origin)])
    with proxy.connect() as client:
        client.request(
            "POST", "/x/../a%2Fb?c=d", "Cookie: s=1", "Authorization: Odd one", "Cookie: t=2", "X-Other: 1",
            "Proxy-Authorization: Basic eA==", "X-Forwarded-Uri: /spoofed", "X-Forwarded-Method: SPOOFED",
            "X-Forwarded-For: 9.9.9.9", "Expect: 100-continue", "Content-Length: 4", host="site.test:99",
        )  # fmt: skip
        with judge.accept() as asked:
            question = asked.read_message()
            assert question.line == "GET /check?a=b HTTP/1.1"
            assert sorted(question.fields) == sorted(
                [
                    ("Host", f"127.0.0.1:{judge.port}"), ("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"),
                    ("X-Forwarded-Host", "site.test:99"), ("X-Forwarded-Proto", "http"),
                    ("X-Forwarded-Method", "POST"), ("X-Forwarded-Uri", "/a%2Fb?c=d"), ("Cookie", "s=1"),
                    ("Authorization", "Odd one"), ("Cookie", "t=2"),
                ]
            )  # fmt: skip
            own_origin.assert_idle()
            asked.respond("fine", "X-Other: 2")
            server = own_origin.accept()
            request = server.read_head()
            assert request.get("Authorization") == "Odd one"
            assert request.get("X-Other") == "1"
            server.send("HTTP/1.1 100 Continue\r\n\r\n")
            assert client.read_head().status == 100
            client.send("body")
            assert server.read(4) == b"body"
            server.respond("ok")
            assert client.read_message().body == b"ok"
            # The connection to the authentication server is used again.
            client.request("GET", "/b")
            assert asked.read_message().get("X-Forwarded-Uri") == "/b"


def test_forward_fields(start: Start, own_origin: Origin, judge: Origin) -> None:
    """The fields that are named come from the answer, in no spelling from the client, whatever Connection says."""
    proxy = start(
        auth=forward(judge, "X-User", "X-Groups", "X-Absent", "X-Set"),
        rules=[rule(own_origin, headers={"X-Set": "rule"})],
    )
    with proxy.connect() as client:
        client.request(
            "POST", "/", "X-User: root", "x-user: root", "X_User: root", "x_USER: root", "X.User: root", "X-Absent: 1",
            "X_Groups: wheel", "Connection: x-user, X-Groups", "Transfer-Encoding: chunked",
        )  # fmt: skip
        client.send("1\r\nx\r\n0\r\nX-User: root\r\nx_user: root\r\nX_Absent: 1\r\nX-Trailer: stays\r\n\r\n")
        with judge.accept() as asked:
            asked.read_message()
            asked.respond("", "X-User: ann", "x-groups: a", "X-Groups: b", "X-Set: judge", "X-Unnamed: 1")
        request = own_origin.accept().read_message()
    named = re.compile("x.*(user|groups|absent|set|unnamed)", re.IGNORECASE)
    got = [field for field in request.fields if named.fullmatch(field[0])]
    assert sorted(got) == [("X-Groups", "b"), ("X-Set", "rule"), ("X-User", "ann"), ("x-groups", "a")]
    assert request.trailers == (("X-Trailer", "stays"),)


def test_forward_fields_of_upgrades(start: Start, own_origin: Origin, judge: Origin) -> None:
    """The same on upgrades, which the authentication server does not see."""
    proxy = start(auth=forward(judge, "X-User"), rules=[rule(own_origin)])
    with proxy.connect() as client:
        client.request("GET", "/", *UPGRADE, "X-User: root")
        with judge.accept() as asked:
            question = asked.read_message()
            assert question.get("Upgrade") is question.get("Connection") is question.get("Sec-WebSocket-Key") is None
            asked.respond("", "X-User: ann")
        request = own_origin.accept().read_message()
        assert request.get("Upgrade") == "websocket"
        assert request.all("X-User") == ["ann"]


def test_forward_fields_of_those_who_are_not_asked(start: Start, own_origin: Origin, judge: Origin) -> None:
    """Nobody is asked about public requests and rules without authentication; the fields are removed there as well."""
    proxy = start(
        auth=forward(judge, "X-User"),
        rules=[
            rule(own_origin, pattern="^/open", auth="none"),
            rule(own_origin, pattern="^/bearer", auth={"bearer": {"tokens": [TOKEN]}}),
            rule(own_origin, publicRoutes=["/public"]),
        ],
    )
    for target in ("/open", "/public", "/bearer"):
        request = reaches(proxy, own_origin, target, "X-User: root", "X_USER: root", bearer(TOKEN))
        assert request.get("X-User") is request.get("X_USER") is None
    judge.assert_idle()


@pytest.mark.parametrize("status", ["302 Found", "401 Who", "403 No", "303 See", "429 Slow"])
def test_forward_refuses(start: Start, own_origin: Origin, judge: Origin, status: str) -> None:
    """3xx and 4xx go to the client whole."""
    proxy = start(auth=forward(judge, "X-User"), rules=[rule(own_origin)])
    with proxy.connect() as client:
        client.request("GET", "/")
        asked = judge.accept()
        asked.read_message()
        asked.respond(
            "<a>log in</a>", "Location: https://sso.test/?r=/", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-User: x",
            "WWW-Authenticate: Odd", "Content-Type: text/html", "Connection: x-gone", "X-Gone: 1", "Date: then",
            status=status,
        )  # fmt: skip
        answer = client.read_message()
        assert answer.line == f"HTTP/1.1 {status}"
        assert answer.fields == [
            ("Location", "https://sso.test/?r=/"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-User", "x"),
            ("WWW-Authenticate", "Odd"), ("Content-Type", "text/html"), ("Date", "then"), ("Content-Length", "13"),
        ]  # fmt: skip
        assert answer.body == b"<a>log in</a>"
        # So it is on upgrades and for HEAD, and with chunks.
        for method, fields in (("GET", UPGRADE), ("HEAD", ())):
            client.request(method, "/", *fields)
            asked.read_message()
            asked.send(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX-T: 1\r\n\r\n")
            answer = client.read_message(bodiless=method == "HEAD")
            assert answer.line == f"HTTP/1.1 {status}"
            # Who has sent no Date gets one.
            assert [name for name, _ in answer.fields] == ["Content-Length", "Date"]
            assert answer.get("Content-Length") == "2"
    own_origin.assert_idle()


@pytest.mark.parametrize(
    "octets",
    [
        "HTTP/1.1 500 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 407 Odd\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "200 OK\r\n\r\n",
        "",
    ],
)
def test_forward_fails(start: Start, own_origin: Origin, judge: Origin, octets: str) -> None:
    """Anything else is a 503, and no way in."""
    proxy = start(auth=forward(judge), rules=[rule(own_origin)])
    with proxy.connect() as client:
        client.request("GET", "/")
        with judge.accept() as asked:
            asked.read_message()
            asked.send(octets)
        answer = client.read_message()
        assert answer.status == 503
        assert answer.get("Proxy-Status") == "proxyd; error=destination_unavailable"
        assert str(judge.port).encode() not in answer.body
    own_origin.assert_idle()
    proxy.output.wait_for(rf"the authentication server 127.0.0.1:{judge.port} ")


def test_forward_answers_too_much(start: Start, own_origin: Origin, judge: Origin) -> None:
    """An answer of any length would be held in memory: over a mebibyte it is none."""
    proxy = start(auth=forward(judge), rules=[rule(own_origin)])
    for status, size, expected in (("403 No", 1 << 20, 403), ("403 No", (1 << 20) + 1, 503), ("200 OK", 1 << 21, 503)):
        with proxy.connect() as client:
            client.request("GET", "/")
            asked = judge.accept()
            asked.read_message()
            try:
                asked.respond(b"x" * size, "Connection: close", status=status)
            except ConnectionError:
                assert expected == 503
            answer = client.read_message()
            assert answer.status == expected
            assert (len(answer.body) == size) is (expected == 403)
    own_origin.assert_idle()


def test_forward_cannot_be_reached(start: Start, own_origin: Origin, judge: Origin) -> None:
    """Nobody there is a 503, and no way in."""
    judge.close()
    proxy = start(auth=forward(judge), rules=[rule(own_origin)])
    for _ in range(2):
        answer = ask(proxy, "/")
        assert (answer.status, answer.get("Proxy-Status")) == (503, "proxyd; error=destination_unavailable")
    assert ask(proxy, "/", *UPGRADE).status == 503
    own_origin.assert_idle()


def test_forward_is_silent(start: Start, own_origin: Origin, judge: Origin) -> None:
    """A time-out is a 503, before the head and within the body."""
    proxy = start(auth=forward(judge), rules=[rule(own_origin)], timeouts={"response": 0.1, "body": 0.1})
    for octets in ("", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"):
        with proxy.connect() as client:
            client.request("GET", "/")
            asked = judge.accept()
            asked.read_message()
            asked.send(octets)
            assert client.read_message().status == 503
    own_origin.assert_idle()


def test_forward_connection_went_stale(start: Start, own_origin: Origin, judge: Origin) -> None:
    """A kept connection that has ended is no reason to refuse anybody."""
    proxy = start(auth=forward(judge), rules=[rule(own_origin)])
    asked = None
    for _ in range(3):
        with proxy.connect() as client:
            client.request("GET", "/")
            if asked is not None:
                # It reads the next question, and ends without an answer.
                asked.read_message()
                asked.close()
            asked = judge.accept()
            asked.read_message()
            asked.respond("")
            with own_origin.accept() as server:
                server.read_message()
                server.respond("ok", "Connection: close")
                assert client.read_message().status == 200


def test_client_goes_while_being_judged(start: Start, own_origin: Origin, judge: Origin) -> None:
    """The client's end cancels the question."""
    proxy = start(auth=forward(judge), rules=[rule(own_origin)])
    client = proxy.connect()
    client.request("GET", "/")
    asked = judge.accept()
    asked.read_message()
    client.close()
    proxy.output.wait_for("client went away")
    asked.assert_cut()
    own_origin.assert_idle()


def test_forward_of_a_rule(start: Start, own_origin: Origin, judge: Origin) -> None:
    """A rule may have a server of its own, whose word is the rule's alone."""
    proxy = start(
        rules=[rule(own_origin, pattern="^/a", auth=forward(judge, "X-User")), rule(own_origin, pattern="^/b")]
    )
    assert reaches(proxy, own_origin, "/b", "X-User: own").get("X-User") == "own"
    with proxy.connect() as client:
        client.request("GET", "/a", "X-User: root")
        with judge.accept() as asked:
            asked.read_message()
            asked.respond("")
        assert own_origin.accept().read_message().get("X-User") is None


def test_forward_on_a_unix_socket(start: Start, own_origin: Origin, tmp_path: Path) -> None:
    """The authentication server may listen on a UNIX socket."""
    name = str(tmp_path / "sso")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen()
        url = f"http+unix://{quote(name, safe='')}/check"
        proxy = start(auth={"forward": {"url": url}}, rules=[rule(own_origin)])
        with proxy.connect() as client:
            client.request("GET", "/")
            with Wire(listening.accept()[0]) as asked:
                assert asked.read_message().line == "GET /check HTTP/1.1"
                asked.respond("no", status="403 No")
            assert client.read_message().status == 403


@pytest.mark.parametrize("trusted", [True, False])
def test_forward_over_tls(start: Start, own_origin: Origin, judge: Origin, tmp_path: Path, trusted: bool) -> None:
    """Over TLS the authentication server must have a good certificate: nobody else is believed."""
    authority = Authority(tmp_path / "ca")
    context = server_context(authority.sign("localhost"))
    proxy = start(
        auth={"forward": {"url": f"https://localhost:{judge.port}/"}}, rules=[rule(own_origin)],
        environment={"SSL_CERT_FILE": str(authority.file)} if trusted else {},
    )  # fmt: skip
    with proxy.connect() as client:
        client.request("GET", "/")
        if trusted:
            with judge.accept().over_tls(context) as asked:
                asked.read_message()
                asked.respond("no", status="403 No")
            assert client.read_message().status == 403
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                judge.accept().over_tls(context).read_some()
            assert client.read_message().status == 503


# Logs


def test_logs(start: Start, own_origin: Origin, htpasswd: Path) -> None:
    """The access log says who asked, and nothing says with what."""
    proxy = start(
        auth={"basic": {"htpasswd": str(htpasswd)}},
        rules=[
            rule(own_origin, pattern="^/b", auth={"bearer": {"tokens": [{"name": "the robot", "token": TOKEN}]}}),
            rule(own_origin),
        ],
    )
    reaches(proxy, own_origin, "/a", ANN)
    reaches(proxy, own_origin, "/b", bearer(TOKEN))
    ask(proxy, "/a", basic("ann-but-not", "wrong-one"))
    ask(proxy, "/b", bearer(OTHER_TOKEN))
    proxy.output.wait_for(r'127.0.0.1 - ann \[[^]]*\] "GET /a HTTP/1.1" 200')
    proxy.output.wait_for(r'127.0.0.1 - the\\x20robot \[[^]]*\] "GET /b HTTP/1.1" 200')
    proxy.output.wait_for(
        r'127.0.0.1 - - \[[^]]*\] "GET /a HTTP/1.1" 401 .*"client http_request_denied: Authentication is required."'
    )
    proxy.output.wait_for(r'127.0.0.1 - - \[[^]]*\] "GET /b HTTP/1.1" 401')
    for secret in ("sesame", "wrong-one", "ann-but-not", TOKEN, OTHER_TOKEN, ANN.split()[-1]):
        assert secret not in proxy.output.text
