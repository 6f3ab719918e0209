"""Which prefixes a link's router has forgotten: flash renumbering (RFC 8978), told by dates alone.

A router that lost its memory (a power failure, another prefix from its provider) announces another
prefix and says nothing of the one before, of which hosts go on to have addresses for days. Whoever
makes addresses of what a router announces (the kernel, NetworkManager, systemd-networkd, dhcpcd)
notes with each advertisement how long they serve from then on, and the kernel when that was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

#: What one advertisement announces is noted within this time (seconds).
_TOGETHER_S: Final = 0.2
#: The kernel counts hundredths of a second, in 32 bits.
_PER_SECOND: Final = 100
_ROUND: Final = 1 << 32
#: Networks of somebody's own (RFC 4193): no global prefix takes the place of one.
_LOCAL: Final = IPv6Network("fc00::/7")
#: Addresses out of longer networks are DHCPv6's, which no advertisement renews.
LONGEST: Final = 64


@dataclass(frozen=True, slots=True)
class Announced:
    """An address out of an announced prefix: since when it is there, and since when its lifetime
    counts, both as the kernel tells it (hundredths of a second since the boot, in 32 bits).
    """

    network: IPv6Network
    born: int
    renewed: int
    deprecated: bool = False


def network_of(address: IPv6Address, length: int) -> IPv6Network:
    """The prefix out of which an address is."""
    return IPv6Network((address, length), strict=False)


def forgotten(link: Iterable[Announced]) -> frozenset[IPv6Network]:
    """The prefixes of a link with one router of which its advertisements say nothing any more.

    That is, another one has come since it was renewed, and was renewed without it. One that is
    deprecated takes no other's place.
    """
    born: dict[IPv6Network, int] = {}
    renewed: dict[IPv6Network, int] = {}
    serving: set[IPv6Network] = set()
    for each in link:
        network = each.network
        if network not in born or _is_later(born[network], each.born):
            born[network] = each.born
        if network not in renewed or _is_later(each.renewed, renewed[network]):
            renewed[network] = each.renewed
        if not each.deprecated:
            serving.add(network)
    together = int(_TOGETHER_S * _PER_SECOND)
    return frozenset(
        old
        for old in born
        if any(
            _is_local(old) is _is_local(new)
            and _is_later(born[new], renewed[old])
            and _is_later(renewed[new], renewed[old] + together)
            for new in serving - {old}
        )
    )


def _is_local(network: IPv6Network) -> bool:
    return network.subnet_of(_LOCAL)


def _is_later(one: int, other: int) -> bool:
    """Whether a date is after another one that is less than half a round of the counter away."""
    return 0 < (one - other) % _ROUND < _ROUND // 2
