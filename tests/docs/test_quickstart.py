"""The quick start, step by step."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.proxies import free_port
from tests.support.proxy import Output
from tests.support.snippets import ROOT, take, take_one
from tests.support.stand_ins import sent

PAGE = "quickstart.md"

CONFIGURATION = take_one("yaml", PAGE)
INSTALL, START, ASK, RELOAD, END = take("sh", PAGE)


def test_install() -> None:
    """It is installed as the README says, which C{tests/test_packaging.py} does."""
    assert INSTALL.text.splitlines() == ["python3 -m venv venv", ". venv/bin/activate", "pip install ."]
    assert "\n    pip install .\n" in (ROOT / "README.md").read_text()


@pytest.fixture
def places() -> dict[str, str]:
    """Free ports in the places of those on the page."""
    return {f":{port}": f":{free_port()}" for port in (8080, 8090)}


def test_steps(places: dict[str, str], tmp_path: Path) -> None:
    """What is started answers as the page says, takes a change, and ends."""

    def placed(text: str) -> str:
        for address, place in places.items():
            text = text.replace(address, place)
        return text

    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip

    def run(commands: str) -> str:
        done = subprocess.run(
            ["sh", "-eu", "-c", placed(commands)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "proxyd.yaml").write_text(placed(CONFIGURATION.text.replace("tcp:8080", f"tcp{places[':8080']}")))
    started = subprocess.Popen(
        ["sh", "-eu", "-c", placed(START.text) + "wait\n"], cwd=tmp_path, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output = Output(started)
    try:
        output.wait_for("origin server listens on ")
        output.wait_for("proxyd listens on ")
        output.wait_for(r"proxyd\.yaml: ok, 2 rules")
        answers = run(ASK.text)
        echoed, end = json.JSONDecoder().raw_decode(answers)
        assert echoed["target"] == "/echo/users?page=2"
        assert ["X-Served-By", "proxyd"] in echoed["fields"]
        rest = answers[end:].strip()
        assert rest.startswith("hello\n")
        assert re.search(r"API", rest) and "/echo/users" in rest
        output.wait_for('"GET /api/users.page=2 HTTP/1.1" 200')
        file = tmp_path / "proxyd.yaml"
        file.write_text(file.read_text().replace("X-Served-By: proxyd", "X-Served-By: somebody"))
        run(RELOAD.text)
        output.wait_for("the configuration was reloaded: 2 rules")
        port = int(places[":8080"][1:])
        assert ["X-Served-By", "somebody"] in sent(port, "/api/users")["fields"]
        run(END.text)
        output.wait_for("Main loop terminated")
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(20)
        text = output.join()
        assert started.stdout is not None
        started.stdout.close()
    assert "Traceback" not in text, text
