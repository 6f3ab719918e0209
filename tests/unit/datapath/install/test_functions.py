"""Programs and the functions that they call, as one text."""

import struct

import pytest

from odm_agent.datapath.install import functions
from odm_agent.datapath.install.compiled import Linked
from odm_agent.datapath.libbpf import instruction

_NAMES = {1: "first_body", 2: "second_body"}
_EXIT = instruction(0x95)
_NOTHING = instruction(0xB7)


def _call(number: int, size: int) -> bytes:
    return instruction(0x85, immediate=0x0D000000 | number << 12 | size)


def _targets(code: bytes) -> dict[int, int]:
    """Index of each call within the program -> index of what it calls."""
    found = {}
    for at in range(len(code) // 8):
        operation, registers, _, immediate = struct.unpack_from("=BBhi", code, at * 8)
        if operation == 0x85 and registers == 0x10:
            found[at] = at + 1 + immediate
    return found


def test_a_program_that_calls_none_stays_as_it_is() -> None:
    helper = instruction(0x85, immediate=14) + _EXIT
    assert functions.link("program", {"program": helper}.__getitem__, _NAMES) == Linked(helper)


def test_each_function_stands_once_behind_the_program_also_one_that_another_calls() -> None:
    texts = {
        "program": _call(2, 16) + _NOTHING + _call(1, 8) + _call(2, 16) + _EXIT,
        "first_body": _call(2, 16) + _EXIT,
        "second_body": _NOTHING + _EXIT,
    }
    linked = functions.link("program", texts.__getitem__, _NAMES)
    assert len(linked.instructions) // 8 == 5 + 2 + 2
    assert linked.instructions[40:56] == texts["second_body"]
    assert _targets(linked.instructions) == {0: 5, 2: 7, 3: 5, 7: 5}
    starts = [row[0] for row in struct.iter_unpack("=II", linked.functions)]
    assert starts == [0, 5, 7]


def test_types_say_how_large_each_argument_is_and_who_is_global() -> None:
    texts = {"program": _call(1, 24) + _EXIT, "first_body": _EXIT}
    linked = functions.link("program", texts.__getitem__, _NAMES)
    magic, version, _, header, at, size, names_at, names_size = struct.unpack_from(
        "=HBBIIIII", linked.types
    )
    assert (magic, version, header, at) == (0xEB9F, 1, 24, 0)
    assert (names_at, len(linked.types)) == (size, header + size + names_size)
    names = linked.types[header + names_at :]
    assert names.startswith(b"\0") and names.endswith(b"\0")
    assert b"\0first_body\0" in names and b"\0program\0" in names
    # a struct without members: its name, its kind, its size
    assert struct.pack("=II", 4 << 24, 24) in linked.types
    linkages = []
    offset = header
    while offset < header + size:
        _, kind, _ = struct.unpack_from("=III", linked.types, offset)
        offset += 12 + {1: 4, 13: 8 * (kind & 0xFFFF)}.get(kind >> 24, 0)
        if kind >> 24 == 12:
            linkages.append(kind & 0xFFFF)
    assert linkages == [0, 1]


def test_a_function_that_nobody_declared_is_an_error() -> None:
    with pytest.raises(KeyError):
        functions.link("program", {"program": _call(3, 8) + _EXIT}.__getitem__, _NAMES)
