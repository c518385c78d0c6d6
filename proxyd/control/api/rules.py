"""The rules: listed, made, changed, put in order, and taken back."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from proxyd.control.api.calls import MAX_LONG_BODY, Answer, Call, CallError, Operation, is_number, parse_json
from proxyd.control.api.documents import ChangeView, Deleted, HistoryQuery, ReorderDocument
from proxyd.control.api.masks import SecretMissing, check_same, masked, unmasked
from proxyd.control.permissions import Permissions
from proxyd.control.rulebook import DynamicRule, Edit, Rulebook
from proxyd.control.store.values import Change, Document, RuleSet
from proxyd.errors import ConfigError, RuleUnusable
from proxyd.rules.codec import MAX_ORDER, RuleDocument, mapping_from_rule
from proxyd.rules.model import Rule, expand_variables
from proxyd.times import to_the_millisecond

MAX_HISTORY = 1024 * 1024
"""Octets after which an answer of the history ends: the order of ten thousand rules has two hundred thousand."""

_SHOWN_ONLY = ("readonly", "resolvedTarget", "problem")
"""What a rule shows beyond what was written: it may be sent back, and says nothing."""


class RulesAPI:
    """All calls about rules and their history."""

    def __init__(
        self,
        rulebook: Rulebook,
        permissions: Permissions,
        static_rules: Callable[[], tuple[Rule, ...]],
        environment: Mapping[str, str],
    ) -> None:
        """
        @param static_rules: those of the file, as they are in force.
        """
        self._rulebook = rulebook
        self._permissions = permissions
        self._static_rules = static_rules
        self._environment = environment
        self.operations = (
            Operation("GET", "/api/rules", "read", self._list, "All rules in matching order",
                      list[RuleDocument], tagged=True),
            Operation("POST", "/api/rules", "write", self._create, "Add a rule",
                      RuleDocument, 201, RuleDocument, errors=(409, 503), tagged=True),
            Operation("PUT", "/api/rules/reorder", "write", self._reorder, "Put the dynamic rules in order",
                      list[RuleDocument], body=ReorderDocument, limit=MAX_LONG_BODY, errors=(412, 503), tagged=True,
                      conditional=True),
            Operation("GET", "/api/rules/{id}", "read", self._get, "One rule",
                      RuleDocument, errors=(404,), tagged=True),
            Operation("PUT", "/api/rules/{id}", "write", self._update, "Change a rule: null resets a field",
                      RuleDocument, body=dict, errors=(404, 412, 503), tagged=True, conditional=True),
            Operation("DELETE", "/api/rules/{id}", "write", self._delete, "Delete a rule",
                      Deleted, errors=(404, 412, 503), conditional=True),
            Operation("PATCH", "/api/rules/{id}/toggle", "write", self._toggle, "Enable or disable a rule",
                      RuleDocument, errors=(404, 412, 503), tagged=True, conditional=True),
            Operation("GET", "/api/history", "read", self._history, "Changes, the latest one first",
                      list[ChangeView], query=HistoryQuery, errors=(503,)),
            Operation("POST", "/api/history/{id}/rollback", "write", self._roll_back,
                      "Make a rule, or the order, what it was before a change",
                      ChangeView, errors=(404, 409, 503)),
        )

    # What is there

    def _list(self, call: Call) -> Answer:
        return Answer(self._shown_all(call), fields=[_etag(self._list_tag())])

    def _shown_all(self, call: Call) -> list[dict[str, Any]]:
        static_ids = self._static_ids()
        shown = [self._shown_static(rule, call) for rule in self._static_rules()]
        return shown + [self._shown(one, call, static_ids) for one in self._rulebook.rules]

    def _static_ids(self) -> set[str]:
        return {rule.id for rule in self._static_rules()}

    def _list_tag(self) -> str:
        static = [masked(mapping_from_rule(rule)) for rule in self._static_rules()]
        rule_set = self._rulebook.rule_set
        return f"{rule_set.identity}-{rule_set.revision}-{_digest(static)}"

    def _tag(self, dynamic: DynamicRule) -> str:
        return f"{self._rulebook.rule_set.identity}-{dynamic.stored.revision}"

    def _get(self, call: Call) -> Answer:
        rule_id = call.parameters["id"]
        for rule in self._static_rules():
            if rule.id == rule_id:
                shown = self._shown_static(rule, call)
                return Answer(shown, fields=[_etag(f"static-{_digest(masked(shown))}")])
        return self._one(self._find(rule_id), call)

    def _one(self, dynamic: DynamicRule, call: Call, status: int = 200) -> Answer:
        return Answer(self._shown(dynamic, call, self._static_ids()), status, [_etag(self._tag(dynamic))])

    def _shown_static(self, rule: Rule, call: Call) -> dict[str, Any]:
        return self._for_caller({**mapping_from_rule(rule), "readonly": True, "problem": None}, rule, call)

    def _shown(self, dynamic: DynamicRule, call: Call, static_ids: set[str]) -> dict[str, Any]:
        problem = dynamic.problem or None
        if dynamic.id in static_ids:
            problem = "the file has a rule of this id, which is the one in force"
        return self._for_caller({**_whole(dynamic), "readonly": False, "problem": problem}, dynamic.rule, call)

    def _for_caller(self, shown: dict[str, Any], rule: Rule | None, call: Call) -> dict[str, Any]:
        if not call.may_write:
            return masked(shown)
        shown["resolvedTarget"] = None if rule is None else self._resolved(rule)
        return shown

    def _resolved(self, rule: Rule) -> str | None:
        try:
            return expand_variables(rule.target.source, self._environment)
        except RuleUnusable:
            return None

    def _find(self, rule_id: str) -> DynamicRule:
        for dynamic in self._rulebook.rules:
            if dynamic.id == rule_id:
                return dynamic
        raise CallError(404, f"There is no rule {rule_id}.")

    def _changeable(self, rule_id: str) -> DynamicRule:
        if rule_id in self._static_ids():
            raise CallError(403, f"The rule {rule_id} is of the configuration file: it is changed there.")
        return self._find(rule_id)

    # What is changed

    async def _create(self, call: Call) -> Answer:
        given = _without_shown(_object(call))
        rule_id = given.get("id")
        given["id"] = str(uuid.uuid4()) if rule_id is None else rule_id

        def make(base: RuleSet) -> Edit:
            document, _ = self._checked(self._placed(given, base), None)
            if self._is_taken(document["id"], base):
                raise CallError(409, f"The id {document['id']} is taken.", "id")
            return _edit("create", call, document["id"], None, document)

        await self._rulebook.change(make)
        answer = self._one(self._find(given["id"]), call, 201)
        answer.fields.append((b"Location", b"rules/" + given["id"].encode("ascii")))
        return answer

    async def _update(self, call: Call) -> Answer:
        rule_id = call.parameters["id"]

        def make(base: RuleSet) -> Edit:
            dynamic = self._changeable(rule_id)
            given = _without_shown(_object(call))
            if given.get("id", rule_id) != rule_id:
                raise CallError(400, "The id of a rule cannot be changed.", "id")
            before = dynamic.stored.document
            whole = {key: part for key, part in {**before, **given}.items() if part is not None}
            document, rule = self._checked(self._placed(whole, base), dynamic)
            _check_match(call, self._tag(dynamic))
            if dynamic.rule is not None and mapping_from_rule(rule) == mapping_from_rule(dynamic.rule):
                # A default that is said is no change.
                document = before
            return _edit("update", call, rule_id, before, document)

        await self._rulebook.change(make)
        return self._one(self._find(rule_id), call)

    async def _toggle(self, call: Call) -> Answer:
        rule_id = call.parameters["id"]

        def make(base: RuleSet) -> Edit:
            dynamic = self._changeable(rule_id)
            _check_match(call, self._tag(dynamic))
            before = dynamic.stored.document
            return _edit("toggle", call, rule_id, before, {**before, "enabled": not before.get("enabled", True)})

        await self._rulebook.change(make)
        return self._one(self._find(rule_id), call)

    async def _delete(self, call: Call) -> Answer:
        rule_id = call.parameters["id"]

        def make(base: RuleSet) -> Edit:
            dynamic = self._changeable(rule_id)
            _check_match(call, self._tag(dynamic))
            return _edit("delete", call, rule_id, dynamic.stored.document, None)

        await self._rulebook.change(make)
        return Answer(Deleted(deleted=True, id=rule_id))

    async def _reorder(self, call: Call) -> Answer:
        ids = call.body(ReorderDocument).ids

        def make(base: RuleSet) -> Edit:
            before = _ids(base)
            if len(ids) != len(before) or set(ids) != set(before):
                raise CallError(400, "Every dynamic rule must be there once.", "ids")
            _check_match(call, self._list_tag())
            return Edit(_reordered(base, ids), Change("reorder", call.caller.name, None, before, ids))

        await self._rulebook.change(make)
        return self._list(call)

    def _placed(self, document: Mapping[str, Any], base: RuleSet) -> dict[str, Any]:
        """A document with its order: it comes last unless it says otherwise."""
        if document.get("order") is not None:
            return dict(document)
        others = (stored.document for stored in base.rules if stored.document["id"] != document["id"])
        last = max((other["order"] for other in others), default=-1)
        return {**document, "order": min(last + 1, MAX_ORDER)}

    def _is_taken(self, rule_id: str, base: RuleSet) -> bool:
        return rule_id in self._static_ids() or rule_id in _ids(base)

    def _checked(self, document: Mapping[str, Any], old: DynamicRule | None) -> tuple[Document, Rule]:
        """
        A document that may be kept, with the secrets that came back hidden, and its rule.

        @raise CallError: it may not.
        """
        try:
            whole = None if old is None else _whole(old)
            document, kept = unmasked(document, whole)
            rule = self._rulebook.compile(document)
            if kept and whole is not None:
                check_same(kept, mapping_from_rule(rule), whole)
        except SecretMissing as error:
            raise CallError(400, str(error), error.field) from error
        except ConfigError as error:
            raise CallError.from_problems(error.problems) from error
        for field, text in self._permissions.refusals(rule):
            raise CallError(403, f"{field}: {text}.", field)
        return document, rule

    # The history

    async def _history(self, call: Call) -> Answer:
        query = call.query(HistoryQuery)
        changes = await self._rulebook.store.history(query.before, query.limit)
        shown: list[ChangeView] = []
        size = 0
        for change in changes:
            shown.append(_change_view(change, call))
            size += len(json.dumps(shown[-1]))
            if size > MAX_HISTORY:
                break  # the caller asks for what is before the last one
        return Answer(shown)

    async def _roll_back(self, call: Call) -> Answer:
        number = call.parameters["id"]
        change = await self._rulebook.store.change(int(number)) if is_number(number) else None
        if change is None:
            raise CallError(404, f"There is no change {number}.")

        def make(base: RuleSet) -> Edit:
            if change.before is None and change.action not in ("create", "rollback"):
                raise CallError(409, f"What was before change {number} cannot be read any more.")
            if change.rule_id is None:
                before = _ids(base)
                there = set(before)
                ids = [one for one in change.before or () if one in there]
                there.difference_update(ids)
                ids += [one for one in before if one in there]
                if ids == before:
                    raise CallError(409, "The rules are in that order already.")
                return Edit(_reordered(base, ids), Change("rollback", call.caller.name, None, before, ids))
            current = next((one.document for one in base.rules if one.document["id"] == change.rule_id), None)
            if current == change.before:
                raise CallError(409, f"The rule {change.rule_id} is as it was before that change already.")
            if change.before is not None:
                if current is None and self._is_taken(change.rule_id, base):
                    raise CallError(409, f"The id {change.rule_id} is taken.")
                self._checked(change.before, None)
            return _edit("rollback", call, change.rule_id, current, change.before)

        return Answer(_change_view(await self._rulebook.change(make), call))


def _object(call: Call) -> dict[str, Any]:
    value = parse_json(call.octets)
    if not isinstance(value, dict):
        raise CallError(400, "The body must be a JSON object.")
    return value


def _without_shown(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in document.items() if key not in _SHOWN_ONLY}


def _whole(dynamic: DynamicRule) -> dict[str, Any]:
    """A rule with every default filled in, as far as it can be read."""
    return dict(dynamic.stored.document) if dynamic.rule is None else mapping_from_rule(dynamic.rule)


def _edit(action: str, call: Call, rule_id: str, before: Document | None, after: Document | None) -> Edit:
    return Edit({rule_id: after}, Change(action, call.caller.name, rule_id, before, after))


def _ids(base: RuleSet) -> list[str]:
    return [stored.document["id"] for stored in base.rules]


def _reordered(base: RuleSet, ids: list[str]) -> dict[str, Document | None]:
    documents = {stored.document["id"]: stored.document for stored in base.rules}
    # What a store could not read is known in part only: it is left as it is.
    return {
        one: {**documents[one], "order": place}
        for place, one in enumerate(ids)
        if documents[one]["order"] != place and "unreadable" not in documents[one]
    }


def _change_view(change: Change, call: Call) -> ChangeView:
    def shown(value: Any) -> Any:
        return masked(value) if isinstance(value, Mapping) and not call.may_write else value

    return ChangeView(
        id=change.revision,
        at=to_the_millisecond(change.at),
        who=change.who,
        action=change.action,
        rule=change.rule_id,
        before=shown(change.before),
        after=shown(change.after),
    )


def _check_match(call: Call, tag: str) -> None:
    """
    @raise CallError: C{412}: the caller has seen something else (RFC 9110 section 13.1.1).
    """
    wanted = call.if_match
    if wanted is not None and "*" not in wanted and f'"{tag}"' not in wanted:
        raise CallError(412, "It has been changed since it was read; read it again.", "If-Match")


def _etag(tag: str) -> tuple[bytes, bytes]:
    return b"ETag", f'"{tag}"'.encode("ascii")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
