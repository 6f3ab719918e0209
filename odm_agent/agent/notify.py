"""sd_notify(3): tells a service manager when the agent is ready."""

import os
import socket


def notify(state: str) -> None:
    """Send e.g. `READY=1` to NOTIFY_SOCKET; nothing happens where there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
