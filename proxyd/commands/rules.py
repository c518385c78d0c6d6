"""
C{proxyd rules}: the rules of a running proxyd.

Exit status: 0 done, 1 refused, 2 a wrong call, or no proxyd there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import yaml

from proxyd.commands.remote import DEFAULT_URL, TOKEN_VARIABLE, URL_VARIABLE, Refused, Remote, Unreachable
from proxyd.commands.table import printable, table

_TEXTS = ("id", "name", "pattern", "target", "rewrite", "base", "endpoint")
"""Fields whose values are taken as they are typed; those of all others are YAML."""

_DEFAULTS = {
    "changeOrigin": False,
    "secure": True,
    "ws": True,
    "enabled": True,
    "relativePaths": False,
    "readonly": False,
}
"""What need not be said of a rule."""

_EPILOG = f"""{URL_VARIABLE} says where the admin API is ({DEFAULT_URL}; http+unix://%2Frun%2Fadmin.sock/ for a socket),
{TOKEN_VARIABLE} holds the token.  FIELD=VALUE sets a field of a rule, FIELD.NAME=VALUE one member of it
(headers.X-Key=abc); values are YAML, null is the default."""

_Run = Callable[[Remote, argparse.Namespace], Any]


def add_command(commands: Any) -> None:
    """Add C{rules} to the subcommands of an argument parser."""
    parser = commands.add_parser("rules", help="list and change the rules of a running proxyd", epilog=_EPILOG)
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, what: str, run: _Run, show: Callable[[Any], str]) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=what, epilog=_EPILOG)
        action.add_argument("--json", action="store_true", help="print what the API answers, for programs")
        action.set_defaults(run=main, act=run, show=show)
        return action

    add("list", "all rules in matching order", _list, _shown_list)
    one = add("add", "add a rule", _add, _shown_rule)
    one.add_argument("name", metavar="NAME")
    one.add_argument("pattern", metavar="PATTERN")
    one.add_argument("target", metavar="TARGET")
    one.add_argument("fields", metavar="FIELD=VALUE", nargs="*")
    one = add("set", "change fields of a rule", _set, _shown_rule)
    one.add_argument("id", metavar="ID")
    one.add_argument("fields", metavar="FIELD=VALUE", nargs="+")
    one = add("move", "move a rule among those that can be changed", _move, _shown_list)
    one.add_argument("id", metavar="ID")
    place = one.add_mutually_exclusive_group(required=True)
    place.add_argument("--first", action="store_true")
    place.add_argument("--last", action="store_true")
    place.add_argument("--before", metavar="ID")
    place.add_argument("--after", metavar="ID")
    add("enable", "have a rule match again", _enable, _shown_rule).add_argument("id", metavar="ID")
    add("disable", "have a rule match nothing", _disable, _shown_rule).add_argument("id", metavar="ID")
    add("remove", "delete a rule", _remove, _shown_removed).add_argument("id", metavar="ID")
    one = add("history", "changes, the latest one first", _history, _shown_history)
    one.add_argument("--limit", type=int, default=20, metavar="N", help="how many (20)")
    one = add("rollback", "make things what they were before a change", _roll_back, _shown_change)
    one.add_argument("change", metavar="N", help="its number in the history")


def main(arguments: argparse.Namespace) -> int:
    """Do what the arguments say, and return the exit status."""
    try:
        answer = arguments.act(Remote(os.environ), arguments)
        as_json = json.dumps(answer, indent=2) + "\n"
        text = as_json if arguments.json else arguments.show(answer)
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (Unreachable, ValueError) as error:
        sys.stderr.write(f"proxyd: {error}\n")
        return 2
    except (AttributeError, KeyError, TypeError) as error:
        # Whatever is there answers JSON of another shape.
        sys.stderr.write(f"proxyd: what is at {URL_VARIABLE} is no admin API that this program knows: {error!r}\n")
        return 2
    sys.stdout.write(text)
    return 0


# What the actions do


def _list(remote: Remote, arguments: argparse.Namespace) -> Any:
    return remote.call("GET", "/api/rules").content


def _add(remote: Remote, arguments: argparse.Namespace) -> Any:
    rule = {"name": arguments.name, "pattern": arguments.pattern, "target": arguments.target}
    return remote.call("POST", "/api/rules", _changed(rule, arguments.fields)).content


def _set(remote: Remote, arguments: argparse.Namespace) -> Any:
    path = _path(arguments.id)
    before = remote.call("GET", path)
    change = _changed(before.content, arguments.fields)
    different = {field: value for field, value in change.items() if value != before.content.get(field)}
    return remote.call("PUT", path, different, before.tag).content


def _move(remote: Remote, arguments: argparse.Namespace) -> Any:
    listed = remote.call("GET", "/api/rules")
    ids = [rule["id"] for rule in listed.content if not rule["readonly"]]
    if arguments.id not in ids:
        raise Refused(404, f"there is no rule {arguments.id} that can be moved")
    ids.remove(arguments.id)
    other = arguments.before or arguments.after
    if other is not None and other not in ids:
        raise Refused(404, f"there is no other rule {other} that can be moved")
    place = 0 if arguments.first else len(ids) if arguments.last else ids.index(other) + (arguments.after is not None)
    ids.insert(place, arguments.id)
    return remote.call("PUT", "/api/rules/reorder", {"ids": ids}, listed.tag).content


def _enable(remote: Remote, arguments: argparse.Namespace) -> Any:
    return remote.call("PUT", _path(arguments.id), {"enabled": True}).content


def _disable(remote: Remote, arguments: argparse.Namespace) -> Any:
    return remote.call("PUT", _path(arguments.id), {"enabled": False}).content


def _remove(remote: Remote, arguments: argparse.Namespace) -> Any:
    return remote.call("DELETE", _path(arguments.id)).content


def _history(remote: Remote, arguments: argparse.Namespace) -> Any:
    return remote.call("GET", f"/api/history?limit={arguments.limit}").content


def _roll_back(remote: Remote, arguments: argparse.Namespace) -> Any:
    return remote.call("POST", f"/api/history/{quote(arguments.change, safe='')}/rollback").content


def _path(rule_id: str) -> str:
    return f"/api/rules/{quote(rule_id, safe='')}"


def _changed(rule: dict[str, Any], given: list[str]) -> dict[str, Any]:
    """
    A rule with fields from the command line.

    @raise ValueError: one is no C{FIELD=VALUE}.
    """
    changed = dict(rule)
    for text in given:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError(f"{text!r} is no FIELD=VALUE")
        field, dot, member = path.partition(".")
        if dot:
            inner = changed.get(field)
            changed[field] = {**(inner if isinstance(inner, dict) else {}), member: _value(path, value)}
        else:
            changed[field] = _value(path, value)
    return changed


def _value(path: str, text: str) -> Any:
    if text == "null":
        return None
    if path in _TEXTS or path.startswith("headers."):
        return text
    try:
        value = yaml.safe_load(text)
        json.dumps(value)
    except yaml.YAMLError as error:
        raise ValueError(f"the value of {path} is no YAML: {text!r}") from error
    except TypeError as error:
        raise ValueError(f"the value of {path} is of a kind that JSON does not know; put it in quotes") from error
    return value


# What people see


def _shown_list(rules: list[dict[str, Any]]) -> str:
    return table(
        ("", "ID", "NAME", "PATTERN", "TARGET"),
        [(_state(rule), rule["id"], rule["name"], rule["pattern"], rule["target"]) for rule in rules],
    )


def _state(rule: dict[str, Any]) -> str:
    state = "problem" if rule["problem"] else "on" if rule["enabled"] else "off"
    return f"{state}, file" if rule["readonly"] else state


def _shown_rule(rule: dict[str, Any]) -> str:
    """What is not the default, a line each."""
    said = {field: value for field, value in rule.items() if value not in (None, {}, _DEFAULTS.get(field))}
    said = {field: value for field, value in said.items() if not _is_empty(value)}
    lines = [(f"{field}:", value if isinstance(value, str) else json.dumps(value)) for field, value in said.items()]
    width = max(len(field) for field, _ in lines)
    return "".join(f"{field.ljust(width)}  {printable(value)}\n" for field, value in lines)


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and all(part is None for part in value.values())


def _shown_removed(answer: dict[str, Any]) -> str:
    return f"{answer['id']} is deleted\n"


def _shown_history(changes: list[dict[str, Any]]) -> str:
    rows = [(one["id"], one["at"], one["who"], one["action"], one["rule"], _difference(one)) for one in changes]
    return table(("N", "WHEN", "WHO", "WHAT", "RULE", "FIELDS"), rows)


def _difference(change: dict[str, Any]) -> str:
    before, after = change["before"], change["after"]
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ""
    return ", ".join(sorted(field for field in before.keys() | after.keys() if before.get(field) != after.get(field)))


def _shown_change(change: dict[str, Any]) -> str:
    return _shown_history([change])
