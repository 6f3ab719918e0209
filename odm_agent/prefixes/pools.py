"""Which addresses a typed prefix consists of."""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from odm_agent.model import IPAddress, Placement, TypedPrefix
from odm_agent.prefixes.rfc7217 import IDGEN_RETRIES, opaque_address


def addresses(
    prefix: TypedPrefix,
    secret: bytes,
    dad_counters: Mapping[int, int],
    conflicts: frozenset[IPAddress] = frozenset(),
) -> tuple[IPAddress, ...]:
    """The addresses of a prefix, at most `prefix.pool`, none of `conflicts`, always the same ones.

    IPv6: opaque ones (RFC 7217); `dad_counters` says how often number N of the pool turned out to
    be in use elsewhere; after three other tries the number is given up. IPv4: the range's first.
    """
    if isinstance(prefix.network, IPv6Network):
        return tuple(_ipv6(prefix, prefix.network, secret, dad_counters, conflicts))
    return tuple(_ipv4(prefix, prefix.network, conflicts))


def _ipv6(
    prefix: TypedPrefix,
    network: IPv6Network,
    secret: bytes,
    dad_counters: Mapping[int, int],
    conflicts: frozenset[IPAddress],
) -> Iterator[IPAddress]:
    taken = {a for a in conflicts if isinstance(a, IPv6Address)}
    for index in range(prefix.pool):
        counter = dad_counters.get(index, 0)
        if counter > IDGEN_RETRIES:
            continue
        address = opaque_address(network, prefix.interface, index, counter, secret, taken)
        if address is None:
            return
        taken.add(address)
        yield address


def _ipv4(
    prefix: TypedPrefix, network: IPv4Network, conflicts: frozenset[IPAddress]
) -> Iterator[IPAddress]:
    first, last = ipv4_bounds(prefix.placement, network, prefix.range)
    found = 0
    for number in range(int(first), int(last) + 1):
        if found == prefix.pool:
            return
        address = IPv4Address(number)
        if address not in conflicts:
            found += 1
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
