"""L{proxyd.control.auth.tokens}: tokens are found by their digests, wherever they are written."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from proxyd.control.auth.tokens import MAX_TOKEN_FILE, Tokens
from proxyd.errors import ConfigError
from proxyd.rules.auth import Token


def test_find(tmp_path: Path) -> None:
    """The token itself is needed: not its digest, its name, or a part."""
    (tmp_path / "file").write_bytes(b" \n from-a-file-of-mine\r\n")
    known = [
        Token("one", token="written-where-it-is"),
        Token("two", sha256=sha256(b"known-by-its-digest").hexdigest().upper()),
        Token("three", file=str(tmp_path / "file")),
    ]
    tokens = Tokens(known)
    assert tokens.find(b"written-where-it-is") is known[0]
    assert tokens.find(b"known-by-its-digest") is known[1]
    assert tokens.find(b"from-a-file-of-mine") is known[2]
    for wrong in (b"", b"one", b"written-where-it-i", b"written-where-it-is ", b"Written-where-it-is", b"\xff"):
        assert tokens.find(wrong) is None
    assert tokens.find(sha256(b"known-by-its-digest").hexdigest().encode()) is None
    assert Tokens[Token](()).find(b"") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"secret", "holds no token: it must have at least 16 characters"),
        (b"", "holds no token: it must have at least 16 characters"),
        (b"secret in two words", "holds no token: it must have at least 16 characters"),
        (b"secret-\xff-in-latin-1", "holds no token: it must have at least 16 characters"),
        (b"secret-" * MAX_TOKEN_FILE, "is longer than 65536 octets"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """The file is named, and nothing of what is in it."""
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        Tokens([Token("a", file=str(file))])
    assert str(raised.value).startswith(f"{file} {problem}")
    assert "secret" not in str(raised.value).removeprefix(str(file))
