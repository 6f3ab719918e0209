"""Which addresses a typed prefix consists of."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.lifetimes import Phase
from odm_agent.core.model import IPAddress, Placement, TypedPrefix
from odm_agent.prefixes.memory import Known
from odm_agent.prefixes.rfc7217 import IDGEN_RETRIES, opaque_address

_ORDER: Final = {Phase.CURRENT: 0, Phase.SPARE: 1, Phase.PROBING: 2, Phase.LINGERING: 3}


def addresses(prefix: TypedPrefix, secret: bytes, known: Known) -> dict[int, IPAddress]:
    """The address of each number; numbers for which there is none are left out.

    What is known stays. New IPv6 addresses are opaque ones (RFC 7217); after three other tries a
    number is given up. New IPv4 addresses are the first of the range that are free.
    """
    numbers = numbers_of(prefix)
    kept = {n: known.kept[n] for n in numbers if n in known.kept}
    missing = [n for n in numbers if n not in kept]
    taken = {*known.kept.values(), *known.conflicts}
    made: Iterator[tuple[int, IPAddress]]
    if isinstance(prefix.network, IPv6Network):
        made = _ipv6(prefix, prefix.network, secret, known, missing, taken)
    else:
        made = zip(missing, _ipv4(prefix, prefix.network, taken), strict=False)
    every = dict([*kept.items(), *made])
    return {n: every[n] for n in numbers if n in every}


def numbers_of(prefix: TypedPrefix) -> Sequence[int]:
    """The numbers of the addresses that the prefix has: those that sockets are given come first."""
    if prefix.is_over:
        return ()
    if prefix.one_lease or not prefix.addresses:
        return range(0 if prefix.by_class else prefix.pool)
    return [each.number for each in sorted(prefix.addresses, key=lambda e: _ORDER[e.phase])]


def bounds(prefix: TypedPrefix) -> tuple[IPAddress, IPAddress]:
    """The first and last address that the prefix may have."""
    if isinstance(prefix.network, IPv4Network):
        return ipv4_bounds(prefix.placement, prefix.network, prefix.range)
    return prefix.network.network_address, prefix.network.broadcast_address


def _ipv6(
    prefix: TypedPrefix,
    network: IPv6Network,
    secret: bytes,
    known: Known,
    missing: list[int],
    taken: set[IPAddress],
) -> Iterator[tuple[int, IPAddress]]:
    used = {a for a in taken if isinstance(a, IPv6Address)}
    for number in missing:
        failures = known.failures(number)
        if failures > IDGEN_RETRIES:
            continue
        address = opaque_address(network, prefix.net_iface, number, failures, secret, used)
        if address is None:
            return
        used.add(address)
        yield number, address


def _ipv4(
    prefix: TypedPrefix, network: IPv4Network, taken: set[IPAddress]
) -> Iterator[IPv4Address]:
    first, last = ipv4_bounds(prefix.placement, network, prefix.range)
    for number in range(int(first), int(last) + 1):
        address = IPv4Address(number)
        if address not in taken:
            yield address


def ipv4_bounds(
    placement: Placement,
    network: IPv4Network,
    range_: tuple[IPv4Address, IPv4Address] | None,
) -> tuple[IPv4Address, IPv4Address]:
    """The first and last address that may be used: not a delegated network's own or broadcast."""
    first, last = range_ or (network.network_address, network.broadcast_address)
    if placement is Placement.DELEGATED and network.prefixlen < 31:
        first = max(first, network.network_address + 1)
        last = min(last, network.broadcast_address - 1)
    return first, last
