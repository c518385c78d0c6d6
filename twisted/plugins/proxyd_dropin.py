"""
Tells twistd of its C{proxyd} command, and Twisted of the endpoint strings C{connect:} and C{socks:}.

It imports nothing heavy: every twistd reads it.
"""

from twisted.application.service import ServiceMaker

from proxyd.outbound.parsers import ThroughProxyParser

proxyd = ServiceMaker("proxyd", "proxyd.tap", "A rule-matching reverse proxy for HTTP and WebSocket", "proxyd")

connect = ThroughProxyParser("connect")
socks = ThroughProxyParser("socks")
