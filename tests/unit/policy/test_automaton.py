"""What the programs follow says the same as what the agent matches, name by name."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odm_agent.core.model import ClassPolicy, Mode
from odm_agent.datapath import abi
from odm_agent.policy.automaton import MOST_BITS, Position, compiled
from odm_agent.policy.globs import class_of, parts_of

UNDECIDED = abi.UNDECIDED_CLASS
#: Few letters, so that names often fit; one of two bytes.
NAMES = st.text("ab-]!.\u00e9", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))
PIECES = st.one_of(
    st.sampled_from(["*", "?", "[ab]", "[!a]", "[a-]", "[]a]", "[!]]", "[", "[!", "**", "[b-a]"]),
    NAMES,
)
PARTS = st.lists(PIECES, min_size=1, max_size=4).map("".join)
PATTERNS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def found(policies: list[ClassPolicy], path: str) -> int | None:
    """The class of a path, as the programs find it: from folder to folder, then by name."""
    automaton = compiled(policies, UNDECIDED)
    *above, name = parts_of(path)
    at = automaton.position(above)
    step = automaton.steps.get((at.node, os.fsencode(name)))
    if step is not None and step.class_id is not None:
        return step.class_id
    return automaton.class_of(automaton.read(at.globs, os.fsencode(name)))


@given(st.lists(st.lists(PATTERNS, max_size=3), max_size=4), PATHS)
@example([["a/*"], ["a/b"]], "a/b")
@example([["*b"], ["a*"]], "ab")
@example([["?"]], "\u00e9")
@example([["[!a]"]], "\u00e9")
@example([["*"]], "a/b")
def test_same_class_as_the_agent_finds(patterns: list[list[str]], path: str) -> None:
    policies = [
        ClassPolicy(number, str(number), cgroups=tuple(each))
        for number, each in enumerate(patterns, 1)
    ]
    expected = class_of(path, policies)
    assert found(policies, path) == (expected.id if expected else None)


@pytest.mark.parametrize(("closed", "class_id"), [(True, UNDECIDED), (False, None)])
@pytest.mark.parametrize("pattern", ["a/[\u00e9\u00e8]x", "a/" + "y*" * MOST_BITS])
def test_glob_beyond_the_programs_fails_closed(
    pattern: str, closed: bool, class_id: int | None
) -> None:
    """What it says for sure counts first; what can't fit its shape is let alone."""
    policies = [
        ClassPolicy(1, "rough", cgroups=(pattern,), fail_closed=closed),
        ClassPolicy(2, "sure", cgroups=("a/z*",)),
    ]
    assert compiled(policies, UNDECIDED).undecided == [pattern]
    assert found(policies, "a/zx") == 2
    assert found(policies, "a/\u00e9x") == class_id
    assert found(policies, "a/b/c") is None


def test_class_in_mode_off_is_no_class_and_a_new_pattern_another_generation() -> None:
    off = ClassPolicy(3, "off", mode=Mode.OFF, cgroups=("a/*", "b"))
    assert found([off], "a/x") == 0 and found([off], "b") == 0
    generations = {
        compiled(policies, UNDECIDED).generation
        for policies in ([], [off], [ClassPolicy(3, "off", cgroups=("a/*", "b"))])
    }
    assert len(generations) == 3 and 0 not in generations


def test_position_is_nowhere_where_no_pattern_leads() -> None:
    automaton = compiled([ClassPolicy(1, "one", cgroups=("a/b", "c/*"))], UNDECIDED)
    assert automaton.position([]) and automaton.position(["a"]) and automaton.position(["c"])
    assert automaton.position(["x"]) == Position() and not automaton.position(["a", "b", "c"])
    assert automaton.position(["c", "d"]) == Position()


def test_constants_agree() -> None:
    assert MOST_BITS == abi.GLOB_BITS == 64 * abi.GLOB_WORDS
