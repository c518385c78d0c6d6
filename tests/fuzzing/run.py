"""
Fuzzes one target for some time::

    python -m tests.fuzzing.run TARGET --minutes 30

Octets are found by atheris, which follows what they reach in proxyd; a state
machine is run with fresh seeds.  Inputs that reach something new are added to
the corpus, and so is one that fails; then the exit code is 1.  The last line
is a summary.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import SystemRandom
from typing import NoReturn, TypeVar

from tests.fuzzing.corpus import FOLDER, MACHINES, MAX_KEPT, MAX_SIZE, TARGETS, keep, kept, target

TIMEOUT_S = 20
"""Seconds after which one input has failed."""

FOUND = 77, 70, 71
"""What libFuzzer exits with when an input has failed, taken too long, or too much memory."""

EXAMPLES = 100
"""Runs of a state machine for each seed."""


class Report:
    """What the last line says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.executions = 0
        self.new = 0
        self.coverage = "unknown"
        self.failures: list[Path] = []
        self._began = time.monotonic()

    @property
    def minutes(self) -> float:
        """Of wall time."""
        return (time.monotonic() - self._began) / 60

    def __str__(self) -> str:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(one.ru_utime + one.ru_stime for one in used) / 60
        failed = "".join(f" {path.name}" for path in self.failures)
        return (
            f"{self.name}: {self.minutes:.1f} minutes, {cpu:.1f} CPU minutes, {self.executions} executions, "
            f"coverage {self.coverage}, {self.new} new in the corpus of {len(kept(self.name))}, "
            f"{len(self.failures)} failures{failed}"
        )


# Octets


def fuzz_within(name: str, arguments: list[str]) -> NoReturn:
    """Be the process that libFuzzer runs in, and ends."""
    import atheris

    with atheris.instrument_imports(include=["proxyd"]):
        fuzz: Callable[[bytes], None] = target(name).fuzz
    # libFuzzer runs itself once more to compare inputs: by this line, as a shell reads it.
    atheris.Setup([f"{sys.executable} -m tests.fuzzing.run {name} --", *arguments], fuzz)
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


def libfuzzer(name: str, *arguments: object) -> Iterator[str]:
    """Run libFuzzer, and give on what it says, line by line."""
    command = [sys.executable, "-m", "tests.fuzzing.run", name, "--", *map(str, arguments)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, errors="replace", **output) as run:
        assert run.stdout is not None
        yield from run.stdout
    if run.returncode not in (0, *FOUND):
        raise RuntimeError(f"libFuzzer ended with {run.returncode}")


def fuzz_octets(report: Report, minutes: float) -> None:
    """Have libFuzzer look for inputs, and keep the best of them."""
    name = report.name
    with tempfile.TemporaryDirectory() as folder:
        found, merged, words = Path(folder, "found"), Path(folder, "merged"), Path(folder, "words")
        found.mkdir()
        merged.mkdir()
        for number, seed in enumerate(target(name).SEEDS):
            Path(found, f"seed-{number}").write_bytes(seed)
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target(name).WORDS))
        kept_folder = FOLDER / name
        kept_folder.mkdir(parents=True, exist_ok=True)
        before = set(kept(name))
        limits = f"-max_len={MAX_SIZE}", f"-timeout={TIMEOUT_S}", f"-artifact_prefix={kept_folder}/"
        options = f"-max_total_time={max(1, round(minutes * 60))}", f"-dict={words}", "-print_final_stats=1"
        for line in libfuzzer(name, *limits, *options, found, kept_folder):
            if progress := re.match(r"#(\d+).* cov: (\d+)", line):
                report.executions, report.coverage = int(progress[1]), progress[2]
            if not progress or "pulse" in line:
                print(line, end="", flush=True)
            if count := re.match(r"stat::number_of_executed_units: +(\d+)", line):
                report.executions = int(count[1])
        report.failures = [_shrunk(name, path) for path in set(kept(name)) - before]
        if not report.failures:
            for _ in libfuzzer(name, *limits, "-set_cover_merge=1", "-use_counters=0", merged, kept_folder, found):
                pass
            new = {path.read_bytes() for path in merged.iterdir()}
            new -= {path.read_bytes() for path in kept(name)} | set(target(name).SEEDS)
            for octets in sorted(new, key=len)[: max(0, MAX_KEPT - len(kept(name)))]:
                keep(name, octets)
                report.new += 1


def _escaped(word: bytes) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(chr(octet) if octet < 0x80 and chr(octet).isalnum() else f"\\x{octet:02x}" for octet in word)


def _shrunk(name: str, path: Path) -> Path:
    """Make an input that fails as small as it can be without failing otherwise."""
    octets = path.read_bytes()
    if path.name.startswith("crash-"):
        path.unlink()
        octets = bytes(_without_needless(octets, lambda shorter: target(name).fuzz(bytes(shorter))))
        path = keep(name, octets, "failed-")
    print(f"{name} fails with {octets!r}, kept as {path}")
    return path


_Parts = TypeVar("_Parts", bytes, list[str])


def _without_needless(parts: _Parts, attempt: Callable[[_Parts], object]) -> _Parts:
    """Leave out all without which an attempt still fails, and in the same way."""
    kind = _failure(attempt, parts)
    size = max(1, len(parts) // 2)
    while size:
        at = 0
        while at < len(parts):
            shorter = parts[:at] + parts[at + size :]
            if _failure(attempt, shorter) == kind:
                parts = shorter
            else:
                at += size
        size //= 2
    return parts


def _failure(attempt: Callable[[_Parts], object], parts: _Parts) -> tuple[type[Exception], str] | None:
    """What goes wrong, and in which function."""
    try:
        attempt(parts)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return type(error), f"{last.filename}:{last.name}"
    return None


# State machines


def fuzz_machine(report: Report, minutes: float) -> None:
    """Run a state machine with one seed after the other."""
    from hypothesis import HealthCheck, Phase, seed, settings
    from hypothesis.stateful import run_state_machine_as_test

    machine = target(report.name).Machine
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=60,
        deadline=None,
        database=None,
        # Hypothesis takes minutes to make a run shorter.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    class Counted(machine):  # type: ignore[misc,valid-type]
        """Counts the runs."""

        def __init__(self) -> None:
            super().__init__()
            report.executions += 1

    Counted.__name__ = "Machine"
    while report.minutes < minutes and not report.failures:
        number = SystemRandom().getrandbits(64)

        @seed(number)
        def make() -> Counted:
            return Counted()

        try:
            run_state_machine_as_test(make, settings=chosen)
        except Exception as error:
            traceback.print_exc()
            notes = "\n".join(getattr(error, "__notes__", ())).split("\n")
            steps = [line for line in notes if line.startswith("state")]
            steps = _without_needless(steps, lambda fewer: exec("\n".join(fewer), {"Machine": machine}))
            print(*steps, sep="\n")
            report.failures.append(keep(report.name, "".join(f"{line}\n" for line in steps).encode(), "failed-"))


def main() -> int:
    """Fuzz, and say what came of it."""
    if "--" in sys.argv:
        fuzz_within(sys.argv[1], sys.argv[3:])
    parser = argparse.ArgumentParser(description="Fuzz one target.")
    parser.add_argument("target", choices=TARGETS + MACHINES)
    parser.add_argument("--minutes", type=float, default=1.0)
    given = parser.parse_args()
    report = Report(given.target)
    (fuzz_octets if given.target in TARGETS else fuzz_machine)(report, given.minutes)
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
