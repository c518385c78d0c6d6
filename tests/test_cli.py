"""The proxyd command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxyd.cli import main
from proxyd.commands import remote
from tests.support.proxies import free_port

GOOD = "listen: ['tcp:8080']\nrules:\n  - {name: a, pattern: ^/a, target: 'http://a'}\n"


def check(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Check a configuration; return the status and the output, with the file called FILE."""
    file = tmp_path / "proxyd.yaml"
    file.write_text(text)
    status = main(["check", str(file)])
    out, err = capsys.readouterr()
    assert not err
    return status, out.replace(str(file), "FILE")


def test_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good file is said to be good."""
    assert check(tmp_path, GOOD, capsys) == (0, "FILE: ok, 1 rule\n")
    assert check(tmp_path, GOOD.replace("rules:", "norules:").split("norules")[0], capsys) == (0, "FILE: ok, 0 rules\n")


def test_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every problem is a line, with file, line, rule and field."""
    text = GOOD + "  - {name: b, pattern: ^/b, target: 'ftp://b', sekure: true}\n"
    assert check(tmp_path, text, capsys) == (
        1,
        "FILE:4: rules.1.target (rule 'b'): has the scheme ftp; it must be one of http, ws, https, wss, http+unix\n"
        "FILE:4: rules.1.sekure (rule 'b'): unknown field; did you mean secure?\n",
    )


def test_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings are marked, and the file is good all the same."""
    status, out = check(tmp_path, GOOD.replace("'http://a'", "'http://a', changeOrigin: true"), capsys)
    assert status == 0
    assert out.startswith("FILE:3: warning: rules.0.changeOrigin (rule 'a'): with ws and no origins")
    assert out.endswith("\nFILE: ok, 1 rule\n")


def test_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be read is a plain message and status 2."""
    assert main(["check", str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/no.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["check"], 2), (["bogus"], 2), (["--help"], 0)])
def test_usage(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A call that makes no sense shows how to call it."""
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert "usage: proxyd" in (err if status else out)


@pytest.mark.parametrize("arguments", [["--help"], ["rules", "--help"], ["explain", "--help"], ["connect", "--help"]])
def test_nobody_waits_for_what_is_not_needed(arguments: list[str]) -> None:
    """Who asks a running proxyd, or for help, does not wait for Twisted to be imported."""
    script = "import sys; from proxyd.cli import main; main(); sys.exit('twisted' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")


def test_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments of its own, main takes those of the process."""
    monkeypatch.setattr(sys, "argv", ["proxyd", "check", "/nonexistent/proxyd.yaml"])
    assert main() == 2
    assert "cannot be read" in capsys.readouterr().err


def test_whence_an_address_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Who reaches nobody is told who said where to look."""
    nobody = f"http://127.0.0.1:{free_port()}/"
    monkeypatch.setenv("PROXYD_ADMIN_URL", nobody)
    assert main(["rules", "list"]) == 2
    assert f"{nobody} (from PROXYD_ADMIN_URL) cannot be reached" in capsys.readouterr().err
    monkeypatch.delenv("PROXYD_ADMIN_URL")
    monkeypatch.setattr(remote, "DEFAULT_URL", nobody)
    assert main(["rules", "list"]) == 2
    assert f"{nobody} (PROXYD_ADMIN_URL would say another) cannot be reached" in capsys.readouterr().err
