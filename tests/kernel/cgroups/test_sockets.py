"""The list of sockets against sockets that the test holds itself."""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from odm_agent.core.errors import KernelError
from odm_agent.kernel.cgroups import cgroup_id
from odm_agent.kernel.namespace import visit
from odm_agent.kernel.sock_diag import SocketInfo, owners, sockets
from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs

SO_COOKIE = 57
SO_MARK = 36
IPPROTO_MPTCP = 262
MAP_TYPE_SK_STORAGE = 24
NO_PREALLOC = 1


@pytest.fixture
def place() -> Iterator[NetNs]:
    """A namespace that the test's thread is in."""
    with NetNs("sockets") as place, visit(place.path):
        yield place


def cookie(sock: socket.socket) -> int:
    packed = sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
    return int.from_bytes(packed, sys.byteorder)


def listed(sock: socket.socket, map_fd: int | None = None) -> SocketInfo:
    (info,) = (each for each in sockets(map_fd) if each.cookie == cookie(sock))
    return info


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tcp_sockets_are_listed_with_both_ends(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        with (
            socket.create_connection((address, port)) as client,
            server.accept()[0] as accepted,
        ):
            client.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x5000001)
            info = listed(client)
            assert (str(info.local), info.local_port) == client.getsockname()[:2]
            assert (str(info.remote), info.remote_port) == (address, port)
            assert (info.protocol, info.state, info.mark) == ("tcp", "ESTAB", 0x5000001)
            assert info.inode == os.fstat(client.fileno()).st_ino
            assert info.uid == os.getuid() and info.interface == 0
            assert listed(accepted).remote_port == info.local_port
            assert listed(server).state == "LISTEN"


@pytest.mark.usefixtures("place")
def test_udp_mapped_and_device_bound_sockets() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as mapped,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as wild,
    ):
        mapped.connect(("::ffff:127.0.0.1", 9))
        info = listed(mapped)
        assert (str(info.local), str(info.remote)) == ("127.0.0.1", "127.0.0.1")
        assert (info.protocol, info.state, info.remote_port) == ("udp", "ESTAB", 9)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        bound.bind(("127.0.0.1", 0))
        assert (listed(bound).state, listed(bound).interface) == ("UNCONN", 1)
        wild.bind(("::", 0))
        assert str(listed(wild).local) == "::"


@pytest.mark.usefixtures("place")
def test_mptcp_sockets_are_listed_as_such() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as client:
            client.connect(server.getsockname())
            assert listed(client).protocol == "mptcp"
            assert listed(client).remote_port == server.getsockname()[1]


def test_only_the_namespace_of_the_thread_is_listed(place: NetNs) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        NetNs("other") as other,
    ):
        assert listed(server)
        assert other.call(sockets) == []
        assert place.call(sockets) != []


@pytest.mark.usefixtures("place")
def test_the_cgroup_is_the_creators() -> None:
    with Cgroup("creator") as cgroup:

        def make() -> set[int]:
            with socket.create_server(("127.0.0.1", 0)) as server:
                return {listed(server).cgroup_id}

        assert cgroup.call(make) == {cgroup_id(cgroup.path)}


@pytest.mark.usefixtures("place")
def test_owners_are_found_by_inode() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = listed(server).inode
        child = subprocess.Popen(["sleep", "30"], pass_fds=[server.fileno()])
        try:
            held = owners([inode, 0, 2**40])
            assert held.keys() == {inode}
            assert held[inode][0] == min(os.getpid(), child.pid)
        finally:
            child.kill()
            child.wait()


class Options(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.x."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


def btf() -> bytes:
    """Type 1: a signed integer of 4 bytes; type 2: an unsigned one of 8."""
    names = b"\0int\0u64\0"

    def integer(name: int, size: int, encoding: int) -> bytes:
        return struct.pack("=IIII", name, 1 << 24, size, encoding << 24 | size * 8)

    types = integer(1, 4, 1) + integer(5, 8, 0)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    return header + types + names


@pytest.fixture
def storage() -> Iterator[int]:
    """A real socket-storage map, made by libbpf."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    libbpf.bpf_btf_load.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    data = btf()
    types = libbpf.bpf_btf_load(data, len(data), None)
    assert types >= 0, os.strerror(-types)
    options = Options(
        size=ctypes.sizeof(Options),
        btf_fd=types,
        btf_key_type_id=1,
        btf_value_type_id=2,
        map_flags=NO_PREALLOC,
    )
    map_fd = libbpf.bpf_map_create(MAP_TYPE_SK_STORAGE, b"odm_test", 4, 8, 0, ctypes.byref(options))
    os.close(types)
    assert map_fd >= 0, os.strerror(-map_fd)
    yield map_fd
    os.close(map_fd)


def store(map_fd: int, sock: socket.socket, value: int) -> None:
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    key, data = ctypes.c_int(sock.fileno()), ctypes.c_uint64(value)
    assert libbpf.bpf_map_update_elem(map_fd, ctypes.byref(key), ctypes.byref(data), 0) == 0


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("protocol", [0, IPPROTO_MPTCP])
def test_socket_storage_comes_with_the_socket(storage: int, protocol: int) -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol) as with_storage,
        socket.create_server(("127.0.0.1", 0)) as without,
    ):
        with_storage.bind(("::1", 0))
        with_storage.listen()
        store(storage, with_storage, 0x1122334455667788)
        value = listed(with_storage, storage).storage
        assert value == (0x1122334455667788).to_bytes(8, sys.byteorder)
        assert listed(without, storage).storage is None
        assert listed(with_storage).storage is None


@pytest.mark.usefixtures("place")
def test_the_kernel_does_not_tell_the_storage_of_udp_sockets(storage: int) -> None:
    """If this fails, the kernel learned it: say so where SocketInfo.storage is described."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        store(storage, datagram, 5)
        assert listed(datagram, storage).storage is None


@pytest.mark.usefixtures("place")
def test_a_descriptor_that_is_no_storage_is_an_error() -> None:
    with open("/dev/null") as file, pytest.raises(KernelError, match=r"listing tcp sockets: .*map"):
        sockets(file.fileno())
