"""L{proxyd.rules.auth}: what users write becomes values and comes back, and secrets stay in them."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.errors import ConfigError
from proxyd.rules.auth import (
    BasicAuth,
    BearerAuth,
    ForwardAuth,
    Token,
    TokenDocument,
    files_of,
    mapping_from_token,
    parse_auth_url,
    token_from,
)
from proxyd.rules.codec import mapping_from_rule, rule_from_mapping
from proxyd.rules.model import Rule

TOKEN = "0123456789abcdef"
DIGEST = "0aF1" * 16


def rule(auth: Any) -> Rule:
    """A rule with this authentication."""
    return rule_from_mapping({"id": "r", "name": "r", "pattern": "^/", "target": "http://a", "auth": auth}, folder="/f")


@pytest.mark.parametrize(
    ("auth", "value", "whole"),
    [
        (None, None, None),
        ("none", "none", "none"),
        (
            {"basic": {"htpasswd": "users"}},
            BasicAuth("/f/users"),
            {"basic": {"htpasswd": "/f/users", "pass": False}},
        ),
        (
            {"basic": {"htpasswd": "/users", "pass": True}},
            BasicAuth("/users", True),
            {"basic": {"htpasswd": "/users", "pass": True}},
        ),
        (
            {"bearer": {"tokens": [TOKEN, {"name": "a", "sha256": DIGEST}, {"name": "b", "file": "t"}]}},
            BearerAuth((Token(token=TOKEN), Token("a", sha256=DIGEST), Token("b", file="/f/t"))),
            {
                "bearer": {
                    "tokens": [TOKEN, {"name": "a", "sha256": DIGEST}, {"name": "b", "file": "/f/t"}],
                    "pass": False,
                }
            },
        ),
        (
            {"forward": {"url": "http://sso/check?a=b", "headers": ["X-User", "x_groups"]}},
            ForwardAuth("http://sso/check?a=b", ("X-User", "x_groups")),
            {"forward": {"url": "http://sso/check?a=b", "headers": ["X-User", "x_groups"], "pass": False}},
        ),
    ],
)
def test_there_and_back(auth: Any, value: Any, whole: Any) -> None:
    """A mapping becomes a value, and that the mapping with all defaults, which is the same once more."""
    made = rule(auth)
    assert made.auth == value
    assert mapping_from_rule(made)["auth"] == whole
    assert rule(whole) == made


@pytest.mark.parametrize(
    ("auth", "problem"),
    [
        ("basic", "auth: must be none, or a mapping with basic, bearer or forward"),
        (True, "auth: must be none, or a mapping with basic, bearer or forward"),
        ([], "auth: must be none, or a mapping with basic, bearer or forward"),
        ({}, "auth: must have exactly one of basic, bearer and forward"),
        ({"basic": {"htpasswd": "a"}, "forward": {"url": "http://a"}}, "auth: must have exactly one of"),
        ({"basik": {}}, "auth.basik: unknown field; did you mean basic?"),
        ({"basic": {}}, "auth.basic.htpasswd: is required"),
        ({"basic": {"htpasswd": ""}}, "auth.basic.htpasswd: must be the name of a file"),
        ({"basic": {"htpasswd": "a", "pass": 1}}, "auth.basic.pass: must be true or false, not a number"),
        ({"bearer": {"tokens": []}}, "auth.bearer.tokens: must not be empty"),
        ({"bearer": {"tokens": ["too-short-secret"[:15]]}}, "auth.bearer.tokens.0: must have at least 16 characters"),
        ({"bearer": {"tokens": ["with a space in it"]}}, "auth.bearer.tokens.0: must have at least 16 characters"),
        ({"bearer": {"tokens": ["${TOKEN_OF_THE_API}"]}}, "auth.bearer.tokens.0: must be the token itself"),
        ({"bearer": {"tokens": [5]}}, "auth.bearer.tokens.0: must be a string, not a number"),
        ({"bearer": {"tokens": [{"token": TOKEN}]}}, "auth.bearer.tokens.0.name: is required"),
        ({"bearer": {"tokens": [{"name": " ", "token": TOKEN}]}}, "auth.bearer.tokens.0.name: must be one line"),
        ({"bearer": {"tokens": [{"name": "a\nb", "token": TOKEN}]}}, "auth.bearer.tokens.0.name: must be one line"),
        ({"bearer": {"tokens": [{"name": "a"}]}}, "auth.bearer.tokens.0: must have exactly one of token, sha256 and"),
        ({"bearer": {"tokens": [{"name": "a", "token": TOKEN, "file": "t"}]}}, "auth.bearer.tokens.0: must have"),
        ({"bearer": {"tokens": [{"name": "a", "sha256": "ab"}]}}, "auth.bearer.tokens.0.sha256: must be a SHA-256"),
        ({"bearer": {"tokens": [{"name": "a", "file": "\0"}]}}, "auth.bearer.tokens.0.file: must be the name of a"),
        (
            {"bearer": {"tokens": [{"name": "a", "token": TOKEN}, {"name": "a", "sha256": DIGEST}]}},
            "auth.bearer.tokens: two tokens are called a",
        ),
        ({"forward": {"url": "ws://a"}}, "auth.forward.url: has the scheme ws; it must be http, https or http+unix"),
        ({"forward": {"url": "a"}}, "auth.forward.url: is no URL"),
        ({"forward": {"url": "http://u:p@a"}}, "auth.forward.url: must have no user or password"),
        ({"forward": {"url": "http://a/?b#c"}}, "auth.forward.url: has a fragment, or a query"),
        ({"forward": {"url": "http://a/?b c"}}, "auth.forward.url: has a fragment, or a query"),
        ({"forward": {"url": "http://a", "headers": ["X User"]}}, "auth.forward.headers: 'X User' is no name"),
        ({"forward": {"url": "http://a", "headers": ["X-User", "x_user"]}}, "auth.forward.headers: X-User and x_user"),
        ({"forward": {"url": "http://a", "headers": ["Content_Length"]}}, "auth.forward.headers: Content_Length"),
        ({"forward": {"url": "http://a", "headers": ["Connection"]}}, "auth.forward.headers: Connection cannot be"),
        ({"forward": {"url": "http://a", "headers": ["x-real-ip"]}}, "auth.forward.headers: x-real-ip cannot be taken"),
        ({"forward": {"url": "http://a", "headers": ["Sec-WebSocket-Key"]}}, "auth.forward.headers: Sec-WebSocket-Key"),
    ],
)
def test_problems(auth: Any, problem: str) -> None:
    """Each problem says where, what is wrong and what would be right; nothing that is secret is in it."""
    with pytest.raises(ConfigError) as raised:
        rule(auth)
    (found,) = raised.value.problems
    assert str(found).replace(" (rule 'r')", "").startswith(problem)
    assert "too-short" not in str(found) and TOKEN not in str(found)


def test_no_secret_is_shown() -> None:
    """Neither values nor documents show what is secret."""
    made = rule({"bearer": {"tokens": [TOKEN, {"name": "a", "sha256": DIGEST}]}})
    document = TokenDocument(name="a", token=TOKEN)
    for shown in (repr(made), repr(made.auth), str(document), repr(document)):
        assert TOKEN not in shown and DIGEST not in shown


def test_token() -> None:
    """A token alone is written and read in the same ways."""
    for token in (Token(token=TOKEN), Token("a", token=TOKEN), Token("a", sha256=DIGEST), Token("a", file="f")):
        written = mapping_from_token(token)
        document = written if isinstance(written, str) else TokenDocument.model_validate(written)
        assert token_from(document, lambda name: name) == token


def test_files() -> None:
    """The names of all files are known, so that others can be forbidden to name any."""
    assert list(files_of(BasicAuth("a"))) == ["a"]
    assert list(files_of(BearerAuth((Token(token=TOKEN), Token("a", file="b"))))) == ["b"]
    assert list(files_of(ForwardAuth("http://a"))) == list(files_of("none")) == list(files_of(None)) == []


def test_where_it_is_asked() -> None:
    """The URL is split once; a UNIX socket may be behind it."""
    target, query = parse_auth_url("https://sso.test/check?a=b")
    assert (target.host, target.port, target.path, query) == ("sso.test", 443, b"/check", b"?a=b")
    assert ForwardAuth("http://a?b").request_target == b"/?b"
    assert ForwardAuth("http://a").request_target == b"/"
    assert ForwardAuth("http+unix://%2Frun%2Fsso/x").target.socket == "/run/sso"
