"""Before and after: the other proxies' configurations are good ones, and proxyd's does the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.sync.client import connect

from tests.support.proxies import free_port, running
from tests.support.proxy import Proxy
from tests.support.snippets import ROOT, Snippet, take, take_one
from tests.support.stand_ins import ask, sent

PAGE = "migrating.md"

NGINX = take_one("nginx", PAGE)
SCRIPTS = take("js", PAGE)
EXPRESS, BUN = SCRIPTS
OF_NGINX, OF_EXPRESS, OF_BUN = take("yaml", PAGE)

@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[list[str], int], None]]:
    """Start another proxy, which listens on a port; it ends with the test."""
    with ExitStack() as stack:
        yield lambda command, port: stack.enter_context(running(command, port, tmp_path))


def placed(snippet: Snippet, places: dict[str, str]) -> str:
    """A snippet with stand-ins in the places of its addresses."""
    text = snippet.text
    for address, stand_in in places.items():
        assert address in text
        text = text.replace(address, stand_in)
    return text


def after(start: Callable[..., Proxy], snippet: Snippet, places: dict[str, str], **environment: str) -> Proxy:
    """proxyd with the configuration that the other one becomes."""
    config = yaml.safe_load(placed(snippet, places))
    return start(environment=environment, **{**config, "listen": ["tcp:0:interface=127.0.0.1"]})


def nginx_file(folder: Path, places: dict[str, str], port: int) -> Path:
    """The configuration of nginx, with what it writes in a folder of the test's."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    text = placed(NGINX, {**places, "127.0.0.1:8080": f"127.0.0.1:{port}"})
    text = text.replace("http {\n", f"http {{ access_log off; {paths}\n", 1)
    file = folder / "nginx.conf"
    file.write_text(f"daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n{text}")
    return file


REQUESTS = [
    ("/api/users?a=/b", "www.example.com"),
    ("/api/", "a.example.net"),
    ("/users/7/avatar", "www.example.com"),
    ("/users/x/avatar", "www.example.com"),
    ("/chat", "www.example.com"),
    ("/chat/x", "www.example.com"),
    ("/", "www.example.com"),
]

FIELDS = ("host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto", "cookie")


def seen(port: int, path: str, host: str) -> Any:
    """What an origin server gets of a request."""
    got = sent(port, path, "Cookie: a=1", host=host)
    return got["line"], got["port"], {name: got["fields"].get(name) for name in FIELDS}


def test_nginx(
    start: Callable[..., Proxy], stand_in: Callable[..., str], run: Callable[..., None], tmp_path: Path
) -> None:
    """Each request reaches the same origin server, with the same path and the same fields that matter."""
    places = {f"127.0.0.1:{port}": stand_in() for port in (9000, 9001, 9002, 9003)}
    port = free_port()
    file = nginx_file(tmp_path, places, port)
    checked = subprocess.run(["nginx", "-t", "-q", "-c", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    run(["nginx", "-c", str(file)], port)
    proxy = after(start, OF_NGINX, places)
    for path, host in REQUESTS:
        assert seen(proxy.port, path, host) == seen(port, path, host), path
    long = ("Content-Length: 10485761",)
    assert ask(proxy.port, "/", *long, method="POST", host="www.example.com").status == 413
    assert ask(port, "/", *long, method="POST", host="www.example.com").status == 413
    assert ask(proxy.port, "/", host="other.test").status == 404


@pytest.mark.parametrize("snippet", SCRIPTS, ids=str)
def test_scripts(snippet: Snippet, tmp_path: Path) -> None:
    """They are JavaScript."""
    file = tmp_path / "script.js"
    file.write_text(snippet.text)
    checked = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_http_proxy_middleware(start: Callable[..., Proxy], stand_in: Callable[..., str], chat: str) -> None:
    """The configuration does what the options say."""
    places = {"https://api.example.com": f"http://{stand_in()}", "127.0.0.1:9001": chat}
    proxy = after(start, OF_EXPRESS, places, API_KEY="0123456789")
    got = sent(proxy.port, "/api/users?a=1")
    assert got["line"] == "GET /users?a=1 HTTP/1.1"
    assert got["fields"]["host"] == places["https://api.example.com"].removeprefix("http://")
    assert got["fields"]["x-api-key"] == "0123456789"
    assert sent(proxy.port, "/api")["line"] == "GET / HTTP/1.1"
    with connect(f"ws://127.0.0.1:{proxy.port}/socket/a", proxy=None) as client:
        assert client.recv() == "/socket/a"


def test_bun(
    start: Callable[..., Proxy], stand_in: Callable[..., str], chat: str, run: Callable[..., None], tmp_path: Path
) -> None:
    """Requests reach the origin server in the same way, and messages come back."""
    places = {"127.0.0.1:9000": stand_in(), "127.0.0.1:9001": chat}
    port = free_port()
    file = tmp_path / "proxy.js"
    file.write_text(placed(BUN, {**places, "port: 8080": f"port: {port}"}))
    bun = ROOT / "tests" / "peers" / "node_modules" / ".bin" / "bun"
    run([shutil.which(bun) or os.fspath(bun), os.fspath(file)], port)
    proxy = after(start, OF_BUN, places)
    for one in (port, proxy.port):
        got = sent(one, "/api/users/7?a=1", "Cookie: a=1")
        assert got["line"] == "GET /v2/users/7?a=1 HTTP/1.1"
        assert (got["fields"]["x-forwarded-for"], "cookie" in got["fields"]) == ("127.0.0.1", False)
        assert ask(one, "/other").status == 404
        with connect(f"ws://127.0.0.1:{one}/chat", proxy=None) as client:
            assert client.recv() == "/socket"
            client.send("hello")
            assert client.recv() == "hello"
