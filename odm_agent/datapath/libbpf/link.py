"""Links, which attach programs: to cgroups, to interfaces, and to maps that they iterate over."""

import ctypes as ct
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from odm_agent.datapath.libbpf.library import check, library, os_errors
from odm_agent.datapath.libbpf.objects import all_ids, object_info

#: bpf_link_type.
LINK_TRACEPOINT: Final = 1
LINK_TRACING: Final = 2
LINK_CGROUP: Final = 3
LINK_ITERATOR: Final = 4
LINK_TCX: Final = 11
#: No hook of a cgroup holds more (BPF_CGROUP_MAX_PROGS).
_MOST_PROGRAMS: Final = 64
#: bpf_attach_type of iterators.
_TRACE_ITER: Final = 28


class _CgroupLinkInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("cgroup_id", ct.c_uint64),
        ("attach_type", ct.c_uint32),
        ("room", ct.c_uint32 * 16),
    )


class _InterfaceLinkInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("ifindex", ct.c_uint32),
        ("attach_type", ct.c_uint32),
        ("room", ct.c_uint32 * 16),
    )


class _IteratorInfo(ct.Structure):
    # union bpf_iter_link_info
    _fields_ = (("map_fd", ct.c_uint32), ("room", ct.c_uint32 * 3))


class _LinkOptions(ct.Structure):
    # struct bpf_link_create_opts of libbpf, up to what iterators need
    _fields_ = (
        ("sz", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("iter_info", ct.c_void_p),
        ("iter_info_len", ct.c_uint32),
        ("target_btf_id", ct.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A cgroup link: `cgroup_id` is 0 when its cgroup is gone."""

    id: int
    prog_id: int
    cgroup_id: int
    attach_type: int


def link_create(prog_fd: int, target: int, attach_type: int) -> int:
    """Attach a program beside others (never in their place); the link's descriptor.

    `target` is the descriptor of a cgroup, for tcx the index of an interface, and 0 for programs
    that were loaded for a function of the kernel.
    """
    return check(
        library().bpf_link_create(prog_fd, target, attach_type, None), "attaching a program"
    )


def link_update(link_fd: int, prog_fd: int) -> None:
    """Put another program in a link's place, without a moment in between."""
    check(library().bpf_link_update(link_fd, prog_fd, None), "replacing the program of a link")


def link_detach(link_fd: int) -> None:
    """End a link, whoever else holds it."""
    check(library().bpf_link_detach(link_fd), "detaching a link")


def link_info(link_fd: int) -> LinkInfo:
    """What a link attaches, and to what."""
    info = _CgroupLinkInfo()
    object_info(link_fd, info)
    return LinkInfo(info.id, info.prog_id, info.cgroup_id, info.attach_type)


def attached_to(cgroup_fd: int, attach_type: int) -> tuple[int, ...]:
    """The ids of the programs at one hook of a cgroup itself, whoever attached them."""
    ids = (ct.c_uint32 * _MOST_PROGRAMS)()
    count, flags = ct.c_uint32(_MOST_PROGRAMS), ct.c_uint32()
    result = library().bpf_prog_query(
        cgroup_fd, attach_type, 0, ct.byref(flags), ids, ct.byref(count)
    )
    check(result, "asking what is attached to a cgroup")
    return tuple(ids[: count.value])


def link_ifindex(link_fd: int) -> int:
    """The index of the interface that a tcx link is attached to; 0 when that is gone."""
    info = _InterfaceLinkInfo()
    object_info(link_fd, info)
    return int(info.ifindex)


def links(kind: int) -> Iterator[int]:
    """A descriptor of every link of a type on the host, each open for one round of the loop."""
    for link_id in all_ids(library().bpf_link_get_next_id):
        fd = library().bpf_link_get_fd_by_id(link_id)
        if fd < 0:  # gone meanwhile
            continue
        try:
            info = _CgroupLinkInfo()
            object_info(fd, info)
            if info.type == kind:
                yield fd
        finally:
            os.close(fd)


def iterator_create(prog_fd: int, map_fd: int) -> int:
    """The link of a program that iterates over a map's elements; `iterator_read` runs it."""
    info = _IteratorInfo(map_fd=map_fd)
    options = _LinkOptions(
        sz=ct.sizeof(_LinkOptions),
        iter_info=ct.cast(ct.byref(info), ct.c_void_p),
        iter_info_len=ct.sizeof(info),
    )
    return check(
        library().bpf_link_create(prog_fd, 0, _TRACE_ITER, ct.byref(options)),
        "making an iterator",
    )


@os_errors("running an iterator")
def iterator_read(link_fd: int) -> bytes:
    """All that an iterator writes, run once. Raises DatapathError."""
    fd = check(library().bpf_iter_create(link_fd), "running an iterator")
    with os.fdopen(fd, "rb", buffering=0) as stream:
        return b"".join(iter(lambda: stream.read(65536), b""))


def tracepoint_create(prog_fd: int, tracepoint: str) -> int:
    """Attach a program to a tracepoint of the kernel, as raw arguments; the link's descriptor."""
    return check(
        library().bpf_raw_tracepoint_open(tracepoint.encode(), prog_fd),
        f"attaching a program to the tracepoint {tracepoint}",
    )
