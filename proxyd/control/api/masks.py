"""
Secrets in rules: hidden from those who may only read, and kept when they come back hidden.

Secret are all values of C{headers}, the credentials in C{proxy}, and the
tokens in C{auth}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "********"
"""What stands in the place of a secret."""

_CREDENTIALS = re.compile(r"(?<=://)[^/?#]*(?=@)")
"""As long as it may be: the last C{@} ends the credentials, as it does where they are read."""

_TOKENS = ("token", "sha256")

_SAME = ("target", "rewrite", "endpoint", "proxy", "tls", "secure")
"""While these are the same, a secret goes where it went: only then is it kept for one who does not show it."""


class SecretMissing(Exception):
    """
    A secret cannot be kept: it must be given again.

    @ivar field: whose it is.
    """

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


def masked(document: Mapping[str, Any]) -> dict[str, Any]:
    """
    @return: the same rule without its secrets.
    """
    shown = dict(document)
    if shown.get("headers"):
        shown["headers"] = _masked_values(shown["headers"])
    if "proxy" in shown:
        shown["proxy"] = _masked_proxy(shown["proxy"])
    if isinstance(shown.get("auth"), dict):
        shown["auth"] = _masked_auth(shown["auth"])
    return shown


# A store may hold what is no rule: what cannot be read as one is hidden whole.


def _masked_values(headers: Any) -> Any:
    if not isinstance(headers, Mapping):
        return MASK
    return {name: None if value is None else MASK for name, value in headers.items()}


def _masked_proxy(proxy: Any) -> Any:
    if isinstance(proxy, str):
        return _CREDENTIALS.sub(MASK, proxy)
    if proxy is None or (isinstance(proxy, dict) and proxy.keys() == {"pac"}):
        return proxy
    if not isinstance(proxy, dict):
        return MASK
    shown = {**proxy, "url": _masked_proxy(proxy.get("url"))}
    if shown.get("headers"):
        shown["headers"] = _masked_values(shown["headers"])
    return shown


def _masked_auth(auth: Mapping[str, Any]) -> dict[str, Any]:
    bearer = auth.get("bearer")
    if bearer is None:
        return dict(auth)
    if not isinstance(bearer, dict) or not isinstance(bearer.get("tokens"), list):
        return {**auth, "bearer": MASK}
    tokens = [
        {key: MASK if key in _TOKENS and part else part for key, part in one.items()} if isinstance(one, dict) else MASK
        for one in bearer["tokens"]
    ]
    return {**auth, "bearer": {**bearer, "tokens": tokens}}


def unmasked(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """
    A rule with the secrets that came back hidden.

    @param old: the rule as it was, whole; C{None} where there was none.

    @return: the rule, and a field that had its secrets kept, or nothing: L{check_same} is to follow.

    @raise SecretMissing: a secret cannot be kept.
    """
    kept = dict(new)
    fields = [name for name in ("headers", "proxy", "auth") if _has_mask(kept.get(name))]
    if not fields:
        return kept, ""
    if old is None:
        raise SecretMissing(fields[0], "holds a mask in place of a secret; give the secret itself")
    for name in ("proxy", "auth"):
        if name in fields:
            if kept[name] != masked({name: old.get(name)})[name]:
                raise SecretMissing(name, "was changed, so that its secrets must be given again")
            kept[name] = old[name]
    if "headers" in fields and isinstance(kept["headers"], dict):
        before = {name.lower(): value for name, value in (old.get("headers") or {}).items()}
        kept["headers"] = {
            name: _kept(name, before) if value == MASK else value for name, value in kept["headers"].items()
        }
    return kept, fields[0]


def check_same(field: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """
    See to it that a secret which was kept goes where it went.

    @param field: the field that had its secrets kept.
    @param new: the rule as it is to be, whole.
    @param old: the rule as it was, whole.

    @raise SecretMissing: it would go elsewhere.
    """
    changed = next((name for name in _SAME if new.get(name) != old.get(name)), None)
    if changed is not None:
        raise SecretMissing(field, f"{changed} was changed, so that its secrets must be given again")


def _kept(name: str, before: Mapping[str, str | None]) -> str | None:
    if name.lower() not in before:
        raise SecretMissing(f"headers.{name}", "holds a mask, and had no value before; give the value itself")
    return before[name.lower()]


def _has_mask(value: Any) -> bool:
    if isinstance(value, str):
        return MASK in value
    if isinstance(value, dict):
        return any(map(_has_mask, value.values()))
    return isinstance(value, list) and any(map(_has_mask, value))
