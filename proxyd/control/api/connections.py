"""Live connections, over the API."""

from __future__ import annotations

from proxyd.control.api.calls import Answer, Call, CallError, Operation, is_number
from proxyd.control.api.documents import CloseQuery, CloseRuleQuery
from proxyd.control.connections import Closing, Connections, Live


class ConnectionsAPI:
    """All calls about connections."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.operations = (
            Operation("GET", "/api/connections", "read", self._list, "Requests and WebSockets under way", list[Live]),
            Operation("DELETE", "/api/connections", "write", self._close_rule, "Close all connections of a rule",
                      Closing, query=CloseRuleQuery),
            Operation("DELETE", "/api/connections/{id}", "write", self._close, "Close one connection",
                      Closing, query=CloseQuery, errors=(404,)),
        )

    def _list(self, call: Call) -> Answer:
        return Answer(self._connections.listed())

    def _close(self, call: Call) -> Answer:
        number = call.parameters["id"]
        query = call.query(CloseQuery)
        if not is_number(number) or not self._connections.close(int(number), int(query.code)):
            raise CallError(404, f"There is no connection {number}.")
        return Answer(Closing(closing=1))

    def _close_rule(self, call: Call) -> Answer:
        query = call.query(CloseRuleQuery)
        return Answer(Closing(closing=self._connections.close_rule(query.rule, int(query.code), query.spread)))
