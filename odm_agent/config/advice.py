"""What a configuration promises and won't keep as it and the host are now. Pure; never an error."""

from collections.abc import Iterator

from odm_agent.config.problems import Problem
from odm_agent.config.schema import Config
from odm_agent.config.values import edges_of, gateway_of, spans_of
from odm_agent.core.host import HostState, RouteKind
from odm_agent.core.model import Family, IPAddress, IPNetwork


def advice(config: Config, host: HostState) -> Iterator[Problem]:
    """Warnings, each with its remedy."""
    yield from _unserved(config, host)
    gateways = Gateways(host)
    for name, prefix in config.prefixes.items():
        gateway = gateway_of(prefix)
        if gateway is not None and (trouble := gateways.trouble(prefix.interface, gateway)):
            yield Problem(("prefixes", name, "gateway"), trouble)


class Gateways:
    """What a host's addresses and routes say of gateways, looked through once for all of them."""

    def __init__(self, host: HostState) -> None:
        self._links = host.links
        self._holders = {local.address: local.interface for local in host.addresses}
        self._connected: dict[str, list[IPNetwork]] = {}
        for route in host.main_routes:
            if route.kind is RouteKind.UNICAST and route.gateway is None and route.destination:
                for name in route.interfaces:
                    self._connected.setdefault(name, []).append(route.destination)

    def trouble(self, interface: str, gateway: IPAddress) -> str | None:
        """Why nothing leaves by a gateway, and the remedy; None: as far as is known, it does."""
        if (holder := self._holders.get(gateway)) is not None:
            return (
                f"{gateway} is this host's own address (on {holder}), so nothing leaves by"
                " it; use the router's"
            )
        link = self._links.get(interface)
        # Without routes of the family, since the link is down, say: that alone is to be said of it.
        if link is None or not link.enabled or link.lacks(Family.of(gateway)):
            return None
        if gateway.is_link_local:
            return None
        connected = self._connected.get(interface, ())
        on_link = [net for net in connected if net.version == gateway.version and gateway in net]
        if any(gateway in edges_of(net) for net in on_link):
            return (
                f"{gateway} is the own or the broadcast address of the subnet of {interface}, so it"
                " can't be reached; use the router's address"
            )
        if on_link:
            return None
        return (
            f"{gateway} is in no subnet that {interface} is connected to, so it can't be reached;"
            f" use the router's address on that link, or give {interface} an address of the subnet"
        )


def _unserved(config: Config, host: HostState) -> Iterator[Problem]:
    """Types that a class may use, but that no prefix has."""
    families: dict[str, set[int]] = {}
    for prefix in config.prefixes.values():
        families.setdefault(prefix.type, set()).add(spans_of(prefix)[0].version)
    for delegation in config.delegations.values():
        for word in delegation.types:
            families.setdefault(word, set()).add(Family.IPV6)
    for uplink in config.uplinks.values():  # what it has changes with each network
        families.setdefault(uplink.type, set()).update(Family)
    used = {a.address.version for a in host.addresses if not a.address.is_link_local}
    for name, section in config.classes.items():
        for word in section.allow:
            served = families.get(word, set())
            key = "default" if word == section.default else "allow"
            lacking = "" if not served else "".join(f" IPv{v}" for v in sorted(used - served))
            if served and not lacking:
                continue
            yield Problem(
                ("classes", name, key),
                f"there is no{lacking} prefix of the type {word}: the class's{lacking} sockets that"
                " are to have it get no address; add such a prefix, or take the type out",
            )
