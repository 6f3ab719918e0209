"""Programs that are given as instructions, for functions of the kernel."""

import ctypes as ct
import struct
from typing import Final

from odm_agent.datapath.libbpf.library import check, library

#: struct bpf_insn.
_INSTRUCTION: Final = struct.Struct("=BBhi")


class _LoadOptions(ct.Structure):
    # struct bpf_prog_load_opts of libbpf, up to what attaching to the kernel's functions needs
    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_uint32),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
    )


def instruction(
    code: int, *, to: int = 0, of: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """One instruction: its code, the registers, offset and immediate value."""
    return _INSTRUCTION.pack(code, of << 4 | to, offset, immediate)


def load_at_function(
    name: str, prog_type: int, attach_type: int, function: str, instructions: bytes
) -> int:
    """A descriptor of a program for a function of the kernel (for LSM, a hook of that name).

    DatapathError if the kernel has no such function, lets no program be attached to it, or doesn't
    take this one.
    """
    lib = library()
    number = lib.libbpf_find_vmlinux_btf_id(function.encode(), attach_type)
    check(number, f"finding the kernel's function {function}")
    options = _LoadOptions(
        sz=ct.sizeof(_LoadOptions), expected_attach_type=attach_type, attach_btf_id=number
    )
    return check(
        lib.bpf_prog_load(
            prog_type,
            name.encode(),
            b"GPL",
            instructions,
            ct.c_size_t(len(instructions) // _INSTRUCTION.size),
            ct.byref(options),
        ),
        f"loading a program for the kernel's function {function}",
    )
