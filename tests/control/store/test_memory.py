"""L{proxyd.control.store.memory}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from proxyd.control.store.memory import MemoryStore
from tests.control.store.contract import Contract


class MemoryTests(Contract, TestCase):
    """L{MemoryStore}."""

    async def opened(self) -> Any:
        store = MemoryStore()
        await store.open(lambda: None)
        self.addCleanup(store.close)
        return store

    anew = opened
