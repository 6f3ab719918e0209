"""The user's own anchor: a machine somewhere behind the core to which a prefix is routed, and a
WireGuard tunnel to it from the mobile host. wireguard-go, since not each kernel has WireGuard.
"""

import signal
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv6Network
from pathlib import Path
from typing import Final, Self

from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs, address, checked, veth
from tests.lab.process import wait_until
from tests.netlab.server import Server
from tests.netlab.topology import NetLab

#: The tunnel's interface at both of its ends.
INTERFACE: Final = "wg0"
#: What is routed to the anchor, for the host.
PREFIX: Final = IPv6Network("2001:db8:7000:1::/64")
_LINK: Final = IPv6Network("2001:db8:cc::/64")
_PORT: Final = 51820
#: The size of the tunnel's packets, as wg-quick has it on a link with 1500 bytes.
_MTU: Final = "1420"
#: Its control socket has one place in /run; each of ours has a /run of its own.
_START: Final = f"""
set -e
mount -t tmpfs tmpfs /run
mkdir /run/wireguard
exec wireguard-go -f {INTERFACE}
"""


class WireGuard(Server):
    """One end of the tunnel, in a namespace and, if one is told, in a cgroup."""

    name = "wireguard-go"
    #: With the first process of its namespace of processes all of these end.
    stop_signal = signal.SIGKILL

    def __init__(self, netns: NetNs, log: Path, cgroup: Cgroup | None = None) -> None:
        self._inside, self._cgroup = netns, cgroup
        # Where it runs, `command` says.
        super().__init__(None, log)

    def command(self) -> Sequence[str]:
        """In the foreground."""
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
        command = [*apart, "sh", "-c", _START]
        if self._cgroup is None:
            return self._inside.command(command)
        return self._cgroup.command(command, self._inside)

    def ready(self) -> bool:
        """Whether its control socket is there."""
        return Path(f"/proc/{self._child()}/root/run/wireguard/{INTERFACE}.sock").is_socket()

    def wg(self, *arguments: str) -> str:
        """Run `wg` where its control socket is."""
        return checked(self.within(["wg", *arguments]))

    def within(self, command: Sequence[str]) -> list[str]:
        """A command as run where the tunnel's end can be told things."""
        return ["nsenter", f"--target={self._child()}", "--mount", "--net", "--", *command]

    def up(self, private: Path, peer: str, allowed: str, *more: str) -> None:
        """Tell it its key and its peer (and where that is, or where to listen); bring it up."""
        at, *listen = more
        end = ["endpoint", at] if at else []
        self.wg(
            *("set", INTERFACE, *listen, "private-key", str(private)),
            *("peer", peer, "allowed-ips", allowed, *end),
        )
        self._inside.ip("link", "set", INTERFACE, "mtu", _MTU, "up")

    def _child(self) -> str:
        """The process that has the mounts; what is started first only waits for it."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return text[0] if text else str(self.pid)


class Anchor:
    """The machine, its end of the tunnel, and the host's; both are up when this is made."""

    def __init__(self, lab: NetLab, cgroup: Cgroup) -> None:
        """`cgroup` is where the host's end of the tunnel runs, and so its outer socket's class."""
        self.lab = lab
        with ExitStack() as stack:
            self.netns = stack.enter_context(NetNs("anchor"))
            veth(self.netns, "uplink", lab.core, "to-anchor")
            address(self.netns, "uplink", f"{_LINK[1]}/{_LINK.prefixlen}")
            address(lab.core, "to-anchor", f"{_LINK[2]}/{_LINK.prefixlen}")
            self.netns.ip("-6", "route", "add", "default", "via", str(_LINK[2]))
            self.netns.sysctl("net/ipv6/conf/all/forwarding", "1")
            lab.core.ip("-6", "route", "add", str(PREFIX), "via", str(_LINK[1]))
            private = [self._key(each) for each in ("host", "anchor")]
            public = [checked(["wg", "pubkey"], input=each.read_text()).strip() for each in private]
            self.key = public[1]
            self.endpoint = f"[{_LINK[1]}]:{_PORT}"
            self.far = stack.enter_context(WireGuard(self.netns, lab.folder / "wg-anchor.log"))
            self.far.up(private[1], public[0], str(PREFIX), "", "listen-port", str(_PORT))
            self.netns.ip("-6", "route", "add", str(PREFIX), "dev", INTERFACE)
            self.near = stack.enter_context(
                WireGuard(lab.mobile, lab.folder / "wg-host.log", cgroup)
            )
            self.near.up(private[0], public[1], "::/0", self.endpoint)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def outer(self) -> str:
        """From where the anchor hears the host now, address and port; empty: it has not yet."""
        told = self.far.wg("show", INTERFACE, "endpoints").split()
        return "" if told[1] == "(none)" else told[1]

    def await_outer(self, before: str = "", timeout_s: float = 20.0) -> str:
        """Wait until the anchor hears the host, or from elsewhere than before."""
        wait_until(lambda: self.outer() not in ("", before), "the anchor hears", timeout_s)
        return self.outer()

    def _key(self, name: str) -> Path:
        key = self.lab.folder / f"wg-{name}.key"
        key.touch(mode=0o600)
        key.write_text(checked(["wg", "genkey"]))
        return key
