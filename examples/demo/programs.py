"""What the demo runs: classes, programs, and what each must look like from the other side."""

import subprocess
from dataclasses import dataclass
from typing import Final

from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass
from tests.lab.cgroup import Cgroup
from tests.lab.host import CORRESPONDENT
from tests.lab.netns import NetNs
from tests.netlab.correspondent import DNS_PORT, HTTP_PORT, IPERF_PORT, ZONE, url

_FIXED: Final = AddressType.FIXED
_SESSION: Final = AddressType.SESSION_LASTING
_NONPERSISTENT: Final = AddressType.NONPERSISTENT
_GRACEFUL: Final = AddressType.GRACEFUL_REPLACEMENT

#: Four classes, each with the default type that its programs need; they don't know of it.
CLASSES: Final = {
    "monitoring": LabClass(allow=(_FIXED,), default=_FIXED),
    "transfers": LabClass(allow=(_SESSION,), default=_SESSION),
    "browsing": LabClass(allow=(_NONPERSISTENT,), default=_NONPERSISTENT),
    "streaming": LabClass(allow=(_GRACEFUL,), default=_GRACEFUL),
}
#: The cgroup of programs that belong to no class.
NO_CLASS: Final = "legacy"


@dataclass(frozen=True)
class Program:
    """A program to run, in a cgroup; `expected` is the type of source that it must get.

    `server` is the witness's name. `bind_to` is the type of the address that the program itself
    insists on, though its class may not use it; then the call must be refused.
    """

    name: str
    cgroup: str
    expected: AddressType
    server: str
    bind_to: AddressType | None = None

    def command(self, request: str, family: Family, bind_to: str | None) -> list[str]:
        """The command line of a request with this name."""
        peer = CORRESPONDENT[family]
        match self.name:
            case "curl":
                interface = ["--interface", bind_to] if bind_to else []
                common = ["curl", "-sS", "--max-time", "5", "--noproxy", "*"]
                return [*common, *interface, url(request, family)]
            case "dig":
                record = "AAAA" if family is Family.IPV6 else "A"
                name = f"{request}.{ZONE}"
                return ["dig", "+short", "+tries=1", f"@{peer}", "-p", str(DNS_PORT), record, name]
            case "iperf3":
                return ["iperf3", "-c", peer, "-p", str(IPERF_PORT), "-n", "1M", "-T", request]
            case "ncat":
                return ["ncat", "-w", "3", peer, str(HTTP_PORT)]
            case other:
                raise ValueError(f"no command line is known for {other}")

    def input(self, request: str) -> str | None:
        """What goes to the program's standard input."""
        return f"GET /{request} HTTP/1.0\r\n\r\n" if self.name == "ncat" else None

    def run(
        self, request: str, family: Family, cgroup: Cgroup, netns: NetNs, bind_to: str | None
    ) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, in its class's cgroup from its first instruction on."""
        return cgroup.run(
            self.command(request, family, bind_to),
            netns=netns,
            input=self.input(request),
            timeout_s=10,
        )


PROGRAMS: Final = (
    Program("dig", "monitoring", _FIXED, "dnsmasq"),
    Program("curl", "monitoring", _FIXED, "nginx"),
    Program("curl", "transfers", _SESSION, "nginx"),
    Program("curl", "browsing", _NONPERSISTENT, "nginx"),
    Program("dig", "browsing", _NONPERSISTENT, "dnsmasq"),
    Program("iperf3", "streaming", _GRACEFUL, "iperf3"),
    Program("curl", NO_CLASS, AddressType.UNSPECIFIED, "nginx"),
    Program("ncat", NO_CLASS, AddressType.UNSPECIFIED, "nginx"),
    Program("curl", "browsing", AddressType.UNSPECIFIED, "nginx", bind_to=_FIXED),
)
