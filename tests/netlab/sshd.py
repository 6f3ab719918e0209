"""Debian's OpenSSH at the correspondent, with keys of its own and nothing of the machine's."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lab.netns import NetNs, checked
from tests.netlab.plan import CORE, filled
from tests.netlab.server import Server, listens

PORT: Final = 22
#: It wants a folder in /run, and an account that is not locked. Both are there for it alone.
_MOUNTS: Final = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/sshd
sed 's/^root:!*/root:*/' /etc/shadow >/run/shadow
chmod 600 /run/shadow
mount --bind /run/shadow /etc/shadow
exec /usr/sbin/sshd -D -e -f "$0"
"""


class Sshd(Server):
    """root may log in by the key that `command` uses, to run one command at a time."""

    name = "sshd"
    stop_signal = signal.SIGKILL

    def __init__(self, netns: NetNs, folder: Path) -> None:
        self._folder = folder / "ssh"
        self._folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            checked(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)])
        (self._folder / "user.pub").rename(self._folder / "authorized")
        (self._folder / "known").write_text(f"{CORE[1]} {(self._folder / 'host.pub').read_text()}")
        (self._folder / "config").write_text(
            filled("sshd_config", folder=self._folder, address=CORE[1])
        )
        super().__init__(netns, self._folder / "log")

    def command(self) -> Sequence[str]:
        """In the foreground, with mounts of its own, and with it end all its sessions."""
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
        return [*apart, "sh", "-c", _MOUNTS, str(self._folder / "config")]

    def ready(self) -> bool:
        """Whether it takes connections."""
        return listens(self.pid, "tcp6", PORT)

    def call(self, command: str) -> list[str]:
        """What runs a command there, by a client that is told nothing of its connection's life."""
        return [
            *("ssh", "-F", "/dev/null", "-T", "-i", str(self._folder / "user")),
            *("-o", f"UserKnownHostsFile={self._folder / 'known'}", "-o", "BatchMode=yes"),
            *(f"root@{CORE[1]}", command),
        ]
