"""A client that would like a session-lasting address and works without one as well.

    python examples/python/client.py HOST PORT [TEXT]

Says on stderr what became of its wish; prints its own address, then what the server answered.
"""

import errno
import socket
import sys

from odm_agent import client
from odm_agent.client import AddressType


def connect(host: str, port: int) -> socket.socket:
    """A connection from a session-lasting address if there may be one, else from any address."""
    try:
        return client.connect((host, port), AddressType.SESSION_LASTING, fallback=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        print(f"{error}: going on without", file=sys.stderr)
    return socket.create_connection((host, port))


def main() -> int:
    """Connect, say something, print the answer."""
    if len(sys.argv) < 3:
        print(f"usage: {sys.argv[0]} HOST PORT [TEXT]", file=sys.stderr)
        return 2
    with connect(sys.argv[1], int(sys.argv[2])) as sock:
        print("from", sock.getsockname()[0])
        sock.sendall((sys.argv[3] if len(sys.argv) > 3 else "hello").encode())
        sock.shutdown(socket.SHUT_WR)
        while answer := sock.recv(4096):
            print(answer.decode(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
