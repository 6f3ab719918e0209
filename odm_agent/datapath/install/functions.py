"""Links what the compiler leaves apart: programs, and functions that the verifier looks at once.

bpf/odm_function.h says how a call is written, and why. The kernel takes a function for "global",
and so verifies it for itself, if type information (BTF) says what its argument points to: here a
struct of which only the size counts. The kernel's Documentation/bpf/btf.rst has the format.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

from odm_agent.datapath.install.compiled import Linked
from odm_agent.datapath.libbpf import INSTRUCTION

_CALL: Final = 0x85
#: In the registers of a call: of a function of the program's own (BPF_PSEUDO_CALL).
_OWN: Final = 0x10

#: How ODM_FUNCTION makes a helper's number: a mark, the function's number, its argument's size.
_MARK: Final = 0x0D000000
_MARK_MASK: Final = 0xFF000000
_NUMBER_SHIFT: Final = 12
_SIZE_MASK: Final = 0xFFF
_DECLARED: Final = re.compile(r"^ODM_FUNCTION\((\d+), \w+, (\w+),", re.MULTILINE)

_BTF_MAGIC: Final = 0xEB9F
_BTF_HEADER: Final = struct.Struct("=HBBIIIII")
_INT: Final = 1
_PTR: Final = 2
_STRUCT: Final = 4
_FUNC: Final = 12
_FUNC_PROTO: Final = 13
_STATIC: Final = 0
_GLOBAL: Final = 1


def declared(c_text: str) -> dict[int, str]:
    """The functions of a C text: number -> name of the body."""
    return {int(number): f"{name}_body" for number, name in _DECLARED.findall(c_text)}


def link(name: str, code_of: Callable[[str], bytes], names: dict[int, str]) -> Linked:
    """The program `name` and whatever it calls, each function once.

    `code_of` has what was compiled of a name; `names` is as `declared` answers it.
    KeyError if a function is called that `names` lacks.
    """
    code = bytearray(code_of(name))
    starts: dict[int, int] = {}  # number in the call -> first instruction
    for at, immediate in _calls(code):
        if immediate not in starts:
            starts[immediate] = len(code) // INSTRUCTION.size
            code += code_of(names[(immediate & ~_MARK_MASK) >> _NUMBER_SHIFT])
        INSTRUCTION.pack_into(
            code, at * INSTRUCTION.size, _CALL, _OWN, 0, starts[immediate] - at - 1
        )
    if not starts:
        return Linked(bytes(code))
    types = _Types()
    rows = [(0, types.function(name, _STATIC, types.number))]
    for immediate, start in starts.items():
        body = names[(immediate & ~_MARK_MASK) >> _NUMBER_SHIFT]
        pointer = types.pointer_to_struct(f"{body}_argument", immediate & _SIZE_MASK)
        rows.append((start, types.function(body, _GLOBAL, pointer)))
    return Linked(bytes(code), types.btf(), b"".join(struct.pack("=II", *row) for row in rows))


def _calls(code: bytearray) -> Iterator[tuple[int, int]]:
    """(index, immediate value) of each call of a function of ours; `code` may grow meanwhile."""
    at = 0
    while at * INSTRUCTION.size < len(code):
        operation, registers, _, immediate = INSTRUCTION.unpack_from(code, at * INSTRUCTION.size)
        if (operation, registers) == (_CALL, 0) and immediate & _MARK_MASK == _MARK:
            yield at, immediate
        at += 1


class _Types:
    """Types and their names as they are added; each has its number, from 1 on."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._names = b"\0"
        self.number = self._add(_INT, 0, 8, struct.pack("=I", 64), name="u64")

    def pointer_to_struct(self, name: str, size: int) -> int:
        return self._add(_PTR, 0, self._add(_STRUCT, 0, size, name=name))

    def function(self, name: str, linkage: int, argument: int) -> int:
        """A function of one argument, whose result is a number."""
        parameter = struct.pack("=II", self._name("argument"), argument)
        return self._add(
            _FUNC, linkage, self._add(_FUNC_PROTO, 1, self.number, parameter), name=name
        )

    def btf(self) -> bytes:
        types = b"".join(self._types)
        return (
            _BTF_HEADER.pack(
                _BTF_MAGIC, 1, 0, _BTF_HEADER.size, 0, len(types), len(types), len(self._names)
            )
            + types
            + self._names
        )

    def _add(
        self, kind: int, count: int, size_or_type: int, rest: bytes = b"", *, name: str = ""
    ) -> int:
        """One struct btf_type, and what follows it."""
        head = struct.pack("=III", self._name(name), kind << 24 | count, size_or_type)
        self._types.append(head + rest)
        return len(self._types)

    def _name(self, name: str) -> int:
        if not name:
            return 0
        at = len(self._names)
        self._names += name.encode() + b"\0"
        return at
