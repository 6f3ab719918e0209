"""Sockets for which no hook could keep the promise are told so: the option stays the kernel's."""

import socket

import pytest

from tests.lab.client import TYPE_MASK, ask, asked
from tests.lab.host import FIXED
from tests.lab.world import World

_UDPLITE = 136


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (socket.SOCK_DGRAM, _UDPLITE),
        (socket.SOCK_RAW, socket.IPPROTO_UDP),
        (socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    ],
)
def test_type_is_not_taken_where_connect_runs_no_hook(
    world: World, kind: socket.SocketKind, protocol: int
) -> None:
    def attempt() -> int:
        with socket.socket(socket.AF_INET6, kind, protocol) as sock:
            ask(sock, FIXED)
            return asked(sock) & TYPE_MASK

    assert world.place("every").do(attempt) == 0


def test_ipv4_keeps_the_kernel_s_error_there(world: World) -> None:
    def attempt() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _UDPLITE) as sock:
            try:
                ask(sock, FIXED)
            except OSError as error:
                return error.errno or 0
            return 0

    assert world.place("every").do(attempt) == 92  # ENOPROTOOPT
