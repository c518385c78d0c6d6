"""
What the documentation says is so: its programs run, its configurations are good, its links lead somewhere.

Every block of code on its pages is run by some test, here or in C{tests/docs}.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from twisted.internet.endpoints import clientFromString
from twisted.internet.testing import MemoryReactorClock
from websockets.sync.server import ServerConnection, serve

from proxyd.cli import main
from proxyd.control.api.documents import ChangeView
from proxyd.control.connections import Live
from proxyd.forward.record import Record
from proxyd.http.request import parse_request
from proxyd.rules.codec import RuleDocument
from proxyd.service.access_log import COMBINED
from proxyd.service.schema import ConfigDocument
from tests.support.admin import TOKENS
from tests.support.certificates import Authority
from tests.support.postgres import Postgres
from tests.support.proxy import Output, Proxy
from tests.support.snippets import ALL, PAGES, ROOT, TAKEN, Snippet, take, take_one
from tests.support.wire import Origin, Wire

REFERENCE = (ROOT / "docs" / "reference.md").read_text()

SCRAPES = take_one("yaml", "admin.md", "scrape_configs:")
CONFIGURATIONS = [one for one in take("yaml") if one is not SCRAPES]
PROGRAMS = {
    one.text.split()[1].rstrip(":"): one for page in ("extending.md", "outbound.md") for one in take("python", page)
}
ADMIN_COMMANDS = take("sh", "admin.md")
ADMIN_JSON = take("json", "admin.md")
ROLES = take("sql", "admin.md")
LOG_LINE = take_one("text", "reference.md")
ENDPOINTS = take_one("text", "outbound.md")
SHELL = take_one("sh", "outbound.md")

ENVIRONMENT = {
    "DATABASE_PASSWORD": "secret", "ORDERS_KEY": "0123456789", "PROXY_USER": "me", "PROXY_PASSWORD": "secret",
}  # fmt: skip
"""The variables that the configurations name."""


def test_every_snippet_is_run() -> None:
    """
    Every block has a language, and some test takes it.

    Sphinx runs its own directives; the README's few lines without a language are commands and a drawing.
    """
    for file in sorted((ROOT / "tests" / "docs").glob("test_*.py")):
        importlib.import_module(f"tests.docs.{file.stem}")
    plain = [one for one in ALL if not one.language]
    directives = [one for one in ALL if one.language.startswith("{")]
    assert {one.page for one in directives} <= {"index.md"}
    assert {one.page for one in plain} <= {"README.md"}
    readme = "".join(one.text for one in plain)
    assert re.findall(r"^(\S.*?)(?: +#.*)?$", readme, re.MULTILINE) == [
        "make run", "make test", "browsers -------|  ^/api/v1/(.*)  ->  /users/$1    |-------->  http://users:9000",
        "apps     --ws---|  ^/chat$                         |--ws---->  ws://chat:9001",
        "curl     --tls--|  ^/(.*)         ->  /site/$1     |--tls--->  https://www.example.com",
        "pip install .", "proxyd check proxyd.yaml", "twistd -n --pidfile= proxyd --config proxyd.yaml",
    ]  # fmt: skip
    assert [str(one) for one in ALL if one not in (*TAKEN, *plain, *directives)] == []


@pytest.mark.parametrize("snippet", CONFIGURATIONS, ids=str)
def test_configurations(
    snippet: Snippet, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every configuration passes C{proxyd check}; what is a part of one does when the rest is there."""
    text = snippet.text
    if not re.search(r"^listen:", text, re.MULTILINE):
        text = f'listen: ["tcp:8080"]\n{text}'
    for name, value in {**ENVIRONMENT, "CREDENTIALS_DIRECTORY": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "admin-token").write_text("write-here-what-nobody-guesses")
    if "example.com.pem" in text:
        Authority(tmp_path / "ca").sign("example.com").rename(tmp_path / "example.com.pem")
    file = tmp_path / "proxyd.yaml"
    file.write_text(text)
    assert main(["check", str(file)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", ["demo.yaml", "proxyd.yaml"])
def test_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So do the examples."""
    assert main(["check", str(ROOT / "etc" / name)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every relative link leads to a file, and to a heading where it names one; others are URLs of https."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            assert re.fullmatch(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[\w./~-]*)?(#[\w.-]+)?", target), target
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            assert heading in _anchors(file), target


def _anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(page: Path) -> None:
    """Every target of the Makefile and every command that is named exists."""
    text = page.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([a-z]+)\b", text, re.MULTILINE)) <= targets
    for command in re.findall(r"^    proxyd ([a-z]+)|`proxyd ([a-z]+)", text, re.MULTILINE):
        assert main([*filter(None, command), "--help"]) == 0


def _keys(document: object) -> Iterator[str]:
    """The keys of a document as users write them, those of its parts included."""
    for field in document.model_fields.values():  # type: ignore[attr-defined]
        yield field.alias
        if hasattr(field.annotation, "model_fields"):
            yield from _keys(field.annotation)


@pytest.mark.parametrize("key", sorted({*_keys(RuleDocument), *_keys(ConfigDocument)}))
def test_reference_is_complete(key: str) -> None:
    """The reference has every field of a rule and every key of the configuration."""
    assert re.search(rf"`[a-zA-Z.]*\b{key}`", REFERENCE), key


Run = Callable[..., list[int]]


@pytest.fixture
def run(tmp_path: Path, own_origin: Origin) -> Iterator[Run]:
    """
    Start a program of the documentation, and return the ports that it listens on.

    All requests that it forwards are answered with C{ok}.
    """
    own_origin.answer_all()
    (tmp_path / "proxyd.yaml").write_text(
        "listen: ['tcp:0:interface=127.0.0.1']\n"
        f"rules: [{{name: all, pattern: ^/, target: 'http://127.0.0.1:{own_origin.port}'}}]\n"
    )
    started: list[tuple[subprocess.Popen[bytes], Output]] = []

    def start(name: str, *arguments: str, ports: int = 1) -> list[int]:
        (tmp_path / name).write_text(PROGRAMS[name].text)
        process = subprocess.Popen(
            [sys.executable, *(arguments or (name, "proxyd.yaml"))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        output = Output(process)
        started.append((process, output))
        return [int(found[1]) for found in output.wait_for(r"proxyd listens on .*port=(\d+)", ports)]

    yield start
    for process, output in started:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        text = output.join()
        if process.stdout is not None:
            process.stdout.close()
        assert "Main loop terminated." in text
        assert "Traceback" not in text, text


def ask(port: int, path: str, *fields: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    with Wire.to(port) as wire:
        wire.request(method, path, *fields, body=body)
        answer = wire.read_message()
        return answer.status, answer.body


def test_resource_beside_the_rules(run: Run) -> None:
    """Resources are served under their names, all else by the rules."""
    (port,) = run("site.py")
    assert ask(port, "/hello") == (200, b"Hello from beside the rules\n")
    assert ask(port, "/files/proxyd.yaml")[1].startswith(b"listen:")
    assert ask(port, "/anything/else") == (200, b"ok")


def test_application(run: Run) -> None:
    """The same as a .tac file."""
    twistd = "from twisted.scripts.twistd import run; run()"
    (port,) = run("site.tac", "-c", twistd, "-n", "--pidfile=", "-y", "site.tac")
    assert ask(port, "/health") == (200, b"fine\n")
    assert ask(port, "/healthy") == (200, b"ok")


def test_endpoint(run: Run) -> None:
    """The same on every endpoint."""
    for port in run("endpoint.py", ports=2):
        assert ask(port, "/") == (200, b"ok")


def test_streaming_resource(run: Run) -> None:
    """A body is read as it comes."""
    (port,) = run("checksum.py")
    body = b"x" * 1_000_000
    assert ask(port, "/checksum", method="POST", body=body) == (200, sha256(body).hexdigest().encode() + b"\n")
    assert ask(port, "/checksum") == (200, sha256().hexdigest().encode() + b"\n")
    with Wire.to(port) as wire:
        wire.request("POST", "/checksum", "Transfer-Encoding: chunked", body=b"")
        wire.send("x\r\n")
        assert wire.read_message().status == 400


def test_gate(run: Run) -> None:
    """A Resource lets through to the rules whom it likes."""
    (port,) = run("gate.py")
    assert ask(port, "/internal/a")[0] == 403
    for path in ("/internal/a", "/internal/a/b", "/internal/"):
        assert ask(port, path, "X-Word: sesame") == (200, b"ok")
    assert ask(port, "/a") == (200, b"ok")


def test_client(tmp_path: Path) -> None:
    """The client sends, receives, and ends."""

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(f"you said {message!s}")

    (tmp_path / "client.py").write_text(PROGRAMS["client.py"].text)
    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = subprocess.run(
            [sys.executable, "client.py", url], cwd=tmp_path, capture_output=True, text=True, timeout=20,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        server.shutdown()
        thread.join()
    assert (done.returncode, done.stdout, done.stderr) == (0, "you said hello\nclosed with 1000\n", "")


def test_admin_commands(start: Callable[..., Proxy]) -> None:
    """The commands of the admin API's page do what they should, one after the other."""
    config = take_one("yaml", "admin.md", "listen:").text
    proxy = start(**yaml.safe_load(config.replace("tcp:8080", "tcp:0").replace("tcp:8081", "tcp:0")))
    commands = "".join(one.text for one in ADMIN_COMMANDS)
    done = subprocess.run(
        ["sh", "-eu", "-c", commands.replace("127.0.0.1:8081", f"127.0.0.1:{proxy.admin_ports[0]}")],
        cwd=proxy.folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    token = re.findall(r"PROXYD_ADMIN_TOKEN=(\S+)", commands)[0]
    rules = proxy.admin.with_token(token).call("GET", "/api/rules").json
    assert [rule["name"] for rule in rules] == ["Chat", "First"]
    assert (proxy.folder / "rules.bak").stat().st_mode & 0o777 == 0o600


def test_admin_calls(start: Callable[..., Proxy]) -> None:
    """Every call of the admin API is in the table of calls, and no other."""
    described = start(admin={"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}).admin.call(
        "GET", "/api/openapi.json"
    )
    calls = {f"{method.upper()} {path}" for path, one in described.json["paths"].items() for method in one}
    table = (ROOT / "docs" / "admin.md").read_text().partition("## Calls")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([A-Z]+ /[^`]*)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))))
    assert told - calls == {f"GET /{name}" for name in ("", "healthz", "readyz", "metrics", "api/openapi.json")}
    assert calls <= told


def test_every_program_is_run() -> None:
    """No program is without a test."""
    assert set(PROGRAMS) == {"site.py", "site.tac", "endpoint.py", "checksum.py", "gate.py", "store.py", "client.py"}


def test_admin_json() -> None:
    """What the calls answer has these members, and no other."""
    change, live = (json.loads(one.text) for one in ADMIN_JSON)
    assert list(change) == list(get_type_hints(ChangeView))
    assert list(live) == list(get_type_hints(Live))


def test_prometheus(start: Callable[..., Proxy]) -> None:
    """What Prometheus is told to ask is answered, for a token that may read."""
    (job,) = yaml.safe_load(SCRAPES.text)["scrape_configs"]
    assert set(job) == {"job_name", "authorization", "static_configs"}, "the path and the scheme are the defaults"
    assert list(job["authorization"]) == ["credentials_file"], "the type is Bearer by default"
    proxy = start(admin={"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS})
    assert proxy.admin.as_reader().call("GET", "/metrics").status == 200
    assert proxy.admin.with_token(None).call("GET", "/metrics").status == 401


def test_roles(start: Callable[..., Proxy], postgres: Postgres) -> None:
    """The first role makes the tables; the second one, with less, does all that a node does."""
    owner, node = (one.text.replace("…", "secret").replace("ROLE node", "ROLE docs_node") for one in ROLES)
    for statement in owner.replace("proxyd", "docs").strip().split(";\n"):
        postgres.execute(statement)
    place = f"127.0.0.1:{postgres.port}/docs"
    admin = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}
    first = start(store=f"postgresql://docs:secret@{place}", admin=admin)
    first.admin.add(id="one", pattern="^/one$", target="http://127.0.0.1:9000")
    for statement in node.replace("TO node", "TO docs_node").strip().split(";\n"):
        postgres.execute(statement, url=f"postgresql://docs:secret@{place}" if "GRANT" in statement else None)
    second = start(store=f"postgresql://docs_node:secret@{place}", admin=admin).admin
    second.add(id="two", pattern="^/two$", target="http://127.0.0.1:9000")
    assert second.call("DELETE", "/api/rules/one").status == 200
    assert second.ids() == ["two"]
    assert [one["action"] for one in second.call("GET", "/api/history").json] == ["delete", "create", "create"]


def test_log_line() -> None:
    """The line of the access log that is shown is one that is written."""
    head = parse_request(b"GET /api/v1/users HTTP/1.1\r\nHost: h\r\nUser-Agent: curl/8.5.0\r\n\r\n")
    record = Record(head, "192.0.2.7", 0)
    record.status, record.sent, record.duration = 200, 5124, 0.012
    record.rule_id, record.origin, record.origin_s, record.failed = "api", "127.0.0.1:9000", 0.011, "…"
    line = COMBINED.line(record, COMBINED.moment(1795300800), True)
    shown = line.replace("\\xe2\\x80\\xa6", "…").replace("\\u2026", "…")
    assert LOG_LINE.text.replace("\n", " ").strip() == shown.strip()


def test_endpoint_strings() -> None:
    """Twisted takes the strings."""
    for line in ENDPOINTS.text.splitlines():
        clientFromString(MemoryReactorClock(), line)


def test_shell() -> None:
    """What is piped in comes back from the demo's echo, which answers before it looks at what comes next."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "proxyd.demo", "tcp:0:interface=127.0.0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT,
    )  # fmt: skip
    output = Output(demo)
    try:
        (found,) = output.wait_for(r"The origin server listens on .*port=(\d+)")
        done = subprocess.run(
            ["sh", "-eu", "-c", SHELL.text.replace("localhost:8080/chat", f"127.0.0.1:{found[1]}/ws")],
            capture_output=True, text=True, timeout=30,
            env={**os.environ, "NO_PROXY": "*", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
    finally:
        demo.terminate()
        demo.wait(20)
        output.join()
        assert demo.stdout is not None
        demo.stdout.close()
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
