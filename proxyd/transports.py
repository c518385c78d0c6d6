"""What proxyd needs to know of a transport, whatever wraps it."""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any

from twisted.internet.interfaces import ISystemHandle
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper


def innermost(transport: Any) -> Any:
    """
    @return: the transport below all wrappers, such as TLS.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def cut_off(transport: Any) -> None:
    """
    End a connection so that nobody can take what was sent for the whole.

    TLS has no part in it: when it is told to abort it still sends a
    close_notify, which says that all is complete (RFC 8446 section 6.1).
    """
    innermost(transport).abortConnection()


def give_to(transport: Any, protocol: Any) -> None:
    """
    Make another protocol that of an open transport.

    Nothing stays between the two: what the transport offers (half-close,
    abort, back-pressure) the protocol has, at no cost for each octet.
    """
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


def may_keep(transport: Any) -> bool:
    """Whether octets may be left in our own buffers that the kernel has not taken yet."""
    if not isinstance(transport, Connection):
        return True
    return bool(transport.dataBuffer) or transport._tempDataLen > 0


def unsent(transport: Any) -> int:
    """
    How many octets the other end has not taken yet.

    Octets in the kernel's send buffer count: it can hold megabytes, and a slow
    reader empties it long before our own buffer shrinks.

    @return: a number that falls while the other end reads; 0 when the transport does not tell.
    """
    transport = innermost(transport)
    if not isinstance(transport, Connection) or not ISystemHandle.providedBy(transport):
        return 0
    queued = fcntl.ioctl(transport.getHandle(), termios.TIOCOUTQ, b"\0\0\0\0")
    ours = len(transport.dataBuffer) - transport.offset + transport._tempDataLen + getattr(transport, "written", 0)
    return int(struct.unpack("i", queued)[0]) + ours
