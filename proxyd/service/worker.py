"""
One of several processes that serve clients: started, told what to do, and ended by L{proxyd.service.workers}.

It is told over descriptor L{LINK}; the sockets that clients come to follow L{TALLY}.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger, LogLevel, eventAsText, globalLogBeginner
from twisted.python.threadable import isInIOThread
from zope.interface import provider

from proxyd import __version__
from proxyd.control.permissions import Permissions
from proxyd.control.rulebook import Rulebook
from proxyd.control.store.memory import MemoryStore
from proxyd.control.store.values import Document, RuleSet, StoredRule, in_order
from proxyd.service.config import parse
from proxyd.service.link import Link
from proxyd.service.memory import settle
from proxyd.service.proxy_protocol import PREFIX
from proxyd.service.serving import Prepared, Serving
from proxyd.service.settings import Listener, ListenerTLS
from proxyd.service.sharing import Share, SharedSocket, Tally

log = Logger()

LINK: Final = 3
"""The descriptor of the link."""

TALLY: Final = 4
"""The descriptor of the memory in which all count their connections."""


class Worker:
    """
    What the supervising process can ask for.

    @ivar calls: all of it, by name.
    """

    def __init__(self, reactor: Any, environment: Mapping[str, str], sockets: list[socket.socket]) -> None:
        self.calls: dict[str, Callable[..., Any]] = {
            "start": self._start,
            "accept": self._accept,
            "prepare": self._prepare,
            "take": self._take,
            "discard": self._discard,
            "rules": self._rules,
            "counts": self._counts,
            "listed": self._listed,
            "close": self._close,
            "close_rule": self._close_rule,
            "drain": self.drain,
            "retire": self._retire,
            "stop_at_once": self._stop_at_once,
        }
        self.link: Link
        self._reactor = reactor
        self._environment = environment
        self._sockets = sockets
        self._serving: Serving
        self._share: Share
        self._is_started = False
        self._prepared: Prepared | None = None
        self._rulebook: Rulebook
        self._stored: dict[str, StoredRule] = {}
        self._ending = False

    # Life

    def _start(
        self,
        text: str,
        path: str,
        processes: int,
        listen: list[tuple[str, tuple[list[str], str | None] | None]],
        admin: Mapping[str, list[str]],
        place: int,
        places: int,
        listeners: list[list[Any]],
    ) -> None:
        """
        Make everything ready, but accept nobody.

        @param text: the configuration.
        @param processes: among how many the limits are divided.
        @param listen: the endpoint of each socket, and its TLS, whatever the configuration says of it by now.
        @param admin: likewise, what rules of the store may hold.
        @param listeners: the addresses that the service listens on.
        """
        config = parse(text, path, self._environment)
        config = replace(config, listen=tuple(_shared(endpoint, tls) for endpoint, tls in listen))
        own = [address_from(one) for one in listeners]
        self._share = Share(self._reactor, Tally(TALLY, places), place)
        self._serving = Serving(self._reactor, config, self._environment, lambda: own, processes, self._share.site)

        def opened(port: Any) -> None:
            self._share.take_turns(port, self._serving.site)

        self._serving.listen([SharedSocket(self._reactor, one, opened) for one in self._sockets])
        allowing = replace(config.admin, variables=tuple(admin["variables"]), allow=tuple(admin["allow"]))
        self._rulebook = Rulebook(
            self._reactor, MemoryStore(), Permissions(allowing), config.base, self._use_rules
        )
        self._is_started = True

    def _use_rules(self) -> Deferred[None]:
        return self._serving.use_rules(self._rulebook.rules)

    def _accept(self) -> Deferred[None]:
        if self._ending:
            return succeed(None)
        self._share.count(self._serving.site, True)
        return self._serving.start()

    def drain(self) -> None:
        """Begin to end: see L{Serving.drain}."""
        if self._is_started:
            self._end(self._serving.drain)
        else:
            self._reactor.stop()

    def leave(self) -> None:
        """Begin to end, although nobody has asked for it who is to be asked."""
        self.link.tell("leaves")
        self.drain()

    def _retire(self) -> None:
        self._end(self._serving.retire)

    def _end(self, end: Callable[[], Deferred[None]]) -> None:
        if self._ending:
            self._serving.hurry()
            return
        self._ending = True
        self._share.count(self._serving.site, False)
        end().addErrback(lambda failure: log.failure("ending failed", failure)).addCallback(self._ended)

    def _ended(self, _: object) -> None:
        # What was counted to the end is not to be lost.
        self._serving.counts().addCallback(lambda counts: self.link.tell("ended", counts=counts.as_json()))
        self._reactor.callLater(0, self._reactor.stop)

    def _stop_at_once(self) -> None:
        self._serving.stop_at_once()

    # Changes

    async def _prepare(self, text: str, path: str) -> None:
        # In a thread, as the supervising process has it: thousands of rules take seconds, and clients are served here.
        config = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), parse, text, path, self._environment
        )
        config = replace(config, listen=self._serving.config.listen)
        self._prepared = await self._serving.prepare(config, self._rulebook.rules)

    async def _take(self) -> None:
        prepared, self._prepared = self._prepared, None
        assert prepared is not None
        await self._serving.take(prepared)

    def _discard(self) -> None:
        if self._prepared is not None:
            self._prepared.discard()
            self._prepared = None

    async def _rules(self, revision: int, changed: list[tuple[Document, int]], gone: list[str]) -> None:
        """
        Take other rules.

        @param changed: documents with their revisions.
        @param gone: the ids of those that there are no more.
        """
        for rule_id in gone:
            del self._stored[rule_id]
        self._stored.update((document["id"], StoredRule(document, own)) for document, own in changed)
        await self._rulebook.follow(RuleSet(revision, in_order(self._stored.values())))

    # What is seen

    async def _counts(self, is_scrape: bool) -> Any:
        return (await self._serving.counts(is_scrape)).as_json()

    def _listed(self) -> Deferred[Any]:
        return self._serving.connections.listed()

    def _close(self, number: int, code: int) -> Deferred[bool]:
        return self._serving.connections.close(number, code)

    def _close_rule(self, rule_id: str, code: int, spread_s: float) -> Deferred[int]:
        return self._serving.connections.close_rule(rule_id, code, spread_s)


def _shared(endpoint: str, tls: tuple[list[str], str | None] | None) -> Listener:
    """
    The listener as it is in a worker: what systemd has handed over is a socket like any other here.

    @param tls: the files of certificates, and of the clients' authority.
    """
    plain = endpoint.removeprefix(PREFIX)
    if plain.partition(":")[0] == "systemd":
        endpoint = endpoint[: -len(plain)] + "tcp:0"
    return Listener(endpoint, None if tls is None else ListenerTLS(tuple(tls[0]), tls[1]))


def address_to(address: IAddress) -> list[Any]:
    """
    @return: an address as JSON.
    """
    if isinstance(address, IPv4Address | IPv6Address):
        return [address.host, address.port]
    return [os.fsdecode(getattr(address, "name", None) or b"")]


def address_from(value: list[Any]) -> IAddress:
    """
    @return: the address that L{address_to} was given.
    """
    if len(value) == 1:
        return UNIXAddress(os.fsencode(value[0]))
    host, port = value
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)


def main() -> None:
    """
    Serve until told to end, or until nobody is there to tell.

    The command line has the version of the program that has started this, the module of its reactor, and how many
    sockets there are.
    """
    version, reactor_module, sockets = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if version != __version__:
        sys.exit(f"proxyd {version} was replaced by {__version__} while it ran: restart the service")
    importlib.import_module(reactor_module).install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    worker = Worker(reactor, os.environ, [socket.socket(fileno=TALLY + 1 + index) for index in range(sockets)])

    @provider(ILogObserver)
    def write_log(event: Any) -> None:
        level = event.get("log_level", LogLevel.info)
        if level is LogLevel.info and event.get("log_namespace") == "log_legacy":
            return  # which ports Twisted opens and closes, says the supervising process
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        tell = partial(
            worker.link.tell, "log", level=level.name, namespace=event.get("log_namespace", "proxyd"), text=text
        )
        # Rules and files are read in threads, and a transport is none's but the reactor's.
        if isInIOThread():
            tell()
        else:
            reactor.callFromThread(tell)

    def end(*_: Any) -> None:
        reactor.callFromThread(worker.leave)

    worker.link = Link(worker.calls, worker.drain)
    # Ctrl-C reaches every process of the terminal: the supervising one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reactor.adoptStreamConnection(LINK, socket.AF_UNIX, Factory.forProtocol(lambda: worker.link))
    os.close(LINK)
    globalLogBeginner.beginLoggingTo([write_log], redirectStandardIO=False)
    worker.link.tell("ready")
    # Not before: the reactor has handlers of its own.
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, end)
    reactor.callWhenRunning(settle)
    reactor.run()


if __name__ == "__main__":
    main()
