"""
proxyd: a rule-matching reverse proxy for HTTP and WebSocket, built on Twisted.

The house, from the ground up.  A module knows its own folder and what stands
above it in this list, never what stands below::

    errors, interfaces              what goes wrong; what others may provide
    timer, times, transports        deadlines that move; moments as text; what lies below a transport's wrappers
    splicing, sockets               octets moved within the kernel; sockets that do this, and send once a turn
    ports, polling, reactor         what accepts and makes connections with them; which go first; the reactor of it all
    tls                             TLS that keeps nothing back
    http/                           pure: heads, fields, targets, bodies, forwarding, the WebSocket handshake
    rules/                          pure: patterns, globs, the table, the request that a rule makes
    outbound/                       from an origin server, and the way to it, to one endpoint
    forward/                        HTTP between a client and an origin server
    websocket/                      frames between a client and an origin server; a client's own connection
    control/                        rules that are kept, the admin API and its page, authentication, metrics
    service/                        configuration, Resource tree, logs, lifetime; assembly puts all together;
                                    what serves clients (serving), in this process or in several (workers)
    connect                         connect_websocket(), the public client: a URL and the way to it
    shell                           what proxyd connect does: lines to messages and back
    commands/                       the arguments of proxyd connect; proxyd rules, proxyd explain: the admin API
    tap, cli, demo                  twistd proxyd; the proxyd command; a tiny origin server to try it with

The way of a request::

    forward/channel     cuts a head off what the client sends, and reads it (http/request)
    service/resource    asks the rule table of the moment which rule takes it (rules/table),
                        and makes the origin server's head of it (rules/outgoing)
    forward/pool        gives an unused connection, or makes one by the rule's route (outbound/route)
    forward/exchange    streams both bodies, each side pausing the other when it is full
                        (what is long and stays as it is goes past us: splicing);
                        or, when the origin server answers an upgrade with 101,
    websocket/relay     follows the frames both ways until both sides have closed
    service/access_log  writes a line

The words::

    downstream, upstream    on the client's side, on the origin server's side
    origin server, origin   who answers a request: scheme, host and port
    client                  who opened the downstream connection
    head, body, trailers    the parts of a message; a field is one line of a head or of trailers
    exchange                one request and its response
    hop-by-hop, end-to-end  fields that end with a connection, and those that go on (RFC 9110 section 7.6.1)
    rule, match, table      what takes a request, what it found in the path, all rules in their order
    snapshot                rules and settings at one moment; a request keeps the one it began with
    upstream connection     one to an origin server; an Upstream is all of them by one route
    relay                   a pair of WebSocket connections and the frames between them
    opening, closing handshake, close code      RFC 6455
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxyd.connect import connect_websocket

__all__ = ["__version__", "connect_websocket"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The public names that would make importing this package slow."""
    if name != "connect_websocket":
        raise AttributeError(f"module 'proxyd' has no attribute {name!r}")
    from proxyd.connect import connect_websocket

    return connect_websocket
