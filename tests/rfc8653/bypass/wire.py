"""What the tests go by: the gateways' captures, and the difference of the verdict counters."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from odm_agent.core.model import AddressType
from tests.lab.capture import Packet
from tests.lab.host import Captures, type_of
from tests.lab.metrics import counts
from tests.lab.world import World

_RST: Final = 0x04
_SYN: Final = 0x02
#: What an application itself can send; other ICMP is the kernel's (errors, answers, neighbours).
_ECHO_REQUESTS: Final = {("icmp", 8), ("icmpv6", 128)}
#: How long we wait for a packet that must come.
_PATIENCE_S: Final = 1.5


def is_kernels(packet: Packet) -> bool:
    """Whether the kernel sends this by itself: resets, ICMP but for echo requests, IGMP."""
    if packet.protocol == "tcp":
        return bool(packet.tcp_flags & _RST)
    if packet.protocol in ("icmp", "icmpv6"):
        return (packet.protocol, packet.icmp_type) not in _ECHO_REQUESTS
    return packet.protocol == "2"


def kernels_word(packet: Packet) -> str:
    """What a packet of the kernel's own is called."""
    if packet.protocol == "tcp":
        return "TCP reset"
    return {0: "ICMP echo reply", 129: "ICMP echo reply"}.get(packet.icmp_type, "ICMP error")


@dataclass
class Seen:
    """What left the host since the capture began, by the type of its source."""

    captures: Captures
    typed: set[AddressType] = field(default_factory=set)
    untyped: bool = False
    kernels: list[Packet] = field(default_factory=list)

    def look(self) -> "Seen":
        """Take in what has arrived at the gateways."""
        for gateway in "AB":
            for packet in self.captures.at(gateway).packets():
                type = type_of(packet.source)
                if is_kernels(packet):
                    if type:
                        self.kernels.append(packet)
                elif type:
                    self.typed.add(type)
                elif packet.protocol != "tcp" or packet.tcp_flags & _SYN:
                    # Of untyped TCP only its beginning: an earlier connection may still be ending.
                    self.untyped |= not packet.source.is_link_local
        return self

    def wait_for_typed(self, *, kernels: bool = False) -> "Seen":
        """Look until a typed source is there, or for a while; `kernels`: the kernel's will do."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (self.look().typed or (kernels and self.kernels)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return self


@contextmanager
def watched(world: World) -> Iterator[Seen]:
    """Capture at both gateways."""
    with world.captures() as captures:
        yield Seen(captures)


class Verdicts:
    """The refusals of a class since this was made: (hook, reason), in order."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        # What the kernel's own workers do for a socket counts as of no class.
        self._names = {name, "unclassified"}
        self._before = self._read()

    def refusals(self) -> list[tuple[str, str]]:
        """Hook and reason of each kind of refusal that was counted since."""
        now = self._read()
        return sorted(key for key, count in now.items() if count > self._before.get(key, 0))

    def _read(self) -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for labels, count in counts(self._world):
            if labels["class"] in self._names and labels["verdict"] == "refuse":
                key = labels["hook"], labels["reason"]
                found[key] = found.get(key, 0) + count
        return found
