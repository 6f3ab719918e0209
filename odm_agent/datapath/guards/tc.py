"""Classifiers at the egress of an interface (clsact), by libbpf: how kernels before 6.6 do it.

Everything here is about interfaces of the calling thread's network namespace.
"""

import ctypes as ct
import errno
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pyroute2.iproute import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from odm_agent.core.errors import DatapathError
from odm_agent.datapath import libbpf

#: Before what others attach: their verdict may end the walk. Who also takes this one comes beside.
PRIORITY: Final = 1
#: enum bpf_tc_attach_point of libbpf.
_INGRESS: Final = 1
_EGRESS: Final = 2
_REPLACE: Final = 1
#: The two hooks of clsact as parents of filters (include/uapi/linux/pkt_sched.h).
_PARENTS: Final = (0xFFFFFFF2, 0xFFFFFFF3)
#: What the kernel says where there is no filter, no clsact, or no such interface.
_NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})


class _Hook(ct.Structure):
    # struct bpf_tc_hook
    _fields_ = (
        ("sz", ct.c_size_t),
        ("ifindex", ct.c_int),
        ("attach_point", ct.c_int),
        ("parent", ct.c_uint32),
    )


class _Options(ct.Structure):
    # struct bpf_tc_opts
    _fields_ = (
        ("sz", ct.c_size_t),
        ("prog_fd", ct.c_int),
        ("flags", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("handle", ct.c_uint32),
        ("priority", ct.c_uint32),
    )


def make_hooks(ifindex: int) -> bool:
    """See to it that an interface has clsact; whether it had none."""
    hook = _hook(ifindex, _EGRESS)
    try:
        libbpf.call("bpf_tc_hook_create", ct.byref(hook), doing=f"giving {ifindex} clsact")
    except DatapathError as error:
        if libbpf.error_code(error) != errno.EEXIST:
            raise
        return False
    return True


def remove_hooks(ifindex: int) -> None:
    """Take clsact away, unless somebody has a filter there."""
    if not _filters(ifindex):
        hook = _hook(ifindex, _INGRESS | _EGRESS)
        libbpf.call("bpf_tc_hook_destroy", ct.byref(hook), doing=f"taking clsact from {ifindex}")


def attach(ifindex: int, handle: int, prog_fd: int, *, replace: bool = False) -> None:
    """Put a program at egress: where nothing has that handle, or else in the place of what has."""
    options = _options(handle, prog_fd=prog_fd, flags=_REPLACE if replace else 0)
    libbpf.call(
        "bpf_tc_attach",
        ct.byref(_hook(ifindex, _EGRESS)),
        ct.byref(options),
        doing=f"attaching a filter to the egress of interface {ifindex}",
    )


def program_at(ifindex: int, handle: int) -> int:
    """The id of the program that has a handle at egress; 0 if there is none."""
    options = _options(handle)
    try:
        libbpf.call(
            "bpf_tc_query",
            ct.byref(_hook(ifindex, _EGRESS)),
            ct.byref(options),
            doing=f"asking for a filter at the egress of interface {ifindex}",
        )
    except DatapathError as error:
        if libbpf.error_code(error) not in _NOTHING_THERE:
            raise
        return 0
    return int(options.prog_id)


def detach(ifindex: int, handle: int) -> None:
    """Take the filter of a handle away from egress."""
    libbpf.call(
        "bpf_tc_detach",
        ct.byref(_hook(ifindex, _EGRESS)),
        ct.byref(_options(handle)),
        doing=f"detaching a filter from the egress of interface {ifindex}",
    )


def _hook(ifindex: int, point: int) -> _Hook:
    return _Hook(sz=ct.sizeof(_Hook), ifindex=ifindex, attach_point=point)


def _options(handle: int, *, prog_fd: int = 0, flags: int = 0) -> _Options:
    return _Options(
        sz=ct.sizeof(_Options), prog_fd=prog_fd, flags=flags, handle=handle, priority=PRIORITY
    )


def _filters(ifindex: int) -> int:
    """How many filters stand at both hooks, whosever they are."""

    def count() -> int:
        with IPRoute() as route:
            return sum(len(tuple(route.get_filters(index=ifindex, parent=p))) for p in _PARENTS)

    # In a thread of its own: pyroute2 needs one in which no event loop runs.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(count).result()
        except (NetlinkError, OSError) as error:
            raise DatapathError(f"reading the filters of interface {ifindex}: {error}") from error
