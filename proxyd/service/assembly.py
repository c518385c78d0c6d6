"""The only place where the parts of the service meet: a configuration file becomes a service."""

from __future__ import annotations

import os
from typing import Any

from proxyd.service.config import load
from proxyd.service.lifecycle import ProxyService


def make_service(reactor: Any, file: str) -> ProxyService:
    """
    The service that a configuration file describes.

    Mount your own Resources beside the rules with C{service.resource.putChild}.

    @raise proxyd.errors.ConfigError: everything that is wrong with the file.
    """

    def load_again() -> Any:
        return load(file, os.environ)

    return ProxyService(reactor, load_again(), os.environ, load_again)
