"""Each recipe of the cookbook does what it promises: a real twistd, and stand-ins for the servers on loopback."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.support.certificates import Authority, server_context
from tests.support.proxies import free_port, running
from tests.support.proxy import Proxy, until
from tests.support.snippets import take, take_one
from tests.support.stand_ins import ask, echo, sent
from tests.support.websocket import UPGRADE
from tests.support.wire import Message, Origin

PAGE = "cookbook.md"

CONFIGURATIONS = {one.text.partition("\n")[0]: one for one in take("yaml", PAGE)}
HUB_COMMANDS = take("sh", PAGE, "export ") + take("sh", PAGE, "proxyd rules remove")
SSH_COMMANDS = take_one("sh", PAGE, "ssh ")

Cook = Callable[..., Proxy]


@pytest.fixture
def cook(start: Callable[..., Proxy]) -> Cook:
    """Start proxyd with a recipe: C{cook(title, places)}, where places are what stands in for which address."""

    def cook(title: str, places: dict[str, str], **environment: str) -> Proxy:
        text = CONFIGURATIONS[f"# {title}"].text
        for address, stand_in in {"tcp:8080": "tcp:0", "tcp:8081": "tcp:0", **places}.items():
            text = text.replace(address, stand_in)
        return start(environment=environment, **yaml.safe_load(text))

    return cook


def test_sub_path(cook: Cook, stand_in: Callable[..., str]) -> None:
    """The application sees its own paths, and its pages find what they need below the prefix."""

    def shop(request: Message) -> tuple[str, str, tuple[str, ...]]:
        if " /api/" in request.line:
            return echo(request)
        page = f'<html><head><script src="/main.js"></script></head>{request.line}</html>'
        return "200 OK", page, ("Content-Type: text/html",)

    places = {"127.0.0.1:9000": stand_in(shop), "127.0.0.1:9001": stand_in()}
    proxy = cook("A single-page application under /shop/", places)
    for path, seen in (("/shop", "/"), ("/shop/", "/"), ("/shop/cart/7?a=/b", "/cart/7?a=/b")):
        body = ask(proxy.port, path).body.decode()
        assert body.startswith('<html><head><base href="/shop/"><script src="./main.js">'), body
        assert f"GET {seen} HTTP/1.1" in body
    assert sent(proxy.port, "/api/goods")["line"] == "GET /api/goods HTTP/1.1"
    assert sent(proxy.port, "/shopping")["line"] == "GET /shopping HTTP/1.1"


def test_chat(cook: Cook, stand_in: Callable[..., str], chat: str) -> None:
    """Messages come back; other sites' pages, messages that are too long and upgrades elsewhere are refused."""
    proxy = cook("A chat: pages from one server, WebSockets from another", {
        "127.0.0.1:9000": stand_in(), "127.0.0.1:9001": chat,
    })  # fmt: skip
    url = f"ws://127.0.0.1:{proxy.port}/chat"
    with connect(url, origin="https://chat.example.com", compression=None, proxy=None) as client:
        assert client.recv() == "/socket"
        client.send("hello")
        assert client.recv() == "hello"
        client.send("x" * 70_000)
        with pytest.raises(ConnectionClosedError) as closed:
            client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
    assert ask(proxy.port, "/chat", *UPGRADE, "Origin: https://evil.example").status == 403
    assert ask(proxy.port, "/elsewhere", *UPGRADE).status == 404
    assert sent(proxy.port, "/index.html")["line"] == "GET /index.html HTTP/1.1"


def test_chat_refuses(cook: Cook, stand_in: Callable[..., str]) -> None:
    """The chat server's own refusal reaches the browser."""
    refuses = stand_in(lambda _: ("401 Unauthorized", "who are you?", ("WWW-Authenticate: Cookie",)))
    proxy = cook("A chat: pages from one server, WebSockets from another", {"127.0.0.1:9001": refuses})
    answer = ask(proxy.port, "/chat", *UPGRADE, "Origin: https://chat.example.com")
    assert (answer.status, answer.body) == (401, b"who are you?")


def test_gateway(cook: Cook, stand_in: Callable[..., str]) -> None:
    """Who asks is found out first; each service gets what its rule says; limits hold."""

    def auth(request: Message) -> tuple[str, str, tuple[str, ...]]:
        if request.get("Cookie") == "session=ann":
            return "200 OK", "", ("X-User: ann",)
        return "401 Unauthorized", "log in first", ("WWW-Authenticate: Cookie",)

    proxy = cook("A gateway to several services", {
        "127.0.0.1:4180": stand_in(auth), "127.0.0.1:9001": stand_in(), "127.0.0.1:9002": stand_in(),
    }, ORDERS_KEY="0123456789")  # fmt: skip
    assert ask(proxy.port, "/v1/users").body == b"log in first"
    assert ask(proxy.port, "/nothing").status == 401
    assert ask(proxy.port, "/nothing", "Cookie: session=ann").status == 404
    users = sent(proxy.port, "/v1/users/7", "Cookie: session=ann", "X-User: eve", "X-Api-Version: 9")
    assert users["line"] == "GET /users/7 HTTP/1.1"
    assert (users["fields"]["x-user"], users["fields"]["x-api-version"]) == ("ann", "2")
    orders = sent(proxy.port, "/v2/orders?secret=1", "Cookie: session=ann")
    assert orders["line"] == "GET /orders?secret=1 HTTP/1.1"
    assert (orders["fields"]["x-api-key"], "cookie" in orders["fields"]) == ("0123456789", False)
    statuses = [ask(proxy.port, "/v2/orders", "Cookie: session=ann").status for _ in range(8)]
    assert 429 in statuses and set(statuses) <= {200, 429}
    assert ask(proxy.port, "/partners/a", "Cookie: session=ann").status == 401
    partner = sent(proxy.port, "/partners/a", "Authorization: Bearer acme-token-0123456789")
    assert partner["line"] == "GET /partners/a HTTP/1.1"
    assert sent(proxy.port, "/health")["line"] == "GET /health HTTP/1.1"
    long = ask(proxy.port, "/v1/users", "Cookie: session=ann", "Content-Length: 1000001", method="POST")
    assert long.status == 413
    log = proxy.folder / "access.log"
    until(lambda: '"status": 413' in log.read_text())
    lines = log.read_text()
    assert {"users", "orders", "partners", "health"} <= {json.loads(line)["rule"] for line in lines.splitlines()}
    assert "secret" not in lines and "0123456789" not in lines


def test_hub(cook: Cook, stand_in: Callable[..., str], chat: str) -> None:
    """Servers come and go; what is nobody's is the hub's; a server's WebSockets go with its rule."""

    def hub(request: Message) -> tuple[str, str, tuple[str, ...]]:
        return "200 OK", f"hub {request.line.split()[1]}", ()

    places = {"127.0.0.1:8000": stand_in(hub), "127.0.0.1:8888": chat}
    proxy = cook("A hub, and a server for each user", places)
    start, end = (one.text for one in HUB_COMMANDS)
    exports = start.splitlines()[0]
    places["127.0.0.1:8081"] = f"127.0.0.1:{proxy.admin_ports[0]}"

    def run(commands: str) -> None:
        for address, place in places.items():
            commands = commands.replace(address, place)
        done = subprocess.run(
            ["sh", "-eu", "-c", commands], capture_output=True, text=True, timeout=60,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    run(start)
    assert ask(proxy.port, "/hub/home").body == b"hub /hub/home"
    assert ask(proxy.port, "/user/bob/tree").body == b"hub /user/bob/tree"
    with connect(f"ws://127.0.0.1:{proxy.port}/user/alice/api/kernels", proxy=None) as kernel:
        assert kernel.recv() == "/user/alice/api/kernels"
        run(f"{exports}\n{end}")
        assert list(kernel) == []
        assert kernel.close_code == 1001
    assert ask(proxy.port, "/user/alice/").body == b"hub /user/alice/"


def test_corporate_proxy(cook: Cook, stand_in: Callable[..., str], tmp_path: Path) -> None:
    """The partner is reached through a tunnel, with TLS inside it; our own servers are reached directly."""
    authority = Authority(tmp_path / "ca")
    context = server_context(authority.sign("partner.example"))
    tunnels = Origin()
    seen: list[Message] = []

    def serve_one() -> None:
        wire = tunnels.accept()
        seen.append(wire.read_head())
        wire.send("HTTP/1.1 200 OK\r\n\r\n")
        inside = wire.over_tls(context)
        seen.append(inside.read_message())
        inside.respond("the partner")
        inside.close()

    proxy = cook(
        "The only way out is a proxy",
        {"proxy.example:3128": f"127.0.0.1:{tunnels.port}", "127.0.0.1:9000": stand_in()},
        PROXY_USER="me", PROXY_PASSWORD="p%40ss", SSL_CERT_FILE=str(authority.file),
    )  # fmt: skip
    thread = threading.Thread(target=serve_one)
    thread.start()
    assert ask(proxy.port, "/partner/api?x").body == b"the partner"
    thread.join()
    tunnel, request = seen
    assert tunnel.line == "CONNECT partner.example:443 HTTP/1.1"
    assert tunnel.get("X-Team") == "web"
    assert tunnel.get("Proxy-Authorization") == f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert (request.line, request.get("Host")) == ("GET /api?x HTTP/1.1", "partner.example")
    assert request.get("X-Team") is None
    assert sent(proxy.port, "/own")["line"] == "GET /own HTTP/1.1"
    tunnels.close()


def test_tor(cook: Cook) -> None:
    """The proxy gets the onion service's name, and the service its own name as Host."""
    tor = Origin()
    seen: list[Any] = []

    def serve_one() -> None:
        wire = tor.accept()
        assert wire.read(2)[:1] == b"\x05"
        wire.read(1)
        wire.send(b"\x05\x00")
        assert wire.read(4) == b"\x05\x01\x00\x03"
        name = wire.read(wire.read(1)[0]).decode()
        seen.append((name, int.from_bytes(wire.read(2), "big")))
        wire.send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        seen.append(wire.read_message())
        wire.respond("an onion")

    proxy = cook("An onion service, and what SSH reaches", {"127.0.0.1:9050": f"127.0.0.1:{tor.port}"})
    thread = threading.Thread(target=serve_one)
    thread.start()
    assert ask(proxy.port, "/onion/about").body == b"an onion"
    thread.join()
    (name, port), request = seen
    assert (name.endswith(".onion"), port) == (True, 80)
    assert (request.line, request.get("Host")) == ("GET /about HTTP/1.1", name)
    tor.close()


@pytest.fixture
def ssh_server(tmp_path: Path) -> Iterator[Path]:
    """An OpenSSH server that is C{app.example} to C{ssh}, as a folder before all others in C{PATH} has it."""
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    port = free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\n"
        f"StrictModes no\nAuthorizedKeysFile {folder / 'user.pub'}\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "config").write_text(
        f"Host app.example\n  HostName 127.0.0.1\n  Port {port}\n  User {pwd.getpwuid(os.getuid()).pw_name}\n"
        f"  IdentityFile {folder / 'user'}\n  StrictHostKeyChecking no\n  UserKnownHostsFile {folder / 'known'}\n"
        "  LogLevel ERROR\n"
    )
    wrapper = folder / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F "{folder / "config"}" "$@"\n')
    wrapper.chmod(0o755)
    with running(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], port, folder):
        yield folder


def test_ssh(cook: Cook, stand_in: Callable[..., str], ssh_server: Path) -> None:
    """The commands forward what the rules use."""
    socks, socket_file, app = free_port(), ssh_server / "app.sock", stand_in()
    places = {"127.0.0.1:1080": f"127.0.0.1:{socks}", "127.0.0.1:9000": app, "/run/app.sock": str(socket_file)}
    commands = SSH_COMMANDS.text
    for address, place in places.items():
        commands = commands.replace(address, place)
    shell = subprocess.Popen(
        ["sh", "-eu", "-c", commands + "\nwait"], start_new_session=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{ssh_server}:{os.environ['PATH']}"},
    )  # fmt: skip
    try:
        until(lambda: socket_file.exists() and _listens(socks))
        proxy = cook("An onion service, and what SSH reaches", places)
        assert sent(proxy.port, "/intranet/a")["line"] == "GET /a HTTP/1.1"
        assert sent(proxy.port, "/b", host="me.test")["fields"]["host"] == "me.test"
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_every_recipe_is_cooked() -> None:
    """No configuration of the page is without a test."""
    used = (Path(__file__)).read_text()
    assert all(f'"{title[2:]}"' in used for title in CONFIGURATIONS)
