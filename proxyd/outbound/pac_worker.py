"""
The process that evaluates one PAC script, with limits of its own, for L{proxyd.outbound.pac}.

It is run as a file and imports nothing of proxyd.  Each line of standard
input is JSON, and is answered with one line: first the script, then
questions.  It ends with its input.  What the script prints, its error
messages among it, is kept apart and becomes part of the answer.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

MEMORY = 512 * 1024 * 1024
"""Octets of address space."""

CPU_S = 6
"""Seconds of the processor for one line: the asking side gives up before."""

DESCRIPTORS = 32
"""For name resolution."""

PRINTED = 64 * 1024
"""Octets that a script can print; it can write no file that is longer, either."""

MISSING = "proxy auto-config needs pacparser: install proxyd[pac]"


def _limit() -> None:
    for kind, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_FSIZE, PRINTED),
    ):
        _, hard = resource.getrlimit(kind)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lowered, lowered))


def _more_cpu() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + CPU_S, hard))


class _Printed:
    """What goes to standard output and error in place of them."""

    def __init__(self) -> None:
        self._kept = os.memfd_create("printed")
        os.dup2(self._kept, 1)
        os.dup2(self._kept, 2)

    def clear(self) -> None:
        os.ftruncate(self._kept, 0)
        os.lseek(self._kept, 0, os.SEEK_SET)

    def take(self) -> str:
        return os.pread(self._kept, 300, 0).decode("utf-8", "replace").strip()


def _answer(do: Callable[[], Any], printed: _Printed) -> dict[str, Any]:
    _more_cpu()
    printed.clear()
    try:
        return {"result": do()}
    except Exception as error:
        # pacparser says in what it prints what was wrong.
        text = printed.take() or f"{type(error).__name__}: {error}"
        return {"error": " ".join(text.split())}


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    printed = _Printed()
    _limit()

    def load(script: str) -> None:
        try:
            import pacparser
        except ImportError:
            raise RuntimeError(MISSING) from None
        pacparser.init()
        pacparser.parse_pac_string(script)

    def find(url: str, host: str) -> Any:
        import pacparser

        return pacparser.find_proxy(url, host)

    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if "script" in asked:
            answer = _answer(partial(load, asked["script"]), printed)
        else:
            answer = _answer(partial(find, asked["url"], asked["host"]), printed)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
