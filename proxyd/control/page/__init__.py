"""
The page: files that a browser is given as they are, without any build.

It asks the API for everything, with the token that its user types.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from proxyd.control.api.calls import Answer
from proxyd.control.api.resource import Open
from proxyd.http.fields import Fields

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

_POLICY: Final[Fields] = [
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
]
"""
Nothing is run, shown or asked but what comes from here; nobody may frame the page.  Where browsers know of trusted
types (https://www.w3.org/TR/trusted-types/), no text can become elements or scripts, whatever our own scripts do.
"""


def page_files() -> dict[str, Open]:
    """
    @return: the files of the page, by their paths; C{/} is the page itself.
    """
    found = {}
    for file in files(__package__).iterdir():
        media_type = _TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            found[path] = _open(Answer(file.read_bytes(), 200, list(_POLICY), media_type))
    return found


def _open(answer: Answer) -> Open:
    return Open(lambda: answer)
