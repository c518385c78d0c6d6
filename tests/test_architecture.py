"""The layers that proxyd/__init__.py draws, checked against the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "proxyd"

LAYERS = [
    {"errors", "interfaces", "polling", "splicing", "timer", "times", "tls", "transports"},
    {"sockets"},
    {"ports"},
    {"reactor"},
    {"http"},
    {"rules"},
    {"outbound", "forward", "websocket"},
    {"control"},
    {"service"},
    {"connect"},
    {"shell"},
    {"commands"},
    {"tap", "cli", "demo", "__main__"},
]
"""A module may import from its own subpackage and from the lines above its own."""

PURE = {"http", "rules"}
IMPURE = {"asyncio", "autobahn", "logging", "OpenSSL", "os", "pathlib", "random", "socket", "ssl", "time", "twisted"}


def imports(path: Path) -> Iterator[str]:
    """The full names of all that a module imports, at whatever place within it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(name: str) -> int:
    """The line of LAYERS on which a part of proxyd stands."""
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """A module knows its own subpackage and the layers below; a pure one knows no I/O."""
    mine = path.relative_to(ROOT).with_suffix("").parts[0]
    for name in imports(path):
        top, _, rest = name.partition(".")
        if mine in PURE:
            assert top not in IMPURE, f"{mine}/ is pure, yet imports {name}"
        theirs = rest.partition(".")[0]
        if top == "proxyd" and theirs not in ("", "__version__", mine):
            assert level(theirs) < level(mine), f"{mine} may not import {name}"
