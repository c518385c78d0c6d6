"""Folders for trial's test cases, whose own C{mktemp} leaves them in the working folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase


def folder_for(test: SynchronousTestCase) -> Path:
    """A folder that goes with its test."""
    folder = TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name)
