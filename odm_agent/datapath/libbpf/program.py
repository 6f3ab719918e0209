"""Programs that are given as instructions."""

import ctypes as ct
import struct
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.libbpf.create import load_types
from odm_agent.datapath.libbpf.library import check, library
from odm_agent.datapath.libbpf.objects import NAME_SIZE, opened

#: struct bpf_insn: code, registers, offset, immediate value.
INSTRUCTION: Final = struct.Struct("=BBhi")
#: struct bpf_func_info.
_FUNCTION_SIZE: Final = 8
_LOG_SIZE: Final = 1 << 24
_LOG_LINES: Final = 20


class _LoadOptions(ct.Structure):
    # struct bpf_prog_load_opts of libbpf
    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_uint32),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_char_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_void_p),
    )


def instruction(
    code: int, *, to: int = 0, of: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """One instruction: its code, the registers, offset and immediate value."""
    return INSTRUCTION.pack(code, of << 4 | to, offset, immediate)


def load(
    name: str,
    prog_type: int,
    attach_type: int,
    instructions: bytes,
    *,
    types: bytes = b"",
    functions: bytes = b"",
    at_function: str = "",
) -> int:
    """A descriptor of a program; `types` and `functions` as in `compiled.Linked`.

    `at_function` is the function of the kernel that it is for (for LSM, a hook of that name).
    DatapathError if the kernel has no such function, lets no program be attached to it, or doesn't
    take this one; the end of what its verifier says stands before.
    """
    options = _LoadOptions(sz=ct.sizeof(_LoadOptions), expected_attach_type=attach_type)
    if at_function:
        options.attach_btf_id = check(
            library().libbpf_find_vmlinux_btf_id(at_function.encode(), attach_type),
            f"finding the kernel's function {at_function}",
        )
    code = (
        prog_type,
        name.encode()[:NAME_SIZE],
        b"GPL",
        instructions,
        ct.c_size_t(len(instructions) // INSTRUCTION.size),
    )
    doing = f"loading the program {name}"
    if at_function:
        doing += f" for the kernel's function {at_function}"
    if not functions:
        return _load(code, options, doing)
    with opened(load_types(types, doing)) as types_fd:
        options.prog_btf_fd = types_fd
        options.func_info = functions
        options.func_info_cnt = len(functions) // _FUNCTION_SIZE
        options.func_info_rec_size = _FUNCTION_SIZE
        return _load(code, options, doing)


def _load(code: tuple[object, ...], options: _LoadOptions, doing: str) -> int:
    try:
        return check(library().bpf_prog_load(*code, ct.byref(options)), doing)
    except DatapathError as error:
        log = ct.create_string_buffer(_LOG_SIZE)
        options.log_level, options.log_size = 1, _LOG_SIZE
        options.log_buf = ct.addressof(log)
        fd = library().bpf_prog_load(*code, ct.byref(options))
        if fd >= 0:  # what was in the way (memory) has gone
            return int(fd)
        said = log.value.decode(errors="replace").splitlines()[-_LOG_LINES:]
        if not said:
            raise
        raise DatapathError("\n".join([*said, str(error)])) from error.__cause__
