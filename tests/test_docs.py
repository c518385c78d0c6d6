"""What the documentation says is so: its programs run, its configurations are good, its links lead somewhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from websockets.sync.server import ServerConnection, serve

from proxyd.cli import main
from proxyd.rules.codec import RuleDocument
from proxyd.service.schema import ConfigDocument
from tests.support.admin import TOKENS
from tests.support.proxy import Output, Proxy
from tests.support.wire import Origin, Wire

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def blocks(language: str) -> list[tuple[str, str]]:
    """The code of one language on all pages, each with its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 1
            found.append((f"{page.name}:{line}", block[1]))
    return found


def named(pairs: list[tuple[str, str]]) -> list[object]:
    """The same as parameters."""
    return [pytest.param(text, id=name) for name, text in pairs]


@pytest.mark.parametrize("text", named(blocks("yaml")))
def test_configurations(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every configuration passes C{proxyd check}; what is a part of one does when the rest is there."""
    if not re.search(r"^listen:", text, re.MULTILINE):
        text = f'listen: ["tcp:8080"]\n{text}'
    file = tmp_path / "proxyd.yaml"
    file.write_text(text)
    assert main(["check", str(file)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", ["demo.yaml", "proxyd.yaml"])
def test_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So do the examples."""
    assert main(["check", str(ROOT / "etc" / name)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every relative link leads to a file, and to a heading where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
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
    assert set(re.findall(r"\bmake ([a-z]+)\b(?= |`|$|,)", text)) <= targets
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
        (text,) = (text for _, text in blocks("python") if text.startswith(f"# {name}:"))
        (tmp_path / name).write_text(text)
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

    (text,) = (text for _, text in blocks("python") if text.startswith("# client.py:"))
    (tmp_path / "client.py").write_text(text)
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
    (config,) = (text for name, text in blocks("yaml") if name.startswith("admin.md") and "admin:" in text)
    proxy = start(**yaml.safe_load(config.replace("tcp:8080", "tcp:0").replace("tcp:8081", "tcp:0")))
    commands = "".join(text for name, text in blocks("sh") if name.startswith("admin.md"))
    done = subprocess.run(
        ["sh", "-eu", "-c", commands.replace("127.0.0.1:8081", f"127.0.0.1:{proxy.admin_ports[0]}")],
        cwd=proxy.folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    token = re.findall(r"PROXYD_ADMIN_TOKEN=(\S+)", commands)[0]
    rules = proxy.admin.with_token(token).call("GET", "/api/rules").json
    assert [rule["name"] for rule in rules] == ["Chat", "First"]


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
    names = {text.split()[1].rstrip(":") for _, text in blocks("python")}
    assert names == {"site.py", "site.tac", "endpoint.py", "checksum.py", "gate.py", "client.py"}
