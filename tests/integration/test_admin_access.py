"""Who may call the admin API, from where, and what happens to those who may not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.admin import READER, TOKENS, WRITER, Admin
from tests.support.proxy import Proxy
from tests.support.wire import Wire

LOOPBACK = "tcp:0:interface=127.0.0.1"
RULE = {"name": "n", "pattern": "^/", "target": "http://127.0.0.1:1"}


@pytest.fixture
def guarded(start: Callable[..., Proxy]) -> Proxy:
    """A proxy whose admin API asks for tokens."""
    return start(admin={"listen": [LOOPBACK], "tokens": TOKENS, "hosts": ["proxy.example", "other.example:8443"]})


def refused_start(folder: Path, **config: object) -> str:
    """What a proxy says that does not start."""
    file = folder / "refused.yaml"
    file.write_text(yaml.safe_dump({"listen": [LOOPBACK], **config}))
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "proxyd"]
    ended = subprocess.run([*twistd, "--config", file], capture_output=True, text=True, cwd=folder, timeout=30)
    assert ended.returncode == 1, ended
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said
    return said


def test_roles(guarded: Proxy) -> None:
    """A token that may read reads, one that may write does both."""
    admin = guarded.admin
    for reads in ("/api/rules", "/api/history", "/api/connections", "/api/status", "/api/openapi.json", "/metrics"):
        assert admin.call("GET", reads).status == 200
        assert admin.as_reader().call("GET", reads).status == 200
        assert admin.with_token(None).call("GET", reads).status == 401
    for method, path in (
        ("POST", "/api/rules"), ("PUT", "/api/rules/reorder"), ("DELETE", "/api/rules/x"), ("POST", "/api/reload"),
        ("PATCH", "/api/rules/x/toggle"), ("DELETE", "/api/connections?rule=x"), ("POST", "/api/history/1/rollback"),
    ):
        assert admin.as_reader().call(method, path, RULE).status == 403
    assert admin.as_reader().call("POST", "/api/explain", {"url": "/"}).status == 200


def test_challenge(guarded: Proxy) -> None:
    """Who shows no token, a wrong one, or something else is asked for one."""
    admin = guarded.admin.with_token(None)
    for shown in ("", "Bearer", "Bearer wrong-token-0123456789", f"Basic {WRITER}", f"Bearer {WRITER}x", WRITER):
        reply = admin.call("GET", "/api/rules", Authorization=shown)
        assert reply.status == 401 and reply.fields["www-authenticate"].startswith("Bearer"), shown
        assert reply.fields["cache-control"] == "no-store"
    assert admin.call("GET", "/api/rules", Authorization=f"bearer {READER}").status == 200
    # What does not exist is no different from what does.
    assert admin.call("GET", "/api/none").status == 401


def test_too_many_wrong_tokens(guarded: Proxy) -> None:
    """After ten wrong tokens an address waits, whatever it shows then."""
    wrong = guarded.admin.with_token("wrong-token-0123456789")
    assert [wrong.call("GET", "/api/rules").status for _ in range(11)] == [401] * 10 + [429]
    reply = guarded.admin.call("GET", "/api/rules")
    assert reply.status == 429 and 1 <= int(reply.fields["retry-after"]) <= 60
    assert guarded.admin.call("GET", "/healthz").status == 200
    assert "wrong-token" not in guarded.output.text


def test_ways_to_give_a_token(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """Itself, by its digest, or in a file with a line break at its end."""
    (tmp_path / "token").write_text("in-a-file-0123456789\n")
    digest = hashlib.sha256(b"by-digest-0123456789").hexdigest()
    tokens = [
        {"name": "a", "role": "read", "sha256": digest},
        {"name": "b", "role": "write", "file": str(tmp_path / "token")},
    ]
    admin = start(admin={"listen": [LOOPBACK], "tokens": tokens}).admin
    assert admin.with_token("by-digest-0123456789").call("POST", "/api/rules", RULE).status == 403
    assert admin.with_token("in-a-file-0123456789").call("POST", "/api/rules", RULE).status == 201
    assert admin.with_token(digest).call("GET", "/api/rules").status == 401


def test_loopback_without_tokens_reads(start: Callable[..., Proxy]) -> None:
    """Every program of this machine reaches a loopback address: it may look."""
    admin = start(admin={"listen": [LOOPBACK]}).admin.with_token(None)
    assert admin.call("GET", "/api/rules").status == 200
    assert admin.call("POST", "/api/rules", RULE).status == 403
    assert admin.call("POST", "/api/explain", {"url": "/x"}).status == 200


def test_unix_socket_without_tokens_writes(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """Only the user that proxyd runs as reaches its socket: it may write."""
    path = tmp_path / "admin.sock"
    start(admin={"listen": [f"unix:{path}"]})
    assert path.stat().st_mode & 0o777 == 0o600
    admin = Admin(path=str(path), token=None)
    assert admin.call("POST", "/api/rules", RULE).status == 201
    assert admin.call("GET", "/api/history").json[0]["who"] == "unix socket"


@pytest.mark.parametrize("listener", ["tcp:0", "tcp:0:interface=0.0.0.0", "tcp6:0:interface=\\:\\:"])
def test_open_listeners_need_tokens(tmp_path: Path, listener: str) -> None:
    """What others reach does not start without tokens."""
    said = refused_start(tmp_path, admin={"listen": [listener]})
    assert "admin.listen.0" in said and "admin.tokens" in said


def test_open_socket_needs_tokens(tmp_path: Path) -> None:
    """Nor does a socket that others may open."""
    said = refused_start(tmp_path, admin={"listen": [f"unix:{tmp_path}/a.sock:mode=660"]})
    assert "mode 660" in said and "admin.tokens" in said


def test_bad_tokens(tmp_path: Path) -> None:
    """A token that is too short, or a file that is not there, stops the start, and is not printed."""
    bad = [{"name": "a", "role": "write", "token": "hush"}, {"name": "b", "role": "owner", "token": WRITER}]
    said = refused_start(tmp_path, admin={"listen": [LOOPBACK], "tokens": bad})
    assert "admin.tokens.0.token" in said and "16 characters" in said and "admin.tokens.1.role" in said
    assert "hush" not in said and WRITER not in said
    missing = [{"name": "a", "role": "write", "file": "none"}]
    assert "none cannot be read" in refused_start(tmp_path, admin={"listen": [LOOPBACK], "tokens": missing})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:9000", 200), ("[::1]", 200), ("app.localhost", 200), ("proxy.example", 200),
        ("PROXY.example:99", 200), ("other.example:8443", 200), ("other.example", 403), ("evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("localhost.evil.example", 403), ("10.0.0.1", 403), ("127.evil.example", 403),
    ],
)
def test_host(guarded: Proxy, host: str, status: int) -> None:
    """A page of another site that has its name point here (DNS rebinding) gets nothing, not even the page."""
    for path in ("/api/rules", "/", "/healthz"):
        reply = guarded.admin.call("GET", path, Host=host)
        assert (reply.status == 403) is (status == 403), path


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:9000", 200), ("http://localhost", 403), ("https://localhost:9000", 200), ("null", 403),
        ("http://evil.example", 403), ("http://localhost:9000.evil.example", 403), ("ftp://localhost:9000", 403),
    ],
)
def test_origin(guarded: Proxy, origin: str, status: int) -> None:
    """A page may call only the API that it came from."""
    reply = guarded.admin.call("GET", "/api/rules", Host="localhost:9000", Origin=origin)
    assert reply.status == status


def test_json_only(guarded: Proxy) -> None:
    """What a form of another page can send is no call."""
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
        assert guarded.admin.call("POST", "/api/rules", RULE, Content_Type=media_type).status == 415
        assert guarded.admin.call("POST", "/api/reload", None, Content_Type=media_type).status == 415
    assert guarded.admin.call("POST", "/api/rules", RULE, Content_Type="application/json; charset=utf-8").status == 201


def test_methods_and_paths(guarded: Proxy) -> None:
    """What cannot be done says what can; what is not there is said to those who may know."""
    admin = guarded.admin
    reply = admin.call("POST", "/api/status")
    assert reply.status == 405 and reply.fields["allow"] == "GET, HEAD"
    assert admin.call("PUT", "/api/rules", RULE).fields["allow"] == "GET, HEAD, POST"
    assert admin.call("DELETE", "/healthz").status == 405
    assert admin.call("GET", "/api/none").status == 404
    head = admin.call("HEAD", "/api/rules")
    assert head.status == 200 and head.octets == b"" and int(head.fields["content-length"]) > 2


def test_base(start: Callable[..., Proxy]) -> None:
    """The API can be under a path, for a proxy in front of it."""
    admin = start(admin={"listen": [LOOPBACK], "tokens": TOKENS, "base": "/admin"}).admin
    assert admin.call("GET", "/admin/api/rules").status == 200
    assert admin.call("GET", "/api/rules").status == 404
    assert admin.call("GET", "/adminapi/rules").status == 404
    assert admin.call("GET", "/admin/api/openapi.json").json["servers"] == [{"url": "/admin"}]


def test_open_metrics(start: Callable[..., Proxy]) -> None:
    """Numbers without a token only when the operator says so."""
    closed = start(admin={"listen": [LOOPBACK], "tokens": TOKENS}).admin.with_token(None)
    assert closed.call("GET", "/metrics").status == 401
    open_one = start(admin={"listen": [LOOPBACK], "tokens": TOKENS, "metrics": "open"}).admin.with_token(None)
    assert open_one.call("GET", "/metrics").status == 200
    assert open_one.call("GET", "/api/rules").status == 401


def test_keeps_its_connections(guarded: Proxy) -> None:
    """Calls may follow one another on a connection, refused ones too, and be sent ahead."""
    with Wire.to(guarded.admin_ports[0]) as wire:
        call = f"GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {READER}\r\n\r\n"
        wire.send("GET /api/rules HTTP/1.1\r\nHost: localhost\r\n\r\n" + call * 3)
        assert [wire.read_message().status for _ in range(4)] == [401, 200, 200, 200]


def test_the_address_of_a_caller(start: Callable[..., Proxy]) -> None:
    """Behind a proxy that is trusted, wrong tokens of one client do not lock the others out."""
    proxy = start(admin={"listen": [LOOPBACK], "tokens": TOKENS}, trustedProxies=["127.0.0.1"])
    wrong = proxy.admin.with_token("wrong-token-0123456789")
    assert [wrong.call("GET", "/api/rules", X_Forwarded_For="192.0.2.1").status for _ in range(11)][-1] == 429
    assert proxy.admin.call("GET", "/api/rules", X_Forwarded_For="192.0.2.1").status == 429
    assert proxy.admin.call("GET", "/api/rules", X_Forwarded_For="192.0.2.2").status == 200


def test_to_the_page(start: Callable[..., Proxy]) -> None:
    """Without its slash the base leads to the page."""
    reply = start(admin={"listen": [LOOPBACK], "base": "/admin/"}).admin.call("GET", "/admin")
    assert (reply.status, reply.fields["location"]) == (308, "/admin/")


def test_store_that_is_none(tmp_path: Path) -> None:
    """A store that can never be one ends the process, with a status and a reason."""
    assert "no/rules.db" in refused_start(tmp_path, admin={"listen": [LOOPBACK]}, store="sqlite:no/rules.db")
    (tmp_path / "text").write_text("this is no database, however long it may be" * 100)
    assert "file is not a database" in refused_start(tmp_path, admin={"listen": [LOOPBACK]}, store="sqlite:text")


def test_a_token_is_changed(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """A reload reads the files of tokens again; one that is bad changes nothing."""
    file = tmp_path / "token"
    file.write_text("the-first-token-01\n")
    config = {"admin": {"listen": [LOOPBACK], "tokens": [{"name": "a", "role": "write", "file": str(file)}]}}
    proxy = start(**config)
    first, second = proxy.admin.with_token("the-first-token-01"), proxy.admin.with_token("the-second-token-2")
    assert (first.call("GET", "/api/rules").status, second.call("GET", "/api/rules").status) == (200, 401)
    file.write_text("the-second-token-2\n")
    proxy.reload(config)
    assert (first.call("GET", "/api/rules").status, second.call("GET", "/api/rules").status) == (401, 200)
    file.write_text("short\n")
    proxy.reload(config)
    assert second.call("GET", "/api/rules").status == 200
    assert "at least 16 characters" in second.call("GET", "/api/status").json["reloadError"]


def test_relative_socket(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """A socket may be named by where proxyd was started; one without a file is everybody's."""
    proxy = start(admin={"listen": ["unix:a.sock"]})
    assert Admin(path=str(proxy.folder / "a.sock"), token=None).call("POST", "/api/rules", RULE).status == 201
