"""What C{make run} shows: the demo's origin server, behind a proxy with C{etc/demo.yaml}."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml
from websockets.sync.client import connect

from tests.support.proxy import Output, Proxy
from tests.support.wire import Wire

ROOT = Path(__file__).parents[1]
MEBIBYTE = 1024 * 1024


class _Demo(NamedTuple):
    """The proxy, and the process of the origin server behind it."""

    proxy: Proxy
    origin: psutil.Process


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Demo]:
    """The demo on ports of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proxyd.demo", "tcp:0:interface=127.0.0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT,
    )  # fmt: skip
    output = Output(process)
    (found,) = output.wait_for(r"The origin server listens on .*port=(\d+)")
    text = (ROOT / "etc" / "demo.yaml").read_text().replace("tcp:8081", "tcp:0")
    config = yaml.safe_load(text.replace(":8090", f":{found[1]}"))
    proxy = Proxy(tmp_path_factory.mktemp("demo"), {**config, "listen": ["tcp:0:interface=127.0.0.1"]})
    yield _Demo(proxy, psutil.Process(process.pid))
    assert "Traceback" not in proxy.stop()
    process.terminate()
    process.wait()
    text = output.join()
    process.stdout.close()
    assert "Traceback" not in text, text


@pytest.fixture
def client(demo: _Demo) -> Iterator[Wire]:
    """A client's connection to the proxy."""
    with demo.proxy.connect() as wire:
        yield wire


def test_page(client: Wire) -> None:
    """The page is served, and all that it links to is there."""
    client.request("GET", "/")
    page = client.read_message()
    assert (page.status, page.get("Content-Type")) == (200, "text/html; charset=utf-8")
    for path in ("echo/hello?a=1", "api/v1/users?a=1", "download", "events"):
        assert f'href="{path}"'.encode() in page.body
        with Wire.to(client.socket.getpeername()[1]) as other:
            other.request("HEAD" if path == "download" else "GET", f"/{path}")
            assert other.read_head().status == 200
    client.request("GET", "/none")
    assert client.read_message().status == 404


def test_echo(client: Wire) -> None:
    """The request is shown as the origin server got it."""
    client.request("PUT", "/echo/a?b=c", "X-Mine: yes", body=b"hello")
    seen = json.loads(client.read_message().body)
    assert (seen["method"], seen["target"], seen["body"]) == ("PUT", "/echo/a?b=c", "hello")
    fields = dict(seen["fields"])
    assert fields["X-Mine"] == "yes"
    assert fields["Host"] == fields["X-Forwarded-Host"] == "example.test"
    assert fields["X-Forwarded-For"] == "127.0.0.1"
    assert fields["Via"] == "1.1 proxyd"


def test_api(client: Wire) -> None:
    """The rule for the API rewrites the path, changes the host and sets a field."""
    client.request("GET", "/api/v12/users/7?q", "X-Api-Version: mine")
    seen = json.loads(client.read_message().body)
    assert seen["target"] == "/echo/users/7?q"
    fields = dict(seen["fields"])
    assert fields["X-Api-Version"] == "one"
    assert fields["Host"].startswith("127.0.0.1:")


def test_download(demo: _Demo, client: Wire) -> None:
    """100 MB come, and stay in nobody's memory."""
    before = demo.origin.memory_info().rss, demo.proxy.memory()
    client.request("GET", "/download")
    left = int(client.read_head().get("Content-Length") or 0)
    assert left == 100_000_000
    while left:
        left -= len(client.read_some())
    client.request("GET", "/echo/")
    assert client.read_message().status == 200
    assert demo.origin.memory_info().rss - before[0] < 16 * MEBIBYTE
    assert demo.proxy.memory() - before[1] < 16 * MEBIBYTE


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_upload(demo: _Demo, client: Wire, kind: str, framing: str) -> None:
    """100 MB are counted, and stay in nobody's memory."""
    before = demo.origin.memory_info().rss, demo.proxy.memory()
    piece = bytes(1000 * 1000)
    how = "Content-Length: 100000000" if framing == "length" else "Transfer-Encoding: chunked"
    client.request("POST", "/upload", f"Content-Type: {kind}", how)
    for _ in range(100):
        client.send(piece if framing == "length" else b"f4240\r\n" + piece + b"\r\n")
    if framing == "chunks":
        client.send("0\r\n\r\n")
    assert json.loads(client.read_message().body) == {"received": 100_000_000}
    assert demo.origin.memory_info().rss - before[0] < 16 * MEBIBYTE
    assert demo.proxy.memory() - before[1] < 16 * MEBIBYTE


def test_events(client: Wire) -> None:
    """The first event is there at once, the next ones follow."""
    client.request("GET", "/events")
    assert client.read_head().get("Content-Type") == "text/event-stream"
    for _ in range(2):
        event = client.read_to(b"\n\n\r\n")
        assert event.partition(b"\r\n")[2].startswith(b"data: ")


def test_websocket(demo: _Demo) -> None:
    """Messages come back as they were sent."""
    with connect(f"ws://127.0.0.1:{demo.proxy.port}/ws", proxy=None) as socket:
        for message in ("hello", b"\x00\xff", "x" * 100_000, ""):
            socket.send(message)
            assert socket.recv() == message


def test_no_websocket_for_the_api(client: Wire) -> None:
    """The rule for the API takes no upgrades."""
    client.request(
        "GET", "/api/v1/ws", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )  # fmt: skip
    assert client.read_message().status == 404


def test_rules_of_the_page(demo: _Demo, client: Wire) -> None:
    """A rule that is added with the token of the demo takes what the file leaves to it."""
    admin = demo.proxy.admin.with_token("demo-token-change-me")
    client.request("GET", "/try/this")
    assert client.read_message().status == 404
    page = admin.with_token(None).call("GET", "/")
    assert page.status == 200 and page.fields["content-type"].startswith("text/html")
    target = admin.call("GET", "/api/rules").json[1]["target"]
    rule = {"name": "Mine", "pattern": "^/try/(.*)$", "target": target, "rewrite": "/echo/$1"}
    assert admin.call("POST", "/api/rules", rule).status == 201
    client.request("GET", "/try/this")
    assert json.loads(client.read_message().body)["target"] == "/echo/this"
    assert admin.call("GET", "/api/status").json["store"]["kind"] == "memory"


def test_port_in_use(demo: _Demo) -> None:
    """An origin server that cannot listen says so, plainly."""
    endpoint = f"tcp:{demo.proxy.port}:interface=127.0.0.1"
    ended = subprocess.run([sys.executable, "-m", "proxyd.demo", endpoint], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert ended.stderr.startswith("The origin server cannot listen: ")
    assert "Traceback" not in ended.stderr


def test_make_run_ends(tmp_path: Path) -> None:
    """Ctrl-C ends C{make run} with all its processes, and nothing that is printed frightens."""
    # What the Makefile would install is here already.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "installed").touch()
    config = tmp_path / "demo.yaml"
    text = (ROOT / "etc" / "demo.yaml").read_text()
    config.write_text(text.replace("tcp:8080", "tcp:0").replace("tcp:8081", "tcp:0"))
    process = subprocess.Popen(
        ["make", "run", f"VENV={tmp_path}", f"BIN={Path(sys.executable).parent}", f"CONFIG={config}",
         "ORIGIN=tcp:0:interface=127.0.0.1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    output = Output(process)
    output.wait_for("proxyd listens on")
    output.wait_for("The origin server listens on")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    # As a terminal does it.
    os.killpg(process.pid, signal.SIGINT)
    process.wait(20)
    psutil.wait_procs(children, 20)
    assert not any(child.is_running() for child in children)
    printed = output.join()
    process.stdout.close()
    assert "Received SIGINT, shutting down." in printed
    for word in ("Traceback", "***", "rror"):
        assert word not in printed, printed
