"""How typed IPv6 addresses stay out of the default source selection of everybody else.

For an unbound socket the kernel considers all addresses of the namespace (RFC 6724), typed ones
on `lo` too. Three levers keep them from being chosen, each right for other address plans:

- an interface that has as good an address as any of the host offers only its own
  (use_oif_addrs_only), which also saves a look at each typed address;
- where a better address is elsewhere, ours have a label of their own, so that it matches no
  destination (rule 6) and theirs goes first;
- where theirs are deprecated, or have labels that leave the decision about some destinations to
  the longest match (rule 8), ours must be deprecated as well (rule 3 comes before the labels).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.host import AddressLabel, HostState, LocalAddress, is_scoped
from odm_agent.core.model import Family, IPAddress, IPNetwork, Placement
from odm_agent.prefixes.table import PrefixTable

#: What the kernel's table of labels has of its own beside `::/0` (net/ipv6/addrlabel.c).
_BY_DEFAULT: Final = frozenset(
    map(
        IPv6Network,
        (
            *("fc00::/7", "2002::/16", "2001::/32", "2001:10::/28"),
            *("3ffe::/16", "fec0::/10", "::/96", "::ffff:0:0/96", "::1/128"),
        ),
    )
)
_ALL: Final = IPv6Network("::/0")
#: The label of what no entry of the table is about (IPV6_ADDR_LABEL_DEFAULT).
_NO_LABEL: Final = 0xFFFFFFFF
_BITS: Final = 128


class Standing(IntEnum):
    """How good an interface's best address is to default selection, by scope and rule 3."""

    LINK_LOCAL = 0
    DEPRECATED = 1
    PREFERRED = 2


@dataclass(frozen=True, slots=True)
class Shield:
    """What keeps typed addresses out of default selection, given the host's addresses now.

    `confined` are the interfaces that are to offer only their own addresses, `labelled` the typed
    addresses that want a label of their own. `deprecated`: those on `lo` are to be deprecated,
    though a resolver then prefers IPv4. `exposed` are interfaces at which none of this helps.
    """

    confined: frozenset[str] = frozenset()
    labelled: frozenset[IPv6Address] = frozenset()
    deprecated: bool = False
    exposed: frozenset[str] = frozenset()


def shield(table: PrefixTable, host: HostState) -> Shield:
    """What is right for the address plan that the host has now."""
    typed = frozenset(
        a
        for row in table
        if row.prefix.family is Family.IPV6 and not row.prefix.managed
        for a in row.configured
        if isinstance(a, IPv6Address)
    )
    if not typed:
        return Shield()
    exclusive = {a for row in table if row.prefix.exclusive for a in row.addresses}
    theirs = [a for a in host.addresses if _is_candidate(a) and a.address not in exclusive]
    best = max(map(_standing, theirs), default=Standing.LINK_LOCAL)
    own = {name: Standing.LINK_LOCAL for name in host.links if name != "lo"}
    for each in theirs:
        if each.interface in own:
            own[each.interface] = max(own[each.interface], _standing(each))
    confined = frozenset(name for name, standing in own.items() if standing == best)
    lacking = own.keys() - confined
    elsewhere = lacking & _ways(host)
    preferred = [a for a in theirs if _standing(a) is Standing.PREFERRED]
    outranked = all(
        _goes_first(preferred, entry, typed, host)
        for name in elsewhere
        for entry in _destinations(host, name)
    )
    return Shield(
        confined=confined,
        labelled=typed if lacking or best is Standing.DEPRECATED else frozenset(),
        deprecated=bool(elsewhere) and not outranked,
        exposed=_exposed(table, host, own, best),
    )


def _exposed(
    table: PrefixTable, host: HostState, own: dict[str, Standing], best: Standing
) -> frozenset[str]:
    """Interfaces that hold on-link typed addresses, nothing better, and lead beyond the link.

    The interface's own go before all others but those of a wider scope or preferred ones.
    """
    holders = {
        row.holder
        for row in table
        if row.prefix.family is Family.IPV6 and row.prefix.placement is Placement.ON_LINK
    }
    return frozenset(
        name
        for name in holders & _ways(host)
        if best is not Standing.PREFERRED and own.get(name) is Standing.LINK_LOCAL
    )


def _ways(host: HostState) -> frozenset[str]:
    """The interfaces by which the main table's IPv6 routes lead beyond the link."""
    return frozenset(
        name
        for route in host.main_routes
        if route.family is Family.IPV6 and not is_scoped(route.destination)
        for name in route.interfaces
        if name != "lo"
    )


def _is_candidate(local: LocalAddress) -> bool:
    address = local.address
    return (
        isinstance(address, IPv6Address)
        and not local.ours
        and local.ready
        and not (address.is_link_local or address.is_loopback or address.is_multicast)
    )


def _standing(local: LocalAddress) -> Standing:
    return Standing.DEPRECATED if local.deprecated else Standing.PREFERRED


def _destinations(host: HostState, interface: str) -> Iterator[AddressLabel]:
    """The entries of the table of labels that are about destinations beyond an interface's link.

    What the kernel has by itself sets apart networks of which most are nowhere in use: those count
    to which a route leads, other than a default one.
    """
    yield AddressLabel(_ALL, _label(host, IPv6Address("2000::"), interface))
    ways = [
        route.destination
        for route in host.main_routes
        if route.family is Family.IPV6 and interface in route.interfaces
    ]
    local = {IPv6Network(a.address) for a in host.addresses if a.address.version == 6}
    for entry in host.label_policy:
        is_about = entry.interface in (None, interface) and entry.network not in (_ALL, *local)
        if is_about and any(_leads_to(way, entry.network) for way in ways):
            yield entry


def _leads_to(way: IPNetwork | None, network: IPv6Network) -> bool:
    if not isinstance(way, IPv6Network):
        return network not in _BY_DEFAULT
    return way.subnet_of(network) if network in _BY_DEFAULT else way.overlaps(network)


def _goes_first(
    own: Iterable[LocalAddress],
    entry: AddressLabel,
    typed: Iterable[IPv6Address],
    host: HostState,
) -> bool:
    """Whether an address of the host's is chosen before typed ones for all that an entry is about.

    By rule 6, since ours match nothing; else by rule 8. There a tie may go to either.
    """
    if any(_label(host, each.address, each.interface) == entry.label for each in own):
        return True
    best = max((_common(each.address, entry.network) for each in own), default=0)
    return all(_common(each, entry.network) < best for each in typed)


def _label(host: HostState, address: IPAddress, interface: str) -> int:
    for entry in host.label_policy:
        if entry.interface in (None, interface) and address in entry.network:
            return entry.label
    return _NO_LABEL


def _common(address: IPAddress, network: IPv6Network) -> int:
    """How many bits an address has in common with all that is in a network."""
    apart = (int(address) ^ int(network.network_address)) >> (_BITS - network.prefixlen)
    return network.prefixlen - apart.bit_length()
