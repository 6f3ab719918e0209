"""Options of a negative length: an answer, and the same one as beside any program at these hooks.

The kernel refuses them by itself before a program runs, so nothing of ours could answer otherwise.
"""

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from odm_agent.datapath import libbpf
from tests.hardening.twins import libc
from tests.lab.cgroup import Cgroup
from tests.lab.client import IPV6_ADDR_PREFERENCES
from tests.lab.world import PLAIN, World

#: bpf_prog_type and bpf_attach_type of the kernel's UAPI.
_CGROUP_SOCKOPT: Final = 25
_GETSOCKOPT: Final = 21
_SETSOCKOPT: Final = 22

_V6: Final = socket.IPPROTO_IPV6
#: Socket, level and option. What a kernel without programs says to `getsockopt` is each one's own.
_OPTIONS: Final = {
    "ours": ((socket.AF_INET6, socket.SOCK_DGRAM), _V6, IPV6_ADDR_PREFERENCES),
    "unknown": ((socket.AF_INET6, socket.SOCK_STREAM), _V6, 199),
    "unix": ((socket.AF_UNIX, socket.SOCK_STREAM), socket.IPPROTO_TCP, 1),
    "socket": ((socket.AF_INET, socket.SOCK_DGRAM), socket.SOL_SOCKET, socket.SO_TYPE),
}


def _get(name: str) -> str:
    kind, level, option = _OPTIONS[name]
    value, length = ctypes.create_string_buffer(64), ctypes.c_int(-1)
    with socket.socket(*kind) as sock:
        result = libc.getsockopt(sock.fileno(), level, option, value, ctypes.byref(length))
    return errno.errorcode[ctypes.get_errno()] if result else "ok"


def _set(name: str) -> str:
    kind, level, option = _OPTIONS[name]
    with socket.socket(*kind) as sock:
        result = libc.setsockopt(sock.fileno(), level, option, bytes(64), ctypes.c_int(-1))
    return errno.errorcode[ctypes.get_errno()] if result else "ok"


@contextmanager
def _beside_an_idle_program(cgroup: Cgroup) -> Iterator[None]:
    """One that only lets go on, at both hooks, and none of ours."""
    code = libbpf.instruction(0xB7, immediate=1) + libbpf.instruction(0x95)
    descriptors = [os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for hook in (_GETSOCKOPT, _SETSOCKOPT):
            program = libbpf.load("idle", _CGROUP_SOCKOPT, hook, code)
            descriptors += [program, libbpf.link_create(program, descriptors[0], hook)]
        yield
    finally:
        for each in descriptors:
            os.close(each)


@pytest.mark.parametrize("name", _OPTIONS)
@pytest.mark.parametrize("place", [PLAIN, "every"])
def test_negative_length_is_invalid_as_beside_any_program(
    world: World, name: str, place: str
) -> None:
    found = [world.place(place).do(lambda: (_get(name), _set(name)))]
    with Cgroup("idle") as cgroup:
        found.append(cgroup.call(lambda: (_get(name), _set(name))))
        with _beside_an_idle_program(cgroup):
            found.append(cgroup.call(lambda: (_get(name), _set(name))))
    ours, stock, idle = found
    assert ours == idle == ("EINVAL", "EINVAL")
    assert stock[1] == "EINVAL"
    if name == "unix":
        assert stock[0] == errno.errorcode[errno.EOPNOTSUPP]
