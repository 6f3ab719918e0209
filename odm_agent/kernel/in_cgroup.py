"""Run as a program: send one netlink message as a process of a cgroup.

    in_cgroup FILE DESCRIPTOR MESSAGE   its cgroup.procs, an open netlink socket, hex digits

The kernel does what the message asks for within the system call that sends it, so that programs
take it for the cgroup's. The answer comes to whoever reads the socket.
"""

import os
import sys
from pathlib import Path


def main(procs: str, descriptor: str, message: str) -> None:
    """Go there, and send."""
    Path(procs).write_text("0")
    os.write(int(descriptor), bytes.fromhex(message))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(str(error))
