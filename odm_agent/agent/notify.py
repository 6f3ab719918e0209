"""sd_notify(3): tells a service manager when the agent is ready."""

import logging
import os
import socket

from odm_agent.text import printable

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send e.g. `READY=1` to NOTIFY_SOCKET; where there is none, or nobody listens, never mind.

    One assignment: a line end in it is escaped, or what follows would be another one.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(printable(state).encode(), address)
    except OSError as error:
        log.warning("not told", extra={"state": state, "error": str(error)})
