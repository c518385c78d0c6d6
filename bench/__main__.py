"""C{python -m bench}: measure the rows, print them, and write RESULTS.md if it were all of them."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil

from bench import http, memory, rules, start, tls, tunnel, websocket
from bench.lab import HERE, Lab, ServerFailed
from bench.load import LoadFailed
from bench.origins import http_origin, make_certificate, ws_origin
from bench.report import as_markdown, as_text, summary
from bench.rows import Result, Row

ROWS = [row for subject in (http, websocket, tls, tunnel, rules, start, memory) for row in subject.ROWS]

ROUNDS = 8
SECONDS = 1.0

STOLEN = 0.02
"""The share of the processors that the host may give to others while a row is measured, without a word about it."""

_MAX_REASON = 500


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare what proxyd costs with its peers.")
    parser.add_argument("--rows", default="", help="names of rows, with commas; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each time (%(default)s)")
    return parser.parse_args()


def _chosen(names: str) -> list[Row]:
    if not names:
        return ROWS
    by_name = {row.name: row for row in ROWS}
    unknown = [name for name in names.split(",") if name not in by_name]
    if unknown:
        raise SystemExit(f"no such row: {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names.split(",")]


def _measured(row: Row, lab: Lab) -> Result:
    """A row that cannot be measured holds nothing that is demanded, and does not keep the others from it."""
    before = psutil.cpu_times()
    try:
        result = row.measure(lab)
    except (LoadFailed, ServerFailed, OSError) as error:
        reason = " ".join(str(error).split())
        result = Result({}, notes=(f"failed: {reason[-_MAX_REASON:]}",))
    after = psutil.cpu_times()
    stolen = (after.steal - before.steal) / (sum(after) - sum(before))
    if stolen > STOLEN:
        result = replace(result, notes=(*result.notes, f"the host gave {stolen:.0%} of the processors to others"))
    return result


def _prepare() -> None:
    """Give the servers that are started from here all descriptors, and leave none of them behind."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ["PATH"] += ":/usr/sbin"
    # What has been started ends with this process, however it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main() -> None:
    """Measure what the command line says."""
    arguments = _arguments()
    chosen = _chosen(arguments.rows)
    begun = time.monotonic()
    _prepare()
    results = []
    with tempfile.TemporaryDirectory(prefix="proxyd-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # nginx reads it as another user
        lab = Lab(
            folder,
            arguments.rounds,
            arguments.seconds,
            http_origin=stack.enter_context(http_origin(folder)).port,
            ws_origin=stack.enter_context(ws_origin(folder)).port,
            certificate=make_certificate(folder),
        )
        for row in chosen:
            result = _measured(row, lab)
            results.append((row, result))
            sys.stdout.write(as_text(row, result))
            sys.stdout.flush()
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{summary(results)} {seconds / 60:.1f} minutes in all.\n")
    if chosen == ROWS:
        (HERE / "RESULTS.md").write_text(as_markdown(lab, results, seconds))


if __name__ == "__main__":
    main()
