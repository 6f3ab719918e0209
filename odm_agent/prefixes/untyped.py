"""How typed IPv6 addresses stay out of the default source selection of everybody else.

For an unbound socket the kernel considers all addresses of the namespace (RFC 6724), typed ones
on `lo` too. Three levers keep them from being chosen, each right for other address plans:

- an interface that has as good an address as any of the host offers only its own
  (use_oif_addrs_only), which also saves a look at each typed address;
- where a better address is elsewhere, ours have a label of their own, so that it matches no
  destination (rule 6) and theirs goes first;
- where theirs are deprecated, or of a kind whose label matches no ordinary destination, ours must
  be deprecated as well (rule 3 comes before the labels).
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.host import HostState, LocalAddress
from odm_agent.core.model import Family, IPNetwork, Placement
from odm_agent.prefixes.table import PrefixTable

#: What the kernel's table of labels sets apart from ordinary global addresses (RFC 6724, 2.1).
_LABELLED_APART: Final = tuple(
    map(IPv6Network, ("fc00::/7", "2002::/16", "2001::/32", "2001:10::/28", "::/96"))
)


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
        if row.prefix.family is Family.IPV6
        for a in row.configured
        if isinstance(a, IPv6Address)
    )
    if not typed:
        return Shield()
    theirs = [a for a in host.addresses if _is_candidate(a)]
    best = max(map(_standing, theirs), default=Standing.LINK_LOCAL)
    own = {name: Standing.LINK_LOCAL for name in host.links if name != "lo"}
    for each in theirs:
        if each.interface in own:
            own[each.interface] = max(own[each.interface], _standing(each))
    confined = frozenset(name for name, standing in own.items() if standing == best)
    lacking = own.keys() - confined
    elsewhere = lacking & _ways(host)
    outranked = best is Standing.PREFERRED and any(
        _standing(a) == best and _is_ordinary(a) for a in theirs
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
        if route.family is Family.IPV6 and not _is_scoped(route.destination)
        for name in route.interfaces
        if name != "lo"
    )


def _is_scoped(destination: IPNetwork | None) -> bool:
    return destination is not None and (destination.is_link_local or destination.is_multicast)


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


def _is_ordinary(local: LocalAddress) -> bool:
    return not any(local.address in apart for apart in _LABELLED_APART)
