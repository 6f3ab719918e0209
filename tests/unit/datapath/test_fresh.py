"""Interface identifiers for every socket, as the programs make them (bpf/odm_fresh.h)."""

import ctypes as ct
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odm_agent.prefixes.rfc7217 import is_reserved
from tests.lab.compiled import library

_KEY: Final = bytes(range(16))
_WORDS: Final = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def programs() -> ct.CDLL:
    """The header, compiled for this machine."""
    made = ct.CDLL(str(library(Path(__file__).parent / "fresh.c")))
    made.siphash.argtypes = [ct.c_uint64] * 3
    made.siphash.restype = ct.c_uint64
    made.is_reserved.argtypes = [ct.c_uint64]
    made.is_reserved.restype = ct.c_bool
    return made


def test_siphash_is_that_of_its_authors(programs: ct.CDLL) -> None:
    """The published vector for eight bytes: key 00 to 0f, message 00 to 07."""
    key = [int.from_bytes(_KEY[at : at + 8], "little") for at in (0, 8)]
    assert programs.siphash(*key, int.from_bytes(bytes(range(8)), "little")) == 0x93F5F5799A932462


@given(word=_WORDS | st.integers(0x02005EFFFDFFFFF0, 0x02005EFFFF00000F) | st.integers(0, 3))
@example(word=0x02005EFFFE000000)
@example(word=0x02005EFFFEFFFFFF)
@example(word=0xFDFFFFFFFFFFFF7F)
@example(word=0xFDFFFFFFFFFFFF80)
@example(word=0xFDFFFFFFFFFFFFFF)
@example(word=0xFE00000000000000)
def test_reserved_identifiers_are_those_of_the_agent(programs: ct.CDLL, word: int) -> None:
    """RFC 5453: both sides must know the same, and what is made instead is not reserved."""
    assert programs.is_reserved(word) == is_reserved(word, 64)
    if is_reserved(word, 64):
        assert not is_reserved(word ^ 1 << 63, 64)
