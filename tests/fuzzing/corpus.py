"""The inputs that are kept: C{corpus/TARGET/}, whatever was worth it, beside the seeds in each target's module."""

from __future__ import annotations

from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "corpus"

TARGETS = ("channel", "response", "connect", "socks", "frames", "configuration")
"""Modules with C{fuzz(octets)}, C{SEEDS}, and C{WORDS} that mutations put in."""

MACHINES = ("exchange", "relay")
"""Modules with a Hypothesis state machine, C{Machine}."""

MAX_SIZE = 4096
"""The longest input, octets: all limits that matter here are smaller, or made so."""

MAX_KEPT = 200
"""The most inputs that are kept for one target."""


def target(name: str) -> Any:
    """The module of a target."""
    return import_module(f"tests.fuzzing.{name}")


def kept(name: str) -> list[Path]:
    """The files of one target, or of one machine."""
    return sorted(path for path in (FOLDER / name).glob("*") if path.is_file())


def keep(name: str, octets: bytes, prefix: str = "") -> Path:
    """Add one input, under a name that follows from it."""
    path = FOLDER / name / f"{prefix}{sha256(octets).hexdigest()[:16]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)
    return path
