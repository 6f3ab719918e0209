"""Four sockets of four types in one process: the type belongs to the socket, not to the program.

    python examples/python/four_types.py ADDRESS PORT

Prints the source address that each UDP socket gets towards a destination; sends nothing.
"""

import os
import socket
import sys

from odm_agent import client
from odm_agent.client import AddressType


def source(family: int, peer: tuple[str, int], type: AddressType) -> str:
    """The address of a connected UDP socket of a type; raises OSError."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        client.set_type(sock, type)
        sock.connect(peer)
        return str(sock.getsockname()[0])


def main() -> int:
    """One line for each type: the address, or what prevented it."""
    if len(sys.argv) != 3:
        print(f"usage: {sys.argv[0]} ADDRESS PORT", file=sys.stderr)
        return 2
    peer = (sys.argv[1], int(sys.argv[2]))
    family = socket.getaddrinfo(*peer, type=socket.SOCK_DGRAM)[0][0]
    for type in AddressType:
        if not type:
            continue
        try:
            print(f"{type.word:20} {source(family, peer, type)}")
        except OSError as error:
            print(f"{type.word:20} - ({os.strerror(error.errno or 0)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
