"""What of the main table holds for typed packets, too, whichever way they got their source.

Copied into each prefix's table, with the typed address as preferred source. Left out is what would
have them leave by somebody else's gateway: default routes, whatever they are made of, and routes
over other uplinks.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Final

from odm_agent.core.host import IPV6_DEFAULT_METRIC, HostState, Route, RouteKind, is_scoped
from odm_agent.core.model import Family, IPAddress, IPNetwork, TypedPrefix
from odm_agent.prefixes.table import PrefixTable, Row

#: The addresses among which a default route chooses (RFC 4291 2.4: global unicast is the rest).
_WHOLE: Final[dict[Family, IPNetwork]] = {
    Family.IPV4: ip_network("0.0.0.0/0"),
    Family.IPV6: ip_network("2000::/3"),
}
#: Networks of somebody's own, however large (RFC 1918, RFC 6598, RFC 4193).
_PRIVATE: Final[tuple[IPNetwork, ...]] = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)


@dataclass(frozen=True, slots=True)
class Mirror:
    """The main table's routes that are no default route, and the interfaces that are uplinks.

    `host` has the default routes.
    """

    routes: tuple[Route, ...]
    uplinks: frozenset[str]
    host: HostState

    @classmethod
    def of(cls, table: PrefixTable, host: HostState) -> "Mirror":
        """What the host has now. Uplinks lead to a prefix's gateway, or to the host's own."""
        defaults = [r for r in host.main_routes if r.destination is None]
        disguised = default_in_disguise(host.main_routes)
        return cls(
            tuple(r for r in host.main_routes if r.destination is not None and r not in disguised),
            frozenset(row.prefix.interface for row in table).union(
                *(r.interfaces for r in defaults if r.gateway is not None or r.hops)
            ),
            host,
        )

    def way(self, row: Row) -> Route | None:
        """The default route of a prefix, in no table yet and without source; None: there is none.

        One that follows the main table takes that route with all that it carries (an MTU, say).
        """
        prefix = row.prefix
        if not prefix.attached:
            return None
        if prefix.learned_gateway:
            learned = self.host.way_of(prefix)
            if learned is not None:
                return replace(learned, metric=0)
            link = self.host.links.get(prefix.interface)
            if prefix.gateway is None and not (link is not None and link.peered):
                return None
        return Route(0, prefix.family, None, interface=prefix.interface, gateway=prefix.gateway)

    def copies(self, row: Row, source: IPAddress, table: int) -> Iterator[Route]:
        """The routes for a prefix's table, each with a metric of its own.

        Of one destination the order is main's; what main has twice (one network on two interfaces)
        begins with the prefix's own interface.
        """
        mine = row.prefix.interface
        groups: dict[tuple[IPNetwork | None, int], list[Route]] = {}
        for route in self.routes:
            if route.family is row.prefix.family and _is_for(route, row):
                groups.setdefault((route.destination, route.tos), []).append(route)
        for group in groups.values():
            last = -1
            for route in sorted(group, key=lambda r: _rank(r, mine)):
                copy = self._copy(route, row, source, table)
                if copy is not None:
                    last = max(route.cost, last + 1)
                    yield _with_metric(copy, last)

    def _copy(self, route: Route, row: Row, source: IPAddress, table: int) -> Route | None:
        """The route as it is for a prefix, if any of it is."""
        bare = replace(route, table=table, source=None, only_from=None)
        if route.kind is RouteKind.THROW:
            # "Not by this table": then it is the prefix's own default that decides.
            way = self.way(row)
            if way is None:
                return None
            bare = replace(way, table=table, destination=route.destination, tos=route.tos)
        if not bare.kind.sends:
            return bare
        attached = row.prefix.attached
        own = {row.prefix.interface} if attached else set[str]()
        foreign = frozenset() if is_scoped(route.destination) and attached else self.uplinks - own
        narrowed = self._narrowed(bare, foreign)
        if narrowed is None or is_scoped(route.destination):
            return narrowed
        return replace(narrowed, source=source)

    def _narrowed(self, route: Route, foreign: frozenset[str]) -> Route | None:
        """The route by those of its next hops that are set up and on no uplink of others."""

        def serves(interface: str | None) -> bool:
            link = self.host.links.get(interface or "")
            return (
                link is not None
                and link.enabled
                and not link.lacks(route.family)
                and interface not in foreign
            )

        if not route.hops:
            return route if serves(route.interface) else None
        hops = tuple(hop for hop in route.hops if serves(hop.interface))
        if hops == route.hops:
            return route
        if not hops:
            return None
        if len(hops) > 1:
            return replace(route, hops=hops)
        (only,) = hops
        return replace(
            route,
            interface=only.interface,
            gateway=only.gateway,
            hops=(),
            attributes=(*route.attributes, *only.attributes),
        )


def next_hop(prefix: TypedPrefix, host: HostState) -> IPAddress | None:
    """The gateway that a prefix has now, for people; None: it has none, or needs none."""
    way = host.way_of(prefix) if prefix.learned_gateway else None
    return way.gateway if way is not None else prefix.gateway


def takes_everything(routes: Iterable[Route], passes_over: Callable[[Route], bool]) -> bool:
    """Whether a table of one family decides about destinations of all kinds: by a default route.

    Also by one in parts, and by one that refuses. If the route that the kernel finds is one that
    whoever asks passes over, the table decides nothing, whatever worse routes it has.
    """
    counts: list[Route] = []
    over: list[Route] = []
    for route in routes:
        (over if passes_over(route) else counts).append(route)
    best: dict[tuple[object, ...], int] = {}
    for route in over:
        best[_asked(route)] = min(route.cost, best.get(_asked(route), route.cost))
    found = [r for r in counts if _asked(r) not in best or r.cost <= best[_asked(r)]]
    if any(r.destination is None for r in found) and not _mostly_covered(over):
        return True
    return bool(default_in_disguise(found))


def _asked(route: Route) -> tuple[object, ...]:
    """What routes have in common among which the metric decides."""
    return route.destination, route.tos, route.only_from


def _mostly_covered(routes: Iterable[Route]) -> bool:
    """Whether less than half of a default route is left beside these more specific ones."""
    parts = [
        (route.destination, route)
        for route in routes
        if route.destination is not None and not route.tos and route.only_from is None
    ]
    if not parts:
        return False
    whole = _WHOLE[parts[0][1].family]
    covered = sum(_share(network, whole) for network, _ in _outermost(parts))
    return 2 * covered > whole.num_addresses


def takes_half(network: IPNetwork) -> bool:
    """Whether a network is a part of a default route rather than a network: half of it, or more."""
    whole = _WHOLE[Family.of(network)]
    return 2 * _share(network, whole) >= whole.num_addresses


def default_in_disguise(routes: Iterable[Route]) -> frozenset[Route]:
    """The routes that together are a default route, made of parts so as not to replace one.

    That is what VPNs do: two halves of the address space, 2000::/3, or all networks but private
    ones, one by one. So if a next hop takes half of all addresses or more, then its outermost
    networks are such parts, private ones excepted.
    """
    found: set[Route] = set()
    by_hop: dict[tuple[object, ...], list[tuple[IPNetwork, Route]]] = {}
    for route in routes:
        if route.destination is not None:
            hop = (route.family, route.kind, route.interface, route.gateway, route.hops)
            by_hop.setdefault(hop, []).append((route.destination, route))
    for (family, *_), members in by_hop.items():
        assert isinstance(family, Family)
        outermost = list(_outermost(members))
        whole = _WHOLE[family]
        covered = {network: _share(network, whole) for network, _ in outermost}
        if 2 * sum(covered.values()) >= whole.num_addresses:
            found |= {r for network, r in outermost if not _is_private(network)}
    return frozenset(found)


def _outermost(
    members: Iterable[tuple[IPNetwork, Route]],
) -> Iterator[tuple[IPNetwork, Route]]:
    """Those whose network lies in no other's."""
    end, current = -1, None
    for network, route in sorted(members, key=lambda m: (int(m[0][0]), m[0].prefixlen)):
        if network == current or int(network[0]) > end:
            end, current = int(network[-1]), network
            yield network, route


def _share(network: IPNetwork, whole: IPNetwork) -> int:
    """How many addresses the two have in common; one of them lies in the other, or none."""
    if not (network[0] in whole or whole[0] in network):
        return 0
    return min(network.num_addresses, whole.num_addresses)


def _is_private(network: IPNetwork) -> bool:
    return any(
        network[0] in private and network.prefixlen >= private.prefixlen
        for private in _PRIVATE
        if private.version == network.version
    )


def _is_for(route: Route, row: Row) -> bool:
    """Whether a route that is for some sources only is for all of the prefix's."""
    limit = route.only_from
    return limit is None or all(
        span[0] in limit and span.prefixlen >= limit.prefixlen for span in row.prefix.spans
    )


def _rank(route: Route, mine: str) -> tuple[int, int, bool]:
    """Of routes to one destination: what is for the source alone, then by metric, then our link."""
    limit = route.only_from.prefixlen if route.only_from is not None else 0
    return -limit, route.cost, mine not in route.interfaces


def _with_metric(route: Route, metric: int) -> Route:
    default = route.family is Family.IPV6 and metric == IPV6_DEFAULT_METRIC
    return replace(route, metric=0 if default else metric)
