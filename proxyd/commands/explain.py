"""
C{proxyd explain}: what would happen to a request, without making it.

A running proxyd is asked, or a configuration file is read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from proxyd.commands.remote import URL_VARIABLE, Refused, Remote, Unreachable
from proxyd.commands.table import printable, table
from proxyd.errors import ConfigError


def add_command(commands: Any) -> None:
    """Add C{explain} to the subcommands of an argument parser."""
    parser = commands.add_parser(
        "explain", help="say what would happen to a request",
        description="Say what would happen to a request, without making it.",
        epilog="exit status: 0 the request would go on, 1 it would not, 2 a wrong call, or no proxyd there",
    )
    parser.add_argument("url", metavar="URL", help="a path or a URL; ws:// and wss:// ask for a WebSocket")
    parser.add_argument("--config", metavar="FILE", help=f"read this file; without it {URL_VARIABLE} is asked")
    parser.add_argument("--method", default="GET", metavar="METHOD")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="a field; repeatable")
    parser.add_argument("--json", action="store_true", help="print what the API answers, for programs")
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Explain, and return the exit status."""
    headers = {}
    for text in arguments.header:
        name, colon, value = text.partition(":")
        if not colon:
            sys.stderr.write(f"proxyd: {text!r} is no NAME: VALUE\n")
            return 2
        headers[name.strip()] = value.strip()
    asked = {"url": arguments.url, "method": arguments.method, "headers": headers}
    try:
        told = _from_file(arguments.config, asked) if arguments.config else _from_remote(asked)
    except (ConfigError, Unreachable, Refused) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(told, indent=2) + "\n" if arguments.json else _shown(told))
    return 0 if told["status"] is None else 1


def _from_remote(asked: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = Remote(os.environ).call("POST", "/api/explain", asked).content
    return answer


def _from_file(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    # Slow to import, and for this only.
    from twisted.internet import reactor

    from proxyd.control.explain import explain
    from proxyd.service.assembly import make_snapshot

    seconds = reactor.seconds
    snapshot = make_snapshot(reactor, name)
    return dict(explain(snapshot, seconds, asked["method"], asked["url"], asked["headers"], True))


def _shown(told: dict[str, Any]) -> str:
    request = f"{told['method']} {told['path'] or ''}"
    kind = " (WebSocket)" if told["upgrade"] else ""
    lines = [f"{printable(request)}{kind} on {printable(told['host'])}\n\n"]
    rows = [(" ", one["rule"], one["name"], one["why"]) for one in told["tried"]]
    matched = told["matched"]
    if matched:
        rows.append((">", matched["rule"], matched["name"], _captures(matched)))
    if rows:
        lines += table(("", "RULE", "NAME", "WHY"), rows), "\n"
    sent = told["sent"]
    if sent:
        lines.append(f"sends  {printable(sent['method'])} {printable(sent['url'])}\n")
        lines += (f"       + {printable(name)}: {printable(value)}\n" for name, value in sent["added"])
        lines += (f"       - {printable(name)}: {printable(value)}\n" for name, value in sent["removed"])
    if told["proxy"]:
        lines.append(f"by     {printable(told['proxy']['used'])}: {printable(told['proxy']['why'])}\n")
    lines.append(f"auth   {printable(told['authentication'])}\n")
    if told["status"] is not None:
        lines.append(f"answer {told['status']}: {printable(told['error'])}\n")
    return "".join(lines)


def _captures(matched: dict[str, Any]) -> str:
    found = [f"${number} = {value!r}" for number, value in enumerate(matched["groups"]) if number]
    found += [f"$<{name}> = {value!r}" for name, value in matched["named"].items()]
    return ", ".join(["it matches", *found])
