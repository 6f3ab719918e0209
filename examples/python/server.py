"""A server on a Fixed address: one that may stand in the DNS, since it outlives every move.

    python examples/python/server.py -4|-6 PORT [CONNECTIONS]

It binds the wildcard address as servers do: because the socket asked for a type, that becomes the
host's Fixed address. Without an agent it stays the wildcard. Prints where it listens, then tells
each client the address it is seen from.
"""

import itertools
import socket
import sys

from odm_agent import client
from odm_agent.client import AddressType


def listen(family: socket.AddressFamily, port: int) -> socket.socket:
    """A listener on a Fixed address, else on all addresses."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        client.set_type(sock, AddressType.FIXED)
    except OSError as error:
        print(f"no fixed address ({error}): listening on all addresses", file=sys.stderr)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    sock.listen(16)
    return sock


def main() -> int:
    """Serve so many connections (without a number: for ever)."""
    if len(sys.argv) < 3 or sys.argv[1] not in ("-4", "-6"):
        print(f"usage: {sys.argv[0]} -4|-6 PORT [CONNECTIONS]", file=sys.stderr)
        return 2
    family = socket.AF_INET6 if sys.argv[1] == "-6" else socket.AF_INET
    connections = range(int(sys.argv[3])) if len(sys.argv) > 3 else itertools.count()
    with listen(family, int(sys.argv[2])) as listener:
        print("listening on", *listener.getsockname()[:2], flush=True)
        for _ in connections:
            sock, peer = listener.accept()
            with sock:
                sock.sendall(f"{peer[0]} {peer[1]}\n".encode())
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(256):
                    pass  # closing with unread data would reset the connection
    return 0


if __name__ == "__main__":
    sys.exit(main())
