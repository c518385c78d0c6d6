"""What is installed: everything that runs, and nothing else."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from proxyd import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, as C{pip install .} makes it."""
    folder = tmp_path_factory.mktemp("wheel")
    program = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=True)
    (file,) = folder.glob("*.whl")
    assert file.name == f"proxyd-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(file)


def test_contents(wheel: zipfile.ZipFile) -> None:
    """All of the package, the page's files too, and the plugin; no tests, no caches."""
    package = [path for path in (ROOT / "proxyd").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    expected = {str(path.relative_to(ROOT)) for path in package} | {"twisted/plugins/proxyd_dropin.py"}
    assert {"proxyd/py.typed", "proxyd/control/page/index.html", "proxyd/control/page/style.css"} <= expected
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_command(wheel: zipfile.ZipFile) -> None:
    """There is one command."""
    points = wheel.read(f"proxyd-{__version__}.dist-info/entry_points.txt").decode()
    assert points.split() == ["[console_scripts]", "proxyd", "=", "proxyd.cli:main"]


def test_metadata(wheel: zipfile.ZipFile) -> None:
    """Its name, licence and description are there."""
    metadata = email.message_from_bytes(wheel.read(f"proxyd-{__version__}.dist-info/METADATA"))
    assert (metadata["Name"], metadata["Version"], metadata["License-Expression"]) == ("proxyd", __version__, "MIT")
    assert f"proxyd-{__version__}.dist-info/licenses/LICENSE" in wheel.namelist()
    assert metadata.get_payload(decode=True) == (ROOT / "README.md").read_bytes()


def test_plugin_folders_are_no_packages() -> None:
    """With an __init__.py they would hide Twisted's own folders of these names."""
    assert [str(path.relative_to(ROOT)) for path in (ROOT / "twisted").rglob("*.py")] == [
        "twisted/plugins/proxyd_dropin.py"
    ]
