"""sd_notify(3): tells a service manager when the agent is ready."""

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send e.g. `READY=1` to NOTIFY_SOCKET; where there is none, or nobody listens, never mind."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("not told", extra={"state": state, "error": str(error)})
