"""L{proxyd.service.assembly}: what programs that embed the service may ask it."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from proxyd.errors import ConfigError
from proxyd.service.assembly import make_service

CONFIG = """
listen: ["tcp:8080"]
log: {access: null}
rules:
  - {name: assets, pattern: ^/assets/, target: "http://a.test", publicRoutes: ["/assets/**"], ws: false}
  - {name: api, pattern: ^/api/, target: "http://a.test", hosts: [api.test], publicRoutes: {GET: ["/api/status"]}}
  - {name: rest, pattern: ^/, target: "http://a.test"}
"""


@pytest.mark.parametrize(
    ("path", "method", "options", "public"),
    [
        ("/assets/a.css", "GET", {}, True),
        ("/assets/a/b.css", "POST", {}, True),
        ("/assets/a%2Fb", "GET", {}, False),
        ("/assets/a", "GET", {"upgrade": True}, False),
        ("/api/status", "GET", {"host": "api.test"}, True),
        ("/api/status", "HEAD", {"host": "API.test"}, True),
        ("/api/status", "POST", {"host": "api.test"}, False),
        ("/api/status", "GET", {"host": "other.test"}, False),
        ("/api/status", "GET", {}, False),
        ("/else", "GET", {}, False),
    ],
)
def test_is_public(tmp_path: Path, path: str, method: str, options: dict[str, object], public: bool) -> None:
    """Only the publicRoutes of the rule that takes this very request count."""
    file = tmp_path / "proxyd.yaml"
    file.write_text(CONFIG)
    service = make_service(MemoryReactorClock(), str(file))
    assert service.is_public(path, method, **options) is public  # type: ignore[arg-type]


def test_bad_file(tmp_path: Path) -> None:
    """A bad file is no service, and all that is wrong is said."""
    file = tmp_path / "proxyd.yaml"
    file.write_text("listen: 5\nrules: 7\n")
    with pytest.raises(ConfigError) as caught:
        make_service(MemoryReactorClock(), str(file))
    assert [problem.path for problem in caught.value.problems] == [("listen",), ("rules",)]


def test_workers(tmp_path: Path) -> None:
    """With workers nothing can be mounted from here, and a listener that is no socket cannot be shared."""
    file = tmp_path / "proxyd.yaml"
    file.write_text("listen: ['tcp:8080']\nworkers: 2\n")
    service = make_service(MemoryReactorClock(), str(file))
    with pytest.raises(RuntimeError, match="a program that mounts Resources needs workers: 1"):
        assert service.resource
    # What this reactor listens on is none.
    with pytest.raises(ConfigError, match="tcp:8080 is no socket that several workers can listen on"):
        service.privilegedStartService()
