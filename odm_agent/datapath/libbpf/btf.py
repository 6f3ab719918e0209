"""The kernel's own description of its types (BTF), as far as we ask it."""

import ctypes as ct
from collections.abc import Mapping
from typing import Final

from odm_agent.datapath.libbpf.library import library

_KIND_STRUCT: Final = 4
#: struct btf_type: name, kind and number of members, size; then three words per member.
_HEAD_WORDS: Final = 3


def offsets(structs: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, str], int]:
    """(struct, member) -> its offset in bytes in the running kernel.

    What is not there is left out: all of it where the kernel has no BTF.
    """
    lib = library()
    lib.btf__load_vmlinux_btf.restype = ct.c_void_p
    lib.btf__type_by_id.restype = ct.c_void_p
    lib.btf__name_by_offset.restype = ct.c_char_p
    types = lib.btf__load_vmlinux_btf()
    if not types:
        return {}
    btf = ct.c_void_p(types)
    try:
        return {
            (struct, member): offset
            for struct, wanted in structs.items()
            for member, offset in _members(lib, btf, struct).items()
            if member in wanted
        }
    finally:
        lib.btf__free(btf)


def _members(lib: ct.CDLL, btf: ct.c_void_p, struct: str) -> dict[str, int]:
    number = lib.btf__find_by_name_kind(btf, struct.encode(), _KIND_STRUCT)
    if number < 0:
        return {}
    at = lib.btf__type_by_id(btf, number)
    count = (ct.c_uint32 * _HEAD_WORDS).from_address(at)[1] & 0xFFFF
    words = (ct.c_uint32 * (3 * count)).from_address(at + 4 * _HEAD_WORDS)
    found = {}
    for index in range(count):
        name, _, bits = words[3 * index : 3 * index + 3]
        # The upper byte is the size of a bit field, where the struct has any.
        found[lib.btf__name_by_offset(btf, name).decode()] = (bits & 0xFFFFFF) // 8
    return found
