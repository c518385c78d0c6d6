"""C{twistd proxyd}: its options, and the service for them."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from proxyd.errors import ConfigError
from proxyd.service.memory import loading, settle

if TYPE_CHECKING:
    from proxyd.service.lifecycle import ProxyService

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
            with loading():
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

    try:
        with loading():
            from proxyd.service.assembly import make_service

            service = make_service(reactor, options["config"])
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from error

    def reload(*_: Any) -> None:
        reactor.callFromThread(service.reload)  # type: ignore[attr-defined]

    def restart_workers(*_: Any) -> None:
        reactor.callFromThread(service.restart_workers)  # type: ignore[attr-defined]

    def give_up() -> None:
        # twistd ends with status 0, whatever it was that stopped the reactor.
        reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        reactor.stop()

    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGUSR2, restart_workers)
    # Twisted's own handlers are there only then.
    reactor.callWhenRunning(_catch_second_signal, reactor, service)
    reactor.callWhenRunning(settle)
    service.unusable = give_up
    parent = _Proxy()
    service.setServiceParent(parent)
    return parent


def _catch_second_signal(reactor: Any, service: ProxyService) -> None:
    """The first signal has the reactor stop, as Twisted has it; each further one, however soon, cuts off the rest."""
    first = {one: handler for one in (signal.SIGTERM, signal.SIGINT) if callable(handler := signal.getsignal(one))}
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1 and not service.draining:
            first[signal.Signals(number)](number, frame)
        else:
            # A turn later: the reactor may have to begin to stop yet.
            reactor.callFromThread(reactor.callLater, 0.0, service.stop_at_once)

    for one in first:
        signal.signal(one, end)
