"""What the page about operations has operators do: with the real programs, but for systemd itself."""

from __future__ import annotations

import configparser
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from proxyd.cli import main
from tests.support.certificates import Authority
from tests.support.proxies import free_port, running
from tests.support.proxy import Proxy, until
from tests.support.snippets import ROOT, take, take_one
from tests.support.stand_ins import ask, sent
from tests.support.wire import Wire

PAGE = "operations.md"
UNITS = ROOT / "etc" / "systemd"

COMMANDS = [
    line for page in [take("sh", PAGE)] for one in page if not one.text.startswith("mv ")
    for line in one.text.splitlines()
]  # fmt: skip
ROTATION = take_one("sh", PAGE, "mv ")
OF_SYSTEMD, OF_HAPROXY = take("yaml", PAGE)
HAPROXY = take_one("text", PAGE, "# haproxy.cfg")

SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/systemctl.log"
"""


@pytest.fixture
def service() -> configparser.SectionProxy:
    """What the unit says of the service."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "proxyd.service")
    return unit["Service"]


def test_commands(tmp_path: Path, service: configparser.SectionProxy) -> None:
    """
    The files go where the unit looks for them, the program as well; systemctl is told of units that there are.

    Not run: venv and pip, whose place is checked, and systemctl, for which a script stands in.
    """
    root, tools = tmp_path / "root", tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(SYSTEMCTL)
    (tools / "systemctl").chmod(0o755)
    (tmp_path / "proxyd.yaml").write_text('listen: ["tcp:8080"]\n')
    (tmp_path / "token").write_text("write-here-what-nobody-guesses")
    (tmp_path / "etc").symlink_to(ROOT / "etc")
    (root / "etc").mkdir(parents=True)
    left = [line for line in COMMANDS if "/opt/proxyd" in line]
    assert left == [
        "python3 -m venv /opt/proxyd", "/opt/proxyd/bin/pip install .", "/opt/proxyd/bin/pip install --upgrade .",
    ]  # fmt: skip
    assert service["ExecStart"].startswith("/opt/proxyd/bin/twistd ")
    for line in COMMANDS:
        if line not in left:
            done = subprocess.run(
                ["sh", "-eu", "-c", line.replace(" /etc/", f" {root}/etc/")],
                cwd=tmp_path, capture_output=True, text=True,
                env={**os.environ, "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    for unit in ("proxyd.service", "proxyd.socket"):
        assert (root / "etc/systemd/system" / unit).read_bytes() == (UNITS / unit).read_bytes()
    assert (root / "etc/proxyd/proxyd.yaml").exists() and "--config /etc/proxyd/proxyd.yaml" in service["ExecStart"]
    token = root / "etc/proxyd/credentials/admin-token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert service["LoadCredential"] == "admin-token:/etc/proxyd/credentials/admin-token"
    calls = [call.split() for call in (tools / "systemctl.log").read_text().splitlines()]
    assert [call[0] for call in calls] == ["daemon-reload", "enable", "reload", "restart", "kill"]
    named = {word for call in calls for word in call[1:] if not word.startswith("-")}
    assert {word if "." in word else f"{word}.service" for word in named} == {"proxyd.service", "proxyd.socket"}
    assert "SIGUSR2" in " ".join(calls[-1])


def test_systemd_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is good, and there is a socket for each of its listeners."""
    Authority(tmp_path / "ca").sign("example.com").rename(tmp_path / "example.com.pem")
    (tmp_path / "admin-token").write_text("write-here-what-nobody-guesses")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "proxyd.yaml").write_text(OF_SYSTEMD.text)
    assert main(["check", str(tmp_path / "proxyd.yaml")]) == 0
    sockets = re.findall(r"^ListenStream=", (UNITS / "proxyd.socket").read_text(), re.MULTILINE)
    assert [int(index) for index in re.findall(r"index=(\d)", OF_SYSTEMD.text)] == list(range(len(sockets)))


def test_haproxy(start: Callable[..., Proxy], stand_in: Callable[..., str], tmp_path: Path) -> None:
    """The client's address comes through HAProxy, which takes no more to a proxyd that drains."""
    text = OF_HAPROXY.text.replace("tcp:8080", "tcp:0").replace("tcp:8081", "tcp:0")
    proxy = start(**yaml.safe_load(text.replace("127.0.0.1:9000", stand_in())))
    port = free_port()
    places = {":8000": port, ":8080": proxy.port, "port 8081": proxy.admin_ports[0]}
    config = HAPROXY.text
    for place, real in places.items():
        assert place in config
        config = config.replace(place, f"{place.rstrip('0123456789')}{real}")
    file = tmp_path / "haproxy.cfg"
    file.write_text(config)
    checked = subprocess.run(["/usr/sbin/haproxy", "-c", "-f", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0 and "WARNING" not in checked.stdout + checked.stderr, checked.stderr
    with running(["/usr/sbin/haproxy", "-db", "-f", str(file)], port, tmp_path):
        with Wire(socket.create_connection(("127.0.0.1", port), 10, ("127.0.0.2", 0))) as client:
            client.request("GET", "/")
            assert json.loads(client.read_message().body)["fields"]["x-forwarded-for"] == "127.0.0.2"
        with Wire.to(proxy.port) as stranger:
            stranger.request("GET", "/")
            assert stranger.read_some() == b"", "without HAProxy's header there is no answer"
        # What is open drains, and HAProxy sees that nobody is ready.
        status = proxy.admin.with_token(None).call("GET", "/readyz").status
        assert status == 200
        out = tmp_path / "haproxy.out"
        with Wire.to(port) as slow:
            slow.send("GET /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
            until(lambda: "slow" in str(proxy.admin.with_token(None).call("GET", "/api/connections").json))
            proxy.terminate()
            until(lambda: "Server proxyd/one is DOWN" in out.read_text())
            slow.send("hello")
            assert slow.read_message().status == 200


def test_rotation(start: Callable[..., Proxy], stand_in: Callable[..., str]) -> None:
    """After the commands the next line is in a new file."""
    rule = {"name": "all", "pattern": "^/", "target": f"http://{stand_in()}"}
    proxy = start(rules=[rule], log={"access": "access.log"})
    sent(proxy.port, "/before")
    (proxy.folder / "proxyd.pid").write_text(str(proxy.process.pid))
    subprocess.run(["sh", "-eu", "-c", ROTATION.text], cwd=proxy.folder, check=True)
    proxy.output.wait_for("the configuration was reloaded")
    assert ask(proxy.port, "/after").status == 200
    until(lambda: "/after" in (proxy.folder / "access.log").read_text())
    old, new = ((proxy.folder / name).read_text() for name in ("access.log.1", "access.log"))
    assert ("/before" in old, "/after" in old, "/before" in new) == (True, False, False)


def test_numbers() -> None:
    """What the page says of the units is what they say."""
    page = (ROOT / "docs" / PAGE).read_text()
    unit = (UNITS / "proxyd.service").read_text()
    for key, shown in (("LimitNOFILE", "65536"), ("WatchdogSec", "30")):
        assert f"{key}={shown}\n" in unit and key in page and shown in page
