"""The Python API as its page has it is the one that there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest
from zope.interface.interface import InterfaceClass

from proxyd import connect_websocket, errors
from proxyd.connect import connect_websocket as real_connect_websocket
from tests.support.snippets import ROOT, Snippet, take

SIGNATURES = take("python", "python.md")


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str]]:
    """All functions of a piece of code, those of its classes too: their names, and their signatures as written."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "property " if "property" in [ast.unparse(one) for one in node.decorator_list] else ""
            result = ast.unparse(node.returns) if node.returns else ""
            yield prefix + node.name, f"{kind}({ast.unparse(node.args)}) -> {result}"


@pytest.mark.parametrize("snippet", SIGNATURES, ids=str)
def test_signatures(snippet: Snippet) -> None:
    """Each signature is that of the module which the first line names."""
    module = importlib.import_module(snippet.text.split()[1])
    there = dict(functions(ast.parse(inspect.getsource(module)).body))
    told = dict(functions(ast.parse(snippet.text).body))
    assert told
    assert told == {name: there.get(name) for name in told}
    interfaces = {name.partition(".")[0] for name in told}
    for name in interfaces:
        one = getattr(module, name)
        if isinstance(one, InterfaceClass):
            assert {f"{name}.{method}" for method in one.names() if hasattr(one[method], "positional")} <= set(told)


def test_public_name() -> None:
    """The client is where the page says."""
    assert connect_websocket is real_connect_websocket


def test_names() -> None:
    """The tables name members of the service, each with a signature above, and errors that there are."""
    text = (ROOT / "docs" / "python.md").read_text()
    cells = "".join(re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE))
    told = set(re.findall(r"`(\w+)`", cells))
    (service,) = (one for one in SIGNATURES if "class ProxyService" in one.text)
    assert {name for name in told if name[0].islower()} == set(re.findall(r"def (\w+)", service.text))
    for name in told:
        if name[0].isupper():
            assert issubclass(getattr(errors, name), errors.ProxydError)
