"""
The C{proxyd} command.

Each subcommand is a function from its arguments to the exit status: 0 good,
1 something is wrong with what was looked at, 2 with the call itself; C{connect}
has more (L{proxyd.shell}).  What a command needs is imported when it is called:
nobody waits for what another one needs.
"""

from __future__ import annotations

import argparse
import io
import os
import sys

from proxyd.commands import connect, explain, rules
from proxyd.errors import ConfigError, Problem


def _check(arguments: argparse.Namespace) -> int:
    """Say whether proxyd would start with this file, and if not, everything that is wrong with it."""
    from proxyd.service.config import Unreadable, load

    try:
        config = load(arguments.file, os.environ)
    except Unreadable as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    for warning in config.warnings:
        sys.stdout.write(f"{_marked(config.source, warning)}\n")
    count = len(config.rules)
    sys.stdout.write(f"{config.source}: ok, {count} {'rule' if count == 1 else 'rules'}\n")
    return 0


def _marked(source: str, warning: Problem) -> str:
    return f"{source}:{warning.line}: warning: {warning}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="proxyd", description="A rule-matching reverse proxy for HTTP and WebSocket.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    check = commands.add_parser("check", help="say whether a configuration is good", description=_check.__doc__)
    check.add_argument("file", metavar="FILE", help="the configuration, YAML")
    check.set_defaults(run=_check)
    explain.add_command(commands)
    rules.add_command(commands)
    connect.add_command(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """
    Run one command and return its exit status.

    @param argv: the arguments without the program's name; those of this process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows ASCII only shows the rest in another way.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as error:
        return int(error.code or 0)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough, such as head; Python would complain of that again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
