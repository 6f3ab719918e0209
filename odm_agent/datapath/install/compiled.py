"""What the compiler makes of the C text, as values that can be kept: code, maps and their types.

In the code each reference to a map is the map's number here, since descriptors are another each
time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from odm_agent.datapath.libbpf import INSTRUCTION, MapInfo

#: A load of 64 bits; in its registers the source says that the value is a map (BPF_PSEUDO_MAP_FD).
_LOAD: Final = 0x18
_OF_MAP: Final = 1
_SOURCE_SHIFT: Final = 4


@dataclass(frozen=True, slots=True)
class Linked:
    """A program with all that it calls, as BPF_PROG_LOAD takes it.

    `types` is type information (BTF); `functions` has (first instruction, type in `types`) of the
    program and of each function, 8 bytes each. Both are empty if the program calls none.
    """

    instructions: bytes
    types: bytes = b""
    functions: bytes = b""


@dataclass(frozen=True, slots=True)
class Compiled:
    """Programs by name, the maps that they work on, and the type information (BTF) of these.

    The maps have their whole names, and none has an id yet.
    """

    programs: Mapping[str, Linked]
    maps: tuple[MapInfo, ...]
    types: bytes


def with_maps(instructions: bytes, numbers: Mapping[int, int]) -> bytes:
    """The code, each of whose references to a map N becomes one to `numbers[N]`.

    KeyError if there is none for it.
    """
    code = bytearray(instructions)
    for at in range(0, len(code), INSTRUCTION.size):
        operation, registers, offset, number = INSTRUCTION.unpack_from(code, at)
        if operation == _LOAD and registers >> _SOURCE_SHIFT == _OF_MAP:
            INSTRUCTION.pack_into(code, at, operation, registers, offset, numbers[number])
    return bytes(code)
