"""
What C{proxyd connect} does (L{proxyd.commands.connect}): a WebSocket as a pipe.

Lines of standard input become text messages, and messages lines of standard
output; what is for people goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.fdesc import setBlocking
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.connect import connect_websocket
from proxyd.errors import (
    ConnectFailed,
    ConnectionClosed,
    HandshakeRefused,
    ProxydError,
    ProxyError,
    TLSFailed,
    UpstreamTimeout,
)
from proxyd.websocket.client import WebSocketConnection

CLOSED_OTHERWISE = 1
USAGE = 2
UNREACHABLE = 10
TLS = 11
NO_WEBSOCKET = 12
INTERRUPTED = 130


def run(arguments: argparse.Namespace) -> int:
    """Connect, and pass on what comes until both sides have ended."""
    try:
        headers = [_header(text) for text in arguments.header]
    except ValueError as error:
        return _usage(error)
    if "twisted.internet.reactor" not in sys.modules:
        from proxyd.reactor import install

        install()
    from twisted.internet import reactor

    tls = {"verify": not arguments.insecure, "ca": arguments.cacert, "certificate": arguments.cert}
    try:
        connecting = connect_websocket(
            arguments.url,
            proxy=arguments.proxy,
            no_proxy=arguments.no_proxy,
            headers=headers,
            protocols=arguments.protocol,
            tls={**tls, "key": arguments.key},
            open_timeout=arguments.timeout,
            max_message=0,
            reactor=reactor,
        )
    except ValueError as error:
        return _usage(error)
    return _Session(reactor, connecting, arguments.binary, arguments.wait).run()


def _usage(error: ValueError) -> int:
    sys.stderr.write(f"proxyd connect: {error}\n")
    return USAGE


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("a header must be 'NAME: VALUE'")
    return name, value.strip()


def exit_status(error: ProxydError) -> int:
    """The exit status for what ended a session."""
    if isinstance(error, ProxyError):
        return error.code
    if isinstance(error, TLSFailed):
        return TLS
    if isinstance(error, ConnectFailed) or (isinstance(error, UpstreamTimeout) and error.stage == "connect"):
        return UNREACHABLE
    if isinstance(error, ConnectionClosed):
        return 0 if error.is_clean else CLOSED_OTHERWISE
    return NO_WEBSOCKET


def _tell(text: str) -> None:
    sys.stderr.write(f"proxyd connect: {text}\n")


def _explain(error: ProxydError) -> None:
    if isinstance(error, ConnectionClosed) and error.is_clean:
        return
    _tell(str(error))
    if isinstance(error, HandshakeRefused) and error.body:
        _tell(error.body.decode("utf-8", "replace").rstrip())


class _Session:
    """One run of the command."""

    def __init__(
        self, reactor: Any, connecting: Deferred[WebSocketConnection], is_binary: bool, wait: float
    ) -> None:
        self._reactor = reactor
        self._connecting = connecting
        self._binary = is_binary
        self._wait = wait
        self._connection: WebSocketConnection | None = None
        self._status: int | None = None

    def run(self) -> int:
        """
        Talk until the connection is over.

        @return: the exit status.
        """
        handler = signal.signal(signal.SIGINT, lambda *_: self._reactor.callFromThread(self._interrupted))
        talking: Deferred[Any] = Deferred.fromCoroutine(self._talk())
        # There may be an error before the reactor runs.
        self._reactor.callWhenRunning(lambda: talking.addBoth(self._finish))
        try:
            self._reactor.run(installSignalHandlers=False)
        finally:
            signal.signal(signal.SIGINT, handler)
            for descriptor in (0, 1, 2):
                with contextlib.suppress(OSError):
                    setBlocking(descriptor)
        return self._status or 0

    async def _talk(self) -> None:
        connection = self._connection = await self._connecting
        if connection.subprotocol:
            _tell(f"the subprotocol is {connection.subprotocol}")
        terminal = _Terminal(self._reactor, connection, self._binary, self._wait)
        StandardIO(terminal, reactor=self._reactor)
        try:
            while True:
                message = await connection.receive()
                await terminal.print(message.encode() if isinstance(message, str) else message)
        finally:
            # The last messages have to be written; then the terminal may be another program's.
            await terminal.end()

    def _finish(self, failure: Any) -> None:
        error = failure.value
        if self._status is None:
            if isinstance(error, ProxydError):
                self._status = exit_status(error)
                _explain(error)
            else:
                self._status = CLOSED_OTHERWISE
                failure.printTraceback(sys.stderr)
        if self._reactor.running:
            self._reactor.stop()

    def _interrupted(self) -> None:
        if self._status is not None:
            # Twice: whatever it is that is waited for.
            self._reactor.stop()
            return
        self._status = INTERRUPTED
        if self._connection is None:
            self._connecting.cancel()
        else:
            self._connection.close()


@implementer(IHalfCloseableProtocol, IPushProducer)
class _Terminal(Protocol):
    """Standard input and output."""

    transport: Any

    def __init__(self, reactor: Any, connection: WebSocketConnection, is_binary: bool, wait: float) -> None:
        self._reactor = reactor
        self._connection = connection
        self._binary = is_binary
        self._wait = wait
        self._pieces: list[bytes] = []
        self._room: Deferred[None] | None = None
        self._is_full = False
        self._can_print = True
        self._ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    # Standard input

    def dataReceived(self, data: bytes) -> None:
        messages: list[str | bytes]
        if self._binary:
            messages = [data]
        else:
            first, *others = data.split(b"\n")
            self._pieces.append(first)
            if not others:
                return
            whole = [b"".join(self._pieces), *others[:-1]]
            self._pieces = [others[-1]]
            messages = [line.decode("utf-8", "replace") for line in whole]
        self.transport.pauseProducing()
        self._send(messages).addCallbacks(lambda _: self.transport.resumeProducing(), _over)

    def _send(self, messages: list[str | bytes]) -> Deferred[None]:
        async def send() -> None:
            for message in messages:
                await self._connection.send(message)

        return Deferred.fromCoroutine(send())

    def readConnectionLost(self) -> None:
        last = b"".join(self._pieces)
        if last:
            self._send([last.decode("utf-8", "replace")]).addErrback(_over)
        self._reactor.callLater(self._wait, self._connection.close, receiving=True)

    # Standard output

    def print(self, message: bytes) -> Deferred[None]:
        """
        Print a message.

        @return: fires when there is room for more.
        """
        self._room = Deferred()
        if self._can_print:
            self.transport.write(message if self._binary else message + b"\n")
        room = self._room
        if not self._is_full:
            self._let_go()
        return room

    def _let_go(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def pauseProducing(self) -> None:
        self._is_full = True

    def resumeProducing(self) -> None:
        self._is_full = False
        self._let_go()

    def stopProducing(self) -> None:
        """Nobody reads standard output any more; C{writeConnectionLost} says so."""

    def writeConnectionLost(self) -> None:
        self._can_print = self._is_full = False
        self._let_go()
        self._connection.close()

    def end(self) -> Deferred[None]:
        """
        Nothing more will be printed.

        @return: fires when all is written.
        """
        if not self._can_print:
            return succeed(None)  # StandardIO would wait for ever
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        return self._ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended.callback(None)


def _over(failure: Failure) -> None:
    """The connection is over, which C{receive} tells as well."""
    failure.trap(ConnectionClosed, CancelledError)
