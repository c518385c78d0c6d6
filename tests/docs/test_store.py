"""The store of C{docs/extending.md}: it does what proxyd's own do, and a service keeps its rules in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from twisted.trial.unittest import TestCase

from proxyd.errors import StoreAway
from tests.control.store.contract import Contract, change
from tests.support.admin import TOKENS, Admin
from tests.support.folders import folder_for
from tests.support.proxy import Output
from tests.support.snippets import ROOT, take_one

PROGRAM = take_one("python", "extending.md", "# store.py:")


def program(folder: Path) -> Any:
    """The program, as a module."""
    file = folder / "store.py"
    file.write_text(PROGRAM.text)
    spec = spec_from_file_location("documented_store", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class StoreTests(Contract, TestCase):
    """The contract of all stores."""

    async def opened(self) -> Any:
        folder = folder_for(self)
        store = program(folder).JSONStore(str(folder / "rules.json"))
        await store.open(lambda: None)
        self.addCleanup(store.close)
        return store

    anew = opened

    async def test_away(self) -> None:
        """A file that cannot be reached fails the call."""
        store = await self.opened()
        Path(store._path).unlink()
        await self.assertFailure(store.read(), StoreAway)
        await self.assertFailure(store.commit(0, {}, change()), StoreAway)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """Start the program; a caller of its admin API."""
    admin = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}
    config = {"listen": ["tcp:0:interface=127.0.0.1"], "admin": admin, "store": "memory:"}
    (tmp_path / "proxyd.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "store.py").write_text(PROGRAM.text)
    started: list[tuple[subprocess.Popen[bytes], Output]] = []

    def end() -> None:
        process, output = started[-1]
        process.send_signal(signal.SIGINT)
        process.wait(20)
        text = output.join()
        assert process.stdout is not None
        process.stdout.close()
        assert "Main loop terminated." in text and "Traceback" not in text, text

    def start() -> Admin:
        if started:
            end()
        process = subprocess.Popen(
            [sys.executable, "store.py", "proxyd.yaml"], cwd=tmp_path,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        output = Output(process)
        started.append((process, output))
        (found,) = output.wait_for(r"admin API listens on .*port=(\d+)")
        return Admin(int(found[1]))

    yield start
    end()


def test_service(served: Any, tmp_path: Path) -> None:
    """Rules are there after a restart, with their history."""
    served().add(id="one", pattern="^/one$", target="http://127.0.0.1:9000")
    again = served()
    assert again.ids() == ["one"]
    assert [one["action"] for one in again.call("GET", "/api/history").json] == ["create"]
    assert (tmp_path / "rules.json").stat().st_mode & 0o777 == 0o600
    assert list(json.loads((tmp_path / "rules.json").read_text())["rules"]) == ["one"]
