"""How long proxyd takes to start."""

from __future__ import annotations

import compileall
import statistics
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import proxyd
from bench.lab import Lab
from bench.proxies import PROXYD, started
from bench.rows import Result, Row, Sample, interleave


def _start(lab: Lab) -> Result:
    # As what pip installs is; a checkout is not where Python is told to write nothing beside its sources.
    compileall.compile_dir(Path(proxyd.__file__).parent, quiet=1)
    cpu = []

    def trial(_: float) -> Sample:
        begun = time.monotonic()
        with started(lab, PROXYD, lab.http_origin) as server:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/1k") as answer:
                answer.read()
            passed = time.monotonic() - begun
            cpu.append(server.cpu())
            return Sample(passed)

    result = interleave(lab, {PROXYD: trial})
    return replace(result, notes=(*result.notes, f"of it {statistics.median(cpu):.2f} s of CPU"))


ROWS = [Row("start", "from the start of the process to the first answer", "s", _start, limit=0.5)]
