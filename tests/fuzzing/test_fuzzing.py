"""The corpus once more, inputs that are much like it, and a few runs of the state machines: C{make fuzz} does more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzzing.corpus import MACHINES, MAX_KEPT, MAX_SIZE, TARGETS, kept, target

PLACES = st.integers(0, 300)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """What once found a defect, or reaches what nothing else does, is fine now."""
    one = target(name)
    for octets in [b"", *one.SEEDS, *(path.read_bytes() for path in kept(name))]:
        one.fuzz(octets)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_is_small(name: str) -> None:
    """It is read in every test run."""
    files = kept(name)
    assert len(files) <= MAX_KEPT + 20
    assert all(path.stat().st_size <= MAX_SIZE for path in files)


@st.composite
def mutations(draw: st.DrawFn, name: str) -> bytes:
    """An input of the corpus with something put in, left out, repeated, or taken from another."""
    one = target(name)
    inputs = st.sampled_from([*one.SEEDS, *(path.read_bytes() for path in kept(name))])
    octets: bytes = draw(inputs)
    for kind in draw(st.lists(st.sampled_from(["word", "octets", "cut", "repeat", "splice"]), max_size=4)):
        begin, end = sorted((draw(PLACES), draw(PLACES)))
        if kind == "word":
            octets = octets[:begin] + draw(st.sampled_from(one.WORDS)) + octets[begin:]
        elif kind == "octets":
            octets = octets[:begin] + draw(st.binary(max_size=4)) + octets[begin + draw(st.integers(0, 2)) :]
        elif kind == "cut":
            octets = octets[:begin] + octets[end:]
        elif kind == "repeat":
            octets = octets[:end] + octets[begin:]
        else:
            octets = octets[:begin] + draw(inputs)[end:]
    return octets[:MAX_SIZE]


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    """So is what is much like it."""
    settings(max_examples=400, deadline=None)(given(mutations(name))(target(name).fuzz))()


@pytest.mark.parametrize("name", MACHINES)
def test_machines(name: str) -> None:
    """Whatever the peers do, for a while."""
    run_state_machine_as_test(
        target(name).Machine, settings=settings(max_examples=200, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize("name", MACHINES)
def test_examples(name: str) -> None:
    """The steps that once led to a defect lead nowhere now."""
    for path in kept(name):
        exec(path.read_text(), {"Machine": target(name).Machine})
