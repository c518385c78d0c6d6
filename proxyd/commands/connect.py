"""
C{proxyd connect}: a WebSocket as a pipe.

Lines of standard input become text messages, and messages lines of standard
output; what is for people goes to standard error.
"""

from __future__ import annotations

import argparse
from typing import Any

_EPILOG = """exit status: 0 closed with 1000 or 1001, 1 closed otherwise or lost, 2 usage, 10 target unreachable,
11 TLS to the target failed, 12 no WebSocket there, 33 the proxy refused, 34 it wants other credentials,
35 it is unreachable, 36 its tunnel failed, 130 interrupted"""


def add_command(commands: Any) -> None:
    """Add C{connect} to the subcommands of an argument parser."""
    parser = commands.add_parser(
        "connect", help="send lines to a WebSocket, and print what comes", description=__doc__, epilog=_EPILOG
    )
    parser.add_argument("url", metavar="URL", help="ws://… or wss://…")
    parser.add_argument("--proxy", default="env", metavar="URL", help="a proxy's URL, direct, or env (the default)")
    parser.add_argument("--no-proxy", default="", metavar="HOSTS", help="hosts that are reached without a proxy")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="a field; repeatable")
    parser.add_argument("--protocol", action="append", default=[], metavar="NAME", help="a subprotocol; repeatable")
    parser.add_argument("--cacert", metavar="FILE", help="authorities to trust in place of the system's (PEM)")
    parser.add_argument("--cert", metavar="FILE", help="our own certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", help="its key, if that is not in the same file")
    parser.add_argument("--insecure", action="store_true", help="do not verify the target's certificate")
    parser.add_argument("--timeout", type=float, default=10, metavar="S", help="seconds to connect; 0 is no limit")
    parser.add_argument("--wait", type=float, default=0, metavar="S", help="seconds from the input's end to the Close")
    parser.add_argument("--binary", action="store_true", help="send octets as they come; print no line ends")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Only now: with all that it needs it takes half a second to import.
    from proxyd.shell import run

    return run(arguments)
