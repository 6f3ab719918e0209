"""Runs a network manager on a site's host: with mounts and processes of its own, so that it leaves
nothing on the machine, and a gateway with DHCP and router advertisements for it.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab.cgroup import Cgroup
from tests.lab.host import Site
from tests.lab.netns import NetNs

#: What the manager's process sees: its own /run, /etc and /var/lib, above the machine's, and a /sys
#: that is read-only, by which networkd and NetworkManager know that no udev is there to wait for.
#: And no pins, which other tests would find here while they hide them elsewhere.
_MOUNTS: Final = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
umount --lazy --all --types bpf
mount -t tmpfs tmpfs /run
for each in etc var/lib; do
    mkdir -p /run/.over/$each/up /run/.over/$each/work
    mount -t overlay overlay -o lowerdir=/$each,upperdir=/run/.over/$each/up,\
workdir=/run/.over/$each/work /$each
done
umount -l /sys
mount -t sysfs -o ro sysfs /sys
mkdir -p /run/dbus
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket
"""
#: Lifetimes, which go on.
_TIMES: Final = re.compile(r"(valid_lft|preferred_lft|expires|age) \S+|temporary|dynamic")
_OURS: Final = "proto 86"


class Manager:
    """A manager that is started by `script` in the host's namespace.

    On a host with an agent it is in a cgroup of no class, where our programs are attached.
    """

    def __init__(
        self, host: NetNs, folder: Path, script: str, cgroup: Cgroup | None = None
    ) -> None:
        self._host, self._script, self._cgroup = host, script, cgroup
        self.log = folder / "manager.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is up when it is."""
        command = [
            *("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
            # With something left to do bash stays the first process, whose end is that of all. A
            # manager in its place would lose the signal by which it dies, as it changes its user.
            *("bash", "-c", f"{_MOUNTS}\n{self._script}\ntrue"),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._cgroup.command(command, self._host)
                if self._cgroup is not None
                else self._host.command(command),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask the script to end (SIGTERM), and wait until it has."""
        assert self._process is not None
        pid = self._process.pid
        (script,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(script), signal.SIGTERM)
        self._process.wait(30)
        self._process = None

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(15)
            self._process = None


@contextmanager
def gateway(site: Site, folder: Path, *, renew_s: int = 0) -> Iterator[None]:
    """Gateway B gives addresses out of its link's networks, by DHCPv4 and by advertisements.

    `renew_s`: so long after it was given a lease is renewed (T1), before anybody else is asked.
    """
    times = (f"--dhcp-option=58,{renew_s}", "--dhcp-option=59,110") if renew_s else ()
    config = folder / "radvd.conf"
    config.write_text(
        "interface to-host { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n"
        "prefix 2001:db8:b::/64 { AdvOnLink on; AdvAutonomous on; }; };\n"
    )
    commands = (
        ["radvd", "-n", "-C", str(config), "-p", str(folder / "radvd.pid"), "-m", "stderr"],
        [
            *("dnsmasq", "-k", "--port=0", "-C", "/dev/null", "--interface=to-host", "--no-ping"),
            *(
                "--bind-interfaces",
                "--user=root",
                "--dhcp-authoritative",
                "--dhcp-option=3,198.51.100.1",
            ),
            *times,
            *("--dhcp-range=198.51.100.20,198.51.100.30,255.255.255.192,120",),
            *(f"--dhcp-leasefile={folder / 'leases'}", f"--pid-file={folder / 'dnsmasq.pid'}"),
        ],
    )
    processes = [
        subprocess.Popen(site.b.command(command), stderr=subprocess.DEVNULL) for command in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(15)


def theirs(host: NetNs, interface: str = "w1") -> dict[str, list[str]]:
    """Addresses, routes of all tables and rules that are not ours, without what time changes."""
    found = {
        "addresses": host.ip("-d", "-o", "address", "show", "dev", interface),
        "routes": host.ip("-d", "-4", "route", "show", "table", "all", "dev", interface)
        + host.ip("-d", "-6", "route", "show", "table", "all", "dev", interface),
        "rules": host.ip("-4", "rule") + host.ip("-6", "rule"),
    }
    return {
        what: sorted(
            " ".join(_TIMES.sub("", line).split())
            for line in text.splitlines()
            if _OURS not in line
        )
        for what, text in found.items()
    }


def settled(host: NetNs, within_s: float = 40.0) -> dict[str, list[str]]:
    """What is theirs when nothing has changed for a while, and both IP versions have an address."""
    until, before, since = time.monotonic() + within_s, theirs(host), time.monotonic()
    while time.monotonic() < until:
        time.sleep(0.5)
        now = theirs(host)
        if now != before:
            before, since = now, time.monotonic()
        text = "\n".join(now["addresses"])
        if "198.51.100." in text and "2001:db8:b:" in text and time.monotonic() - since > 4:
            return now
    raise AssertionError(f"the manager did not settle: {before}")
