"""Which addresses of an interface are out of prefixes that its router has forgotten."""

from ipaddress import IPv6Address

from odm_agent.core.host import Hop, HostState
from odm_agent.core.model import Family, IPAddress
from odm_agent.core.renumbering import LONGEST, Announced, forgotten, network_of


def renumbered(interface: str, host: HostState) -> frozenset[IPAddress]:
    """Those among its autoconfigured ones, as the host is now.

    Which router has announced what the kernel does not tell. So nothing is said of a link with
    several: each may announce prefixes of its own, and one that has just come has not taken the
    place of others.
    """
    if len(_routers(interface, host)) != 1:
        return frozenset()
    announced = {
        local.address: Announced(
            network_of(local.address, local.prefix_length),
            local.born,
            local.renewed,
            deprecated=local.deprecated,
        )
        for local in host.addresses
        if local.interface == interface
        and isinstance(local.address, IPv6Address)
        and local.from_network
        and local.prefix_length <= LONGEST
        and not (local.ours or local.failed or local.address.is_link_local)
    }
    gone = forgotten(announced.values())
    return frozenset(address for address, each in announced.items() if each.network in gone)


def _routers(interface: str, host: HostState) -> set[IPAddress | None]:
    """The gateways of all IPv6 default routes by an interface."""
    return {
        hop.gateway
        for route in (*host.main_routes, *host.foreign_routes)
        if route.family is Family.IPV6 and route.destination is None
        for hop in route.hops or (Hop(route.interface or "", route.gateway),)
        if hop.interface == interface
    }
