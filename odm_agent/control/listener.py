"""A unix socket that the agent listens on: made in a folder of root's, removed if still ours."""

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.core.errors import ControlError
from odm_agent.folders import distrust

#: The kernel's struct sockaddr_un holds 108 bytes, the last one a zero.
PATH_LIMIT_BYTES: Final = 107


@dataclass
class Listener:
    """`what` it is, and which `key` of the configuration names its path, is for people.

    `mode` is that of the socket, `folder_mode` that of its folder, if that has to be made.
    """

    path: Path
    what: str
    key: str
    mode: int = 0o600
    folder_mode: int = 0o700
    _identity: tuple[int, int] = (0, 0)

    def open(self, backlog: int) -> socket.socket:
        """The listening socket, which has its mode before anybody can connect. ControlError."""
        doing = f"making the {self.what} {self.path}"
        if len(os.fsencode(self.path)) > PATH_LIMIT_BYTES:
            raise ControlError(
                f"{doing}: the path is longer than {PATH_LIMIT_BYTES} bytes; "
                f"choose a shorter {self.key}"
            )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.path.parent.chmod(self.folder_mode)
            if reason := distrust(self.path.parent):
                raise ControlError(
                    f"{doing}: {reason}: others could put their own in its place; give the folder"
                    f" to root, or choose another {self.key}"
                )
            self._remove_stale(doing)
            sock.bind(str(self.path))
            self.path.chmod(self.mode)
            found = self.path.stat()
            self._identity = (found.st_dev, found.st_ino)
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            raise ControlError(
                f"{doing}: {error.strerror}; check {self.key} and that the agent runs as root"
            ) from error
        except ControlError:
            sock.close()
            raise
        return sock

    def remove(self) -> None:
        """Remove the socket file, unless another agent has already put its own in place."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) == self._identity:
            self.path.unlink(missing_ok=True)

    def _remove_stale(self, doing: str) -> None:
        """Remove a socket file that nobody listens on; ControlError for anything else."""
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ControlError(
                f"{doing}: the file exists and is no socket; "
                f"move it away or choose another {self.key}"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            result = probe.connect_ex(str(self.path))
        # EAGAIN is a listener with a full backlog. Only a refusal proves that nobody listens.
        if result == errno.ECONNREFUSED:
            self.path.unlink(missing_ok=True)
        elif result != errno.ENOENT:
            raise ControlError(
                f"{doing}: another agent listens there; "
                f"stop it first, or give this one its own {self.key}"
            )
