"""C{twistd proxyd}: its options, and the service for them."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from proxyd.errors import ConfigError

log = Logger()


class Options(usage.Options):
    """The command line of C{twistd proxyd}."""

    synopsis = "[options]"
    longdesc = "A rule-matching reverse proxy for HTTP and WebSocket. See etc/proxyd.yaml for an example."
    optParameters = [["config", "c", None, "The configuration file (YAML). Required."]]

    def postOptions(self) -> None:
        if self["config"] is None:
            raise usage.UsageError("say which configuration file with --config FILE")
        # twistd has installed a reactor by now if it was given --reactor; else ours is the faster one.
        if "twisted.internet.reactor" not in sys.modules:
            from proxyd.reactor import install

            install()


class _Proxy(MultiService):
    """The service as twistd runs it: a listener that cannot be opened ends the process with one line."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigError as error:
            log.critical("{error}", error=error)
            raise SystemExit(1) from error


def makeService(options: Options) -> IService:
    """
    The service for C{twistd}: with SIGHUP it reloads, with SIGUSR2 it replaces its workers, with a second SIGTERM
    it stops at once.

    A bad configuration ends the process with all that is wrong with it.
    """
    from twisted.internet import reactor

    from proxyd.service.assembly import make_service

    try:
        service = make_service(reactor, options["config"])
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from error

    def reload(*_: Any) -> None:
        reactor.callFromThread(service.reload)  # type: ignore[attr-defined]

    def restart_workers(*_: Any) -> None:
        reactor.callFromThread(service.restart_workers)  # type: ignore[attr-defined]

    def stop_at_once(*_: Any) -> None:
        reactor.callFromThread(service.stop_at_once)  # type: ignore[attr-defined]

    def give_up() -> None:
        # twistd ends with status 0, whatever it was that stopped the reactor.
        reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        reactor.stop()

    def catch_second_signal() -> None:
        signal.signal(signal.SIGTERM, stop_at_once)
        signal.signal(signal.SIGINT, stop_at_once)

    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGUSR2, restart_workers)
    reactor.addSystemEventTrigger("before", "shutdown", catch_second_signal)
    service.unusable = give_up
    parent = _Proxy()
    service.setServiceParent(parent)
    return parent
