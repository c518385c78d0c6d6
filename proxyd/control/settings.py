"""What the configuration says of the control plane, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from proxyd.rules.auth import Token

Role = Literal["read", "write"]
"""What a caller of the admin API may do; who may write may read."""

ALLOWANCES: Final = ("endpoint", "http+unix", "files", "pac")
"""What C{admin.allow} may name: what rules that change at run time hold only with the operator's leave."""


@dataclass(frozen=True, slots=True)
class AdminToken(Token):
    """A token with what it is good for."""

    role: Role = "read"


@dataclass(frozen=True, slots=True)
class Admin:
    """
    The admin API, wherever it listens.

    @ivar base: the path that it is under: it begins and ends with a slash.
    @ivar hosts: further values of C{Host} that it answers to.
    @ivar variables: globs of the variables that rules which change at run time may name.
    @ivar allow: what else they may hold, of L{ALLOWANCES}.
    @ivar open_metrics: whether C{/metrics} needs no token.
    """

    base: str = "/"
    tokens: tuple[AdminToken, ...] = ()
    hosts: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    open_metrics: bool = False
