"""Tells twistd of its C{proxyd} command.  It imports nothing heavy: every twistd reads it."""

from twisted.application.service import ServiceMaker

proxyd = ServiceMaker("proxyd", "proxyd.tap", "A rule-matching reverse proxy for HTTP and WebSocket", "proxyd")
