"""
What accepts and makes connections whose sockets send once a turn (L{proxyd.sockets}).

To begin one takes fewer system calls than Twisted's.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectError, getConnectError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxyd.sockets import Prompt, PromptTCP, do_nothing, with_own_code

log = Logger()


@with_own_code
class TCPServer(PromptTCP, tcp.Server):
    """
    A connection that was accepted, with half of the work.

    What it is called is put together when somebody asks, and what all that a port accepts have in common is the port's.
    """

    server: Any
    peer: Any = None

    def __init__(
        self, sock: socket.socket, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any
    ) -> None:
        self.set_up(sock, protocol, reactor)
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self._addressType = server._addressType
        reactor.watch(self)
        self.connected = 1

    def logPrefix(self) -> str:
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.client[0]}"

    def __repr__(self) -> str:
        protocol = getattr(self, "protocol", None)
        return f"<{type(protocol).__name__} #{self.sessionno} from {self.client[0]} on {self.server._realPortNumber}>"

    def getPeer(self) -> Any:
        return self.peer or super().getPeer()

    def getHost(self) -> Any:
        return self.server.bound or super().getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:
        # It is so already.
        if not enabled:
            super().setTcpNoDelay(enabled)


@with_own_code
class TCPClient(PromptTCP, tcp.Client):
    """
    Connects with half of the system calls, and to an address at once.

    Twisted's own begins in the next turn of the loop, and calls C{connect} a second time to hear that all is well.
    """

    made = True
    connector: Any
    realAddress: Any
    reactor: Any
    _is_waiting = False

    def _finishInit(self, whenDone: Any, skt: Any, error: Any, reactor: Any) -> None:
        if whenDone is None:
            super()._finishInit(whenDone, skt, error, reactor)
            return
        self.set_up(skt, None, reactor)
        if self._requiresResolution or self.addressFamily != socket.AF_INET:
            reactor.callLater(0, whenDone)
            return
        self.realAddress = self.addr
        result = skt.connect_ex(self.realAddress)
        if result == errno.EINPROGRESS:
            self._wait()
        else:
            # The connector does not know this transport yet.
            reactor.callLater(0, self._begun, result)

    def createInternetSocket(self) -> Any:
        return socket.SocketType(self.addressFamily, self.socketType)

    def doConnect(self) -> None:
        """Begin, where the address had to be found first."""
        if hasattr(self, "connector"):  # not given up meanwhile
            self._begun(self.socket.connect_ex(self.realAddress))

    def _begun(self, result: int) -> None:
        if not hasattr(self, "connector"):
            return
        if result == errno.EINPROGRESS:
            self._wait()
        elif result:
            self.failIfNotConnected(getConnectError((result, os.strerror(result))))
        else:
            self._connectDone()

    def _wait(self) -> None:
        self._is_waiting = True
        self.instead = self._ended
        # For both, in one system call: an attempt that fails is told apart only so.
        self.reactor.watch(self, writing=True)

    def _ended(self) -> None:
        """The attempt has come to its end, one way or the other."""
        result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not result:
            self._is_waiting = False
            self.instead = None
            self.stopWriting()
        self._begun(result)

    def doWrite(self) -> Any:
        return self._ended() if self._is_waiting else super().doWrite()

    def _connectDone(self) -> None:
        # As Twisted's, which prepares what the log calls this connection.
        protocol = self.connector.buildProtocol(self.getPeer())
        self.connected = 1
        self.protocol = Protocol() if protocol is None else protocol
        if protocol is None:
            self.loseConnection()
        else:
            self.startReading()
            protocol.makeConnection(self)

    def logPrefix(self) -> str:
        return f"{self._getLogPrefix(self.protocol)},client"

    def failIfNotConnected(self, err: Any) -> None:
        if self._is_waiting:
            # It may still be called for both, and is its own prisoner no more.
            self._is_waiting = False
            self.instead = do_nothing
        super().failIfNotConnected(err)

    def connectionLost(self, reason: Failure) -> None:
        if self._is_waiting:
            # A connection that was ended as soon as it was there shows its end first.
            self._ended()
            if not self.connected:
                return
        if self.connected:
            super().connectionLost(reason)
            self.connector.connectionLost(reason)
        else:
            self.failIfNotConnected(ConnectError(string=reason))


class _Listening(socket.socket):
    """
    A listening socket whose connections are the bare sockets that lie below C{socket.socket}.

    That one is written in Python, for what they are not asked for.
    """

    __slots__ = ("_kind",)

    def __init__(self, listening: socket.socket) -> None:
        """Take over another one's descriptor."""
        self._kind = int(listening.family), int(listening.type), listening.proto
        super().__init__(*self._kind, listening.detach())

    def accept(self) -> tuple[Any, Any]:
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return socket.SocketType(*self._kind, descriptor), address


class TCPPort(tcp.Port):
    """
    What accepts them.

    @ivar bound: the address at this end of all its connections, if that is the same for all.
    """

    transport = TCPServer
    bound: Any = None
    socket: Any
    fileno: Any
    factory: Any

    def startListening(self) -> None:
        super().startListening()
        self.socket = _Listening(self.socket)
        self.fileno = self.socket.fileno
        # Connections inherit it.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        address = self.getHost()
        if address.host not in ("0.0.0.0", "::"):
            self.bound = address

    def doRead(self) -> None:
        """Accept whoever waits, as Twisted's, without preparing each time for what hardly ever happens."""
        accept, most = self.socket.accept, self.numberAccepts
        for accepted in range(most):
            try:
                connection, client = accept()
            except BlockingIOError:
                self.numberAccepts = max(accepted, 1)
                return
            except OSError:
                # It knows what is to be done when this happens to it, too.
                super().doRead()
                return
            try:
                self._accepted(connection, client)
            except Exception:
                log.failure("{port} failed to begin a connection", port=self)
        # There may be more the next time.
        self.numberAccepts = most + 20

    def _accepted(self, connection: Any, client: Any) -> None:
        if len(client) == 4:
            # With the scope of an address of IPv6.
            name, _ = socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            client = (name, *client[1:])
        address = self._addressType("TCP", *client)
        try:
            protocol = self.factory.buildProtocol(address)
        except Exception:
            connection.close()
            raise
        if protocol is None:
            connection.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        transport = TCPServer(connection, protocol, client, self, number, self.reactor)
        transport.peer = address
        protocol.makeConnection(transport)


class TCPConnector(tcp.Connector):
    """What makes those of ours."""

    def _makeTransport(self) -> tcp.Client:
        return TCPClient(self.host, self.port, self.bindAddress, self, self.reactor)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.state == "disconnected":
            # As after an attempt that failed: else the two would know each other until the garbage collector comes.
            self.transport = None


class _PromptUNIX(Prompt):
    """The same, which sends descriptors, too."""

    _sendmsgQueue: Any

    def is_free(self) -> bool:
        return super().is_free() and not self._sendmsgQueue

    def sendFileDescriptor(self, fileno: int) -> None:
        # It goes with the octet that is written next.
        self.send()
        self._goes_straight = False
        super().sendFileDescriptor(fileno)  # type: ignore[misc]


class UNIXServer(_PromptUNIX, unix.Server):
    """A connection that was accepted."""


class UNIXClient(_PromptUNIX, unix.Client):
    """A connection of ours."""

    made = True


class UNIXPort(unix.Port):
    """What accepts them."""

    transport = UNIXServer


class UNIXConnector(unix.Connector):
    """What makes those of ours."""

    def _makeTransport(self) -> Any:
        return UNIXClient(self.address, self, self.reactor, self.checkPID)


def adopt_unix_port(
    kind: type[unix.Port], reactor: Any, descriptor: int, factory: IProtocolFactory
) -> IListeningPort:
    """
    Listen on a UNIX socket that somebody else has opened.

    Its file is not ours: Twisted would let everybody write to it, and remove it
    at the end, so that nobody would find the socket that systemd still holds.
    """
    port: Any = kind._fromListeningDescriptor(reactor, descriptor, factory)
    # A name without a file; and as many as the system lets wait, since it listens once more.
    port._bindPath = b"\0"
    port.backlog = socket.SOMAXCONN
    port.startListening()
    return cast(IListeningPort, port)
