"""Random ECMAScript patterns, and node as the oracle for what they mean."""

from __future__ import annotations

import json
import random
import subprocess
from typing import Any

from hypothesis import strategies as st

from proxyd.rules.pattern import Pattern

ATOMS = [
    *"ab/1x-_:%, ",
    *["a", "b", "/", "ab", "/a"] * 3,
    ".",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\/",
    r"\-",
    r"\.",
    r"\a",
    r"\$",
    r"\x61",
    r"\x6",
    r"\u0062",
    r"\u{2}",
    r"\t",
    r"\cA",
    r"\c",
    r"\0",
    r"\01",
    r"\1",
    r"\2",
    r"\8",
    r"\141",
    r"\k<n>",
    r"\k",
    r"\p{2}",
    "{",
    "}",
    "]",
    "{,2}",
    "a{x}",
    "é",
    "😀",
    "[ab]",
    "[^ab]",
    "[^/]",
    "[]",
    "[^]",
    "[a-c1-3]",
    r"[\d-x]",
    r"[x-\d]",
    r"[\w.-]",
    r"[^\s\S]",
    r"[\b]",
    r"[\cA]",
    r"[\01]",
    r"[\0]",
    r"[a\]b]",
    r"[\-a]",
    r"[\x61-\x63]",
    r"[é/]",
    r"[a-é]",
    r"[^é]",
    r"[^😀]",
    "[-a]",
    "[a-]",
    r"[^-\D]",
]
ASSERTIONS = ["^", "$", r"\b", r"\B"]
SHORT = ["", "", "", "", "*", "+", "?", "*?", "+?", "{2}", "{1,}", "{0}"]
"""For groups: long repetitions of repetitions make any engine slow, and nothing else."""
QUANTIFIERS = [*SHORT, "{0,2}", "{2,3}?", "{20}", "{0,30}", "{2,}"]
OPENINGS = ["(", "(", "(?:", "(?=", "(?!", "(?<=", "(?<!"]
CHARACTERS = "/ab1x-_:%,.{}] c9Z"


def _pattern(rnd: random.Random, depth: int) -> str:
    parts = []
    for _ in range(rnd.randint(0, 4)):
        choice = rnd.random()
        if choice < 0.12:
            parts.append(rnd.choice(ASSERTIONS))
        elif choice < 0.32 and depth:
            parts.append(rnd.choice(OPENINGS) + _pattern(rnd, depth - 1) + ")" + rnd.choice(SHORT))
        elif choice < 0.37 and depth:
            parts.append("|")
        else:
            parts.append(rnd.choice(ATOMS) + rnd.choice(QUANTIFIERS))
    return "".join(parts)


def _is_accepted(pattern: str) -> bool:
    try:
        Pattern(pattern)
    except ValueError:
        return False
    return True


def random_pattern(rnd: random.Random) -> str:
    """A pattern that is accepted; now and then with a named group."""
    while True:
        pattern = _pattern(rnd, 3)
        if rnd.random() < 0.2:
            pattern = f"(?<n>{_pattern(rnd, 2)}){pattern}"
        if _is_accepted(pattern):
            return pattern


def random_path(rnd: random.Random, more: str = "") -> str:
    """A short path of characters that the patterns know, and of C{more}."""
    return "/" + "".join(rnd.choice(CHARACTERS + more) for _ in range(rnd.randint(0, 8)))


PATTERNS = st.randoms(use_true_random=False).map(random_pattern)
PATHS = st.randoms(use_true_random=False).map(random_path)
ANY_PATHS = st.randoms(use_true_random=False).map(lambda rnd: random_path(rnd, "é😀\n\t"))


def node(script: str, cases: list[Any]) -> list[Any]:
    """What a function in JavaScript says about each case, asked in one process."""
    program = f"const one = {script}; const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
    program += "process.stdout.write(JSON.stringify(cases.map(one)));"
    done = subprocess.run(["node", "-e", program], input=json.dumps(cases), capture_output=True, text=True, check=True)
    answers: list[Any] = json.loads(done.stdout)
    return answers
