"""The description of the admin API, and whether the API does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.admin import TOKENS, WRITER
from tests.support.proxy import Proxy

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}
RULES = [{"name": "file", "id": "file", "pattern": "^/static", "target": "http://127.0.0.1:1"}]


def test_description(start: Callable[..., Proxy]) -> None:
    """Every call is described with what it takes and answers, from the types that check it."""
    described = start(admin=ADMIN, rules=RULES).admin.call("GET", "/api/openapi.json").json
    assert described["openapi"] == "3.1.0"
    calls = {(method, path) for path, one in described["paths"].items() for method in one}
    assert {("post", "/api/rules"), ("put", "/api/rules/reorder"), ("patch", "/api/rules/{id}/toggle"),
            ("delete", "/api/connections"), ("post", "/api/history/{id}/rollback")} <= calls
    schemas = described["components"]["schemas"]
    assert schemas["RuleDocument"]["required"] == ["name", "pattern", "target"]
    assert "changeOrigin" in schemas["RuleDocument"]["properties"]
    assert "required" not in schemas["RuleChange"]
    references = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert references <= set(schemas)


def test_schemathesis(start: Callable[..., Proxy], tmp_path: Path) -> None:
    """
    Thousands of calls made from the description: no server error, nothing that is not described.

    One check is left out: that whatever fits the schema is accepted.  No
    schema can say what a regular expression is, or which ids there are.
    """
    proxy = start(admin=ADMIN, rules=RULES)
    description = tmp_path / "openapi.json"
    description.write_bytes(proxy.admin.call("GET", "/api/openapi.json").octets)
    ended = subprocess.run(
        [
            *(Path(sys.executable).with_name("st"), "run", description, "--url", f"http://127.0.0.1:{proxy.admin_ports[0]}"),
            *("-H", f"Authorization: Bearer {WRITER}", "--max-examples", "30", "--generation-deterministic"),
            *("--exclude-checks", "positive_data_acceptance", "--no-color"),
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
    assert "Tested: 16" in ended.stdout
    assert int(re.findall(r"(\d+) generated", ended.stdout)[0]) > 1000, ended.stdout
    assert proxy.admin.call("GET", "/readyz").status == 200
