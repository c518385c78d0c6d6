"""The only place where the parts of the service meet: a configuration file becomes a service."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from proxyd.control.auth.passwords import HashingThreads, PasswordChecks
from proxyd.interfaces import IRuleStore
from proxyd.outbound.guard import Guard
from proxyd.rules.table import RuleTable
from proxyd.service.config import load
from proxyd.service.lifecycle import ProxyService
from proxyd.service.snapshot import Snapshot, Upstreams


def make_snapshot(reactor: Any, file: str) -> Snapshot:
    """
    What requests would be served by with a configuration file alone, to be looked at.

    @raise proxyd.errors.ConfigError: everything that is wrong with the file.
    """
    config = load(file, os.environ)
    upstreams = Upstreams(reactor, Guard(list), Counter())
    passwords = PasswordChecks(reactor, HashingThreads(reactor))
    return Snapshot(config, RuleTable(config.rules), os.environ, upstreams, passwords)


def make_service(reactor: Any, file: str, store: IRuleStore | None = None) -> ProxyService:
    """
    The service that a configuration file describes.

    Mount your own Resources beside the rules with C{service.resource.putChild}.

    @param store: where rules that change at run time are kept, in place of what the file says.
    From now on the reactor looks all names up with L{proxyd.outbound.names.Names}.

    @raise proxyd.errors.ConfigError: everything that is wrong with the file.
    """

    def load_again() -> Any:
        return load(file, os.environ)

    return ProxyService(reactor, load_again(), os.environ, load_again, store)
