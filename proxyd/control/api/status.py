"""The state of the service, its reload, and what would happen to a request, over the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from typing_extensions import TypedDict

from proxyd.control.api.calls import Answer, Call, CallError, Operation
from proxyd.control.api.documents import ExplainDocument
from proxyd.control.explain import Explanation, Snapshot, explain
from proxyd.errors import ConfigError


class RulesStatus(TypedDict):
    """How many rules there are; C{unusable} ones of the store are not in force."""

    static: int
    dynamic: int
    unusable: int


class StoreStatus(TypedDict):
    """The store of dynamic rules; C{away} says why it cannot be reached."""

    kind: str
    revision: int
    away: str | None


class Totals(TypedDict):
    """
    What has been since the start: two readings make a rate.

    C{latency} counts requests by how long they took: pairs of an upper bound in seconds (null: none) and how many
    took at most that and more than the bound before.
    """

    requests: int
    errors: int
    latency: list[tuple[float | None, int]]


class WorkerStatus(TypedDict):
    """One of several processes that serve; C{state} is C{starting}, C{serving} or C{draining}."""

    pid: int
    state: str
    started: str
    connections: int
    websockets: int
    requests: int


class Status(TypedDict):
    """The service at this moment; times are in seconds."""

    version: str
    started: str
    uptime: float
    config: str
    listening: list[str]
    draining: bool
    restartNeeded: list[str]
    reloadError: str | None
    rules: RulesStatus
    store: StoreStatus
    connections: int
    websockets: int
    totals: Totals
    workers: list[WorkerStatus]
    role: str


class Reloaded(TypedDict):
    """A reload is done; C{restartNeeded} names what it could not change."""

    reloaded: bool
    rules: int
    restartNeeded: list[str]


class Restarting(TypedDict):
    """So many processes are being replaced, one after the other."""

    restarting: int


class Service(Protocol):
    """What the API asks of the service."""

    @property
    def restart_needed(self) -> list[str]:
        """What of the configuration was changed and needs a restart."""

    def status(self, role: str) -> Deferred[Status]:
        """The state of the moment."""

    def restart_workers(self) -> int:
        """Replace the processes that serve, one after the other; returns how many, 0 if this cannot be done now."""

    def reload(self) -> Deferred[ConfigError | None]:
        """Read the configuration again; fires with what is wrong with it."""

    @property
    def snapshot(self) -> Snapshot:
        """What requests are served by."""


class StatusAPI:
    """Calls about the service as a whole."""

    def __init__(self, service: Service, now: Callable[[], float]) -> None:
        self._service = service
        self._now = now
        self.operations = (
            Operation("GET", "/api/status", "read", self._status, "The state of the service", Status),
            Operation("POST", "/api/reload", "write", self._reload, "Read the configuration file again", Reloaded,
                      errors=(409,)),
            Operation("POST", "/api/restart", "write", self._restart, "Replace all workers, one after the other",
                      Restarting, status=202, errors=(409,)),
            Operation("POST", "/api/explain", "read", self._explain, "What would happen to a request", Explanation,
                      body=ExplainDocument),
        )

    async def _status(self, call: Call) -> Answer:
        return Answer(await self._service.status(call.caller.role))

    def _restart(self, call: Call) -> Answer:
        count = self._service.restart_workers()
        if not count:
            raise CallError(409, "There are no workers to replace, or they are being replaced: see status.")
        return Answer(Restarting(restarting=count), 202)

    async def _reload(self, call: Call) -> Answer:
        error = await self._service.reload()
        if error is not None:
            raise CallError(409, f"The configuration was not reloaded, the old one stays in force: {error}")
        rules = (await self._service.status(call.caller.role))["rules"]["static"]
        return Answer(Reloaded(reloaded=True, rules=rules, restartNeeded=self._service.restart_needed))

    def _explain(self, call: Call) -> Answer:
        asked = call.body(ExplainDocument)
        return Answer(
            explain(self._service.snapshot, self._now, asked.method, asked.url, asked.headers, call.may_write)
        )
