"""Rules that change at run time, over the admin API of a real proxy."""

from __future__ import annotations

import contextlib
import http.client
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.admin import TOKENS
from tests.support.proxy import Proxy
from tests.support.wire import Origin, Wire

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}


@pytest.fixture
def managed(start: Callable[..., Proxy], own_origin: Origin) -> Proxy:
    """A proxy with one rule in its file, for C{/static}, and an admin API."""
    target = f"http://127.0.0.1:{own_origin.port}"
    rule = {"name": "file", "id": "file", "pattern": "^/static", "target": target, "headers": {"X-Secret": "s3cret"}}
    return start(admin=ADMIN, rules=[rule])


def ask(proxy: Proxy, origin: Origin, path: str) -> str:
    """Send one request; the request line that the origin server gets."""
    with proxy.connect() as client:
        client.request("GET", path)
        with origin.accept() as server:
            line = server.read_message().line
            server.respond("ok")
            assert client.read_message().body == b"ok"
            return line


def status(proxy: Proxy, path: str) -> int:
    """The status of a request that proxyd answers itself."""
    with proxy.connect() as client:
        client.request("GET", path)
        return client.read_message().status


def target(origin: Origin, path: str = "") -> str:
    """The URL of an origin server."""
    return f"http://127.0.0.1:{origin.port}{path}"


def test_next_request(managed: Proxy, own_origin: Origin) -> None:
    """A rule that is added, changed, toggled or deleted acts on the very next request."""
    admin = managed.admin
    assert status(managed, "/new/x") == 404
    rule = admin.add(pattern="^/new/(.*)$", target=target(own_origin), rewrite="/a/$1")
    assert ask(managed, own_origin, "/new/x") == "GET /a/x HTTP/1.1"
    assert admin.call("PUT", f"/api/rules/{rule['id']}", {"rewrite": "/b/$1"}).status == 200
    assert ask(managed, own_origin, "/new/x") == "GET /b/x HTTP/1.1"
    assert admin.call("PATCH", f"/api/rules/{rule['id']}/toggle").json["enabled"] is False
    assert status(managed, "/new/x") == 404
    assert admin.call("PATCH", f"/api/rules/{rule['id']}/toggle").json["enabled"] is True
    assert ask(managed, own_origin, "/new/x") == "GET /b/x HTTP/1.1"
    assert admin.call("DELETE", f"/api/rules/{rule['id']}").json == {"deleted": True, "id": rule["id"]}
    assert status(managed, "/new/x") == 404


def test_every_default(managed: Proxy) -> None:
    """A rule is shown with all its fields, and can be sent back as it is shown."""
    admin = managed.admin
    made = admin.add(pattern="^/x", target="http://127.0.0.1:1")
    shown = admin.call("GET", f"/api/rules/{made['id']}").json
    assert shown == made
    assert shown["readonly"] is False and shown["ws"] is True and shown["order"] == 0
    assert shown["timeouts"] == {"connect": None, "response": None, "body": None, "websocketIdle": None}
    assert shown["resolvedTarget"] == "http://127.0.0.1:1"
    again = admin.call("PUT", f"/api/rules/{made['id']}", shown)
    assert again.status == 200 and again.json == shown


def test_absent_keeps_and_null_resets(managed: Proxy) -> None:
    """An update says what changes: null is the default again."""
    admin = managed.admin
    made = admin.add(pattern="^/x", target="http://127.0.0.1:1", rewrite="/y", ws=False)
    changed = admin.call("PUT", f"/api/rules/{made['id']}", {"rewrite": None}).json
    assert (changed["rewrite"], changed["ws"]) == (None, False)
    assert admin.call("PUT", f"/api/rules/{made['id']}", {"name": None}).status == 400


def test_static_first_and_read_only(managed: Proxy) -> None:
    """The file's rules come first, and nobody changes them here."""
    admin = managed.admin
    made = admin.add(pattern="^/static", target="http://127.0.0.1:1")
    assert admin.ids() == ["file", made["id"]]
    assert admin.call("GET", "/api/rules").json[0]["readonly"] is True
    for method, path, body in (
        ("PUT", "/api/rules/file", {"name": "x"}),
        ("PUT", "/api/rules/file", b"no JSON"),
        ("DELETE", "/api/rules/file", None),
        ("PATCH", "/api/rules/file/toggle", None),
    ):
        reply = admin.call(method, path, body)
        assert reply.status == 403 and "configuration file" in reply.error
    taken = {"id": "file", "name": "x", "pattern": "a", "target": "http://a"}
    assert admin.call("POST", "/api/rules", taken).status == 409


def test_order(managed: Proxy, own_origin: Origin) -> None:
    """Rules come last unless they say otherwise; a new order must name each of them once."""
    admin = managed.admin
    first = admin.add(id="first", pattern="^/r", target=target(own_origin, "/first"))
    admin.add(id="second", pattern="^/r", target=target(own_origin, "/second"))
    admin.add(id="zeroth", pattern="^/q", target=target(own_origin), order=-1)
    assert admin.ids() == ["file", "zeroth", "first", "second"]
    assert ask(managed, own_origin, "/r") == "GET /first/r HTTP/1.1"
    twice, unknown = ["first", "second", "zeroth", "zeroth"], ["first", "second", "other"]
    for ids in ([], ["first"], twice, unknown, ["file", "first"]):
        assert admin.call("PUT", "/api/rules/reorder", {"ids": ids}).status == 400
    reply = admin.call("PUT", "/api/rules/reorder", {"ids": ["second", "first", "zeroth"]})
    assert [rule["id"] for rule in reply.json] == ["file", "second", "first", "zeroth"]
    assert ask(managed, own_origin, "/r") == "GET /second/r HTTP/1.1"
    assert first["order"] == 0


def test_all_problems_at_once(managed: Proxy) -> None:
    """What is wrong is said by field, all of it, and nothing is kept."""
    reply = managed.admin.call("POST", "/api/rules", {"name": "", "pattern": "(", "target": "x", "nonsense": 1})
    assert reply.status == 400
    assert {one["field"] for one in reply.json["problems"]} == {"name", "pattern", "target", "nonsense"}
    assert reply.json["field"] in ("name", "pattern", "target", "nonsense")
    assert managed.admin.ids() == ["file"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b"null", b'{"name": "a", "name": "b"}', b'{"name": NaN}', b'{"name": "\\ud800"}',
     b"\xff", b"[" * 100_000],
    ids=repr,
)
def test_no_json(managed: Proxy, body: bytes) -> None:
    """What is no JSON object, or one that could be read in two ways, is refused."""
    reply = managed.admin.call("POST", "/api/rules", body)
    assert reply.status == 400 and reply.error


def test_order_of_checks(managed: Proxy) -> None:
    """401, 403 for the role, 404, 403 for the rule, 400, 412."""
    admin = managed.admin
    made = admin.add(id="one", pattern="^/x", target="http://127.0.0.1:1")
    assert made["id"] == "one"
    wrong = b"no JSON"
    stale = {"If_Match": '"0"'}
    assert admin.with_token(None).call("PUT", "/api/rules/none", wrong, **stale).status == 401
    assert admin.as_reader().call("PUT", "/api/rules/none", wrong, **stale).status == 403
    assert admin.call("PUT", "/api/rules/none", wrong, **stale).status == 404
    assert admin.call("PUT", "/api/rules/file", wrong, **stale).status == 403
    assert admin.call("PUT", "/api/rules/one", wrong, **stale).status == 400
    assert admin.call("PUT", "/api/rules/one", {"name": "new"}, **stale).status == 412
    assert admin.call("GET", "/api/rules/one").json["name"] == "test"


def test_if_match(managed: Proxy) -> None:
    """Who has seen an older state changes nothing: every conditional call looks at the entity tag."""
    admin = managed.admin
    admin.add(id="one", pattern="^/x", target="http://127.0.0.1:1")
    tag = admin.call("GET", "/api/rules/one").fields["etag"]
    fresh = admin.call("PUT", "/api/rules/one", {"name": "new"}, If_Match=tag).fields["etag"]
    assert fresh != tag
    assert admin.call("PUT", "/api/rules/one", {"name": "newer"}, If_Match=tag).status == 412
    assert admin.call("PATCH", "/api/rules/one/toggle", If_Match=tag).status == 412
    assert admin.call("DELETE", "/api/rules/one", If_Match=tag).status == 412
    assert admin.call("PUT", "/api/rules/one", {"name": "newer"}, If_Match=f'"x", {fresh}').status == 200
    assert admin.call("PUT", "/api/rules/one", {"name": "newest"}, If_Match="*").status == 200
    listed = admin.call("GET", "/api/rules").fields["etag"]
    admin.add(id="two", pattern="^/y", target="http://127.0.0.1:1")
    assert admin.call("PUT", "/api/rules/reorder", {"ids": ["two", "one"]}, If_Match=listed).status == 412
    listed = admin.call("GET", "/api/rules").fields["etag"]
    assert admin.call("PUT", "/api/rules/reorder", {"ids": ["two", "one"]}, If_Match=listed).status == 200
    assert admin.call("GET", "/api/rules", If_None_Match=listed).status == 200
    listed = admin.call("GET", "/api/rules").fields["etag"]
    assert admin.call("GET", "/api/rules", If_None_Match=listed).status == 304


def test_tags_of_another_store(start: Callable[..., Proxy]) -> None:
    """A store that is made anew has other tags, although its rules have the same numbers."""
    tags = set()
    for store in ("memory:", "memory:", "sqlite:a.db", "sqlite:b.db"):
        admin = start(admin=ADMIN, store=store).admin
        admin.add(id="one", pattern="^/x", target="http://a")
        tags |= {admin.call("GET", path).fields["etag"] for path in ("/api/rules", "/api/rules/one")}
    assert len(tags) == 8


def test_rules_that_somebody_has_spoilt(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """What is no rule any more is listed with what is wrong, can be deleted, and stops nothing."""
    proxy = start(admin=ADMIN)
    for name in ("good", "text", "headers", "order", "id"):
        proxy.admin.add(id=name, pattern=f"^/{name}", target=target(own_origin))
    proxy.stop()
    spoilt = {
        "text": "no JSON", "headers": '{"headers": "x", "proxy": {"url": "http://a:hush@b", "headers": []}}',
        "order": '{"order": "first"}', "id": '{"id": "other", "name": 5}',
    }
    with contextlib.closing(sqlite3.connect(proxy.folder / "rules.db")) as database, database:
        for name, document in spoilt.items():
            database.execute("UPDATE rules SET document = ? WHERE id = ?", (document, name))
    again = Proxy(proxy.folder, {"admin": ADMIN})
    try:
        assert ask(again, own_origin, "/good") == "GET /good HTTP/1.1"
        for admin in (again.admin, again.admin.as_reader()):
            listed = {rule["id"]: rule for rule in admin.call("GET", "/api/rules").json}
            assert set(listed) == {"good", *spoilt} and listed["good"]["problem"] is None
            assert all(listed[name]["problem"] for name in spoilt)
        assert b"hush" not in again.admin.as_reader().call("GET", "/api/rules").octets
        again.admin.add(id="new", pattern="^/new", target=target(own_origin))
        assert ask(again, own_origin, "/new") == "GET /new HTTP/1.1"
        for name in spoilt:
            assert again.admin.call("DELETE", f"/api/rules/{name}").status == 200
        assert again.admin.ids() == ["good", "new"]
    finally:
        again.stop()


def test_no_update_is_lost(managed: Proxy) -> None:
    """Many who add one to a number at the same time, each by its entity tag: none of the additions is lost."""
    admin = managed.admin
    admin.add(id="count", pattern="^/x", target="http://127.0.0.1:1", headers={"N": "0"})

    def add_one() -> None:
        while True:
            seen = admin.call("GET", "/api/rules/count")
            number = int(seen.json["headers"]["N"])
            reply = admin.call(
                "PUT", "/api/rules/count", {"headers": {"N": str(number + 1)}}, If_Match=seen.fields["etag"]
            )
            if reply.status == 200:
                return
            assert reply.status == 412

    threads = [threading.Thread(target=add_one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert admin.call("GET", "/api/rules/count").json["headers"]["N"] == "12"
    assert len(admin.call("GET", "/api/history").json) == 13


def test_history_and_rollback(managed: Proxy) -> None:
    """Every change says who, when, before and after, and can be taken back, that of a roll-back, too."""
    admin = managed.admin
    admin.add(id="one", pattern="^/x", target="http://127.0.0.1:1")
    admin.add(id="two", pattern="^/y", target="http://127.0.0.1:1")
    admin.call("PUT", "/api/rules/one", {"name": "renamed"})
    admin.call("PUT", "/api/rules/reorder", {"ids": ["two", "one"]})
    admin.call("DELETE", "/api/rules/one")
    history = admin.call("GET", "/api/history").json
    assert [(one["id"], one["action"], one["rule"], one["who"]) for one in history] == [
        (5, "delete", "one", "ops"), (4, "reorder", None, "ops"), (3, "update", "one", "ops"),
        (2, "create", "two", "ops"), (1, "create", "one", "ops"),
    ]
    assert history[2]["before"]["name"] == "test" and history[2]["after"]["name"] == "renamed"
    assert history[1]["before"] == ["one", "two"] and history[1]["after"] == ["two", "one"]
    assert history[0]["at"].startswith("20") and history[0]["at"].endswith("Z")
    undone = admin.call("POST", "/api/history/5/rollback").json
    assert (undone["id"], undone["action"], undone["after"]["name"]) == (6, "rollback", "renamed")
    assert admin.ids() == ["file", "two", "one"]
    assert admin.call("POST", "/api/history/4/rollback").status == 200
    assert admin.ids() == ["file", "one", "two"]
    assert admin.call("POST", "/api/history/4/rollback").status == 409
    admin.call("POST", "/api/history/3/rollback")
    assert admin.call("GET", "/api/rules/one").json["name"] == "test"
    admin.call("POST", "/api/history/2/rollback")
    assert admin.ids() == ["file", "one"]
    assert admin.call("POST", "/api/history/2/rollback").status == 409
    admin.call("POST", "/api/history/6/rollback")
    assert admin.ids() == ["file"]
    assert admin.call("POST", "/api/history/99/rollback").status == 404
    assert [one["id"] for one in admin.call("GET", "/api/history?limit=2&before=4").json] == [3, 2]
    for query in ("limit=0", "limit=x", "before=0", "other=1", "limit=1&limit=2"):
        assert admin.call("GET", f"/api/history?{query}").status == 400


def test_kept_over_a_restart(managed: Proxy, own_origin: Origin) -> None:
    """What was answered is kept: the same rules are in force after a restart, from the first request on."""
    admin = managed.admin
    admin.add(id="kept", pattern="^/kept", target=target(own_origin))
    managed.stop()
    again = Proxy(managed.folder, {"admin": ADMIN})
    try:
        assert again.admin.ids() == ["kept"]
        assert ask(again, own_origin, "/kept") == "GET /kept HTTP/1.1"
        assert (managed.folder / "rules.db").stat().st_mode & 0o777 == 0o600
    finally:
        again.stop()


def test_what_began_is_finished(managed: Proxy, own_origin: Origin) -> None:
    """A request that is being served finishes by the rule that it began with, deleted or not."""
    admin = managed.admin
    admin.add(id="gone", pattern="^/gone", target=target(own_origin))
    with managed.connect() as client:
        client.request("GET", "/gone")
        with own_origin.accept() as server:
            server.read_message()
            admin.call("DELETE", "/api/rules/gone")
            assert status(managed, "/gone") == 404
            server.respond("to the end")
            assert client.read_message().body == b"to the end"


def test_kept_connections(managed: Proxy, own_origin: Origin) -> None:
    """Changing one rule leaves the connections of the others alone."""
    admin = managed.admin
    with managed.connect() as client:
        client.request("GET", "/static")
        with own_origin.accept() as server:
            server.read_message()
            server.respond("1")
            assert client.read_message().body == b"1"
            admin.add(id="other", pattern="^/other", target=target(own_origin))
            admin.call("DELETE", "/api/rules/other")
            client.request("GET", "/static")
            server.read_message()
            server.respond("2")
            assert client.read_message().body == b"2"


def test_masks(managed: Proxy) -> None:
    """Secrets are shown to those who may write, and to nobody else, in no place."""
    admin = managed.admin
    admin.add(
        id="secret", pattern="^/x", target="http://127.0.0.1:1",
        headers={"Authorization": "Basic hush1", "Cookie": None},
        proxy={"url": "http://user:hush2@127.0.0.1:3128", "headers": {"X-Key": "hush3"}},
        auth={"bearer": {"tokens": ["hush4-0123456789", {"name": "n", "token": "hush5-0123456789"}]}},
    )
    reader = admin.as_reader()
    for path in ("/api/rules", "/api/rules/secret", "/api/history", "/api/status", "/metrics"):
        seen = reader.call("GET", path)
        assert seen.status == 200 and b"hush" not in seen.octets and b"s3cret" not in seen.octets
    explained = reader.call("POST", "/api/explain", {"url": "/static"})
    assert b"s3cret" not in explained.octets and b"X-Secret" in explained.octets
    shown = reader.call("GET", "/api/rules/secret").json
    assert shown["headers"] == {"Authorization": "********", "Cookie": None}
    assert shown["proxy"]["url"].startswith("http://********@127.0.0.1") and "resolvedTarget" not in shown
    written = admin.call("GET", "/api/rules/secret").octets
    assert all(secret in written for secret in (b"hush1", b"hush2", b"hush3", b"hush4", b"hush5"))
    assert "hush" not in managed.output.text


def test_masks_come_back(managed: Proxy) -> None:
    """A mask keeps the secret while it goes where it went; else the secret must be given again."""
    admin = managed.admin
    admin.add(
        id="one", pattern="^/x", target="http://127.0.0.1:1", headers={"X-Key": "hush", "X-Plain": "p"},
        proxy="http://user:hush@127.0.0.1:3128",
    )
    shown = admin.as_reader().call("GET", "/api/rules/one").json
    kept = admin.call("PUT", "/api/rules/one", {**shown, "name": "renamed"})
    assert kept.status == 200, kept
    assert kept.json["headers"] == {"X-Key": "hush", "X-Plain": "p"} and "user:hush@" in kept.json["proxy"]
    for change in (
        {"target": "http://127.0.0.1:2"}, {"rewrite": "/y"}, {"secure": False},
        {"proxy": "http://********@127.0.0.2:3128"},
        {"proxy": None}, {"tls": {"serverName": "other"}}, {"headers": {"X-New": "********"}},
    ):
        reply = admin.call("PUT", "/api/rules/one", {**shown, **change})
        assert reply.status == 400 and "give" in reply.error, (change, reply)
    given = {"target": "http://127.0.0.1:2", "headers": {"X-Key": "new"}, "proxy": None}
    assert admin.call("PUT", "/api/rules/one", given).status == 200
    new = {"name": "n", "pattern": "a", "target": "http://a", "headers": {"A": "********"}}
    assert admin.call("POST", "/api/rules", new).status == 400


@pytest.mark.parametrize(
    ("allowance", "field", "rule"),
    [
        ("endpoint", "endpoint", {"endpoint": "tcp:127.0.0.1:1"}),
        ("http+unix", "target", {"target": "http+unix://%2Frun%2Fx.sock/"}),
        ("files", "tls.ca", {"tls": {"ca": "x.pem"}}),
        ("files", "proxy.tls.ca", {"proxy": {"url": "https://127.0.0.1:1", "tls": {"ca": "x.pem"}}}),
        ("pac", "proxy.pac", {"proxy": {"pac": "x.pac"}}),
        ("files", "auth", {"auth": {"basic": {"htpasswd": "x"}}}),
        ("http+unix", "auth.forward.url", {"auth": {"forward": {"url": "http+unix://%2Frun%2Fx.sock/"}}}),
    ],
)
def test_a_writer_is_not_root(start: Callable[..., Proxy], allowance: str, field: str, rule: dict[str, Any]) -> None:
    """What opens files and sockets of this machine needs the operator's leave, by name."""
    whole = {"name": "n", "pattern": "^/", "target": "http://127.0.0.1:1", **rule}
    refused = start(admin=ADMIN).admin.call("POST", "/api/rules", whole)
    assert refused.status == 403 and refused.json["field"] == field and f"lists {allowance}" in refused.error
    allowed = start(admin={**ADMIN, "allow": [allowance]}).admin.call("POST", "/api/rules", whole)
    assert allowed.status == 201, allowed


def test_variables(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A rule may name the variables that the operator lists, and no others."""
    proxy = start(
        admin={**ADMIN, "variables": ["APP_*"]},
        environment={"APP_PORT": str(own_origin.port), "SECRET": "hush"},
    )
    admin = proxy.admin
    for rule in ({"target": "http://${SECRET}/"}, {"target": "http://a", "headers": {"X": "${SECRET}"}}):
        reply = admin.call("POST", "/api/rules", {"name": "n", "pattern": "^/", **rule})
        assert reply.status == 403 and "SECRET" in reply.error and "hush" not in reply.error
    made = admin.add(pattern="^/", target="http://127.0.0.1:${APP_PORT}")
    assert made["resolvedTarget"] == target(own_origin)
    assert ask(proxy, own_origin, "/x") == "GET /x HTTP/1.1"
    unset = admin.add(id="unset", pattern="^/", target="http://${APP_HOST}", order=-1)
    assert unset["resolvedTarget"] is None
    assert status(proxy, "/x") == 502


def test_where_a_rule_must_not_lead(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A rule of the API leads neither to proxyd's own listeners, by whatever name, nor to link-local addresses."""
    proxy = start(
        listen=["tcp:0:interface=127.0.0.1", "tcp:0"],
        admin=ADMIN,
        rules=[{"name": "loop", "pattern": "^/file/(.*)", "target": "http://127.0.0.1:${PORT}", "rewrite": "/$1"}],
        environment={"PORT": "1"},
    )
    admin = proxy.admin
    bad = [
        f"http://127.0.0.1:{proxy.ports[0]}", f"http://localhost:{proxy.admin_ports[0]}",
        f"http://127.0.0.2:{proxy.ports[1]}", f"http://0.0.0.0:{proxy.ports[1]}",
        f"http://[::ffff:127.0.0.1]:{proxy.ports[0]}",
        "http://169.254.169.254", "http://[fe80::1]",
    ]
    for index, url in enumerate(bad):
        admin.add(id=f"bad{index}", pattern=f"^/bad{index}$", target=url)
        with proxy.connect() as client:
            client.request("GET", f"/bad{index}")
            refused = client.read_message()
            assert refused.status == 502, url
            assert "destination_ip_prohibited" in (refused.get("proxy-status") or ""), url
    admin.add(id="by-proxy", pattern="^/by-proxy", target="http://169.254.169.254",
              proxy=f"http://127.0.0.1:{own_origin.port}")
    admin.add(id="to-proxy", pattern="^/to-proxy", target="http://127.0.0.1:1",
              proxy=f"http://127.0.0.1:{proxy.ports[0]}")
    assert status(proxy, "/by-proxy") == 502 and status(proxy, "/to-proxy") == 502
    own_origin.assert_idle()
    proxy.output.wait_for("must not lead to", len(bad) + 2)


def test_reload_and_dynamic_rules(managed: Proxy, own_origin: Origin) -> None:
    """A reload keeps the rules of the store; an id that the file takes is the file's."""
    admin = managed.admin
    admin.add(id="mine", pattern="^/mine", target=target(own_origin, "/store"))
    rule = {"name": "file", "id": "file", "pattern": "^/static", "target": target(own_origin)}
    managed.reload({"admin": ADMIN, "rules": [rule]})
    assert ask(managed, own_origin, "/mine") == "GET /store/mine HTTP/1.1"
    taking = {"name": "taken", "id": "mine", "pattern": "^/mine", "target": target(own_origin, "/file")}
    managed.write({"admin": ADMIN, "rules": [rule, taking]})
    assert admin.call("POST", "/api/reload").json == {"reloaded": True, "rules": 2, "restartNeeded": []}
    assert ask(managed, own_origin, "/mine") == "GET /file/mine HTTP/1.1"
    assert "the file has a rule of this id" in admin.call("GET", "/api/rules").json[2]["problem"]
    managed.write({"admin": ADMIN, "rules": [rule, {"name": "bad"}]})
    reply = admin.call("POST", "/api/reload")
    assert reply.status == 409 and "pattern" in reply.error
    assert "pattern" in admin.call("GET", "/api/status").json["reloadError"]
    managed.write({"admin": {**ADMIN, "hosts": ["x"]}, "store": "memory:", "rules": [rule]})
    assert admin.call("POST", "/api/reload").json["restartNeeded"] == ["admin", "store"]


def test_long_bodies(managed: Proxy) -> None:
    """A long body has a limit, and is not read before the token has been looked at."""
    with Wire.to(managed.admin_ports[0]) as wire:
        wire.send("POST /api/rules HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        assert wire.read_message().status == 401
    big = managed.admin.call("POST", "/api/rules", b'{"name": "' + b"x" * 1_100_000 + b'"}')
    assert big.status == 413


def test_admin_is_closed_when_there_is_none(start: Callable[..., Proxy]) -> None:
    """Without an admin section nothing is listened on, and no file is made."""
    proxy = start(rules=[])
    assert status(proxy, "/api/rules") == 404
    assert not (proxy.folder / "rules.db").exists()




def test_killed_while_writing(managed: Proxy) -> None:
    """Whatever was answered before the process is killed is there afterwards, and in force."""
    config = {"admin": ADMIN}
    proxy, folder, answered = managed, managed.folder, ["file"]
    for turn in range(4):
        added: list[str] = []
        enough = threading.Event()

        def write(turn: int = turn, added: list[str] = added, enough: threading.Event = enough,
                  admin: Any = proxy.admin) -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                for number in range(10_000):
                    added.append(admin.add(id=f"r{turn}-{number}", pattern=f"^/{number}$", target="http://a")["id"])
                    if len(added) > 10 * turn:
                        enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(20)
        proxy.stop()
        writer.join(20)
        answered += added
        proxy = Proxy(folder, config)
        kept = proxy.admin.ids()
        # One more may have been kept that nobody was told of.
        assert set(answered) - {"file"} <= set(kept) and len(kept) <= len(answered) - 1 + turn + 1
        assert len(proxy.admin.call("GET", "/api/history?limit=200").json) == len(kept)
    proxy.stop()


def test_no_change(managed: Proxy) -> None:
    """What changes nothing is in no history, and leaves the entity tag as it is."""
    admin = managed.admin
    admin.add(id="one", pattern="^/x", target="http://127.0.0.1:1")
    tag = admin.call("GET", "/api/rules/one").fields["etag"]
    for change in ({}, {"enabled": True}, {"rewrite": None}, {"name": "test"}, {"headers": {}}):
        assert admin.call("PUT", "/api/rules/one", change).fields["etag"] == tag
    admin.call("PUT", "/api/rules/reorder", {"ids": ["one"]})
    assert len(admin.call("GET", "/api/history").json) == 1


def test_last_order(managed: Proxy) -> None:
    """Behind the largest order there is room all the same."""
    admin = managed.admin
    admin.add(id="b", pattern="^/x", target="http://127.0.0.1:1", order=1_000_000_000)
    assert admin.add(id="a", pattern="^/x", target="http://127.0.0.1:1")["order"] == 1_000_000_000
    assert admin.ids() == ["file", "a", "b"]
    over = {"name": "n", "pattern": "a", "target": "http://a", "order": 1_000_000_001}
    assert admin.call("POST", "/api/rules", over).error == "must be at most 1000000000"


def test_explain_where_a_rule_must_not_lead(managed: Proxy) -> None:
    """What will be refused is said beforehand, where an address is known."""
    managed.admin.add(pattern="^/meta", target="http://169.254.169.254/latest")
    told = managed.admin.call("POST", "/api/explain", {"url": "/meta"}).json
    assert told["status"] == 502 and "link-local" in told["error"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hosts", [f"*a{number}.x" for number in range(257)]),
        ("hosts", ["*" + "a?" * 20_000 + str(number) for number in range(3)]),
        ("publicRoutes", [f"/*a{number}" for number in range(257)]),
        ("publicRoutes", {"GET": ["/" + "*a" * 30_000]}),
        ("headers", {f"X-{number}": "1" for number in range(257)}),
        ("origins", [f"http://a{number}" for number in range(257)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_too_much(managed: Proxy, field: str, value: Any) -> None:
    """What no table can be made of is refused before it is kept, and everything goes on."""
    admin = managed.admin
    rule = {"name": "n", "pattern": "^/x", "target": "http://127.0.0.1:9", field: value}
    reply = admin.call("POST", "/api/rules", rule)
    assert reply.status in (400, 413), reply
    assert admin.ids() == ["file"]
    admin.add(id="fine", pattern="^/fine", target="http://127.0.0.1:9")
    assert admin.call("POST", "/api/reload").status == 200


def test_names_that_are_no_paths(managed: Proxy) -> None:
    """A rule that no call could name is not made."""
    for name in (".", "..", "reorder"):
        rule = {"id": name, "name": "n", "pattern": "^/x", "target": "http://a"}
        assert managed.admin.call("POST", "/api/rules", rule).status == 400


def test_secrets_that_are_written_oddly(managed: Proxy) -> None:
    """Credentials with an @ in them are hidden whole, in the history as well."""
    managed.admin.add(pattern="^/x", target="http://a", proxy="http://user:first@SECOND@proxy.test:3128")
    for path in ("/api/history", "/api/rules"):
        seen = managed.admin.as_reader().call("GET", path).octets
        assert b"SECOND" not in seen and b"first" not in seen and b"proxy.test:3128" in seen


def test_files_that_never_end(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A rule that names a pipe for its users lets nobody in, and holds nobody up."""
    proxy = start(admin={**ADMIN, "allow": ["files"]})
    os.mkfifo(proxy.folder / "pipe")
    for index, auth in enumerate(
        ({"basic": {"htpasswd": "pipe"}}, {"bearer": {"tokens": [{"name": "a", "file": "/dev/zero"}]}})
    ):
        proxy.admin.add(pattern=f"^/pipe{index}", target=target(own_origin), auth=auth)
        assert status(proxy, f"/pipe{index}") == 502
    proxy.admin.add(pattern="^/other", target=target(own_origin))
    assert ask(proxy, own_origin, "/other") == "GET /other HTTP/1.1"
    proxy.output.wait_for("no ordinary file", 2)


def test_readers_see_no_variables(start: Callable[..., Proxy]) -> None:
    """What a variable holds is shown to those who may write only, in explanations, too."""
    rules = [{"name": "n", "id": "n", "pattern": "^/n", "target": "http://127.0.0.1:9/${SECRET}", "changeOrigin": True},
             {"name": "h", "id": "h", "pattern": "^/h", "target": "http://${HOST}", "changeOrigin": True},
             {"name": "bad", "id": "bad", "pattern": "^/bad", "target": "http://${BAD}/"}]
    proxy = start(admin=ADMIN, rules=rules, environment={"SECRET": "s3cr3t", "HOST": "h1dden.test", "BAD": "b4d value"})
    for url in ("/n", "/h", "/bad"):
        seen = proxy.admin.as_reader().call("POST", "/api/explain", {"url": url}).octets
        assert not any(secret in seen for secret in (b"s3cr3t", b"h1dden", b"b4d")), seen
    assert b"http://127.0.0.1:9/s3cr3t/n" in proxy.admin.call("POST", "/api/explain", {"url": "/n"}).octets
    assert status(proxy, "/bad") == 502
    proxy.output.wait_for("is no URL with BAD")
    assert "b4d" not in proxy.output.text


def test_connections_are_kept_over_a_change(start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A rule that goes the same way as before keeps its connections, and their number stays limited."""
    proxy = start(admin=ADMIN, limits={"perHost": 1}, timeouts={"connect": 0.5})
    admin = proxy.admin
    admin.add(id="one", pattern="^/", target=target(own_origin))
    with proxy.connect() as client, proxy.connect() as other:
        client.request("GET", "/1")
        with own_origin.accept() as server:
            server.read_message()
            admin.call("PUT", "/api/rules/one", {"name": "renamed"})
            other.request("GET", "/2")
            assert other.read_message().status == 503
            server.respond("1")
            assert client.read_message().body == b"1"
            admin.call("PUT", "/api/rules/one", {"name": "again"})
            other.request("GET", "/3")
            assert server.read_message().line == "GET /3 HTTP/1.1"
            server.respond("3")
            assert other.read_message().body == b"3"


def test_long_histories(managed: Proxy) -> None:
    """An answer of the history ends at a size; the rest is before its last entry."""
    admin = managed.admin
    admin.add(id="one", pattern="^/x", target="http://a", base="x" * 100_000)
    for number in range(12):
        admin.call("PUT", "/api/rules/one", {"name": f"n{number}"})
    found: list[int] = []
    while more := admin.call("GET", f"/api/history?limit=200{f'&before={found[-1]}' if found else ''}").json:
        assert len(more) < 10
        found += [one["id"] for one in more]
    assert found == list(range(13, 0, -1))


def test_odd_numbers(managed: Proxy) -> None:
    """Numbers that no store and no machine has are none."""
    admin = managed.admin
    assert admin.call("GET", f"/api/history?before={10**30}").status == 400
    assert admin.call("POST", f"/api/history/{10**30}/rollback").status == 404
    assert admin.call("DELETE", "/api/connections/" + "9" * 5000).status == 404
    admin.add(id="one", pattern="^/x", target="http://a")
    assert admin.call("PUT", "/api/rules/one", {"name": "x"}, If_Match='"a,*,b"').status == 412
