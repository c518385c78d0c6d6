"""L{proxyd.service.listening}: what the integration tests do not reach (see tests/integration/test_tls.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyd.errors import ConfigError
from proxyd.service.listening import BACKLOG, ServerTLS, with_backlog
from proxyd.service.settings import ListenerTLS
from tests.support.certificates import Authority


@pytest.mark.parametrize(
    ("endpoint", "listened"),
    [
        ("tcp:80", f"tcp:80:backlog={BACKLOG}"),
        ("tcp6:80:interface=\\:\\:1", f"tcp6:80:interface=\\:\\:1:backlog={BACKLOG}"),
        ("unix:/run/a.sock:mode=600", f"unix:/run/a.sock:mode=600:backlog={BACKLOG}"),
        ("tcp:80:backlog=5", "tcp:80:backlog=5"),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
    ],
)
def test_backlog(endpoint: str, listened: str) -> None:
    """A burst of clients finds room, unless the operator says how much."""
    assert with_backlog(endpoint) == listened


def test_bad_files(tmp_path: Path) -> None:
    """A file that is missing, or holds no certificate with its key, is named."""
    authority = Authority(tmp_path)
    key_only = tmp_path / "key.pem"
    pem = authority.sign("a.test").read_text()
    key_only.write_text(pem[pem.index("-----BEGIN PRIVATE KEY") :])
    for file, text in [
        (tmp_path / "missing.pem", "cannot be read"),
        (authority.file, "must hold a certificate and its private key"),
        (key_only, "must hold a certificate and its private key"),
    ]:
        with pytest.raises(ConfigError, match=text) as caught:
            ServerTLS(ListenerTLS((str(file),)))
        assert str(file) in str(caught.value)


def test_bad_client_authority(tmp_path: Path) -> None:
    """An authority that is none must not let nobody, or everybody, in: it stops the start."""
    good = Authority(tmp_path / "ca").sign("a.test")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    with pytest.raises(ConfigError, match="must hold certificates"):
        ServerTLS(ListenerTLS((str(good),), str(empty)))
