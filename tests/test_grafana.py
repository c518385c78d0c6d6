"""The dashboard and the alerts in C{etc}: all that they ask Prometheus for is what proxyd tells it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.admin import TOKENS
from tests.support.frames import TEXT
from tests.support.proxy import Proxy
from tests.support.websocket import UPGRADE, pair, switching
from tests.support.wire import Origin

ETC = Path(__file__).parents[1] / "etc"
DASHBOARD = json.loads((ETC / "grafana.json").read_text())
GROUPS = yaml.safe_load((ETC / "prometheus-alerts.yaml").read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

_SERIES = re.compile(r"(proxyd_\w+)(?:\{([^}]*)\})?")


def expressions() -> Iterator[tuple[str, str]]:
    """Everything that Prometheus is asked, each with who asks."""
    for panel in PANELS:
        for query in panel["targets"]:
            yield f"{panel['title']} {query['refId']}", query["expr"]
    for one in DASHBOARD["templating"]["list"]:
        if one["type"] == "query":
            yield one["name"], one["query"]["query"]
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]


@pytest.fixture
def exposed(start: Callable[..., Proxy], own_origin: Origin) -> dict[str, set[str]]:
    """The names of all time series of a proxy that has had one of each kind of exchange, with their labels."""
    rule = {"name": "Everything", "id": "all", "pattern": "^/(?!none)", "target": f"http://127.0.0.1:{own_origin.port}"}
    proxy = start(admin={"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}, rules=[rule])
    with proxy.connect() as client:
        client.request("GET", "/")
        with own_origin.accept() as server:
            server.read_message()
            server.respond("answer")
            client.read_message()
    with proxy.connect() as client:
        client.request("GET", "/none")
        assert client.read_message().status == 404
    with proxy.connect() as client:
        client.request("GET", "/ws", *UPGRADE)
        with own_origin.accept() as server:
            server.send(switching(server.read_message()))
            assert client.read_head().status == 101
            ends = pair(client, server)
            ends.client.sends(TEXT, b"abc")
            ends.origin.gets(TEXT, b"abc")
            ends.close()
    proxy.output.wait_for('" 101 ')
    found: dict[str, set[str]] = {}
    for line in proxy.admin.call("GET", "/metrics").octets.decode().splitlines():
        if not line.startswith("#"):
            series = re.match(r"(\w+)(?:\{(.*)\})? ", line)
            assert series is not None, line
            found.setdefault(series[1], {"instance", "job"}).update(re.findall(r'(\w+)="', series[2] or ""))
    return found


def test_series(exposed: dict[str, set[str]]) -> None:
    """Every series that is asked for is there, with the labels that are asked for."""
    used = set()
    for who, expression in expressions():
        series = _SERIES.findall(expression)
        assert series, who
        for name, selector in series:
            used.add(name)
            assert name in exposed, (who, name)
            assert set(re.findall(r"(\w+)(?==|!=)", selector)) <= exposed[name], (who, name)
        labels = set().union(*(exposed[name] for name, _ in series))
        for listed in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", listed)) <= labels, who
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    # How late the reactor was at the last look says less than how late it was at most.
    assert families - shown == {"proxyd_reactor_lag_seconds"}


def test_documented(exposed: dict[str, set[str]]) -> None:
    """Every family is in the documentation, with its labels."""
    text = (ETC.parent / "docs" / "admin.md").read_text()
    for name, labels in exposed.items():
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        rows = [line for line in text.splitlines() if line.startswith("|") and f"`{family}`" in line]
        assert len(rows) == 1, family
        assert set(re.findall(r"`(\w+)`", rows[0].split("|")[2])) == labels - {"instance", "job", "le"}, family


def test_panels_do_not_overlap() -> None:
    """Every panel has its own place within the 24 columns."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)

    def apart(one: dict[str, int], other: dict[str, int]) -> bool:
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        return beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]

    assert all(apart(one, other) for one, other in itertools.combinations(places, 2))
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_any_data_source() -> None:
    """The dashboard is for whatever data source its user chooses, and has no id of its own."""
    assert DASHBOARD["id"] is DASHBOARD["uid"] is None
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"

    def sources(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if "datasource" in value:
                yield value["datasource"]
            value = list(value.values())
        if isinstance(value, list):
            for part in value:
                yield from sources(part)

    found = list(sources(DASHBOARD))
    assert len(found) > len(PANELS)
    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in found)
    names = set(re.findall(r"\$\{?(\w+)", " ".join(expression for _, expression in expressions())))
    assert names - {"labels"} <= {*variables, "__rate_interval"}


def test_shown_to_people() -> None:
    """Everything has a title, a unit and a word about what it is."""
    for panel in PANELS:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    assert all(alert["annotations"]["summary"] and alert["labels"]["severity"] for alert in ALERTS)
