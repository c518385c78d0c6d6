"""proxyd rules and proxyd explain, as users type them."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.admin import READER, TOKENS, WRITER
from tests.support.proxies import free_port
from tests.support.proxy import Proxy

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}
COMMAND = [sys.executable, "-W", "error", "-c", "import sys; from proxyd.cli import main; sys.exit(main())"]


class Done(NamedTuple):
    """How a command has ended."""

    status: int
    out: str
    err: str


class Shell:
    """Where commands are typed."""

    def __init__(self, url: str, token: str | None) -> None:
        self.environment = {**os.environ, "PROXYD_ADMIN_URL": url}
        self.environment.pop("PROXYD_ADMIN_TOKEN", None)
        if token is not None:
            self.environment["PROXYD_ADMIN_TOKEN"] = token

    def run(self, *arguments: str) -> Done:
        """Type one command."""
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, timeout=30, env=self.environment
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def rules(self, *arguments: str) -> str:
        """Type C{proxyd rules}, which succeeds; what it prints."""
        done = self.run("rules", *arguments)
        assert done.status == 0, done
        return done.out

    def order(self) -> list[str]:
        """The ids of all rules."""
        return [rule["id"] for rule in json.loads(self.rules("list", "--json"))]


@pytest.fixture
def proxy(start: Callable[..., Proxy]) -> Proxy:
    """A proxy with one rule in its file."""
    rule = {"name": "File", "id": "file", "pattern": "^/static", "target": "http://127.0.0.1:1"}
    return start(admin=ADMIN, rules=[rule])


@pytest.fixture
def shell(proxy: Proxy) -> Shell:
    """A shell that may write."""
    return Shell(f"http://127.0.0.1:{proxy.admin_ports[0]}", WRITER)


def test_a_rule_from_its_making_to_its_end(shell: Shell) -> None:
    """Added, changed, disabled, enabled, removed, and brought back from the history."""
    added = shell.rules("add", "Users: all", "^/u/(.*)$", "http://a.test", "id=users", "rewrite=/$1", "ws=false",
                        "headers.X-Key=a: b", "hosts=[a.test, b.test]")
    assert "Users: all" in added and "pattern:" in added and "changeOrigin" not in added
    rule = json.loads(shell.rules("list", "--json"))[1]
    assert (rule["name"], rule["rewrite"], rule["ws"]) == ("Users: all", "/$1", False)
    assert rule["headers"] == {"X-Key": "a: b"} and rule["hosts"] == ["a.test", "b.test"]
    shell.rules("set", "users", "rewrite=null", "headers.X-Other=1", "timeouts.connect=2.5", "name=Users")
    rule = json.loads(shell.rules("list", "--json"))[1]
    assert rule["rewrite"] is None and rule["headers"] == {"X-Key": "a: b", "X-Other": "1"}
    assert rule["timeouts"]["connect"] == 2.5
    assert re.search(r"^enabled: +false$", shell.rules("disable", "users"), re.MULTILINE)
    assert shell.rules("list").splitlines()[2].startswith("off")
    shell.rules("enable", "users")
    listed = shell.rules("list").splitlines()
    assert listed[1].startswith("on, file  file") and listed[2].startswith("on ")
    assert shell.rules("remove", "users") == "users is deleted\n"
    history = shell.rules("history").splitlines()
    assert history[0].split() == ["N", "WHEN", "WHO", "WHAT", "RULE", "FIELDS"]
    assert history[1].split()[0] == "5" and "delete" in history[1] and "headers, name, rewrite, timeouts" in history[4]
    assert "rollback" in shell.rules("rollback", "5")
    assert shell.order() == ["file", "users"]
    assert len(shell.rules("history", "--limit", "2").splitlines()) == 3


def test_move(shell: Shell) -> None:
    """To either end, before and after another."""
    for name in "abc":
        shell.rules("add", name, "^/", "http://a.test", f"id={name}")
    shell.rules("move", "c", "--first")
    assert shell.order() == ["file", "c", "a", "b"]
    shell.rules("move", "c", "--after", "a")
    assert shell.order() == ["file", "a", "c", "b"]
    shell.rules("move", "a", "--last")
    assert shell.order() == ["file", "c", "b", "a"]
    assert "a" in shell.rules("move", "a", "--before", "b")
    assert shell.order() == ["file", "c", "a", "b"]
    for bad in (("x", "--first"), ("a", "--before", "file"), ("file", "--last"), ("a", "--after", "a")):
        assert shell.run("rules", "move", *bad).status == 1


def test_refused(shell: Shell) -> None:
    """Everything that is wrong, by field; the status says who is to blame."""
    done = shell.run("rules", "add", "n", "(", "ftp://x")
    assert done.status == 1 and "pattern: " in done.err and "target: " in done.err and not done.out
    assert shell.run("rules", "set", "file", "name=x").status == 1
    assert shell.run("rules", "remove", "none").err == "There is no rule none.\n"
    assert shell.run("rules", "rollback", "1").status == 1
    for usage in (("rules",), ("rules", "add"), ("rules", "set", "file"), ("rules", "set", "file", "nothing"),
                  ("rules", "add", "n", "p", "http://t", "tls={"), ("rules", "move", "file")):
        assert shell.run(*usage).status == 2, usage


def test_nobody_there(proxy: Proxy) -> None:
    """No proxyd, something else, a wrong URL, no token: clear words, and no token in them."""
    nobody = Shell(f"http://127.0.0.1:{free_port()}", WRITER).run("rules", "list")
    assert nobody.status == 2 and "cannot be reached" in nobody.err and "PROXYD_ADMIN_URL" in nobody.err
    other = Shell(proxy.url(), WRITER).run("rules", "list")
    assert other.status == 1 and "No rule matches" in other.err
    assert Shell("ftp://x", WRITER).run("rules", "list").status == 2
    denied = Shell(f"http://127.0.0.1:{proxy.admin_ports[0]}", None).run("rules", "list")
    assert denied.status == 1 and "PROXYD_ADMIN_TOKEN" in denied.err
    reader = Shell(f"http://127.0.0.1:{proxy.admin_ports[0]}/", READER)
    assert reader.run("rules", "remove", "file").err == (
        "You may only read here; to write needs a token of the role write.\n"
    )
    assert all(WRITER not in one.err for one in (nobody, other, denied))


def test_unix_socket(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """Where no token is needed."""
    start(admin={"listen": [f"unix:{tmp_path}/a.sock"], "base": "/admin/"})
    shell = Shell("http+unix://" + f"{tmp_path}/a.sock".replace("/", "%2F") + "/admin", None)
    shell.rules("add", "n", "^/", "http://a.test")
    assert len(shell.order()) == 1


def test_explain(shell: Shell, proxy: Proxy) -> None:
    """For people and for programs, of a running proxyd and of a file."""
    running = shell.run("explain", "http://a.test/static/x?q", "--header", "Cookie: c=1")
    assert running.status == 0
    assert ">  file" in running.out and "sends  GET http://127.0.0.1:1/static/x?q" in running.out
    assert "+ X-Forwarded-Host: a.test" in running.out
    nothing = shell.run("explain", "/none", "--method", "POST")
    assert nothing.status == 1 and "answer 404: no rule matches /none" in nothing.out
    told = json.loads(shell.run("explain", "ws://a.test/static", "--json").out)
    assert told["upgrade"] is True and told["matched"]["rule"] == "file"
    offline = Shell("http://127.0.0.1:1", None).run("explain", "/static", "--config", str(proxy.config))
    assert offline.status == 0 and ">  file" in offline.out
    assert shell.run("explain", "/", "--header", "nonsense").status == 2
    assert shell.run("explain", "/", "--config", "none.yaml").status == 2


class Fake(http.server.BaseHTTPRequestHandler):
    """Answers every call with one text."""

    text = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize("text", [b"5", b"null", b'[{"id": 1}]', b"<html>", b'{"problems": 5}', b""])
def test_something_else_is_there(text: bytes) -> None:
    """What is no admin API is said to be none, whatever it answers."""
    with http.server.HTTPServer(("127.0.0.1", 0), type("One", (Fake,), {"text": text})) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = Shell(f"http://127.0.0.1:{server.server_port}", WRITER).run("rules", "list")
        thread.join(20)
    assert done.status == 2 and "no admin API" in done.err and not done.out


def test_odd_environments(shell: Shell, proxy: Proxy) -> None:
    """A URL or a token that is none is named, the token not shown; a terminal that knows ASCII only shows the rest."""
    for url in ("http://127.0.0.1:abc/", "http://a b/", "http://", "127.0.0.1"):
        done = Shell(url, WRITER).run("rules", "list")
        assert done.status == 2 and "PROXYD_ADMIN_URL" in done.err
    broken = Shell(f"http://127.0.0.1:{proxy.admin_ports[0]}", "hush\nhush").run("rules", "list")
    assert broken.status == 2 and "PROXYD_ADMIN_TOKEN" in broken.err and "hush" not in broken.err
    shell.rules("add", "\u00fcn\u00ef", "^/", "http://a.test")
    shell.environment["PYTHONIOENCODING"] = "ascii"
    assert "\\xfcn\\xef" in shell.rules("list")
    assert json.loads(shell.rules("list", "--json"))[1]["name"] == "\u00fcn\u00ef"


def test_who_has_read_enough(shell: Shell) -> None:
    """A reader that goes away early, such as head, is no error."""
    for number in range(3):
        shell.rules("add", f"n{number}", "^/", "http://a.test")
    script = 'set -o pipefail; "$@" | head -c 5'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "rules", "list"],
        capture_output=True, timeout=30, env=shell.environment,
    )
    assert done.returncode == 0 and not done.stderr


def test_values_that_json_does_not_know(shell: Shell) -> None:
    """YAML knows dates and octets; a rule does not."""
    for value in ("[2020-01-01]", "!!binary aGk=", "!!set {a, b}"):
        done = shell.run("rules", "add", "n", "^/", "http://a.test", f"hosts={value}")
        assert done.status == 2 and "JSON" in done.err
