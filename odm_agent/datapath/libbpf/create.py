"""Maps that are made, with type information about their rows."""

import ctypes as ct

from odm_agent.datapath.libbpf.library import check, library
from odm_agent.datapath.libbpf.objects import (
    NAME_SIZE,
    MapInfo,
    map_info_of,
    object_info,
    opened,
)


class _MapOptions(ct.Structure):
    # struct bpf_map_create_opts of libbpf
    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    )


class _TypesInfo(ct.Structure):
    # struct bpf_btf_info
    _fields_ = (
        ("data", ct.c_uint64),
        ("size", ct.c_uint32),
        ("id", ct.c_uint32),
        ("name", ct.c_uint64),
        ("name_len", ct.c_uint32),
        ("kernel_btf", ct.c_uint32),
    )


def load_types(types: bytes, doing: str) -> int:
    """A descriptor of type information (BTF)."""
    return check(
        library().bpf_btf_load(types, ct.c_size_t(len(types)), None), f"{doing}: its types (BTF)"
    )


def types_of(map_fd: int) -> bytes:
    """The type information (BTF) with which a map was made."""
    number = map_info_of(map_fd).btf_id
    fd = check(library().bpf_btf_get_fd_by_id(number), "opening type information (BTF) by its id")
    with opened(fd):
        info = _TypesInfo()
        object_info(fd, info)
        data = ct.create_string_buffer(info.size)
        info = _TypesInfo(data=ct.addressof(data), size=info.size)
        object_info(fd, info)
        return data.raw


def create_map(like: MapInfo, types: int) -> int:
    """A descriptor of a new map of this shape and name; `types` is one of its type information."""
    options = _MapOptions(
        sz=ct.sizeof(_MapOptions),
        btf_fd=types if like.key_type or like.value_type else 0,
        btf_key_type_id=like.key_type,
        btf_value_type_id=like.value_type,
        map_flags=like.flags,
    )
    return check(
        library().bpf_map_create(
            *(like.type, like.name.encode()[:NAME_SIZE]),
            *(like.key_size, like.value_size, like.max_entries, ct.byref(options)),
        ),
        f"making the map {like.name}",
    )
