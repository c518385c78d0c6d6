"""Files that hold secrets: read whole, and only if they are files."""

from __future__ import annotations

import os
import stat

from proxyd.errors import ConfigError, Problem


def read_file(name: str, limit: int) -> bytes:
    """
    @param limit: the most octets that it may have.

    @return: what it holds.

    @raise ConfigError: it cannot be read, is something else (to open a pipe would wait for whoever writes it), or is
        too long.  The text names it, and nothing of what is in it.
    """
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError((Problem((), f"{name} is no ordinary file"),))
            octets = file.read(limit + 1)
    except OSError as error:
        raise ConfigError((Problem((), f"{name} cannot be read: {error.strerror}"),)) from error
    if len(octets) > limit:
        raise ConfigError((Problem((), f"{name} is longer than {limit} octets"),))
    return octets
