"""tcpdump as the witness of how much was sent: what it says of each packet's length, summed up."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from struct import Struct
from typing import Final

from odm_agent.core.model import IPAddress
from tests.lab.netns import NetNs
from tests.lab.process import wait_until

#: Enough of each packet for its addresses.
_SNAPSHOT: Final = 96
_ETHERNET: Final = 14
_RECORD: Final = Struct("<IIII")
_HEADER: Final = 24
#: Longer than tcpdump takes from one packet to the next.
_QUIET_S: Final = 1.0


class Witness:
    """The IP bytes and packets that passed an interface, by their source; `count` ends it."""

    def __init__(self, process: "subprocess.Popen[bytes]", file: Path, log: Path) -> None:
        self._process, self._file, self._log = process, file, log

    def count(self) -> tuple[Counter[IPAddress], Counter[IPAddress]]:
        """Bytes and packets of each source; tcpdump must have lost none."""
        self._await_quiet()
        self._process.terminate()
        self._process.wait(30)
        said = self._log.read_text()
        assert re.search(r"^0 packets dropped by kernel", said, re.M), said
        bytes_, packets = Counter[IPAddress](), Counter[IPAddress]()
        data = self._file.read_bytes()
        at = _HEADER
        while at + _RECORD.size <= len(data):
            _, _, captured, length = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            source = _source(data[at + _ETHERNET - 2 : at + captured])
            at += captured
            if source is not None:
                bytes_[source] += length - _ETHERNET
                packets[source] += 1
        return bytes_, packets

    def _await_quiet(self) -> None:
        """What has arrived is written a moment later, and lost when tcpdump ends before."""
        size = -1
        while size != (size := self._file.stat().st_size):
            time.sleep(_QUIET_S)


@contextmanager
def witness(netns: NetNs, interface: str, folder: Path) -> Iterator[Witness]:
    """tcpdump at what *leaves* by an interface, from now on.

    There it is cut into segments, where the interface does not offer to do that. At the other end
    of the link some of it may be gone: a receiver that is too slow drops what its queue can't hold.
    """
    file, log = folder / f"{interface}.pcap", folder / f"{interface}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            netns.command(
                [
                    *("tcpdump", "-i", interface, "-Q", "out", "-s", str(_SNAPSHOT), "-U", "-n"),
                    *("-B", "65536", "-Z", "root", "-w", str(file), "ip or ip6"),
                ]
            ),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "listening on" in log.read_text(), "tcpdump listens")
        yield Witness(process, file, log)
    finally:
        process.kill()
        process.wait()


def _source(frame: bytes) -> IPAddress | None:
    """The source of what follows the EtherType; None: no IP packet."""
    kind, packet = frame[:2], frame[2:]
    if kind == b"\x08\x00":
        return IPv4Address(packet[12:16])
    if kind == b"\x86\xdd":
        return IPv6Address(packet[8:24])
    return None
