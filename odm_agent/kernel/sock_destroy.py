"""Ends the sockets of an address (sock_diag(7), SOCK_DESTROY); their users get ECONNABORTED."""

import errno
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.core.model import IPAddress, IPNetwork
from odm_agent.kernel.sock_diag import SocketInfo, described
from odm_agent.kernel.wire import RefusedError, Wire

#: linux/sock_diag.h.
_SOCK_DESTROY: Final = 21
#: Family, protocol, extensions, states; the socket's identity follows as it was told.
_REQUEST: Final = struct.Struct("=BBBxI")
_IDENTITY: Final = slice(4, 52)
_PROTOCOLS: Final = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
#: It has ended by itself meanwhile.
_GONE: Final = frozenset({errno.ENOENT})


def end_sockets(
    address: IPAddress, wanted: Callable[[SocketInfo], bool] = lambda info: True
) -> int:
    """End the TCP and UDP sockets that are bound to an address, those of them that are `wanted`;
    how many there were.

    It takes CAP_NET_ADMIN. Raises KernelError.
    """
    doing, otherwise = f"ending the sockets of {address}", "Nothing leaves from there any more."
    return _end(_PROTOCOLS, lambda e: e.local == address and wanted(e), doing, otherwise)


def end_connecting(network: IPNetwork) -> int:
    """End the TCP sockets that are connecting from a network; how many there were.

    It takes CAP_NET_ADMIN. Raises KernelError.
    """
    doing, otherwise = f"ending what connects from {network}", "TCP goes on trying."
    tcp = {"tcp": _PROTOCOLS["tcp"]}
    return _end(tcp, lambda e: e.state == "SYN-SENT" and e.local in network, doing, otherwise)


def _end(
    protocols: Mapping[str, int],
    wanted: Callable[[SocketInfo], bool],
    doing: str,
    otherwise: str,
) -> int:
    ended = 0
    with Wire() as wire:
        for word, protocol in protocols.items():
            for info, told in described(wire, word):
                if not wanted(info):
                    continue
                request = _REQUEST.pack(told[0], protocol, 0, 0xFFFFFFFF) + told[_IDENTITY]
                try:
                    wire.tell(_SOCK_DESTROY, request, doing, otherwise)
                except RefusedError as refusal:
                    if refusal.errno in _GONE:
                        continue
                    raise KernelError(
                        f"{doing}: {refusal}. {otherwise} A kernel with"
                        " CONFIG_INET_DIAG_DESTROY would tell their users."
                    ) from refusal
                ended += 1
    return ended
