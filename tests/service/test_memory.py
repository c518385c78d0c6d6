"""L{proxyd.service.memory}: what comes and goes costs no page faults, and cycles are found."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from proxyd.service.memory import loading

PROGRAM = """
import resource, sys
from proxyd.service.memory import settle

def come_and_go():
    blocks = [b"x" * 250_000 for _ in range(4)]

if sys.argv[1:]:
    settle()
come_and_go()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    come_and_go()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    """How many page faults a hundred megabytes of received octets take."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_blocks_that_come_and_go() -> None:
    """glibc gives them back to the kernel and asks for them again, which is more than it costs to receive them."""
    assert faults() > 10_000
    assert faults("settled") < 100


def test_loading() -> None:
    """Nothing is looked for while all is loaded; when that is over, or has failed, cycles are found as ever."""
    with pytest.raises(ZeroDivisionError), loading():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()
